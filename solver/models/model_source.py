"""From what a user names, a folder or an id of Hugging Face, to a checkpoint's folder.

Imports neither torch nor transformers, nor huggingface_hub unless a model is downloaded.
"""

from __future__ import annotations

import difflib
import logging
import os
import re
from pathlib import Path

from eightfold.engine.loading.model_folder import check_model_folder
from eightfold.engine.model_errors import CheckpointError

from ..solver_config import SolverError
from . import hub_cache
from .hub_cache import Repository
from .hub_download import TOKENIZER_FILES, UnreachableError, download

logger = logging.getLogger(__name__)

MAX_LISTED = 8  # candidates named in an error message
_WEB_ADDRESS = re.compile(
    r"(?:(?:https?|hf)://(?:(?:www\.)?(?:huggingface\.co|hf\.co)/)?|(?:huggingface\.co|hf\.co)/)"
    r"([^/\s]+/[^/\s?#]+).*"
)


def locate_model(model: str | Path, *, progress: bool = True) -> Path:
    """Return the folder that a path or an id of Hugging Face stands for.

    A path that exists wins over an id. A model's folder in the cache of Hugging Face stands for its
    snapshot. An id, `org/name` or `org/name@revision`, stands for the model in the local cache; if
    it is not there, or not all of it, it is downloaded. A `Path` is never taken for an id.

    Args:
        model: the path or the id.
        progress: show the progress of a download.

    Returns:
        The folder. Only that of an id has been checked; see `check_checkpoint`.

    Raises:
        SolverError: if there is no such folder or model, or it cannot be downloaded.
        eightfold.engine.UnsupportedModelError: if a model is not downloaded because the engine
            cannot run it.
    """
    if not str(model):
        raise SolverError("The model's name is empty; give a folder or an id such as org/name.")
    path = Path(os.path.expanduser(model))
    if os.path.lexists(path):
        return _folder_of_snapshot(path)
    text = str(model)
    cached = hub_cache.cache_folder() / text
    if hub_cache.is_cached(text) and "/" not in text and cached.is_dir():
        return _folder_of_snapshot(cached)
    repository = hub_cache.parse_repository(text) if isinstance(model, str) else None
    if repository is None:
        raise SolverError(_no_such_folder(path, text))
    return _folder_of_repository(repository, progress)


def check_checkpoint(folder: Path) -> None:
    """Check that a folder holds a configuration, weights and a tokenizer.

    Raises:
        SolverError: if one of them is missing or in a format that is not loaded.
    """
    models = [] if (folder / "config.json").exists() else _models_in_cache(folder)
    if models:
        names = ", ".join(str(path) for path in models[:MAX_LISTED])
        raise SolverError(f"{folder} is a cache of models; give one of them: {names}.")
    try:
        check_model_folder(folder)
    except CheckpointError as error:
        raise SolverError(str(error)) from error
    if not any((folder / name).is_file() for name in TOKENIZER_FILES):
        raise SolverError(
            f"{folder} has no tokenizer: there is no tokenizer.json in it; copy the one of the "
            "model there, with its tokenizer_config.json."
        )


def _folder_of_snapshot(path: Path) -> Path:
    """Return the snapshot that a model's folder in the cache stands for; other paths as they are.

    Raises:
        SolverError: if there is no snapshot, or none of several is chosen.
    """
    if not path.is_dir() or (path / "config.json").exists():
        return path
    if path.name == "snapshots" and hub_cache.is_cached(path.resolve().parent.name):
        path = path.resolve().parent
    if (path / "snapshots").is_dir():
        found = hub_cache.snapshots(path)
        chosen = hub_cache.snapshot(path, None) or (found[0] if len(found) == 1 else None)
        if chosen is not None:
            return chosen
        names = ", ".join(one.name for one in found[:MAX_LISTED])
        if names:
            raise SolverError(
                f"{path} holds several snapshots and no refs/main that chooses one; give one of "
                f"the folders in its snapshots/: {names}."
            )
        raise SolverError(f"{path} holds no snapshot of the model; download it again.")
    return path


def _models_in_cache(folder: Path) -> list[Path]:
    """Return the folders of models in a folder that is a cache, or that holds one as hub/."""
    places = (folder, folder / "hub")
    return [path for place in places for path in sorted(place.glob("models--*")) if path.is_dir()]


def _folder_of_repository(repository: Repository, progress: bool) -> Path:
    """Return the folder of a model of Hugging Face, downloaded if need be."""
    offline = hub_cache.offline_variable()
    folder = hub_cache.snapshot(repository.folder, repository.revision)
    others = hub_cache.snapshots(repository.folder)
    if folder is None and repository.revision is None and offline and len(others) == 1:
        folder = others[0]
        logger.warning("%s: the cache holds revision %s alone.", repository, folder.name)
    fault = None
    if folder is not None:
        try:
            check_checkpoint(folder)
        except SolverError as error:
            fault = error
        else:
            return folder
    if offline:
        raise SolverError(_offline_sentence(repository, offline, fault))
    try:
        folder = download(repository, progress=progress)
    except UnreachableError as error:
        raise SolverError(_unreachable_sentence(repository, error, fault)) from error
    check_checkpoint(folder)
    return folder


def _offline_sentence(repository: Repository, variable: str, fault: SolverError | None) -> str:
    if fault is not None:
        return (
            f"The cached copy of {repository} cannot be used, and {variable} forbids downloading "
            f"what it lacks: {fault}"
        )
    others = [path.name for path in hub_cache.snapshots(repository.folder)]
    if others:
        return (
            f"The cache holds {repository.name} only as {', '.join(others[:MAX_LISTED])}, and "
            f"{variable} forbids downloading {repository}; unset it, or give one of these commits "
            "after an @."
        )
    return (
        f"There is no folder {repository}, the cache {hub_cache.cache_folder()} does not hold it, "
        f"and {variable} forbids downloading it; unset {variable}, or give an existing folder"
        f"{_similar_cached(repository)}."
    )


def _unreachable_sentence(
    repository: Repository, error: UnreachableError, fault: SolverError | None
) -> str:
    why = str(error).rstrip(".")
    if fault is not None:
        return f"{why}; and what the cache holds of {repository} cannot be used: {fault}"
    return (
        f"There is no folder {repository}, the cache {hub_cache.cache_folder()} does not hold it, "
        f"and it cannot be downloaded ({why}); give an existing folder, or connect this machine"
        f"{_similar_cached(repository)}."
    )


def _similar_cached(repository: Repository) -> str:
    """Return a hint to a model in the cache with a similar id, or ""."""
    cached = (name for name in hub_cache.cached_names() if name != repository.name)
    names = {name.lower(): name for name in cached}
    close = difflib.get_close_matches(repository.name.lower(), names, n=1, cutoff=0.8)
    return f" (the cache holds {names[close[0]]})" if close else ""


def _no_such_folder(path: Path, text: str) -> str:
    address = _WEB_ADDRESS.fullmatch(text)
    if address and hub_cache.parse_repository(address[1]):
        return f"{text} is a web address; give the model's id, {address[1]}."
    siblings = _siblings(path)
    close = difflib.get_close_matches(path.name, siblings, n=1, cutoff=0.7)
    hint = f" (there is {path.parent / close[0]})" if close else ""
    return (
        f"There is no model folder {path}{hint}; give a folder with a checkpoint, or the id of a "
        "model of Hugging Face such as org/name."
    )


def _siblings(path: Path) -> list[str]:
    """Return the names of the folders beside a path that does not exist."""
    try:
        return [entry.name for entry in os.scandir(path.parent) if entry.is_dir()]
    except (OSError, ValueError):
        return []
