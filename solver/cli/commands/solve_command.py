"""`eightfold solve`: one problem, several attempts, one answer."""

from __future__ import annotations

import argparse
import json
import os
import stat
import sys
import time
from functools import partial
from typing import Any, TextIO

from ...chat.prompt_texts import prompts_for
from ...model_defaults import resolve_model_folder
from ...progress_display import Display, votes_text
from ...solver_config import SolverError
from ..command_line import NO_ANSWER, OK
from ..common_options import add_solver_options, decoded, read_text_file, solver_config


def add_parser(commands: Any) -> None:
    """Adds the command."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "solve",
        help="solve one problem",
        description="Solves one problem. The text is given directly, as - for standard input, "
        "or with --file.",
    )
    parser.add_argument("problem", nargs="?", metavar="PROBLEM", help="its text; - reads stdin")
    parser.add_argument("--file", metavar="FILE", help="read the problem's text from a file")
    add_solver_options(parser)
    parser.add_argument("--json", action="store_true", help="end with one line of JSON")
    parser.add_argument(
        "--show", action="store_true", help="print what an attempt with the answer wrote and ran"
    )
    parser.add_argument("--trace", metavar="FILE", help="write every attempt there, as JSON Lines")
    parser.add_argument("--quiet", action="store_true", help="show no progress")
    parser.set_defaults(run=run)


def problem_text(options: argparse.Namespace) -> str:
    """The problem from argument, file or standard input.

    Raises:
        SolverError: none, two, an empty one, or one that is no UTF-8 text.
    """
    stdin = sys.stdin  # None where the caller has closed it
    if options.file is not None and options.problem is not None:
        raise SolverError("Give the problem's text or --file, not both.")
    if options.file is not None:
        text = read_text_file(options.file)
    elif stdin and (options.problem == "-" or (options.problem is None and not stdin.isatty())):
        text = decoded(stdin.buffer.read(), "Standard input")
    elif options.problem in (None, "-"):
        raise SolverError("Give the problem's text, - for standard input, or --file FILE.")
    else:
        text = decoded(os.fsencode(options.problem), "The problem")
    if not text.strip():
        raise SolverError("The problem is empty; give its text.")
    return text.strip()


def trace_file(path: str) -> TextIO:
    """The opened file; what it holds stays until `empty`, since the model may yet be refused.

    Raises:
        SolverError: it cannot be written.
    """
    try:
        return open(path, "a", encoding="utf-8", errors="backslashreplace")
    except OSError as error:
        raise SolverError(f"The trace cannot be written to {path}: {error.strerror}.") from error


def empty(file: TextIO) -> None:
    """Removes an earlier trace; devices and pipes hold none."""
    if stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.truncate(0)


def write_line(file: TextIO, record: dict[str, Any]) -> None:
    """Adds a line of JSON and hands it to the operating system."""
    file.write(json.dumps(record, ensure_ascii=False) + "\n")
    file.flush()


def run(options: argparse.Namespace) -> int:
    """Solves the problem and prints answer, votes and time."""
    began = time.monotonic()
    text = problem_text(options)
    config = solver_config(options)
    prompts_for(resolve_model_folder(config.model), config.prompts)  # wrong input ends here
    trace = trace_file(options.trace) if options.trace else None
    display = Display(sys.stderr, enabled=not options.quiet)
    try:
        display.note("loading the model and starting the Python kernels")
        from ...solver import Solver

        with Solver(config) as solver:
            startup = time.monotonic() - began
            if solver.on_gpu:
                display.line(solver.loop.engine.table())
            display.note(f"ready after {startup:.1f} s: {config.attempts} attempts")
            if trace is not None:
                empty(trace)
            result = solver.solve(
                text,
                on_progress=display.progress,
                on_attempt=partial(write_line, trace) if trace is not None else None,
            )
            display.clear()
            for fault in result.faults:
                print(f"fault: {fault}", file=sys.stderr)
            if options.show:
                print_attempt(result)
            print_result(result, startup)
            if options.json:
                print(json.dumps(summary(result, startup)), flush=True)
    finally:
        display.clear()
        if trace is not None:
            trace.close()
    return NO_ANSWER if result.answer is None else OK


def print_attempt(result: Any) -> None:
    """The first attempt that gave the answer, as the model wrote it, and what its calls printed."""
    chosen = [one for one in result.attempts if one["answer"] == result.answer is not None]
    for turn in chosen[0]["turns"] if chosen else ():
        print(turn["text"])
        for call in turn["calls"]:
            print(f"--- output ({call['status']}):\n{call['output']}\n---")


def print_result(result: Any, startup: float) -> None:
    """Answer, votes, attempts and time, in a few lines."""
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


def summary(result: Any, startup: float) -> dict[str, Any]:
    """The line of JSON."""
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
