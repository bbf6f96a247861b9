"""The bundled model, and what the solver reads from a model folder before the model is loaded.

Imports neither torch nor transformers.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from eightfold.engine.loading.model_folder import check_model_folder, end_token_ids, read_json
from eightfold.engine.model_errors import CheckpointError

from .chat.prompt_texts import Prompts, prompts_for
from .solver_config import SolverConfig, SolverError, check_sampling


@dataclass(frozen=True)
class ModelInputs:
    """What a model folder and the configuration determine before the model is loaded.

    Attributes:
        folder: the model folder; None if engine and tokenizer are given ready-made.
        prompts: texts of the prompt, with placeholders.
        sampling: temperature, top_p, top_k and min_p.
        end_token_ids: end tokens that the checkpoint names.
    """

    folder: Path | None
    prompts: Prompts
    sampling: dict[str, Any]
    end_token_ids: frozenset[int]


def read_model_inputs(config: SolverConfig, *, folder_needed: bool = True) -> ModelInputs:
    """Find the model folder and read its small files, so that wrong input is found at once.

    Args:
        config: settings of the solver.
        folder_needed: False if there need not be a folder unless `config.model` names one.

    Raises:
        SolverError: if the folder or one of its JSON files cannot be used.
        PromptError: if the prompts file cannot be used.
    """
    folder = None
    if folder_needed or config.model is not None:
        folder = resolve_model_folder(config.model)
    prompts = prompts_for(folder, config.prompts)
    sampling = sampling_values(folder, config)
    with _solver_errors():
        end_ids = end_token_ids(folder) if folder else frozenset()
    return ModelInputs(folder, prompts, sampling, end_ids)


def bundled_model() -> Path:
    """Return the folder of the model that ships in the package.

    Raises:
        SolverError: if this installation has no model.
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
        SolverError: if the folder does not exist, or lacks config.json, weights or a tokenizer.
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
    """Return temperature, top_p, top_k and min_p.

    The configuration's values come first, then those of the checkpoint's generation_config.json,
    then neutral ones.

    Raises:
        SolverError: if generation_config.json cannot be read, or a value in it is out of range.
    """
    with _solver_errors():
        own = read_json(folder / "generation_config.json") if folder else {}
    check_sampling(own, source=f"{folder}/generation_config.json: " if folder else "")
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
    """Turn an error of the checkpoint's files into a `SolverError`."""
    try:
        yield
    except CheckpointError as error:
        raise SolverError(str(error)) from error
