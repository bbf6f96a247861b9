"""A run's scores as the evaluation results that a model page of the Hugging Face Hub reads.

The file belongs into the folder `.eval_results` of the model's repository. Results with a tool are
told from those without by their notes.
"""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from eightfold.common.file_errors import path_in_errors

from ..evaluation.run_scores import Run, summarize
from ..solver_config import SolverError


def hub_results(
    run: Run, settings: dict[str, Any], dataset: str, task: str, score: str
) -> dict[str, Any]:
    """Return the entry of the file: one score, since a file holds one for a benchmark.

    Args:
        run: the records.
        settings: settings of the run, as in its run.json.
        dataset: id of the benchmark's dataset on the Hub.
        task: id of the task in the dataset's eval.yaml.
        score: name of the score; "accuracy" is that of the vote.

    Raises:
        SolverError: no answer of the run is known, or it has no such score.
    """
    summary = summarize(run, settings)
    scores = summary["scores"]
    if "accuracy" not in scores:
        raise SolverError("No answer of this run is known, so there is no score to export.")
    if score not in scores:
        raise SolverError(f"This run has no score {score}, only {', '.join(scores)}.")
    return {
        "dataset": {"id": dataset, "task_id": task},
        "value": round(100 * scores[score]["value"], 2),
        "date": datetime.now(UTC).date().isoformat(),
        "notes": _notes(score, scores[score], settings),
    }


def _notes(name: str, score: dict[str, Any], settings: dict[str, Any]) -> str:
    attempts = settings.get("attempts", 1)
    shown = f"{settings.get('rule', 'majority')}@{attempts}" if name == "accuracy" else name
    tool = "With tools (Python)" if settings.get("tool", True) else "Without tools"
    interval = f"95 % interval {100 * score['low']:.1f} to {100 * score['high']:.1f}"
    return f"{tool}; {shown}; {score['problems']} problems; {interval}; eightfold"


def write_hub_results(entry: dict[str, Any], out: Path) -> None:
    """Write the entry as YAML."""
    import yaml

    with path_in_errors(out):
        out.write_text(yaml.safe_dump([entry], sort_keys=False), encoding="utf-8")
