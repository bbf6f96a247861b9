"""`eightfold export`: write a run in the format of another tool."""

from __future__ import annotations

import argparse
import errno
from pathlib import Path
from typing import TYPE_CHECKING, Any

from eightfold.common.counted_noun import counted

from ...evaluation.recorded_run import check_output
from ...evaluation.run_folder import read_settings
from ...evaluation.run_reader import read_run
from ...solver_config import SolverError
from ..exit_codes import ExitCode

if TYPE_CHECKING:
    from ...evaluation.run_scores import Run
    from ..argument_parser import Subparsers

FILES = {"inspect": "inspect.eval", "hf": "eval_results.yaml", "sft": "conversations.jsonl"}
"""Name of the file in the run's folder, by format, unless --out names another."""


def add_parser(subparsers: Subparsers) -> None:
    """Add the command to the command line."""
    parser = subparsers.add_parser(
        "export",
        help="write a run for another tool",
        description="Write a run as a log of Inspect AI (inspect), as the evaluation results that "
        "model pages of the Hugging Face Hub read (hf), or as conversations for training (sft).",
    )
    parser.add_argument("folder", metavar="RUN", help="folder of the run")
    parser.add_argument("--to", choices=sorted(FILES), required=True, help="the format")
    parser.add_argument(
        "--out", metavar="FILE", help="the file to write, or to replace (one in the run's folder)"
    )
    parser.add_argument(
        "--all",
        action="store_true",
        help="sft: all attempts that ended by themselves, not only right ones",
    )
    parser.add_argument("--dataset", metavar="ID", help="hf: the benchmark's dataset on the Hub")
    parser.add_argument("--task", metavar="ID", help="hf: the task in it (default)")
    parser.add_argument(
        "--score", metavar="NAME", help="hf: accuracy, which is the vote's (default), or pass@K"
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Write the file and print where it is."""
    check_options(options)
    folder = Path(options.folder)
    records = read_run(folder)
    stored = read_settings(folder)
    settings: dict[str, Any] = {} if stored is None else stored["settings"]
    out = Path(options.out) if options.out else folder / FILES[options.to]
    check_output(out)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        said = _write(options, records, settings, out)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):  # no other --out is asked for
            raise
        raise SolverError(
            f"The export cannot be written to {out}: {error.strerror}; "
            "name another file with --out."
        ) from error
    print(f"{out} ({said})")
    return ExitCode.OK


def _write(options: argparse.Namespace, records: Run, settings: dict[str, Any], out: Path) -> str:
    """Write the file and return what is in it, in a few words."""
    if options.to == "inspect":
        from ...export.inspect_log import write_inspect_log

        write_inspect_log(records, settings, out)
        return counted(sum(len(tries) for _, tries in records), "sample")
    if options.to == "hf":
        from ...export.hub_results import hub_results, write_hub_results

        task, score = options.task or "default", options.score or "accuracy"
        entry = hub_results(records, settings, options.dataset, task, score)
        write_hub_results(entry, out)
        return f"{score} {entry['value']} %"
    from ...export.training_conversations import write_conversations

    return counted(write_conversations(records, out, not options.all), "conversation")


def check_options(options: argparse.Namespace) -> None:
    """Refuse options of another format.

    Raises:
        SolverError: an option does not belong to the format, or one is missing.
    """
    given = {"--all": options.all, "--dataset": options.dataset, "--task": options.task}
    given["--score"] = options.score
    known = {"inspect": (), "hf": ("--dataset", "--task", "--score"), "sft": ("--all",)}[options.to]
    foreign = [name for name, value in given.items() if value and name not in known]
    if foreign:
        raise SolverError(f"{foreign[0]} is not an option of --to {options.to}; leave it out.")
    if options.to == "hf" and not options.dataset:
        raise SolverError("--to hf needs --dataset, the id of the benchmark's dataset on the Hub.")
