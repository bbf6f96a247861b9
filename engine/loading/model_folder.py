"""Reads a model folder's JSON files and end tokens without importing torch or transformers."""

import json
import logging
import os
from operator import index
from pathlib import Path
from typing import Any

from eightfold.common.error_text import one_line

from ..model_errors import CheckpointError
from .refusals.foreign_weights import explain_file, explain_names, explain_own_layout
from .safetensors_headers import INDEX_FILE, weight_files

logger = logging.getLogger(__name__)

GIT_LFS_HEAD = b"version https://git-lfs"
"""The first bytes of the small text that a clone without Git LFS has in a large file's place."""

TOKEN_ID_LIMIT = 2**31
"""Bound of token ids where config.json does not give the size of the vocabulary."""


def check_model_folder(folder: Path) -> None:
    """Check that a folder holds a readable config.json and all of its safetensors files.

    Raises:
        CheckpointError: if the folder, its config.json or its safetensors files are missing, or
            config.json does not hold a JSON object. The message says how to convert what the
            folder holds instead.
    """
    if folder.is_file():
        raise CheckpointError(explain_file(folder))
    if not folder.is_dir():
        raise CheckpointError(
            f"There is no model folder {folder}; give a folder with a checkpoint."
        )
    try:
        names = sorted(os.listdir(folder))
    except OSError as error:
        raise CheckpointError(f"{folder} cannot be read: {error.strerror}.") from error
    if not (folder / "config.json").is_file():
        if "config.json" in names:
            raise _broken_link(folder / "config.json")
        below = [path.relative_to(folder).as_posix() for path in folder.glob("*/*.gguf")]
        raise CheckpointError(
            explain_names([*names, *below], str(folder))
            or f"{folder} is not a model folder: it has no config.json{_better_folder(folder)}."
        )
    config = read_json(folder / "config.json")
    own_layout = explain_own_layout(folder)
    if own_layout is not None and "model_type" not in config:
        raise CheckpointError(own_layout)
    files = weight_files(folder)
    if not files and INDEX_FILE in names:
        raise CheckpointError(f"{folder / INDEX_FILE} names no files of weights; copy it again.")
    if not files:
        raise CheckpointError(
            explain_names(names, str(folder))
            or f"{folder} has no weights: it holds no .safetensors file; download the rest of the "
            "checkpoint."
        )
    for file in files:
        _check_weight_file(file)


def _check_weight_file(file: Path) -> None:
    if file.is_symlink() and not file.exists():
        raise _broken_link(file)
    try:
        with file.open("rb") as stream:
            head = stream.read(len(GIT_LFS_HEAD))
    except FileNotFoundError as error:
        raise CheckpointError(
            f"{file.parent} cannot be loaded: {file.name} is missing; copy it there."
        ) from error
    except OSError as error:
        raise CheckpointError(f"{file} cannot be read: {error.strerror}.") from error
    if head == GIT_LFS_HEAD:
        raise CheckpointError(
            f"{file} is only Git LFS's pointer to the weights; run `git lfs pull` in {file.parent}."
        )


def _broken_link(file: Path) -> CheckpointError:
    return CheckpointError(
        f"{file} is a link to a missing file; download or copy the checkpoint again."
    )


def _better_folder(folder: Path) -> str:
    """Return a hint to a folder below that holds a config.json, or to what is expected."""
    below = sorted(path.parent for path in folder.glob("*/config.json"))
    if below:
        return f"; give {below[0]}, which has one"
    return "; give the folder with a model's config.json, tokenizer and .safetensors files"


def read_json(path: Path) -> dict[str, Any]:
    """Return the JSON object that a file holds, or an empty one if there is no such file.

    Raises:
        CheckpointError: if the file holds anything else, or cannot be read.
    """
    if not path.is_file():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror}.") from error
    except (json.JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise CheckpointError(f"{path} is not valid JSON: {error}.") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{path} does not hold a JSON object.")
    return content


def end_token_ids(folder: Path) -> frozenset[int]:
    """Return the end tokens that config.json and generation_config.json name, combined.

    A multimodal checkpoint's ``text_config`` counts as well. Ids outside the vocabulary, which no
    model can write, are left out with a warning.

    Raises:
        CheckpointError: if a file cannot be read, or an entry is not a token id.
    """
    found: set[int] = set()
    limit = _vocabulary_size(read_json(folder / "config.json"))
    for path in (folder / "config.json", folder / "generation_config.json"):
        for part in _parts(read_json(path)):
            ids = _checked_ids(path, part.get("eos_token_id"))
            for outside in sorted(each for each in ids if each >= limit):
                logger.warning(
                    "%s: eos_token_id %d is not in the vocabulary of %d tokens, and is left out.",
                    path,
                    outside,
                    limit,
                )
            found |= {each for each in ids if each < limit}
    return frozenset(found)


def _parts(config: dict[str, Any]) -> list[dict[str, Any]]:
    """Return a configuration and its ``text_config``."""
    text_config = config.get("text_config")
    return [config, text_config] if isinstance(text_config, dict) else [config]


def _vocabulary_size(config: dict[str, Any]) -> int:
    sizes = [part.get("vocab_size") for part in _parts(config)]
    return max((size for size in sizes if type(size) is int and size > 0), default=TOKEN_ID_LIMIT)


def _checked_ids(path: Path, value: Any) -> frozenset[int]:
    try:
        ids = parse_token_ids(value)
        valid = min(ids, default=0) >= 0
    except TypeError:
        valid = False
    if not valid:
        raise CheckpointError(
            f"{path}: eos_token_id must be a token's id or a list of them, not "
            f"{one_line(repr(value), 100)}."
        )
    return ids


def parse_token_ids(value: Any) -> frozenset[int]:
    """Return the ids in a configuration's entry: one id, several of them, or ``None``.

    Raises:
        TypeError: if one of them is not an integer.
    """
    if value is None:
        return frozenset()
    values = value if isinstance(value, list | tuple) else (value,)
    if any(isinstance(each, bool) for each in values):
        raise TypeError("true and false are not token ids")
    return frozenset(map(index, values))
