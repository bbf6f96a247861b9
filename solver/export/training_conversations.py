"""A run's attempts as conversations for training, one line of JSON each."""

from __future__ import annotations

import json
from pathlib import Path

from eightfold.common.file_errors import path_in_errors

from ..attempts.attempt import MACHINE_ENDINGS
from ..evaluation.run_scores import CUT_OFF, Run
from ..solver_config import SolverError
from .attempt_messages import attempt_messages


def write_conversations(run: Run, out: Path, right_only: bool) -> int:
    """Write the attempts of a run as JSON Lines, and return how many there are.

    Each line holds `messages`, and the `id`, `attempt`, `answer`, `right` (null if the answer is
    not known), `tokens`, `calls` and `errors` of the attempt. Attempts that a consensus, an
    interrupt or the machine cut off are left out.

    Args:
        run: the records.
        out: the file.
        right_only: leave out attempts whose answer is wrong or not known.

    Raises:
        SolverError: no attempt is left.
    """
    lines = []
    for problem, attempts in run:
        truth = problem["truth"]
        for one in attempts:
            right = None if truth is None else one["answer"] == truth
            if one["ending"] in (*CUT_OFF, *MACHINE_ENDINGS) or (right_only and not right):
                continue
            line = {
                "id": problem["id"],
                "attempt": one["attempt"],
                "messages": attempt_messages(problem["problem"], one["turns"]),
                "answer": one["answer"],
                "right": right,
                **{key: one[key] for key in ("tokens", "calls", "errors")},
            }
            lines.append(json.dumps(line, ensure_ascii=False))
    if not lines:
        raise SolverError(
            "No attempt is left to export; --all also takes those that are wrong or not known."
            if right_only
            else "The run has no attempt that ended by itself."
        )
    with path_in_errors(out):
        out.write_text("\n".join(lines) + "\n", encoding="utf-8", errors="backslashreplace")
    return len(lines)
