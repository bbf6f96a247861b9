"""The contestants of `batching.py`: the engine, and transformers' three ways to generate."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from support.generation.tool_pause_workload import SEQUENCES, WARMUP_TOKENS, Workload
from transformers import PreTrainedModel

from eightfold.engine import Engine, EngineConfig, SamplingParams


@dataclass
class Result:
    """One contestant's result.

    Attributes:
        name: the contestant.
        tokens: tokens sampled.
        seconds: time that this took.
        vain: tokens that went through the model as padding, or although their KV had been computed
            before.
        note: a remark for the table, such as why there is no figure.
    """

    name: str
    tokens: int
    seconds: float
    vain: int
    note: str = ""

    @property
    def rate(self) -> float:
        """Tokens per second; 0 without a measurement."""
        return self.tokens / self.seconds if self.seconds else 0.0


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Raise TimeoutError in the main thread if the block takes longer than this."""

    def stop(*_: object) -> None:
        raise TimeoutError

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def run_contestant(
    name: str, run: Callable[..., Result], limit: float, *arguments: object
) -> Result:
    """Return a contestant's result; one without a rate, but with a reason, if it does not run."""
    try:
        with time_limit(limit):
            return run(*arguments)
    except TimeoutError:
        return Result(name, 0, 0.0, 0, f"cut off after {limit:g} s")
    except Exception as error:  # transformers may raise anything
        lines = str(error).strip().splitlines() or [""]
        return Result(name, 0, 0.0, 0, f"does not run: {type(error).__name__}: {lines[0][:80]}")


def run_engine(model: PreTrainedModel, work: Workload) -> Result:
    """Run all sequences together; a paused one continues at the next step."""
    engine = Engine(model, EngineConfig(max_running=SEQUENCES, max_step_tokens=256))
    for prompt in work.warmup_prompts:
        engine.submit(prompt, SamplingParams(max_new_tokens=WARMUP_TOKENS, stop_token_ids=()))
    while engine.has_work():
        engine.step()
    before = engine.stats()
    start = time.perf_counter()
    turns, sampled = [0] * SEQUENCES, [0] * SEQUENCES
    params = SamplingParams(max_new_tokens=work.new, pause_token_ids=work.pauses, stop_token_ids=())
    if work.shared:
        seq = engine.submit(work.prompts[0], params)
        seqs = [seq, *engine.fork(seq, SEQUENCES - 1, list(range(1, SEQUENCES)))]
    else:
        each = [replace(params, seed=index) for index in range(SEQUENCES)]
        seqs = [engine.submit(*pair) for pair in zip(work.prompts, each, strict=True)]
    indices = {seq: index for index, seq in enumerate(seqs)}
    while engine.has_work():
        for event in engine.step():
            index = indices[event.seq]
            sampled[index] += len(event.tokens)
            if event.status == "paused":
                engine.resume(event.seq, work.answer(index, turns[index]))
                turns[index] += 1
    seconds = time.perf_counter() - start
    vain = engine.stats()["recomputed_tokens"] - before["recomputed_tokens"]
    return Result("engine", sum(sampled), seconds, vain, f"{sum(turns)} pauses")


def run_one_by_one(model: PreTrainedModel, work: Workload) -> Result:
    """Run `generate` for each sequence in turn, keeping its cache across pauses."""
    start, sampled, pauses = time.perf_counter(), 0, 0
    for index, prompt in enumerate(work.prompts):
        torch.manual_seed(index)
        ids, left, turn, cache = list(prompt), work.new, 0, None
        while left:
            out = model.generate(
                torch.tensor([ids], device=model.device),
                past_key_values=cache,
                return_dict_in_generate=True,
                **_generate_options(work, left),
            )
            cache = out.past_key_values
            left -= out.sequences.shape[1] - len(ids)
            ids = out.sequences[0].tolist()
            if left:
                ids += work.answer(index, turn)
                turn += 1
        sampled += work.new
        pauses += turn
    return Result("one by one", sampled, time.perf_counter() - start, 0, f"{pauses} pauses")


def run_padded(model: PreTrainedModel, work: Workload) -> Result:
    """Run `generate` on all unfinished sequences, from the start again once all have paused."""
    torch.manual_seed(0)
    start, vain, pauses = time.perf_counter(), 0, 0
    rows = {index: list(prompt) for index, prompt in enumerate(work.prompts)}
    left = dict.fromkeys(rows, work.new)
    turns = dict.fromkeys(rows, 0)
    known = dict.fromkeys(rows, 0)  # tokens whose KV had been computed before
    while rows:
        width = max(len(ids) for ids in rows.values())
        padded = [[0] * (width - len(ids)) + ids for ids in rows.values()]
        mask = [[0] * (width - len(ids)) + [1] * len(ids) for ids in rows.values()]
        out = model.generate(
            torch.tensor(padded, device=model.device),
            attention_mask=torch.tensor(mask, device=model.device),
            **_generate_options(work, min(left[index] for index in rows)),
        )
        for row, index in enumerate(list(rows)):
            new = out[row, width:].tolist()
            stop = next((i + 1 for i, token in enumerate(new) if token in work.pauses), len(new))
            vain += known[index] + (width - len(rows[index])) + len(new) - stop
            rows[index] += new[:stop]
            left[index] -= stop
            known[index] = len(rows[index]) - 1
            if not left[index]:
                del rows[index]
            elif rows[index][-1] in work.pauses:
                rows[index] += work.answer(index, turns[index])
                turns[index] += 1
                pauses += 1
    sampled = SEQUENCES * work.new
    return Result("padded", sampled, time.perf_counter() - start, vain, f"{pauses} pauses")


def run_continuous(model: PreTrainedModel, work: Workload) -> Result:
    """Run `generate_batch`, and resubmit at each pause to the manager that the warmup created."""
    from transformers import GenerationConfig

    def generate(prompts: list[list[int]], new: int) -> list[list[int]]:
        settings = GenerationConfig(**_generate_options(work, new))
        outputs = model.generate_batch(
            prompts, generation_config=settings, persistent_manager=True
        ).values()
        answers = [output.generated_tokens for output in outputs]
        if len(answers) != len(prompts) or not all(answers):
            raise RuntimeError("it returned no tokens")
        return answers

    generate(work.warmup_prompts, min(WARMUP_TOKENS, work.new))
    start, vain = time.perf_counter(), 0
    rows = {index: list(prompt) for index, prompt in enumerate(work.prompts)}
    left = dict.fromkeys(rows, work.new)
    turns = dict.fromkeys(rows, 0)
    while rows:
        answers = generate(list(rows.values()), min(left[i] for i in rows))
        for index, new in zip(list(rows), answers, strict=True):
            vain += len(rows[index]) - 1 if turns[index] else 0
            rows[index] += new
            left[index] -= len(new)
            if left[index] <= 0:
                del rows[index]
                continue
            rows[index] += work.answer(index, turns[index])
            turns[index] += 1
    return Result("continuous", SEQUENCES * work.new, time.perf_counter() - start, vain)


def warm_up_generate(model: PreTrainedModel, work: Workload) -> None:
    """Let transformers do what only its first `generate` does."""
    prompts = work.warmup_prompts
    width = min(len(prompt) for prompt in prompts)
    options = _generate_options(replace(work, pauses=()), WARMUP_TOKENS)
    for rows in (prompts[:1], [prompt[:width] for prompt in prompts]):
        ids = torch.tensor(rows, device=model.device)
        model.generate(ids, attention_mask=torch.ones_like(ids), **options)


def _generate_options(work: Workload, new: int) -> dict[str, Any]:
    return {
        "max_new_tokens": new,
        "do_sample": True,
        "temperature": 1.0,
        "top_k": 0,
        "top_p": 1.0,
        "eos_token_id": list(work.pauses),
        "pad_token_id": 0,
    }
