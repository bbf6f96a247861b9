"""Recreates what a notebook finds on Kaggle: an environment of packages and a folder of inputs."""

from __future__ import annotations

import csv
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from eightfold.solver.problem_set import Problem

MODEL = Path(__file__).resolve().parents[3] / "demo" / "model"
TOKENIZER = (
    *("tokenizer.json", "tokenizer_config.json"),
    *("chat_template.jinja", "generation_config.json"),
)


@dataclass(frozen=True)
class KaggleEnvironment:
    """A fresh virtual environment with a bundle and inputs.

    Attributes:
        python: its interpreter.
        bundle: the bundle, which has not been installed.
        base: the folder that holds everything that is created.
    """

    python: Path
    bundle: Path
    base: Path

    def variables(self) -> dict[str, str]:
        """Return the environment variables of its processes."""
        drop = ("PYTHONPATH", "KAGGLE_IS_COMPETITION_RERUN")
        env = {k: v for k, v in os.environ.items() if k not in drop and not k.startswith("PIP_")}
        path = f"{self.python.parent}:{env['PATH']}"
        return env | {"EIGHTFOLD_INPUT": str(self.base / "input"), "PATH": path}


def make_environment(base: Path, bundle: Path, site: Path | None) -> KaggleEnvironment:
    """Create an environment that sees this Python's packages, except eightfold.

    Args:
        base: an empty folder for everything that is created.
        bundle: the bundle.
        site: a folder with further packages, which take precedence.
    """
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", base / "venv"], check=True)
    places = [Path(p) for p in sys.path if p.endswith("-packages")]
    if site is not None:
        places = [site, *(place for place in places if not place.is_relative_to(site))]
    seen = [
        str(without_eightfold(place, base / f"image{index}")) for index, place in enumerate(places)
    ]
    (packages,) = (base / "venv").glob("lib/python3*/site-packages")
    (packages / "image.pth").write_text("\n".join(seen) + "\n")
    return KaggleEnvironment(base / "venv" / "bin" / "python", bundle, base)


def without_eightfold(place: Path, links: Path) -> Path:
    """Return a folder of packages, or if it holds eightfold, a folder of links to all others."""
    ours = set(place.glob("eightfold*")) | set(place.glob("__editable__*eightfold*"))
    if not ours:
        return place
    links.mkdir()
    for entry in place.iterdir():
        if entry not in ours:
            (links / entry.name).symlink_to(entry)
    return links


def make_inputs(environment: KaggleEnvironment) -> None:
    """Create what Kaggle mounts: the bundle, two models, and the competition's folder."""
    root = environment.base / "input"
    shutil.copytree(environment.bundle, root / "datasets" / "somebody" / "upload")
    model = root / "models" / "somebody" / "gemma-tiny" / "transformers" / "default" / "1"
    model.parent.mkdir(parents=True)
    model.symlink_to(MODEL)
    huge = root / "models" / "somebody" / "huge" / "1"
    huge.mkdir(parents=True)
    for name in ("config.json", *TOKENIZER):
        shutil.copy(MODEL / name, huge)
    with open(huge / "model.safetensors", "wb") as file:
        file.truncate(300 * 10**9)  # a sparse file, because only its length matters
    (root / "competitions" / "ai-mathematical-olympiad").mkdir(parents=True)


def write_problems(file: Path, problems: list[Problem], answers: bool) -> None:
    """Write problems as a CSV file, with their answers if wanted."""
    with open(file, "w", newline="", encoding="utf-8") as stream:
        out = csv.writer(stream)
        out.writerow(["id", "problem", "answer"][: 2 + answers])
        out.writerows([p.id, p.text, p.answer][: 2 + answers] for p in problems)
