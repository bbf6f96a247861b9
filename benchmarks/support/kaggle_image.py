"""What a notebook finds on Kaggle: an environment of packages, and a folder of inputs."""

from __future__ import annotations

import csv
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from eightfold.solver.problem_set import Problem

MODEL = Path(__file__).resolve().parents[2] / "demo" / "model"
TOKENIZER = (
    *("tokenizer.json", "tokenizer_config.json"),
    *("chat_template.jinja", "generation_config.json"),
)


@dataclass(frozen=True)
class Image:
    """A fresh environment's interpreter, the bundle, and the folder of all that is made."""

    python: Path
    bundle: Path
    base: Path

    def environment(self) -> dict[str, str]:
        drop = ("PYTHONPATH", "KAGGLE_IS_COMPETITION_RERUN")
        env = {k: v for k, v in os.environ.items() if k not in drop and not k.startswith("PIP_")}
        path = f"{self.python.parent}:{env['PATH']}"
        return env | {"EIGHTFOLD_INPUT": str(self.base / "input"), "PATH": path}


def make_image(base: Path, bundle: Path, site: Path | None) -> Image:
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", base / "venv"], check=True)
    places = [Path(p) for p in sys.path if p.endswith("-packages")]
    if site is not None:
        places = [site, *(place for place in places if not place.is_relative_to(site))]
    seen = [str(without_ours(place, base / f"image{n}")) for n, place in enumerate(places)]
    (packages,) = (base / "venv").glob("lib/python3*/site-packages")
    (packages / "image.pth").write_text("\n".join(seen) + "\n")
    return Image(base / "venv" / "bin" / "python", bundle, base)


def without_ours(place: Path, links: Path) -> Path:
    """The folder of packages itself, or where we are in it `links`, made to all but us."""
    ours = set(place.glob("eightfold*")) | set(place.glob("__editable__*eightfold*"))
    if not ours:
        return place
    links.mkdir()
    for entry in place.iterdir():
        if entry not in ours:
            (links / entry.name).symlink_to(entry)
    return links


def make_inputs(image: Image) -> None:
    """What Kaggle mounts: the bundle, models, and the competition's folder."""
    root = image.base / "input"
    shutil.copytree(image.bundle, root / "datasets" / "somebody" / "upload")
    model = root / "models" / "somebody" / "gemma-tiny" / "transformers" / "default" / "1"
    model.parent.mkdir(parents=True)
    model.symlink_to(MODEL)
    huge = root / "models" / "somebody" / "huge" / "1"
    huge.mkdir(parents=True)
    for name in ("config.json", *TOKENIZER):
        shutil.copy(MODEL / name, huge)
    with open(huge / "model.safetensors", "wb") as file:
        file.truncate(300 * 10**9)  # takes no room; only its length is looked at
    (root / "competitions" / "ai-mathematical-olympiad").mkdir(parents=True)


def write_table(file: Path, problems: list[Problem], answers: bool) -> None:
    with open(file, "w", newline="", encoding="utf-8") as stream:
        out = csv.writer(stream)
        out.writerow(["id", "problem", "answer"][: 2 + answers])
        out.writerows([p.id, p.text, p.answer][: 2 + answers] for p in problems)
