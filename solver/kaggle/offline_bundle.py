"""Makes the folder that a notebook without internet installs from.

Resolving is pip's, in the versions that constraints.txt names; torch is never fetched, nor what an
image has already.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from email.parser import Parser
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

from ..solver_config import SolverError

_PRESENT = """
    numpy==2.0.2 sympy==1.13.3 mpmath==1.3.0 polars==1.25.2 pandas==2.2.2 pyarrow==18.1.0
    networkx==3.5 setuptools==75.2.0 psutil==5.9.5 pyyaml==6.0.2 packaging==25.0 requests==2.32.4
    tqdm==4.67.1 filelock==3.19.1 fsspec==2025.3.0 jinja2==3.1.6 markupsafe==3.0.2
    typing-extensions==4.14.1 pyzmq==26.2.1 tornado==6.4.2 traitlets==5.7.1 ipython==7.34.0
    debugpy==1.8.0 matplotlib-inline==0.1.7 jupyter-core==5.8.1 nest-asyncio==1.6.0
    python-dateutil==2.9.0 six==1.17.0 pygments==2.19.2 decorator==4.4.2 jedi==0.19.1 parso==0.8.4
    pexpect==4.9.0 ptyprocess==0.7.0 prompt-toolkit==3.0.51 wcwidth==0.2.13 platformdirs==4.3.8
    click==8.2.1 rich==13.9.4 markdown-it-py==3.0.0 mdurl==0.1.2 regex==2024.11.6
    certifi==2025.8.3 idna==3.10 urllib3==2.5.0 charset-normalizer==3.4.2 anyio==4.9.0 h11==0.16.0
    sniffio==1.3.1 typer==0.16.0 shellingham==1.5.4
"""
PRESENT = dict(entry.split("==") for entry in _PRESENT.split())
"""What Kaggle's image is taken to have, in versions that it had in 2025: a later one has those or
newer ones. docs/kaggle.md tells how to be exact."""

NEVER = frozenset({"torch", "triton"})
ALONE = frozenset({"accelerate"})
"""Fetched without what it requires: that is torch, and what others of ours require too."""
BUILT_FROM = (
    *("setup.py", "pyproject.toml", "README.md", "LICENSE"),
    *("engine", "kernels", "sandbox", "solver", "demo"),
)


@dataclass(frozen=True)
class BundleConfig:
    """What to make.

    Attributes:
        out: folder to make; it must be empty or not be there.
        python: of the image, as `3.12`.
        platforms: wheel tags that the image takes.
        model_less: leave the bundled model out of our wheel.
        freeze: output of `pip freeze` in the image; None takes `PRESENT`.
        dependencies: fetch what the image lacks.
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
            raise SolverError("platforms must be Linux tags such as manylinux_2_28_x86_64.")


def name_of(wheel: Path) -> str:
    """The distribution's name in a wheel's file name, as indices compare it."""
    return str(canonicalize_name(wheel.name.split("-")[0]))


def version_of(wheel: Path) -> str:
    """The version in a wheel's file name."""
    return wheel.name.split("-")[1]


def source_folder() -> Path:
    """The checkout that this package runs from, else the current folder's.

    Raises:
        SolverError: neither is one.
    """
    for folder in (Path(__file__).resolve().parents[2], Path.cwd()):
        if (folder / "notebooks" / "aimo3.ipynb").is_file() and (folder / "setup.py").is_file():
            return folder
    raise SolverError("A bundle is made from a clone of the project; change into its folder.")


def make_bundle(config: BundleConfig) -> list[Path]:
    """Makes the folder and returns its wheels.

    Raises:
        SolverError: the folder has something in it or cannot be made, there is no clone, or pip
            failed.
    """
    source = source_folder()
    freeze = None if config.freeze is None else read_freeze(config.freeze)
    out = config.out.expanduser().resolve()
    try:
        if out.exists() and (not out.is_dir() or any(out.iterdir())):
            raise SolverError(f"{config.out} is not an empty folder; name another with --out.")
        # Made aside and moved at the end: a bundle is whole or not there. A folder that is there is
        # kept: it may be where a shell stands, or a mount.
        near = next(folder for folder in (out, *out.parents) if folder.exists())
        aside = tempfile.TemporaryDirectory(prefix=".eightfold-", dir=near)
    except OSError as error:
        raise SolverError(
            f"{config.out} cannot be made ({error.strerror}); name another folder with --out."
        ) from error
    with aside as name:
        work = Path(name) / "bundle"
        work.mkdir()
        ours = build_wheel(source, work, config.model_less)
        if config.dependencies:
            fetch(work, config, requirements(ours), source / "constraints.txt")
            for wheel in left_out(work, PRESENT if freeze is None else freeze):
                wheel.unlink()
        wheels = sorted(work.glob("*.whl"))
        (work / "eightfold.lock").write_text(lock_text(wheels), encoding="utf-8")
        (work / "README.md").write_text(readme_text(config, wheels), encoding="utf-8")
        shutil.copy(source / "notebooks" / "aimo3.ipynb", work / "aimo3.ipynb")
        if near == out:
            for part in sorted(work.iterdir()):
                part.rename(out / part.name)
        else:
            out.parent.mkdir(parents=True, exist_ok=True)
            work.rename(out)
    return sorted(out.glob("*.whl"))


def pip(*arguments: str, hint: str = "") -> None:
    """Runs this interpreter's pip.

    Args:
        hint: what to look at where it fails.

    Raises:
        SolverError: it failed; the first error that it names is told.
    """
    command = [sys.executable, "-m", "pip", *arguments, "--disable-pip-version-check", "--no-input"]
    ran = subprocess.run(command, capture_output=True, text=True)
    if ran.returncode:
        lines = [line.strip() for line in ran.stderr.split("\n") if line.strip()]
        errors = [line for line in lines if line.startswith("ERROR")] or lines[-1:] or ["no reason"]
        raise SolverError(f"pip {arguments[0]} failed: {errors[0][:300].rstrip('.')}.{hint}")


def build_wheel(source: Path, out: Path, model_less: bool) -> Path:
    """Builds our wheel from a copy: builds leave things behind, and the model may be left out."""
    with tempfile.TemporaryDirectory() as name:
        copy = Path(name)
        for part in BUILT_FROM:
            if (source / part).is_dir():
                shutil.copytree(source / part, copy / part)
            else:
                shutil.copy(source / part, copy / part)
        if model_less:
            shutil.rmtree(copy / "demo" / "model")
        own = ("--no-build-isolation",) if setuptools_can_build() else ()
        pip("wheel", "--no-deps", *own, "-w", str(out), str(copy))
    (built,) = out.glob("eightfold-*.whl")
    return built


def setuptools_can_build() -> bool:
    """Whether this environment's setuptools will do, so that none is fetched."""
    try:
        return Version(version("setuptools")) >= Version("77")
    except PackageNotFoundError:
        return False


def fetch(out: Path, config: BundleConfig, wanted: list[str], constraints: Path) -> None:
    """Downloads wheels for the image's Python and platform.

    Args:
        wanted: what our wheel requires.
        constraints: file with the versions to take.
    """
    digits = config.python.replace(".", "")
    target = ["--only-binary=:all:", "--python-version", config.python, "--implementation", "cp"]
    for abi in (f"cp{digits}", "abi3", "none"):
        target += ["--abi", abi]
    for platform in config.platforms:
        target += ["--platform", platform]
    target += ["-c", str(constraints), "-d", str(out)]
    names = {one: canonicalize_name(Requirement(one).name) for one in wanted}
    hint = (
        " Is the package index reachable, and has it wheels for "
        f"Python {config.python} on {config.platforms[0]}?"
    )
    many = [one for one in wanted if names[one] not in NEVER | ALONE]
    pip("download", *target, *many, hint=hint)
    alone = [one for one in wanted if names[one] in ALONE]
    pip("download", *target, "--no-deps", *alone, hint=hint)


def read_freeze(path: Path) -> dict[str, str]:
    """Versions by name in the output of `pip freeze`; other lines are passed over.

    Raises:
        SolverError: it cannot be read, or no version is in it.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise SolverError(f"{path} is not UTF-8 text.") from error
    except OSError as error:
        raise SolverError(
            f"{path} cannot be read ({error.strerror}); write it with pip freeze in the image."
        ) from error
    pairs = [line.split("==") for line in text.splitlines()]
    versions: dict[str, str] = {
        canonicalize_name(p[0].strip()): p[1].split(";")[0].strip() for p in pairs if len(p) == 2
    }
    if not versions:
        raise SolverError(f"{path} has no line of the form name==version.")
    return versions


def left_out(folder: Path, image: dict[str, str]) -> list[Path]:
    """Wheels that the image does not need: it has versions that all that is kept can do with.

    Args:
        image: versions by name.
    """
    wheels = {name_of(wheel): wheel for wheel in sorted(folder.glob("*.whl"))}
    kept: set[str] = set()
    wanted: dict[str, list[SpecifierSet]] = {}
    # Ours always, whatever the image has under that name.
    due = [name for name in wheels if name == "eightfold" or name not in NEVER | image.keys()]
    while due:
        name = due.pop()
        kept.add(name)
        for need in map(Requirement, requirements(wheels[name])):
            other = str(canonicalize_name(need.name))
            wanted.setdefault(other, []).append(need.specifier)
            if other in wheels and other not in NEVER | kept | set(due):
                due += [] if satisfies(image.get(other), wanted[other]) else [other]
    return [wheel for name, wheel in wheels.items() if name not in kept]


def satisfies(version: str | None, specifiers: list[SpecifierSet]) -> bool:
    """Whether there is a version, and all of them contain it."""
    if version is None:
        return False
    try:
        return all(one.contains(Version(version), prereleases=True) for one in specifiers)
    except InvalidVersion:
        return False


def requirements(wheel: Path) -> list[str]:
    """What a wheel requires, extras left out."""
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (n for n in archive.namelist() if n.endswith(".dist-info/METADATA"))
        text = Parser().parsestr(archive.read(name).decode("utf-8"))
    return [one for one in text.get_all("Requires-Dist") or [] if "extra ==" not in one]


def lock_text(wheels: list[Path]) -> str:
    """A requirements file with a version and a SHA-256 for each wheel."""
    lines = ["# pip install --no-index --find-links . --no-deps --require-hashes -r eightfold.lock"]
    for wheel in wheels:
        digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
        lines.append(f"{name_of(wheel)}=={version_of(wheel)} --hash=sha256:{digest}")
    return "\n".join(lines) + "\n"


def readme_text(config: BundleConfig, wheels: list[Path]) -> str:
    """What to do with the folder."""
    size = sum(wheel.stat().st_size for wheel in wheels) / 1e6
    listed = "\n".join(f"- `{wheel.name}`" for wheel in wheels)
    model = (
        "The bundled model is left out: the notebook needs a model among its inputs."
        if config.model_less
        else "The bundled model is inside; a larger one among the inputs is preferred."
    )
    return f"""# eightfold for Kaggle

Wheels for Python {config.python} ({size:.0f} MB), a lock file with hashes, and the notebook.
{model}

1. Upload this folder as a Kaggle dataset (Datasets, New Dataset; or `kaggle datasets create -p .`
   after `kaggle datasets init -p .`).
2. Create a notebook by importing `aimo3.ipynb` (File, Import Notebook).
3. Add as inputs: the dataset, the competition's data, and a model in Hugging Face's format
   (Add Input, Models).
4. Choose the accelerator, switch the internet off, and run all: `test.csv` goes through, and
   `submission.parquet` is written.
5. Save the version, and submit it.

If a package of the image is too old, run `!pip freeze > freeze.txt` in a notebook with that image
and make the bundle again with `--freeze freeze.txt`.

{listed}
"""
