"""`eightfold solve`: one problem, several attempts, one answer."""

from __future__ import annotations

import argparse
import json
import os
import stat
import sys
import time
from functools import partial
from typing import TYPE_CHECKING, Any, TextIO

from ...model_defaults import read_model_inputs
from ...progress_display import ProgressDisplay, votes_text
from ...solver_config import SolverError
from ..exit_codes import ExitCode
from ..problem_input import read_problem
from ..solver_options import add_solver_options, solver_config

if TYPE_CHECKING:
    from ...solver import Result
    from ..argument_parser import Subparsers


def add_parser(subparsers: Subparsers) -> None:
    """Add the command to the command line."""
    parser = subparsers.add_parser(
        "solve",
        help="solve one problem",
        description="Solve one problem. Its text is given directly, as - for standard input, "
        "or with --file.",
    )
    parser.add_argument(
        "problem", nargs="?", metavar="PROBLEM", help="the problem's text; - reads standard input"
    )
    parser.add_argument("--file", metavar="FILE", help="read the problem's text from a file")
    add_solver_options(parser)
    parser.add_argument("--json", action="store_true", help="end with one line of JSON")
    parser.add_argument(
        "--show",
        action="store_true",
        help="print what the first attempt with the answer wrote and ran",
    )
    parser.add_argument("--trace", metavar="FILE", help="write each attempt there, as JSON Lines")
    parser.add_argument("--quiet", action="store_true", help="show no progress")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Solve the problem and print the answer, the votes, the attempts and the time."""
    began = time.monotonic()
    text = read_problem(options.problem, options.file)
    config = solver_config(options)
    # Reports wrong input before the model is loaded.
    inputs = read_model_inputs(config, progress=not options.quiet)
    trace = open_trace(options.trace) if options.trace else None
    display = ProgressDisplay(sys.stderr, enabled=not options.quiet)
    try:
        display.note("loading the model and starting the Python kernels")
        from ...solver import Solver

        with Solver(config, inputs=inputs) as solver:
            startup = time.monotonic() - began
            if solver.on_gpu:
                display.line(solver.loop.engine.table())
            display.note(f"ready after {startup:.1f} s: {config.attempts} attempts")
            if trace is not None:
                clear_trace(trace)
            result = solver.solve(
                text,
                on_progress=display.progress,
                on_attempt=partial(write_record, trace) if trace is not None else None,
            )
            display.clear()
            for fault in result.faults:
                print(f"fault: {fault}", file=sys.stderr)
            if options.show:
                print_attempt(result)
            print_result(result, startup)
            if options.json:
                print(json.dumps(result_json(result, startup)), flush=True)
    finally:
        display.clear()
        if trace is not None:
            trace.close()
    return ExitCode.NO_ANSWER if result.answer is None else ExitCode.OK


def open_trace(path: str) -> TextIO:
    """Open the trace file without clearing it, since the model may still be refused.

    Raises:
        SolverError: the file cannot be written.
    """
    try:
        return open(path, "a", encoding="utf-8", errors="backslashreplace")
    except OSError as error:
        raise SolverError(f"The trace cannot be written to {path}: {error.strerror}.") from error


def clear_trace(file: TextIO) -> None:
    """Remove what an earlier run left in the file; a device or a pipe holds nothing."""
    if stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.truncate(0)


def write_record(file: TextIO, record: dict[str, Any]) -> None:
    """Append a line of JSON and hand it to the operating system."""
    file.write(json.dumps(record, ensure_ascii=False) + "\n")
    file.flush()


def print_attempt(result: Result) -> None:
    """Print what the first attempt with the answer wrote, and the output of its tool calls."""
    chosen = [one for one in result.attempts if one["answer"] == result.answer is not None]
    for turn in chosen[0]["turns"] if chosen else ():
        print(turn["text"])
        for call in turn["calls"]:
            print(f"--- output ({call['status']}):\n{call['output']}\n---")


def print_result(result: Result, startup: float) -> None:
    """Print the answer, the votes, the attempts and the time, in a few lines."""
    print(f"answer: {'none' if result.answer is None else result.answer}")
    print(f"votes: {votes_text(result.votes) or 'none'}")
    for record in result.attempts:
        answer = "" if record["answer"] is None else f" {record['answer']}"
        detail = f" ({record['detail']})" if record["detail"] else ""
        print(
            f"  attempt {record['attempt'] + 1}: {record['ending']}{answer}{detail}, "
            f"{record['calls']} calls, {record['errors']} errors, {record['tokens']} tokens"
        )
    speed = result.tokens / max(result.seconds, 1e-9)
    print(
        f"time: {result.seconds:.1f} s after {startup:.1f} s to start; "
        f"{result.tokens} tokens, {speed:.0f} tokens/s; ended by: {result.stopped}"
    )


def result_json(result: Result, startup: float) -> dict[str, Any]:
    """Return the result for a line of JSON."""
    keys = ("attempt", "seed", "ending", "detail", "answer", "tokens", "calls", "errors", "ended")
    return {
        "answer": result.answer,
        "votes": {str(answer): count for answer, count in result.votes.items()},
        "attempts": [{key: record[key] for key in keys} for record in result.attempts],
        "seconds": round(result.seconds, 3),
        "tokens": result.tokens,
        "startup_seconds": round(startup, 3),
        "calls": result.calls,
        "errors": result.errors,
        "stopped": result.stopped,
        "faults": list(result.faults),
    }
