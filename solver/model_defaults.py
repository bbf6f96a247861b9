"""The model that is used when none is named, and the sampling values that a checkpoint suggests.

Imports neither torch nor transformers.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from eightfold.engine.loading.model_folder import check_model_folder, read_json
from eightfold.engine.model_errors import CheckpointError

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


def resolve_model_folder(model: str | Path | None) -> Path:
    """Return the folder of the model to use, after checking the files that it must contain.

    Args:
        model: a model folder; None selects the bundled model.

    Raises:
        SolverError: the folder does not exist, or lacks config.json, weights or a tokenizer.
    """
    if model is None:
        return bundled_model()
    folder = Path(model).expanduser()
    with _solver_errors():
        check_model_folder(folder)
    names = ("tokenizer.json", "tokenizer.model", "vocab.json", "tokenizer_config.json")
    if not any((folder / name).is_file() for name in names):
        raise SolverError(f"{folder} has no tokenizer: there is no tokenizer.json in it.")
    return folder


def sampling_values(folder: Path | None, config: SolverConfig) -> dict[str, Any]:
    """temperature, top_p, top_k, min_p: the configuration's, else the checkpoint's, else neutral.

    Raises:
        SolverError: generation_config.json cannot be read, or a value in it is out of range.
    """
    with _solver_errors():
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


@contextmanager
def _solver_errors() -> Iterator[None]:
    try:
        yield
    except CheckpointError as error:
        raise SolverError(str(error)) from error
