"""Runs over many problems from Python, on the Ray session that there is."""

from __future__ import annotations

import sys
from pathlib import Path

from ..display.progress_display import ProgressDisplay
from ..evaluation.recorded_run import RecordedRun
from ..evaluation.run_folder import RunFolder, write_json
from ..evaluation.run_settings import run_settings
from ..model_defaults import read_model_inputs
from ..problem_set import Columns
from ..problems.dataset_source import open_problems
from ..solver_config import SolverConfig
from .cluster_run import ClusterRun
from .crew import Crew
from .crew_messages import CrewPlan


def evaluate_on_ray(
    problems: str | Path,
    out: str | Path,
    config: SolverConfig | None = None,
    *,
    workers: int | None = None,
    gpus_per_worker: int | None = None,
    parallel: int = 1,
    columns: Columns | None = None,
    subset: str | None = None,
    split: str | None = None,
    quiet: bool = False,
) -> RecordedRun:
    """Solve a set of problems on the workers of a Ray cluster; what `evaluate --workers` does.

    Uses the session of this process if `ray.init` was called, else a cluster of this machine alone.
    A folder that holds a run with the same settings is continued.

    Args:
        problems: a file, the folder of a data set, or an id of Hugging Face.
        out: folder of the run.
        config: settings of the solvers; None takes the defaults.
        workers: number of workers; None takes all GPUs of the cluster.
        gpus_per_worker: None takes 1 if there are any, else 0.
        parallel: problems that a worker solves at the same time.
        columns: names of the columns.
        subset, split: part of a data set.
        quiet: show no progress.

    Returns:
        The run, read from its folder.

    Raises:
        SolverError: the problems, the settings or the cluster cannot be used.
        HeadLostError: the head of the session's cluster was lost; the run can be continued in
            another process.
        OSError: a record could not be written, or there are no workers any more.
    """
    config = (config or SolverConfig()).for_problems(parallel)
    plan = CrewPlan(config, workers, None, gpus_per_worker, parallel)
    chosen = open_problems(str(problems), columns, subset=subset, split=split)
    survey = chosen.survey(config.low, config.high)
    inputs = read_model_inputs(config, progress=not quiet)
    settings = run_settings(config, survey.digest, inputs)
    folder = RunFolder(Path(out), settings, resume=True)
    try:
        if len(folder.finished) < survey.count:
            run = ClusterRun(chosen, survey.count, folder, config, lambda: Crew(plan).placed())
            run.run(ProgressDisplay(sys.stderr, enabled=not quiet))
    finally:
        folder.close()
    recorded = RecordedRun(folder.folder)
    write_json(folder.folder / "summary.json", {"settings": settings, **recorded.summary})
    return recorded
