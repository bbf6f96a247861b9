"""Finds the files of a data set in Hugging Face's layouts, from the names of all its files.

Layouts: https://huggingface.co/docs/hub/datasets-manual-configuration for repositories, and what
`Dataset.save_to_disk` and `DatasetDict.save_to_disk` write.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from ..solver_config import SolverError

DATA_SUFFIXES = (".parquet", ".jsonl", ".csv")
"""Suffixes of data files in a repository."""

PREFERRED_SPLITS = ("test", "train")
"""Splits that are taken if none is named, the first that there is."""

_SPLITS = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "val", "dev"),
    "test": ("test", "testing", "eval", "evaluation"),
}


def saved_files(folder: Path, split: str | None) -> list[Path]:
    """Return the files that `save_to_disk` wrote into a folder, or none if it did not.

    Raises:
        SolverError: if the split is not there, or if none is named and it is not clear which.
    """
    listing = folder / "dataset_dict.json"
    if listing.is_file():
        names = _read_object(listing).get("splits", [])
        folder = folder / choose(f"{folder}", "split", names, split, PREFERRED_SPLITS)
    state = folder / "state.json"
    if not state.is_file():
        return []
    return [folder / entry["filename"] for entry in _read_object(state).get("_data_files", [])]


def repository_files(
    name: str, files: Sequence[str], card: str, subset: str | None, split: str | None
) -> list[str]:
    """Return the names of a repository's files that hold one split of one subset, in order.

    Args:
        name: the name of the data set in messages.
        files: the names of all its files.
        card: the text of its README.md, which may say which file belongs where.
        subset: name of the subset; None takes the only one, or the default.
        split: name of the split; None takes "test", else "train", else the only one.

    Raises:
        SolverError: if there are no data files, or the subset or split is not there, or if none is
            named and it is not clear which.
    """
    data = sorted(file for file in files if file.lower().endswith(DATA_SUFFIXES))
    if not data:
        kinds = ", ".join(DATA_SUFFIXES)
        raise SolverError(f"{name} has no data files ({kinds}); give a file of problems.")
    subsets = _declared(card, data)
    if subsets:
        chosen = choose(name, "subset", list(subsets), subset, ("default",))
        splits = subsets[chosen]
    elif subset is not None:
        inside = [file for file in data if subset in file.split("/")[:-1]]
        if not inside:
            raise SolverError(f"{name} has no subset {subset!r}; leave --subset out.")
        splits = _by_names(inside)
    else:
        splits = _by_names(data)
    return splits[choose(name, "split", list(splits), split, PREFERRED_SPLITS)]


def choose(
    name: str, kind: str, there: Sequence[str], wanted: str | None, preferred: Sequence[str]
) -> str:
    """Return the wanted name, or, if none is wanted, a preferred one or the only one."""
    if wanted is not None:
        if wanted in there:
            return wanted
        raise SolverError(f"{name} has no {kind} {wanted!r}; it has {', '.join(there)}.")
    for candidate in preferred:
        if candidate in there:
            return candidate
    if len(there) == 1:
        return there[0]
    raise SolverError(f"{name} has several {kind}s; give one with --{kind}: {', '.join(there)}.")


def _declared(card: str, data: Sequence[str]) -> dict[str, dict[str, list[str]]]:
    """Return the files of each split of each subset that a card declares."""
    found: dict[str, dict[str, list[str]]] = {}
    for entry in _card_header(card).get("configs") or []:
        splits: dict[str, list[str]] = {}
        patterns = entry.get("data_files") or []
        if isinstance(patterns, str):
            patterns = [{"split": "train", "path": patterns}]
        for one in patterns:
            one = one if isinstance(one, dict) else {"split": "train", "path": one}
            paths = one.get("path") or []
            for pattern in [paths] if isinstance(paths, str) else paths:
                matching = [file for file in data if _matches(file, pattern)]
                splits.setdefault(str(one.get("split", "train")), []).extend(matching)
        splits = {split: files for split, files in splits.items() if files}
        if splits:
            found[str(entry.get("config_name", "default"))] = splits
    return found


def _matches(file: str, pattern: str) -> bool:
    """Return whether a pattern, in which `**` crosses folders, names a file."""
    return fnmatch(file, pattern) or fnmatch(file, pattern.replace("**/", ""))


def _by_names(data: Sequence[str]) -> dict[str, list[str]]:
    """Return the files of each split by words in their names, or in those of their folders."""
    splits: dict[str, list[str]] = {}
    for file in data:
        words = set(re.split(r"[^a-z]+", file.lower()))
        found = [split for split, names in _SPLITS.items() if words & set(names)]
        splits.setdefault(found[-1] if found else "train", []).append(file)
    return splits


def _card_header(card: str) -> dict[str, Any]:
    """Return the YAML header of a card, or nothing if it has none that can be read."""
    found = re.match(r"\A---\s*\n(.*?)\n---\s*(?:\n|\Z)", card, re.DOTALL)
    if found is None:
        return {}
    import yaml

    try:
        header = yaml.safe_load(found[1])
    except yaml.YAMLError:
        return {}
    return header if isinstance(header, dict) else {}


def _read_object(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise SolverError(f"{path} cannot be read; is its folder a saved data set?") from error
    return value if isinstance(value, dict) else {}
