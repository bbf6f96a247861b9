"""Measure the share of one core that the live view takes while a problem runs.

    python benchmarks/live_view.py [--attempts 8] [--tokens 40000]

Attempts of many tokens and turns are made up with the bundled model's chat format. Timed are a
snapshot of all of them, which `Solver.solve` takes every 0.25 s, and a redraw on a terminal of 80
columns and 24 lines. Their sum, at the rates at which both happen, is the share of one core that
the view can take from the engine's thread at most; the limit is 1 %.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from random import Random

from eightfold.common.terminal_table import Column, format_table
from eightfold.solver import SolverConfig
from eightfold.solver.attempts.attempt import Attempt, AttemptLimits, Turn
from eightfold.solver.attempts.calls.call_record import CallRecord
from eightfold.solver.attempts.problem_progress import Progress, attempt_progress
from eightfold.solver.chat.chat_protocol import ChatProtocol
from eightfold.solver.display.progress_display import REDRAW_INTERVAL, ProgressDisplay
from eightfold.solver.model_defaults import read_model_inputs
from eightfold.solver.models.tokenizer_loading import load_tokenizer, load_usable_protocol

SNAPSHOT_INTERVAL = 0.25
TURNS, REPEATS = 64, 200


def bundled_protocol() -> ChatProtocol:
    """Return the chat format of the bundled model."""
    config = SolverConfig()
    inputs = read_model_inputs(config)
    assert inputs.folder is not None
    prompts = inputs.prompts.filled(low=config.low, high=config.high, seconds="6", characters=6000)
    tokenizer = load_tokenizer(inputs.folder)
    return load_usable_protocol(tokenizer, prompts, sorted(inputs.end_token_ids))


def long_attempts(protocol: ChatProtocol, count: int, tokens: int) -> list[Attempt]:
    """Return attempts that have written many tokens in many turns, each with a call."""
    random, attempts = Random(1), []
    words = protocol.tokenizer.encode(" ".join(str(random.randrange(10**6)) for _ in range(500)))
    for index in range(count):
        attempt = Attempt(index, index, protocol, AttemptLimits())
        attempt.turns = [
            Turn(0.0, tokens=random.choices(words, k=tokens // TURNS), seconds=1.0)
            for _ in range(TURNS)
        ]
        for turn in attempt.turns[:-1]:
            turn.calls = [CallRecord("print(1)", "ok", "1\n")]
        attempts.append(attempt)
    return attempts


def milliseconds(action: Callable[[], object]) -> float:
    """Return the median time of an action."""
    times = []
    for _ in range(REPEATS):
        began = time.perf_counter()
        action()
        times.append(time.perf_counter() - began)
    return 1e3 * statistics.median(times)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--attempts", type=int, default=8, help="attempts (%(default)s)")
    parser.add_argument(
        "--tokens", type=int, default=40_000, help="tokens of an attempt (%(default)s)"
    )
    options = parser.parse_args()
    attempts = long_attempts(bundled_protocol(), options.attempts, options.tokens)

    def snapshot() -> Progress:
        parts = tuple(attempt_progress(one, None, 100.0) for one in attempts)
        states = {"thinking": len(parts)}
        return Progress(100.0, states, 1, 1, 0, {42: 3}, 400.0, 900.0, parts)

    reader, writer = os.openpty()
    os.set_blocking(reader, False)
    with open(writer, "w") as stream:
        display, progress = ProgressDisplay(stream), snapshot()

        def redraw() -> None:
            display._drawn = 0.0  # so that none is left out
            display.progress(progress)
            os.read(reader, 1 << 16)

        taken, drawn = milliseconds(snapshot), milliseconds(redraw)
    share = taken / (1e3 * SNAPSHOT_INTERVAL) + drawn / (1e3 * REDRAW_INTERVAL)
    rows = [
        ("snapshot, ms", f"{taken:.2f}"),
        ("redraw, ms", f"{drawn:.2f}"),
        ("share of one core, %", f"{100 * share:.2f}"),
        ("limit, %", "1"),
    ]
    print(format_table((Column("figure"), Column("value", right=True)), rows))
    figures = {"snapshot_ms": taken, "redraw_ms": drawn, "share_percent": 100 * share, "limit": 1.0}
    print(json.dumps({name: round(value, 3) for name, value in figures.items()}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
