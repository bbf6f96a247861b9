"""Accuracy of a checkpoint by the engine, as a first look after training.

Tool calls run in plain processes. The figures that count come from the solver, by
``eightfold evaluate``.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor
from concurrent.futures import wait as futures_wait
from dataclasses import asdict, dataclass, field
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING

from eightfold.sandbox.text.inprocess_cell import new_namespace, run_cell
from eightfold.solver.chat.tool_call import Call

from . import model_path
from .control_tokens import STOP_IDS, TOOL_RESPONSE
from .problems import SPLITS, Problem, parse_answer, take
from .training_rows import TraceEncoder
from .training_traces import DrawRejected, time_limit

if TYPE_CHECKING:
    from eightfold.engine import Event

MAX_TURNS = 6
NEW_TOKENS = 320
"""Most tokens in a turn."""

CELL_SECONDS = 3.0
MAX_OUTPUT = 600
"""Characters of a cell's output that are kept; even `MAX_TURNS` of them fit the context."""

WORKER_SECONDS = 30
"""Time to wait for the process that runs a call."""


@dataclass
class Attempt:
    """One attempt at a problem.

    Attributes:
        problem: the problem.
        prompt: token ids that the engine starts from.
        turn: tokens of the turn that is being written.
        texts: the turns so far.
        codes: the code of its calls.
        answer: its answer, or None if it has none.
        errors: number of calls that failed.
    """

    problem: Problem
    prompt: list[int]
    turn: list[int] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    codes: list[str] = field(default_factory=list)
    answer: int | None = None
    errors: int = 0


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
    return output[:MAX_OUTPUT]


def boxed_integer(text: str) -> int | None:
    """Return the integer in the last box; None if the text has no box or the box no integer."""
    _, found, tail = text.rpartition("\\boxed{")
    return parse_answer(tail.partition("}")[0]) if found else None


class Solving:
    """Attempts that the engine makes at the same time; tool calls run in plain processes.

    Args:
        folder: the checkpoint.
        rows: sequences in a step.
    """

    def __init__(self, folder: Path, rows: int) -> None:
        from eightfold.engine import Engine, EngineConfig

        self.encoder = TraceEncoder(folder)
        self.engine = Engine(folder, EngineConfig(max_running=rows, memory_fraction=0.25))
        self.pool = ProcessPoolExecutor(mp_context=get_context("spawn"))
        self.running: dict[int, Attempt] = {}
        self.waiting: dict[Future[str], int] = {}

    def solve(self, problems: Sequence[Problem], attempts: int, seed: int) -> list[list[Attempt]]:
        """Make `attempts` attempts at each problem."""
        prompts = [self.encoder.protocol.render_prompt(p.problem) for p in problems]
        made = [
            [Attempt(p, prompt) for _ in range(attempts)]
            for p, prompt in zip(problems, prompts, strict=True)
        ]
        self.run([attempt for group in made for attempt in group], seed)
        return made

    def run(self, attempts: Sequence[Attempt], seed: int) -> None:
        """Continue attempts from their prompts until each has ended."""
        from eightfold.engine import SamplingParams

        fresh = list(attempts)[::-1]
        count = 0
        while fresh or self.running:
            while fresh and len(self.running) < self.engine.config.max_running:
                attempt = fresh.pop()
                count += 1
                params = SamplingParams(
                    max_new_tokens=NEW_TOKENS,
                    temperature=1.0,
                    seed=seed * 1_000_003 + count,
                    pause_token_ids=STOP_IDS,
                )
                self.running[self.engine.submit(attempt.prompt, params)] = attempt
            if self.engine.has_work():
                for event in self.engine.step():
                    self._advance(event)
            self._collect(wait=not self.engine.has_work())

    def _advance(self, event: Event) -> None:
        """Take an event's tokens, and run the call that they end."""
        attempt = self.running.get(event.seq)
        if attempt is None:  # it was cancelled
            return
        attempt.turn += event.tokens
        if event.status == "running":
            return
        text = self.encoder.fast.decode(attempt.turn, skip_special_tokens=False)
        attempt.texts.append(text)
        calls = self.encoder.protocol.parse_calls(text)
        call = calls[-1] if calls else None
        ended = event.status == "finished" or attempt.turn[-1] != TOOL_RESPONSE
        attempt.turn = []
        if ended or not isinstance(call, Call) or len(attempt.codes) >= MAX_TURNS:
            attempt.answer = boxed_integer(text)
            self._end(event.seq, event.status == "paused")
            return
        attempt.codes.append(call.code)
        self.waiting[self.pool.submit(run_last, tuple(attempt.codes))] = event.seq

    def _end(self, seq: int, cancel: bool) -> None:
        del self.running[seq]
        if cancel:
            self.engine.cancel(seq)

    def _collect(self, wait: bool) -> None:
        """Resume the attempts whose calls have ended."""
        if not self.waiting:
            return
        done, _ = futures_wait(
            self.waiting, WORKER_SECONDS if wait else 0, return_when=FIRST_COMPLETED
        )
        for future in done or (list(self.waiting) if wait else []):
            seq = self.waiting.pop(future)
            attempt = self.running[seq]
            try:
                output = future.result(timeout=0)
            except Exception:  # a dead or stuck worker costs this attempt, not the evaluation
                self._end(seq, True)
                continue
            attempt.errors += "Error" in output
            before, after = self.encoder.tool_frame
            text = self.encoder.protocol.untrusted_text.encode(output)
            if not self.engine.resume(seq, [*before, *text, *after]):
                self._end(seq, False)

    def close(self) -> None:
        """End the processes."""
        for process in list(self.pool._processes.values()):
            process.terminate()
        self.pool.shutdown(wait=False, cancel_futures=True)


def majority(attempts: Sequence[Attempt]) -> int | None:
    """Return the answer with most votes; of equals, the one that came first."""
    votes = Counter(a.answer for a in attempts if a.answer is not None)
    return votes.most_common(1)[0][0] if votes else None


def report(name: str, made: Sequence[Sequence[Attempt]], seconds: float, show: int = 3) -> str:
    """Return the accuracy of one attempt and of the vote, by family and in all.

    Args:
        name: of the set of problems.
        made: the attempts at each problem.
        seconds: time that they took.
        show: number of wrong attempts to show.

    Returns:
        Lines of text, the last of which is JSON.
    """
    lines = []
    families: dict[str, list[tuple[float, bool]]] = {}
    wrong = []
    for group in made:
        right = [a.answer == a.problem.answer for a in group]
        voted = majority(group) == group[0].problem.answer
        families.setdefault(group[0].problem.family, []).append((sum(right) / len(right), voted))
        wrong += [a for a, r in zip(group, right, strict=True) if not r][:1]
    for attempt in wrong[:show]:
        texts = " | ".join(text.replace("\n", "\\n") for text in attempt.texts)
        lines.append(f"wrong ({attempt.problem.answer}): {attempt.problem.problem} => {texts}")
    for family, results in sorted(families.items(), key=lambda item: sum(r[0] for r in item[1])):
        one, vote_share = (sum(r[i] for r in results) / len(results) for i in (0, 1))
        if one < 1.0:
            lines.append(f"{family:28} {len(results):3} one {one:.2f} vote {vote_share:.2f}")
    every = [r for results in families.values() for r in results]
    table = {
        "set": name,
        "problems": len(every),
        "attempts": len(made[0]),
        "one": round(sum(r[0] for r in every) / len(every), 4),
        "vote": round(sum(r[1] for r in every) / len(every), 4),
        "errors": sum(a.errors for g in made for a in g),
        "seconds": round(seconds, 1),
    }
    return "\n".join((*lines, json.dumps(table)))


def read_problems(path: Path) -> list[Problem]:
    """Return the problems of a JSON Lines file with the keys `problem` and `answer`."""
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line]
    return [
        Problem(f"{path.stem}-{i}", path.stem, -1, row["problem"], int(row["answer"]))
        for i, row in enumerate(rows)
    ]


def main(argv: list[str] | None = None) -> int:
    """Measure the accuracy of a checkpoint on problems of the families and of files."""
    parser = argparse.ArgumentParser(
        prog="eightfold.demo.engine_accuracy", description=main.__doc__
    )
    add = parser.add_argument
    add("--model", type=Path, default=model_path(), help="folder (%(default)s)")
    add("--count", type=int, default=244, help="problems of a split (%(default)s)")
    add("--attempts", type=int, default=8, help="attempts at each (%(default)s)")
    add("--seed", type=int, default=1, help="(%(default)s)")
    add("--rows", type=int, default=256, help="sequences at a time (%(default)s)")
    add("--split", choices=SPLITS, action="append", default=[], help="may be repeated")
    add(
        "--file", type=Path, action="append", default=[], help="JSON Lines; only the score is shown"
    )
    add("--out", type=Path, help="folder for the attempts, as JSON Lines")
    options = parser.parse_args(argv)
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # read when torch is imported
    solving = Solving(options.model, options.rows)
    try:
        for name in (*options.split, *options.file):
            own = isinstance(name, str)
            problems = (
                take(name, options.count, options.seed)
                if own
                else read_problems(name)[: options.count]
            )
            began = time.monotonic()
            made = solving.solve(problems, options.attempts, options.seed)
            text = report(str(name), made, time.monotonic() - began)
            print(text if own else text.splitlines()[-1], flush=True)
            if options.out is not None:
                save_attempts(options.out / f"{name if own else name.stem}.jsonl", made)
    finally:
        solving.close()
    return 0


def save_attempts(path: Path, made: Sequence[Sequence[Attempt]]) -> None:
    """Write the attempts at each problem."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8") as file:
        for group in made:
            row = {**asdict(group[0].problem), "answers": [a.answer for a in group]}
            row["codes"] = [a.codes for a in group]
            row["errors"] = sum(a.errors for a in group)
            file.write(json.dumps(row, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    sys.exit(main())
