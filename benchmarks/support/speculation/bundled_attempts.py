"""Attempts of the bundled model at one problem, up to the first tool call of each."""

import time
from pathlib import Path
from typing import Any

import transformers

from eightfold.demo import model_path
from eightfold.engine import Engine, EngineConfig, SamplingParams

PROBLEM = "What is the remainder when $5^{8985}$ is divided by 66?"
TURNS = 3  # each attempt's text is sampled so often: as another attempt at the same problem


def run_attempts(
    speculate: str, batch: int, device: str = "cpu", folder: Path | None = None
) -> dict[str, Any]:
    """Sample attempts to their first pause, and return the speed and what was drafted.

    Args:
        speculate: as in `EngineConfig`.
        batch: attempts at once.
        device: "cpu" or "cuda".
        folder: of another model than the bundled one.

    Returns:
        Figures, and under "sampled" the tokens of each sequence.
    """
    folder = folder or model_path()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    messages = [{"role": "user", "content": PROBLEM}]
    prompt = list(
        tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)
    )
    engine = Engine(
        folder,
        EngineConfig(
            device=device,
            max_running=batch,
            max_context=4096,
            memory_fraction=0.1,
            speculate=speculate,
        ),
    )
    pauses = tuple(
        tokenizer.convert_tokens_to_ids(name)
        for name in ("<|tool_response>", "<turn|>")
        if name in tokenizer.get_vocab()
    )
    sampled: dict[int, list[int]] = {}
    seconds, steps = 0.0, engine.stats()["steps"]
    for turn in range(TURNS):
        params = SamplingParams(seed=turn * batch, pause_token_ids=pauses, max_new_tokens=300)
        first = engine.submit(prompt, params)
        seqs = [first, *engine.fork(first, batch - 1, [turn * batch + i for i in range(1, batch)])]
        sampled |= {seq: [] for seq in seqs}
        while not all(sampled[seq] for seq in seqs):  # the prompt
            for event in engine.step():
                sampled[event.seq] += event.tokens
        began = time.perf_counter()
        while engine.has_work():
            for event in engine.step():
                sampled[event.seq] += event.tokens
        seconds += time.perf_counter() - began
    stats = engine.stats()
    count = sum(map(len, sampled.values()))
    return {
        "tokens_per_s": round(count / seconds, 1),
        "tokens": count,
        "steps": stats["steps"] - steps,
        "accepted": stats["accepted_tokens"],
        "drafted_by_depth": stats["drafted_by_depth"],
        "accepted_by_depth": stats["accepted_by_depth"],
        "sampled": sampled,
    }
