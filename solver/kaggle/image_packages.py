"""Find the wheels that a bundle must hold: those that eightfold requires and the image lacks."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Mapping
from email.parser import Parser
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
"""Packages that Kaggle's image is assumed to have, by name, in versions that it had in 2025.

A later image has these versions or newer ones. docs/kaggle.md says how to give the exact list.
"""

NEVER_FETCHED = frozenset({"torch", "triton"})
"""Packages that are too large to bring along, and that every image with a GPU has."""

TORCH_REQUIRES = (
    *("filelock", "fsspec", "jinja2", "networkx", "setuptools", "sympy", "typing-extensions"),
)
"""Requirements of torch itself, by the metadata of torch 2.9 to 2.13. As torch is not fetched, pip
does not find it; an image whose list of packages names torch alone may lack it."""


def wheel_name(wheel: Path) -> str:
    """Return the distribution's normalized name, from a wheel's file name."""
    return str(canonicalize_name(wheel.name.split("-")[0]))


def wheel_version(wheel: Path) -> str:
    """Return the version, from a wheel's file name."""
    return wheel.name.split("-")[1]


def wheel_requirements(wheel: Path) -> list[str]:
    """Return the requirements of a wheel, without those of its extras."""
    with zipfile.ZipFile(wheel) as archive:
        # Not that of a package inside the wheel, such as those that setuptools brings.
        (name,) = (n for n in archive.namelist() if re.fullmatch(r"[^/]+\.dist-info/METADATA", n))
        text = Parser().parsestr(archive.read(name).decode("utf-8"))
    return [one for one in text.get_all("Requires-Dist") or [] if "extra ==" not in one]


def read_freeze(path: Path) -> dict[str, str]:
    """Return the versions by name in the output of `pip freeze`; other lines are ignored.

    Raises:
        SolverError: the file cannot be read, or holds no version.
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


def unneeded_wheels(folder: Path, image: Mapping[str, str]) -> list[Path]:
    """Return the wheels in a folder that the image makes unnecessary.

    A wheel is needed if the image lacks its package, or has a version that does not satisfy the
    requirements of all needed wheels. The wheel of eightfold is always needed.

    Args:
        folder: holds the wheels.
        image: versions of the image's packages, by name.
    """
    wheels = {wheel_name(wheel): wheel for wheel in sorted(folder.glob("*.whl"))}
    needed: set[str] = set()
    required: dict[str, list[SpecifierSet]] = {}
    # An image may hold another package named eightfold, or an older version.
    waiting = [
        name for name in wheels if name == "eightfold" or name not in NEVER_FETCHED | image.keys()
    ]
    while waiting:
        name = waiting.pop()
        needed.add(name)
        for requirement in map(Requirement, wheel_requirements(wheels[name])):
            other = str(canonicalize_name(requirement.name))
            required.setdefault(other, []).append(requirement.specifier)
            if other in wheels and other not in NEVER_FETCHED | needed | set(waiting):
                waiting += [] if _satisfies(image.get(other), required[other]) else [other]
    return [wheel for name, wheel in wheels.items() if name not in needed]


def _satisfies(version: str | None, specifiers: list[SpecifierSet]) -> bool:
    """Return True if there is a version that all specifiers contain."""
    if version is None:
        return False
    try:
        return all(one.contains(Version(version), prereleases=True) for one in specifiers)
    except InvalidVersion:
        return False
