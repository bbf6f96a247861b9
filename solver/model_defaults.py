"""The bundled model, and what the solver reads from a model folder before the model is loaded.

Imports neither torch nor transformers.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TypedDict

from eightfold.engine.loading.model_folder import check_model_folder, end_token_ids, read_json
from eightfold.engine.model_errors import CheckpointError

from .chat.prompt_texts import Prompts, prompts_for
from .solver_config import SolverConfig, SolverError, check_sampling


class SamplingValues(TypedDict):
    """The sampling values that a checkpoint may suggest; see `eightfold.engine.SamplingParams`."""

    temperature: float
    top_p: float
    top_k: int
    min_p: float


@dataclass(frozen=True)
class ModelInputs:
    """Inputs that are known from a model folder and the configuration before the model is loaded.

    Attributes:
        folder: the model folder; None if engine and tokenizer are given ready-made.
        prompts: texts of the prompt, with placeholders.
        sampling: sampling values.
        end_token_ids: end tokens that the checkpoint names.
    """

    folder: Path | None
    prompts: Prompts
    sampling: SamplingValues
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


def sampling_values(folder: Path | None, config: SolverConfig) -> SamplingValues:
    """Return the sampling values of the configuration.

    A value that it leaves open is taken from the checkpoint's generation_config.json, or else is
    neutral.

    Raises:
        SolverError: if generation_config.json cannot be read, or a value in it is out of range.
    """
    with _solver_errors():
        own = read_json(folder / "generation_config.json") if folder else {}
    check_sampling(own, source=f"{folder}/generation_config.json: " if folder else "")

    def chosen(name: str, neutral: float) -> float:
        values = (getattr(config, name), own.get(name), neutral)
        return next(value for value in values if value is not None)

    return SamplingValues(
        temperature=float(chosen("temperature", 1.0)),
        top_p=float(chosen("top_p", 1.0)),
        top_k=int(chosen("top_k", 0)),
        min_p=float(chosen("min_p", 0.0)),
    )


@contextmanager
def _solver_errors() -> Iterator[None]:
    """Turn an error of the checkpoint's files into a `SolverError`."""
    try:
        yield
    except CheckpointError as error:
        raise SolverError(str(error)) from error
