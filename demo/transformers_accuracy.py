"""Accuracy of a checkpoint by Transformers' own `generate`, as a first look after training.

Tool calls run in plain processes. The figures that count come from the solver, by
``eightfold evaluate``.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from eightfold.sandbox.text.inprocess_cell import new_namespace, run_cell
from eightfold.solver.chat.tool_call import Call

from . import model_path
from .control_tokens import PAD, STOP_IDS, TOOL_RESPONSE
from .problems import SPLITS, Problem, parse_answer, take
from .training_rows import TraceEncoder
from .training_traces import DrawRejected, time_limit

if TYPE_CHECKING:
    from transformers import PreTrainedModel

MAX_TURNS = 6
NEW_TOKENS = 320
"""Most tokens in a turn."""

CELL_SECONDS = 3.0
WORKER_SECONDS = 30
"""Time to wait for the process that runs a call."""


@dataclass
class Attempt:
    """One attempt at a problem.

    Attributes:
        problem: the problem.
        ids: all tokens so far, the prompt included.
        codes: the code of its calls.
        answer: its answer, or None if it has none.
        errors: number of calls that failed.
        done: True if it has ended.
    """

    problem: Problem
    ids: list[int]
    codes: list[str] = field(default_factory=list)
    answer: int | None = None
    errors: int = 0
    done: bool = False


def run_last(codes: Sequence[str]) -> str:
    """Run cells in a new namespace and return the output of the last one."""
    namespace = new_namespace()
    output = ""
    try:
        with time_limit(CELL_SECONDS):
            for code in codes:
                output = run_cell(code, namespace)
    except DrawRejected:
        return f"TimeoutError: the cell ran longer than {CELL_SECONDS:g} s. Variables are kept."
    return output


def boxed_integer(text: str) -> int | None:
    """Return the integer in the last box, or None if there is none."""
    _, found, tail = text.rpartition("\\boxed{")
    return parse_answer(tail.partition("}")[0]) if found else None


def generate(model: PreTrainedModel, attempts: list[Attempt], seed: int) -> list[list[int]]:
    """Return the next tokens of each attempt, up to and including a stop token."""
    longest = max(len(a.ids) for a in attempts)
    ids = torch.zeros(len(attempts), longest, dtype=torch.long)
    mask = torch.zeros_like(ids)
    for row, attempt in enumerate(attempts):
        ids[row, longest - len(attempt.ids) :] = torch.tensor(attempt.ids)
        mask[row, longest - len(attempt.ids) :] = 1
    torch.manual_seed(seed)
    with torch.inference_mode():
        out = model.generate(
            input_ids=ids.to(model.device),
            attention_mask=mask.to(model.device),
            do_sample=True,
            temperature=1.0,
            top_k=0,
            top_p=1.0,
            max_new_tokens=NEW_TOKENS,
            eos_token_id=list(STOP_IDS),
            pad_token_id=PAD,
        )
    made = []
    for new in out[:, longest:].tolist():
        end = next((i for i, t in enumerate(new) if t in STOP_IDS), len(new) - 1)
        made.append(new[: end + 1])
    return made


def advance(
    attempts: list[Attempt],
    made: list[list[int]],
    encoder: TraceEncoder,
    pool: ProcessPoolExecutor,
) -> None:
    """Append what was generated, run the calls in it, and append their outputs."""
    waiting = []
    for attempt, new in zip(attempts, made, strict=True):
        attempt.ids += new
        text = encoder.fast.decode(new, skip_special_tokens=False)
        calls = encoder.protocol.parse_calls(text)
        if new[-1] != TOOL_RESPONSE or not calls:
            attempt.answer, attempt.done = boxed_integer(text), True
        elif isinstance(calls[-1], Call):
            attempt.codes.append(calls[-1].code)
            waiting.append((attempt, pool.submit(run_last, tuple(attempt.codes))))
        else:
            attempt.done = True
    for attempt, future in waiting:
        try:
            output = future.result(timeout=WORKER_SECONDS)
        except Exception as error:  # a dead or stuck worker costs this attempt, not the evaluation
            output, attempt.done = type(error).__name__, True
        attempt.errors += "Error" in output
        before, after = encoder.tool_frame
        attempt.ids += [*before, *encoder.protocol.untrusted_text.encode(output), *after]


def solve(
    folder: Path, problems: list[Problem], attempts: int, seed: int, batch: int = 2048
) -> list[list[Attempt]]:
    """Make `attempts` attempts at each problem, in bfloat16 on a GPU or in float32 on the CPU.

    Args:
        folder: the checkpoint.
        problems: the problems.
        attempts: attempts at each of them.
        seed: of the sampling.
        batch: sequences generated at the same time.
    """
    from transformers import AutoModelForCausalLM

    cuda = torch.cuda.is_available()
    model = AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.bfloat16 if cuda else torch.float32
    )
    model.to("cuda" if cuda else "cpu").eval()
    encoder = TraceEncoder(folder)
    prompts = {p.id: encoder.protocol.render_prompt(p.problem) for p in problems}
    made = [[Attempt(p, list(prompts[p.id])) for _ in range(attempts)] for p in problems]
    flat = [a for group in made for a in group]
    with ProcessPoolExecutor(mp_context=get_context("spawn")) as pool:
        for turn in range(MAX_TURNS):
            live = [a for a in flat if not a.done]
            for start in range(0, len(live), batch):
                part = live[start : start + batch]
                advance(part, generate(model, part, seed * 1000 + turn), encoder, pool)
        for process in list(pool._processes.values()):
            process.terminate()
    return made


def majority(attempts: Sequence[Attempt]) -> int | None:
    """Return the answer with most votes; of equals, the one that came first."""
    votes = Counter(a.answer for a in attempts if a.answer is not None)
    return votes.most_common(1)[0][0] if votes else None


def report(
    folder: Path, count: int, attempts: int, seed: int, split: str = "held_out", show: int = 3
) -> str:
    """Return the accuracy of one attempt and of the vote, by family and in all.

    Args:
        folder: the checkpoint.
        count: number of problems.
        attempts: attempts at each of them.
        seed: of the problems and of the sampling.
        split: a key of `problems.SPLITS`.
        show: number of wrong attempts to show.

    Returns:
        Lines of text, the last of which is JSON.
    """
    began = time.monotonic()
    made = solve(folder, take(split, count, seed), attempts, seed)
    tokenizer = TraceEncoder(folder).fast
    lines = []
    families: dict[str, list[tuple[float, bool]]] = {}
    wrong = []
    for group in made:
        right = [a.answer == a.problem.answer for a in group]
        voted = majority(group) == group[0].problem.answer
        families.setdefault(group[0].problem.family, []).append((sum(right) / len(right), voted))
        wrong += [a for a, r in zip(group, right, strict=True) if not r][:1]
    for attempt in wrong[:show]:
        lines.append(
            f"wrong ({attempt.problem.answer} is right): "
            f"{tokenizer.decode(attempt.ids[170:], False)}"
        )
    for name, results in sorted(families.items(), key=lambda item: sum(r[0] for r in item[1])):
        one, vote_share = (sum(r[i] for r in results) / len(results) for i in (0, 1))
        lines.append(f"{name:24} {len(results):3} one {one:.2f} vote {vote_share:.2f}")
    every = [r for results in families.values() for r in results]
    table = {
        "split": split,
        "problems": len(every),
        "attempts": attempts,
        "one": round(sum(r[0] for r in every) / len(every), 4),
        "vote": round(sum(r[1] for r in every) / len(every), 4),
        "errors": sum(a.errors for g in made for a in g),
        "seconds": round(time.monotonic() - began, 1),
    }
    return "\n".join((*lines, json.dumps(table)))


def main(argv: list[str] | None = None) -> int:
    """Measure the accuracy of a checkpoint on problems of the families."""
    parser = argparse.ArgumentParser(
        prog="eightfold.demo.transformers_accuracy", description=main.__doc__
    )
    parser.add_argument("--model", type=Path, default=model_path(), help="folder (%(default)s)")
    parser.add_argument("--count", type=int, default=51, help="problems (%(default)s)")
    parser.add_argument("--attempts", type=int, default=8, help="attempts at each (%(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="(%(default)s)")
    parser.add_argument("--split", choices=SPLITS, default="held_out", help="(%(default)s)")
    options = parser.parse_args(argv)
    print(report(options.model, options.count, options.attempts, options.seed, options.split))
    return 0


if __name__ == "__main__":
    sys.exit(main())
