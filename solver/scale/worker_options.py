"""The options of `evaluate` that spread a run over workers."""

from __future__ import annotations

import argparse

from ..solver_config import MAX_KERNELS, SolverConfig, SolverError
from .crew_messages import CrewPlan


def add_worker_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that `crew_plan` reads."""
    add = parser.add_argument
    add(
        "--workers",
        type=worker_count,
        metavar="N",
        help="solve on N workers of a Ray cluster, or auto for all GPUs; default: in this process",
    )
    add(
        "--ray-address",
        metavar="ADDRESS",
        help="HOST:PORT of the cluster's head, or auto; default: this machine alone",
    )
    add(
        "--gpus-per-worker",
        type=int,
        metavar="N",
        help="GPUs of a worker, with an engine on each; default: 1, or 0 if there is no GPU",
    )
    add(
        "--kernels-per-worker",
        type=int,
        metavar="N",
        help="Python kernels of a worker in use at the same time; default: --kernels",
    )


def worker_count(text: str) -> int | str:
    """Return a number of workers, or "auto".

    Raises:
        argparse.ArgumentTypeError: if the text is neither.
    """
    if text == "auto":
        return text
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"must be a number or auto, not {text!r}") from None


def crew_plan(options: argparse.Namespace, config: SolverConfig) -> CrewPlan | None:
    """Return the settings of the crew, or None without `--workers`.

    Raises:
        SolverError: if a value is out of range, or options contradict each other.
    """
    kernels = options.kernels_per_worker
    if options.workers is None:
        for name in ("ray_address", "gpus_per_worker", "kernels_per_worker"):
            if getattr(options, name) is not None:
                raise SolverError(f"--{name.replace('_', '-')} needs --workers, a number or auto.")
        return None
    if options.devices is not None:
        raise SolverError("--devices is for this process; with --workers give --gpus-per-worker.")
    if kernels is not None and not 1 <= kernels <= MAX_KERNELS:
        raise SolverError(f"--kernels-per-worker must be from 1 to {MAX_KERNELS}, not {kernels}.")
    workers = None if options.workers == "auto" else options.workers
    return CrewPlan(config, workers, options.ray_address, options.gpus_per_worker, options.parallel)
