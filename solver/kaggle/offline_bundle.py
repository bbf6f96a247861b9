"""Make the folder that a notebook without internet installs from.

pip resolves the dependencies, torch's among them, to the versions in constraints.txt. torch itself
is never downloaded, and neither is what the image already has.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from eightfold.common.file_errors import path_in_errors

from ..solver_config import SolverError
from .image_packages import (
    NEVER_FETCHED,
    PRESENT,
    TORCH_REQUIRES,
    read_freeze,
    unneeded_wheels,
    wheel_name,
    wheel_requirements,
    wheel_version,
)

FETCHED_ALONE = frozenset({"accelerate"})
"""Packages downloaded without their dependencies, which are torch and dependencies of ours."""

BUILD_FILES = ("setup.py", "pyproject.toml", "README.md", "LICENSE")
"""Files that setuptools reads beside the parts of the package."""

COMPETITION = "ai-mathematical-olympiad-progress-prize-3"
DATASET_SLUG = "eightfold-bundle"
NOTEBOOK_SLUG = "eightfold-aimo3"  # Kaggle makes it of the title
NOTEBOOK_TITLE = "eightfold aimo3"
YOUR_NAME = "INSERT_USERNAME_HERE"
"""Placeholder in the files for Kaggle, which the reader replaces with a user name."""

MIN_SETUPTOOLS = Version("77")
"""As in pyproject.toml."""


@dataclass(frozen=True)
class BundleConfig:
    """Settings of a bundle.

    Attributes:
        out: the folder to make; it must be empty or not exist.
        python: Python version of the image, such as `3.12`.
        platforms: platform tags of wheels that the image accepts.
        model_less: leave the bundled model out of the wheel of eightfold.
        freeze: output of `pip freeze` in the image; None assumes `image_packages.PRESENT`.
        dependencies: download what the image lacks.

    Raises:
        SolverError: `python` or `platforms` cannot be used.
    """

    out: Path
    python: str = "3.12"
    platforms: tuple[str, ...] = (
        "manylinux_2_28_x86_64",
        "manylinux_2_17_x86_64",
        "manylinux2014_x86_64",
    )
    model_less: bool = False
    freeze: Path | None = None
    dependencies: bool = True

    def __post_init__(self) -> None:
        parts = self.python.split(".")
        if len(parts) != 2 or not all(part.isascii() and part.isdigit() for part in parts):
            raise SolverError(f"python must be a version such as 3.12, not {self.python!r}.")
        if parts[0] != "3" or int(parts[1]) < 11:
            raise SolverError(f"python must be 3.11 or later, not {self.python}.")
        tags = self.platforms
        if not tags or any(not tag or "macos" in tag or "win" in tag for tag in tags):
            raise SolverError("A platform must be a Linux tag such as manylinux_2_28_x86_64.")


def make_bundle(config: BundleConfig) -> list[Path]:
    """Make the folder and return its wheels.

    The content is made in a temporary folder and moved at the end, so that a bundle is complete
    or does not exist. A folder that exists is kept: it may be the working directory of a shell,
    or a mount point.

    Raises:
        SolverError: the folder is not empty or cannot be made, there is no clone of the project,
            or pip failed.
    """
    source = source_folder()
    image = PRESENT if config.freeze is None else read_freeze(config.freeze)
    out = config.out.expanduser().resolve()
    try:
        if out.exists() and (not out.is_dir() or any(out.iterdir())):
            raise SolverError(f"{config.out} is not an empty folder; name another with --out.")
        # On the same file system as the bundle, so that moving is a renaming.
        near = next(folder for folder in (out, *out.parents) if folder.exists())
        temporary = tempfile.TemporaryDirectory(prefix=".eightfold-", dir=near)
    except OSError as error:
        raise SolverError(
            f"{config.out} cannot be made ({error.strerror}); name another folder with --out."
        ) from error
    with temporary as name:
        work = Path(name) / "bundle"
        work.mkdir()
        with path_in_errors(config.out):
            _fill(work, config, source, image)
        if near == out:
            for part in sorted(work.iterdir()):
                part.rename(out / part.name)
        else:
            out.parent.mkdir(parents=True, exist_ok=True)
            work.rename(out)
    return sorted(out.glob("*.whl"))


def source_folder() -> Path:
    """Return the clone that this package is imported from, else the one in the current folder.

    Raises:
        SolverError: neither is a clone of the project.
    """
    for folder in (Path(__file__).resolve().parents[2], Path.cwd()):
        if (folder / "notebooks" / "aimo3.ipynb").is_file() and (folder / "setup.py").is_file():
            return folder
    raise SolverError("A bundle is made from a clone of the project; change into its folder.")


def _fill(work: Path, config: BundleConfig, source: Path, image: dict[str, str]) -> None:
    """Put everything that belongs to the bundle into the folder `work`."""
    ours = build_wheel(source, work, config.model_less)
    if config.dependencies:
        download(work, config, wheel_requirements(ours), source / "constraints.txt")
        for wheel in unneeded_wheels(work, image):
            wheel.unlink()
    wheels = sorted(work.glob("*.whl"))
    (work / "eightfold.lock").write_text(lock_text(wheels), encoding="utf-8")
    (work / "README.md").write_text(readme_text(config, wheels), encoding="utf-8")
    shutil.copy(source / "notebooks" / "aimo3.ipynb", work / "aimo3.ipynb")
    (work / "kernel-metadata.json").write_text(
        json.dumps(kernel_metadata(), indent=2) + "\n", encoding="utf-8"
    )


def build_wheel(source: Path, out: Path, model_less: bool) -> Path:
    """Build the wheel of eightfold from a copy of the clone.

    A build leaves files behind, and the bundled model may have to be left out.
    """
    with tempfile.TemporaryDirectory() as name:
        copy = Path(name)
        for file in BUILD_FILES:
            shutil.copy(source / file, copy / file)
        for marker in source.glob("*/py.typed"):  # each part of the package has one
            part = marker.parent.name
            shutil.copytree(source / part, copy / part)
        if model_less:
            shutil.rmtree(copy / "demo" / "model")
        own = ("--no-build-isolation",) if setuptools_can_build() else ()
        pip("wheel", "--no-deps", *own, "-w", str(out), str(copy))
    (built,) = out.glob("eightfold-*.whl")
    return built


def setuptools_can_build() -> bool:
    """Return True if this environment's setuptools is new enough, so that none is downloaded."""
    try:
        return Version(version("setuptools")) >= MIN_SETUPTOOLS
    except PackageNotFoundError:
        return False


def download(out: Path, config: BundleConfig, required: list[str], constraints: Path) -> None:
    """Download wheels for the image's Python and platform.

    Args:
        out: folder for the wheels.
        config: names Python and platforms.
        required: requirements of the wheel of eightfold.
        constraints: file with the versions to take.

    Raises:
        SolverError: pip failed.
    """
    digits = config.python.replace(".", "")
    target = ["--only-binary=:all:", "--python-version", config.python, "--implementation", "cp"]
    for abi in (f"cp{digits}", "abi3", "none"):
        target += ["--abi", abi]
    for platform in config.platforms:
        target += ["--platform", platform]
    target += ["-c", str(constraints), "-d", str(out)]
    names = {one: canonicalize_name(Requirement(one).name) for one in required}
    hint = (
        " Is the package index reachable, and does it have wheels for "
        f"Python {config.python} on {config.platforms[0]}?"
    )
    together = [one for one in required if names[one] not in NEVER_FETCHED | FETCHED_ALONE]
    pip("download", *target, *together, *TORCH_REQUIRES, hint=hint)
    alone = [one for one in required if names[one] in FETCHED_ALONE]
    pip("download", *target, "--no-deps", *alone, hint=hint)


def pip(*arguments: str, hint: str = "") -> None:
    """Run this interpreter's pip.

    Args:
        arguments: the command and its options.
        hint: appended to the error message.

    Raises:
        SolverError: pip failed. The message holds the first error that pip names.
    """
    command = [sys.executable, "-m", "pip", *arguments, "--disable-pip-version-check", "--no-input"]
    ran = subprocess.run(command, capture_output=True, text=True)
    if ran.returncode:
        lines = [line.strip() for line in ran.stderr.split("\n") if line.strip()]
        errors = [line for line in lines if line.startswith("ERROR")] or lines[-1:] or ["no reason"]
        raise SolverError(f"pip {arguments[0]} failed: {errors[0][:300].rstrip('.')}.{hint}")


def lock_text(wheels: list[Path]) -> str:
    """Return a requirements file with the version and SHA-256 of each wheel."""
    lines = ["# pip install --no-index --find-links . --no-deps --require-hashes -r eightfold.lock"]
    for wheel in wheels:
        digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
        lines.append(f"{wheel_name(wheel)}=={wheel_version(wheel)} --hash=sha256:{digest}")
    return "\n".join(lines) + "\n"


def kernel_metadata() -> dict[str, str | list[str]]:
    """Return what `kaggle kernels push` needs to know of the notebook.

    The fields and their values as text are those of the file that `kaggle kernels init` writes.
    """
    return {
        "id": f"{YOUR_NAME}/{NOTEBOOK_SLUG}",
        "title": NOTEBOOK_TITLE,
        "code_file": "aimo3.ipynb",
        "language": "python",
        "kernel_type": "notebook",
        "is_private": "true",
        "enable_gpu": "true",
        "enable_tpu": "false",
        "enable_internet": "false",
        "dataset_sources": [f"{YOUR_NAME}/{DATASET_SLUG}"],
        "competition_sources": [COMPETITION],
        "kernel_sources": [],
        "model_sources": [],
    }


def readme_text(config: BundleConfig, wheels: list[Path]) -> str:
    """Return the bundle's README, which says what to do with it."""
    size = sum(wheel.stat().st_size for wheel in wheels) / 1e6
    listed = "\n".join(f"- `{wheel.name}`" for wheel in wheels)
    model = (
        "The bundled model is left out, so the notebook needs a model among its inputs."
        if config.model_less
        else "The bundled model is inside; a larger one among the inputs is preferred."
    )
    return f"""# eightfold for Kaggle

This folder holds wheels for Python {config.python} ({size:.0f} MB), a lock file with their hashes,
and the notebook. {model}

In a browser:

1. Upload this folder as a Kaggle dataset (Datasets, New Dataset).
2. Create a notebook by importing `aimo3.ipynb` (File, Import Notebook).
3. Add as inputs: the dataset, the competition's data, and a model in Hugging Face's format
   (Add Input, Models).
4. Choose the accelerator, switch the internet off, and run all cells. The problems of `test.csv`
   are solved, and `submission.parquet` is written.
5. Save the version, and submit it.

Or with the command `kaggle`, in this folder:

1. `kaggle datasets init -p .` writes `dataset-metadata.json`. Edit two of its fields: set `title`
   to a name of 6 to 50 characters instead of `INSERT_TITLE_HERE`, such as `eightfold bundle`, and
   in `id` replace `INSERT_SLUG_HERE` with `{DATASET_SLUG}`; the part before the slash is your user
   name. Then `kaggle datasets create -p .` uploads the folder. (Later versions:
   `kaggle datasets version -p . -m "what changed"`.)
2. In `kernel-metadata.json` replace `{YOUR_NAME}` with your user name, twice, and name the model in
   `model_sources`, as `owner/model/framework/variation/version`. If you change `title`, change `id`
   too: what is behind its slash is the title in lower case, with dashes for spaces.
3. Once the dataset is ready (`kaggle datasets status`), `kaggle kernels push -p .` uploads the
   notebook and runs it. Choose the accelerator on its page, and submit it there.

If a package of the image is too old, run `!pip freeze > freeze.txt` in a notebook with that image
and make the bundle again with `--freeze freeze.txt`.

{listed}
"""
