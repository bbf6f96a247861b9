"""Reads a model folder's JSON files and end tokens without importing torch or transformers."""

import json
from operator import index
from pathlib import Path
from typing import Any

from ..model_errors import CheckpointError


def check_model_folder(folder: Path) -> None:
    """Check that a folder holds a readable config.json and safetensors files.

    Raises:
        CheckpointError: if the folder, its config.json or its safetensors files are missing, or
            config.json does not hold a JSON object.
    """
    if not folder.is_dir():
        raise CheckpointError(
            f"There is no model folder {folder}; give a folder with a checkpoint."
        )
    if not (folder / "config.json").is_file():
        raise CheckpointError(f"{folder} is not a model folder: it has no config.json.")
    read_json(folder / "config.json")
    if not any(folder.glob("*.safetensors")):
        raise CheckpointError(f"{folder} has no weights: it holds no .safetensors file.")


def read_json(path: Path) -> dict[str, Any]:
    """Return the JSON object that a file holds, or an empty one if there is no such file.

    Raises:
        CheckpointError: if the file holds anything else.
    """
    if not path.is_file():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise CheckpointError(f"{path} is not valid JSON: {error}.") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{path} does not hold a JSON object.")
    return content


def end_token_ids(folder: Path) -> frozenset[int]:
    """Return the end tokens that config.json and generation_config.json name, combined.

    A multimodal checkpoint's ``text_config`` counts as well.

    Raises:
        CheckpointError: if a file cannot be read, or an entry is not a token id.
    """
    found: set[int] = set()
    for path in (folder / "config.json", folder / "generation_config.json"):
        config = read_json(path)
        text_config = config.get("text_config")
        for part in (config, text_config if isinstance(text_config, dict) else {}):
            found |= _checked_ids(path, part.get("eos_token_id"))
    return frozenset(found)


def _checked_ids(path: Path, value: Any) -> frozenset[int]:
    try:
        ids = parse_token_ids(value)
        valid = min(ids, default=0) >= 0
    except TypeError:
        valid = False
    if not valid:
        raise CheckpointError(
            f"{path}: eos_token_id must be a token's id or a list of them, not {value!r}."
        )
    return ids


def parse_token_ids(value: Any) -> frozenset[int]:
    """Return the ids in a configuration's entry: one id, several of them, or ``None``.

    Raises:
        TypeError: if one of them is not an integer.
    """
    if value is None:
        return frozenset()
    return frozenset(map(index, value if isinstance(value, list | tuple) else (value,)))
