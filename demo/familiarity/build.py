"""Make `familiarity.json` from the training's problems and from attempts at held-out ones.

``python -m eightfold.demo.familiarity.build FOLDER ATTEMPTS... [--foreign FILE...]``

ATTEMPTS are files that `eightfold.demo.engine_accuracy --out` has written for held-out problems of
the model's own kinds, those of ``--foreign`` for problems of other kinds. The weights of the signs
are a logistic regression of "the vote is wrong, or the problem is foreign" on them; the threshold
is such that a given share of the own problems in known phrasings is marked.
"""

from __future__ import annotations

import argparse
import base64
import json
import sys
import zlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eightfold.solver.familiarity import FILE, SIGNS, Familiarity, read_familiarity, signs_of

from ..families import FAMILIES
from .word_table import word_table

MARKED = 0.06
"""Share of the held-out problems in known phrasings that may be marked."""


@dataclass(frozen=True)
class Judged:
    """A problem with the attempts at it.

    Attributes:
        row: as `engine_accuracy` wrote it.
        answer: winner of the vote.
        right: True if it is the problem's answer.
    """

    row: dict[str, Any]
    answer: int | None
    right: bool


def read_attempts(path: Path) -> list[Judged]:
    """Return the problems in a file of attempts."""
    found = []
    for line in path.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        votes = Counter(one for one in row["answers"] if one is not None)
        answer = votes.most_common(1)[0][0] if votes else None
        found.append(Judged(row, answer, answer == row["answer"]))
    return found


def signs(familiarity: Familiarity, one: Judged) -> list[float]:
    """Return the signs of a problem, in the order of `SIGNS`."""
    problem, row = one.row["problem"], one.row
    made = signs_of(
        familiarity.novelty(problem),
        problem,
        one.answer,
        row["answers"],
        row["codes"],
        row["errors"],
    )
    return [made[name] for name in SIGNS]


def fit(
    x: NDArray[np.float64], wrong: NDArray[np.float64], steps: int = 4000
) -> NDArray[np.float64]:
    """Return non-negative weights of a logistic regression of `wrong` on the signs x (N, 4)."""
    weights, bias = np.ones(x.shape[1]), -2.0
    balance = np.where(wrong > 0, 0.5 / max(wrong.mean(), 1e-3), 0.5 / max(1 - wrong.mean(), 1e-3))
    for _ in range(steps):
        error = balance * (1 / (1 + np.exp(-(x @ weights + bias))) - wrong)
        weights = np.maximum(weights - 0.3 * (x.T @ error / len(x) + 1e-3 * weights), 0.02)
        bias -= 0.3 * error.mean()
    return weights


def build(files: Sequence[Path], foreign: Sequence[Path], texts: int) -> Familiarity:
    """Return what is to be written, from files of attempts at own and at foreign problems."""
    blank = Familiarity(len(FAMILIES), word_table(texts), dict.fromkeys(SIGNS, 1.0), 1.0)
    judged = [one for path in files for one in read_attempts(path)]
    others = [one for path in foreign for one in read_attempts(path)]
    x = np.array([signs(blank, one) for one in (*judged, *others)])
    unwanted = [*(float(not one.right) for one in judged), *(1.0 for _ in others)]
    weights = fit(x, np.array(unwanted))
    known = [i for i, one in enumerate(judged) if one.row["id"].startswith("held_out-")]
    threshold = float(np.quantile((x @ weights)[known], 1 - MARKED))
    return Familiarity(
        blank.kinds, blank.table, dict(zip(SIGNS, weights.tolist(), strict=True)), threshold
    )


def save(familiarity: Familiarity, folder: Path) -> None:
    """Write the file into a model's folder."""
    content = {
        "kinds": familiarity.kinds,
        "threshold": round(familiarity.threshold, 5),
        "weights": {name: round(value, 5) for name, value in familiarity.weights.items()},
        "table": base64.b85encode(zlib.compress(familiarity.table, 9)).decode(),
    }
    (folder / FILE).write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def marked(familiarity: Familiarity, judged: Sequence[Judged]) -> list[bool]:
    """Return for each problem whether it is beyond the threshold."""
    weights = np.array([familiarity.weights[name] for name in SIGNS])
    return [
        float(np.dot(weights, signs(familiarity, one))) > familiarity.threshold for one in judged
    ]


def summary(familiarity: Familiarity, path: Path) -> str:
    """Return a line with how many problems of a file are marked, right and wrong ones apart."""
    judged = read_attempts(path)
    marks = marked(familiarity, judged)
    right = [m for m, one in zip(marks, judged, strict=True) if one.right]
    wrong = [m for m, one in zip(marks, judged, strict=True) if not one.right]
    return (
        f"{path.stem}: {sum(marks)} of {len(marks)} marked; {sum(right)} of {len(right)} right "
        f"ones, {sum(wrong)} of {len(wrong)} wrong ones"
    )


def main(argv: list[str] | None = None) -> int:
    """Write familiarity.json into a model's folder, or measure the one that is there."""
    parser = argparse.ArgumentParser(
        prog="eightfold.demo.familiarity.build", description=main.__doc__
    )
    parser.add_argument("folder", type=Path, help="the model's folder")
    parser.add_argument("attempts", type=Path, nargs="+", help="files of engine_accuracy --out")
    parser.add_argument(
        "--foreign", type=Path, nargs="+", default=[], help="files for problems of other kinds"
    )
    parser.add_argument("--texts", type=int, default=250_000, help="problems read (%(default)s)")
    parser.add_argument("--measure", action="store_true", help="write nothing; count the marks")
    options = parser.parse_args(argv)
    if not options.measure:
        save(build(options.attempts, options.foreign, options.texts), options.folder)
    familiarity = read_familiarity(options.folder)
    if familiarity is None:
        parser.error(f"{options.folder} holds no {FILE}; leave out --measure to make it")
    for path in options.attempts:
        print(summary(familiarity, path))
    return 0


if __name__ == "__main__":
    sys.exit(main())
