"""What the solver reads of a model folder before torch and transformers are there."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from .solver_config import SolverConfig, SolverError, check_sampling


def bundled_model() -> Path:
    """The folder of the model that ships in the package.

    Raises:
        SolverError: this installation has none.
    """
    spec = find_spec("eightfold.demo")
    places = list(spec.submodule_search_locations or []) if spec else []
    for place in places:
        folder = Path(place) / "model"
        if (folder / "config.json").is_file():
            return folder
    raise SolverError("This installation has no bundled model; name a model folder with --model.")


def model_folder(model: str | Path | None) -> Path:
    """The folder of the model to use, after a look at what must be in it.

    Raises:
        SolverError: it does not exist, or lacks config.json, weights or a tokenizer.
    """
    if model is None:
        return bundled_model()
    folder = Path(model).expanduser()
    if not folder.is_dir():
        raise SolverError(f"There is no model folder {folder}; give a folder with a checkpoint.")
    if not (folder / "config.json").is_file():
        raise SolverError(f"{folder} is no model folder: it has no config.json.")
    read_json(folder / "config.json")
    if not any(folder.glob("*.safetensors")):
        raise SolverError(f"{folder} has no weights: there is no .safetensors file in it.")
    names = ("tokenizer.json", "tokenizer.model", "vocab.json", "tokenizer_config.json")
    if not any((folder / name).is_file() for name in names):
        raise SolverError(f"{folder} has no tokenizer: there is no tokenizer.json in it.")
    return folder


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file, {} where there is no such file.

    Raises:
        SolverError: the file holds something else.
    """
    if not path.is_file():
        return {}
    try:
        table = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise SolverError(f"{path} is not valid JSON: {error}.") from error
    if not isinstance(table, dict):
        raise SolverError(f"{path} does not hold a JSON object.")
    return table


def sampling_values(folder: Path | None, config: SolverConfig) -> dict[str, Any]:
    """temperature, top_p, top_k, min_p: the configuration's, else the checkpoint's, else neutral.

    Raises:
        SolverError: generation_config.json cannot be read, or a value in it is out of range.
    """
    own = read_json(folder / "generation_config.json") if folder else {}
    check_sampling(own, where=f"{folder}/generation_config.json: " if folder else "")
    neutral = {"temperature": 1.0, "top_p": 1.0, "top_k": 0, "min_p": 0.0}
    values: dict[str, Any] = {}
    for name, default in neutral.items():
        chosen = getattr(config, name)
        if chosen is None:
            chosen = own.get(name)
        values[name] = type(default)(default if chosen is None else chosen)
    return values
