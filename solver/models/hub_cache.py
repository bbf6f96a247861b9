"""Finds models in the local cache of Hugging Face, without importing huggingface_hub.

Layout: https://huggingface.co/docs/huggingface_hub/guides/manage-cache. A repository is a folder
`models--ORG--NAME`; `refs/REVISION` holds the commit of a branch or tag, and `snapshots/COMMIT` the
files, as links into `blobs/`.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

DEFAULT_REVISION = "main"
MIN_COMMIT_DIGITS = 7  # of an abbreviated commit

_PART = r"[A-Za-z0-9_](?:[A-Za-z0-9._-]{0,94}[A-Za-z0-9_])?"
_REPOSITORY = re.compile(rf"({_PART}/{_PART})(?:@([^\s@]+))?")
_COMMIT = re.compile(rf"[0-9a-f]{{{MIN_COMMIT_DIGITS},40}}")
_TRUE = ("1", "ON", "YES", "TRUE")  # as huggingface_hub reads its variables


@dataclass(frozen=True)
class Repository:
    """A model of Hugging Face.

    Attributes:
        name: the id, `org/name`.
        revision: a branch, a tag or a commit; None takes the branch main.
    """

    name: str
    revision: str | None = None

    def __str__(self) -> str:
        return self.name if self.revision is None else f"{self.name}@{self.revision}"

    @property
    def folder(self) -> Path:
        """The repository's folder in the cache, which need not exist."""
        return cache_folder() / f"models--{self.name.replace('/', '--')}"


def parse_repository(text: str) -> Repository | None:
    """Return the repository that `org/name` or `org/name@revision` names, or None."""
    found = _REPOSITORY.fullmatch(text)
    if found is None or "--" in found[1] or ".." in text or found[1].endswith(".git"):
        return None
    revision = found[2]
    if revision is not None and (revision.startswith(("/", "-")) or "\\" in revision):
        return None
    return Repository(found[1], revision)


def cache_folder() -> Path:
    """Return the folder of the cache, from the variables that huggingface_hub reads."""
    variables = os.environ
    home = variables.get("XDG_CACHE_HOME", os.path.join(os.path.expanduser("~"), ".cache"))
    home = variables.get("HF_HOME", os.path.join(home, "huggingface"))
    default = os.path.join(_expanded(home), "hub")
    folder = variables.get("HF_HUB_CACHE", variables.get("HUGGINGFACE_HUB_CACHE", default))
    return Path(_expanded(folder))


def _expanded(path: str) -> str:
    return os.path.expandvars(os.path.expanduser(path))


def offline_variable() -> str | None:
    """Return the name of the variable that forbids downloads, or None if they are allowed."""
    for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"):
        if os.environ.get(name):  # the first that is set decides
            return name if os.environ[name].upper() in _TRUE else None
    return None


def cached_names() -> list[str]:
    """Return the ids of all models in the cache, sorted."""
    try:
        names = sorted(os.listdir(cache_folder()))
    except OSError:
        return []
    parts = [name.removeprefix("models--").replace("--", "/") for name in names if is_cached(name)]
    return [name for name in parts if parse_repository(name)]


def is_cached(name: str) -> bool:
    """Return whether a folder's name is that of a model in the cache."""
    return name.startswith("models--")


def snapshot(folder: Path, revision: str | None) -> Path | None:
    """Return the snapshot of a repository's folder that holds a revision, or None.

    Args:
        folder: a repository's folder in the cache.
        revision: a branch, a tag, a commit or its first digits; None takes the branch main.
    """
    commit = read_reference(folder, revision or DEFAULT_REVISION)
    if commit is None and revision is not None and _COMMIT.fullmatch(revision):
        found = [path.name for path in snapshots(folder) if path.name.startswith(revision)]
        commit = found[0] if len(found) == 1 else None
    path = folder / "snapshots" / (commit or "-")
    return path if commit and path.is_dir() else None


def read_reference(folder: Path, revision: str) -> str | None:
    """Return the commit that a branch or tag stands for in the cache, or None."""
    try:
        commit = (folder / "refs" / revision).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        return None
    return commit if re.fullmatch(r"[\w.-]+", commit) and commit.strip(".") else None


def snapshots(folder: Path) -> list[Path]:
    """Return all snapshots in a repository's folder, sorted by name."""
    try:
        return sorted(path for path in (folder / "snapshots").iterdir() if path.is_dir())
    except OSError:
        return []
