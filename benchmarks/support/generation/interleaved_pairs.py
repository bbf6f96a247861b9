"""The engine and `generate` in turn, on the same prompts: ratios that hold on a busy machine."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import torch
from support.generation.tool_pause_workload import SEQUENCES
from transformers import AutoModelForCausalLM

from eightfold.engine import Engine, EngineConfig, SamplingParams

SAMPLING = {"temperature": 0.7, "top_p": 0.8, "top_k": 20}


def run_pairs(
    folder: str, device: str, dtype: str, lengths: tuple[int, int, int], pairs: int
) -> dict[str, float]:
    """Run the pairs after one for warmup, print each, and return the medians.

    Args:
        folder: the model, which is loaded twice.
        device: the device.
        dtype: type of both; "auto" is what the engine takes by default.
        lengths: number of sequences, tokens of each prompt, and tokens that each samples.
        pairs: number of pairs. Who goes first alternates.

    Returns:
        Tokens of both kinds per CPU second of the engine and of `generate`, and the median ratios
        by CPU seconds and by the clock.
    """
    rows, prompt, new = lengths
    config = EngineConfig(
        device=device, dtype=None if dtype == "auto" else dtype, max_running=SEQUENCES,
        prefix_cache=False, speculate="off", memory_fraction=0.1,
    )  # fmt: skip
    engine = Engine(folder, config)
    kept = next(engine._runner.model.parameters()).dtype if device == "cpu" else "auto"
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=kept).to(device).eval()
    vocabulary = model.get_input_embeddings().num_embeddings
    print(f"{rows} prompts of {prompt} tokens, {new} new ones each, both in {model.dtype}")

    def run_engine(prompts: list[list[int]]) -> None:
        for seed, ids in enumerate(prompts):
            params = SamplingParams(**SAMPLING, seed=seed, max_new_tokens=new, stop_token_ids=())
            engine.submit(ids, params)
        while engine.has_work():
            engine.step()

    def run_generate(prompts: list[list[int]]) -> None:
        ids = torch.tensor(prompts, device=device)
        model.generate(
            ids, attention_mask=torch.ones_like(ids), do_sample=True, **SAMPLING,
            max_new_tokens=new, min_new_tokens=new, eos_token_id=None, pad_token_id=0,
        )  # fmt: skip

    sides: list[tuple[str, Callable[[list[list[int]]], None]]]
    sides = [("engine", run_engine), ("generate", run_generate)]
    found: list[dict[str, tuple[float, float]]] = []
    for index in range(pairs + 1):
        generator = torch.Generator().manual_seed(index)
        prompts = torch.randint(3, vocabulary, (rows, prompt), generator=generator).tolist()
        taken = {}
        for name, run in sides if index % 2 else sides[::-1]:
            cpu, clock = time.process_time(), time.perf_counter()
            run(prompts)
            taken[name] = time.process_time() - cpu, time.perf_counter() - clock
        if not index:
            continue
        found.append(taken)
        ratios = [b / a for a, b in zip(taken["engine"], taken["generate"], strict=True)]
        print(f"pair {index}: ratio {ratios[0]:.2f} by CPU seconds, {ratios[1]:.2f} by the clock")
    tokens = rows * (prompt + new)

    def median(value: Callable[[dict[str, tuple[float, float]]], float]) -> float:
        return round(statistics.median(value(taken) for taken in found), 3)

    return {
        "engine_tokens_per_cpu_second": median(lambda taken: tokens / taken["engine"][0]),
        "generate_tokens_per_cpu_second": median(lambda taken: tokens / taken["generate"][0]),
        "cpu_ratio": median(lambda taken: taken["generate"][0] / taken["engine"][0]),
        "clock_ratio": median(lambda taken: taken["generate"][1] / taken["engine"][1]),
    }
