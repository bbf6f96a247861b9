"""`eightfold solve`: one problem, several attempts, one answer."""

from __future__ import annotations

import argparse
import json
import logging
import os
import stat
import sys
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from eightfold.common.counted_noun import counted
from eightfold.common.file_errors import path_in_errors
from eightfold.sandbox.platform_support import check_platform

from ...attempts.attempt import Ending
from ...attempts.draft_counts import drafts_text, sum_drafts
from ...display.progress_display import ProgressDisplay
from ...display.progress_text import duration, votes_text
from ...model_defaults import read_model_inputs
from ...solver_config import SolverError
from ..exit_codes import ExitCode
from ..problem_input import read_problem
from ..solver_options import add_devices_option, add_solver_options, solver_config

if TYPE_CHECKING:
    from ...solver import Result
    from ..argument_parser import Subparsers

logger = logging.getLogger(__name__)


def add_parser(subparsers: Subparsers) -> None:
    """Add the command to the command line."""
    parser = subparsers.add_parser(
        "solve",
        help="solve one problem",
        description="Solve one problem. Its text is given directly, as - for standard input, "
        "or with --file.",
    )
    parser.words_hint = (
        "Quote the problem's text, as in eightfold solve 'What is 2+2?'; text that begins with - "
        "comes last, after --."
    )
    parser.add_argument(
        "problem", nargs="?", metavar="PROBLEM", help="the problem's text; - reads standard input"
    )
    parser.add_argument("--file", metavar="FILE", help="read the problem's text from a file")
    add_solver_options(parser)
    add_devices_option(parser, default="auto")
    parser.add_argument("--json", action="store_true", help="end with one line of JSON")
    parser.add_argument(
        "--show",
        action="store_true",
        help="print what the first attempt with the answer wrote and ran, or the longest attempt "
        "if none has an answer",
    )
    parser.add_argument("--trace", metavar="FILE", help="write each attempt there, as JSON Lines")
    parser.add_argument("--quiet", action="store_true", help="show no progress")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Solve the problem and print the answer, the votes, the attempts and the time."""
    began = time.monotonic()
    text = read_problem(options.problem, options.file)
    config = solver_config(options)
    check_platform()
    # Reports wrong input before the model is loaded.
    inputs = read_model_inputs(config, progress=not options.quiet)
    logger.info("model: %s", inputs.folder)
    trace = AttemptTrace(options.trace)
    display = ProgressDisplay(sys.stderr, enabled=not options.quiet)
    said = ""
    try:
        display.note("loading the model and starting the Python kernels")
        from ...solver import Solver

        with Solver(config, inputs=inputs) as solver:
            startup = time.monotonic() - began
            if solver.on_gpu:
                display.line(solver.table())
            if config.model is not None:
                display.note(solver.protocol.reason)
            asked = time.monotonic()
            try:
                display.note(f"ready after {startup:.1f} s: {counted(config.attempts, 'attempt')}")
                trace.clear()
                result = solver.solve(text, on_progress=display.progress, on_attempt=trace.add)
            except KeyboardInterrupt:
                said = interrupt_text(trace.records, config.attempts, time.monotonic() - asked)
                raise
            display.clear()
            report(result, startup, options)
    except KeyboardInterrupt:  # perhaps a second one, which came while the solver was closed
        raise KeyboardInterrupt(said) from None
    finally:
        display.clear()
        trace.close()
    if trace.error is not None:
        raise trace.error
    return ExitCode.NO_ANSWER if result.answer is None else ExitCode.OK


class AttemptTrace:
    """The records of the attempts that ended, and the file that they are written to.

    The file is opened at once but not cleared, since the model may still be refused. After a line
    that could not be written, nothing more is.

    Args:
        path: the file, JSON Lines; None writes none.

    Attributes:
        records: the records of the attempts that ended so far.
        error: why a line could not be written, or None.

    Raises:
        SolverError: if the file cannot be opened for writing.
    """

    def __init__(self, path: str | None) -> None:
        self.records: list[dict[str, Any]] = []
        self.error: OSError | None = None
        self._path = path or ""
        try:
            self._file = path and open(path, "a", encoding="utf-8", errors="backslashreplace")  # noqa: SIM115
        except OSError as error:
            raise SolverError(
                f"The trace cannot be written to {path}: {error.strerror}."
            ) from error

    def clear(self) -> None:
        """Remove what an earlier run left in the file; a device or a pipe holds nothing."""
        if self._file and stat.S_ISREG(os.fstat(self._file.fileno()).st_mode):
            self._file.truncate(0)

    def add(self, record: dict[str, Any]) -> None:
        """Keep a record, and append it to the file; called on the engine's thread."""
        self.records.append(record)
        if not self._file or self.error is not None:
            return
        try:
            with path_in_errors(self._path):
                self._file.write(json.dumps(record, ensure_ascii=False) + "\n")
                self._file.flush()
        except OSError as error:
            self.error = error

    def close(self) -> None:
        """Close the file."""
        if self._file:
            with suppress(OSError):  # of a line that could not be written
                self._file.close()


def interrupt_text(records: Sequence[dict[str, Any]], attempts: int, seconds: float) -> str:
    """Return what to say if the problem is interrupted: the votes so far.

    Args:
        records: those of the attempts that have ended.
        attempts: number of all attempts.
        seconds: time since the problem's start.
    """
    ended = [one for one in records if one["ending"] != Ending.INTERRUPTED]
    answers = Counter(one["answer"] for one in records if one["answer"] is not None)
    votes = votes_text(dict(answers.most_common())) or "none"
    return (
        f"Interrupted after {duration(seconds)}; votes so far: {votes} "
        f"({len(ended)} of {counted(attempts, 'attempt')} had ended)."
    )


def report(result: Result, startup: float, options: argparse.Namespace) -> None:
    """Print everything about the result that the options ask for."""
    for fault in result.faults:
        print(f"fault: {fault}", file=sys.stderr)
    if options.show:
        print_attempt(result)
    print_result(result, startup)
    if result.answer is None and not options.show and not options.quiet:
        print("No attempt has an answer; --show prints the longest one.", file=sys.stderr)
    if options.json:
        print(json.dumps(result_json(result, startup)), flush=True)


def attempt_to_show(result: Result) -> dict[str, Any] | None:
    """Return the first attempt with the answer, or without an answer the longest attempt."""
    if result.answer is not None:
        return next(one for one in result.attempts if one["answer"] == result.answer)
    return max(result.attempts, key=lambda one: one["tokens"], default=None)


def print_attempt(result: Result) -> None:
    """Print what one attempt wrote, the output of its tool calls, and how it ended."""
    chosen = attempt_to_show(result)
    if chosen is None:
        return
    for turn in chosen["turns"]:
        print(turn["text"])
        for call in turn["calls"]:
            print(f"--- output ({call['status']}):\n{call['output']}\n---")
    if result.answer is None:
        print(f"--- This was attempt {chosen['attempt'] + 1}, the longest: {ending_text(chosen)}")


def ending_text(record: dict[str, Any]) -> str:
    """Return how an attempt ended, with its answer or the reason why it has none."""
    answer = "" if record["answer"] is None else f" {record['answer']}"
    detail = f" ({record['detail'].rstrip('.')})" if record["detail"] else ""
    return f"{record['ending']}{answer}{detail}"


def print_result(result: Result, startup: float) -> None:
    """Print the answer, the votes, the attempts and the time, in a few lines."""
    print(f"answer: {'none' if result.answer is None else result.answer}")
    print(f"votes: {votes_text(result.votes) or 'none'}")
    if result.note:
        print(f"note: {result.note}")
    for record in result.attempts:
        print(
            f"  attempt {record['attempt'] + 1}: {ending_text(record)}, "
            f"{counted(record['calls'], 'call')}, {counted(record['errors'], 'error')}, "
            f"{counted(record['tokens'], 'token')}"
        )
    speed = result.tokens / max(result.seconds, 1e-9)
    print(
        f"time: {result.seconds:.1f} s after {startup:.1f} s to start; "
        f"{counted(result.tokens, 'token')}, {speed:.0f} tokens/s; ended by: {result.stopped}"
    )
    drafts = drafts_text(sum_drafts(result.attempts))
    if drafts:
        print(drafts)


def result_json(result: Result, startup: float) -> dict[str, Any]:
    """Return the result for a line of JSON."""
    keys = ("attempt", "seed", "ending", "detail", "answer", "tokens", "calls", "errors", "ended")
    return {
        "answer": result.answer,
        "votes": {str(answer): count for answer, count in result.votes.items()},
        "attempts": [{key: record[key] for key in keys} for record in result.attempts],
        "seconds": round(result.seconds, 3),
        "tokens": result.tokens,
        **sum_drafts(result.attempts),
        "startup_seconds": round(startup, 3),
        "calls": result.calls,
        "errors": result.errors,
        "stopped": result.stopped,
        "faults": list(result.faults),
        "distance": result.distance,
        "note": result.note,
    }
