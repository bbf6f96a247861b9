"""The bundled model, and what the solver reads from a model folder before the model is loaded.

Imports neither torch nor transformers.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypedDict

from eightfold.common.error_text import one_line
from eightfold.engine.loading.model_folder import end_token_ids, read_json
from eightfold.engine.loading.refusals.foreign_weights import ADAPTER_CONFIG
from eightfold.engine.model_errors import CheckpointError
from eightfold.engine.sampling_params import MIN_TEMPERATURE

from .chat.prompt_texts import PromptChanges, prompts_for
from .models.model_source import check_checkpoint, locate_model
from .solver_config import SolverConfig, SolverError, check_sampling

logger = logging.getLogger(__name__)

NOT_APPLIED: dict[str, tuple[object, ...]] = {
    "repetition_penalty": (1,),
    "encoder_repetition_penalty": (1,),
    "no_repeat_ngram_size": (0,),
    "typical_p": (1,),
    "epsilon_cutoff": (0,),
    "eta_cutoff": (0,),
    "top_h": (),
    "num_beams": (1,),
    "guidance_scale": (1,),
    "penalty_alpha": (0,),
    "bad_words_ids": ([],),
    "suppress_tokens": ([],),
    "begin_suppress_tokens": ([],),
    "sequence_bias": ({}, []),
}
"""Entries of generation_config.json that are not applied, with the values that change nothing."""


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
        prompts: texts that replace the chat format's, with placeholders.
        sampling: sampling values.
        end_token_ids: end tokens that the checkpoint names.
    """

    folder: Path | None
    prompts: PromptChanges
    sampling: SamplingValues
    end_token_ids: frozenset[int]


def read_model_inputs(
    config: SolverConfig, *, folder_needed: bool = True, progress: bool = True
) -> ModelInputs:
    """Find the model folder and read its small files, so that wrong input is found at once.

    A model that `config.model` names by its id is downloaded if the cache does not hold it.

    Args:
        config: settings of the solver.
        folder_needed: False if there need not be a folder unless `config.model` names one.
        progress: show the progress of a download.

    Raises:
        SolverError: if the folder or one of its JSON files cannot be used.
        PromptError: if the prompts file cannot be used.
        eightfold.engine.UnsupportedModelError: if a model is not downloaded because the engine
            cannot run it.
    """
    folder = None
    if folder_needed or config.model is not None:
        folder = resolve_model_folder(config.model, progress=progress)
    prompts = prompts_for(folder, config.prompts)
    sampling = sampling_values(folder, config)
    with _solver_errors():
        end_ids = end_token_ids(folder) if folder else frozenset()
    if folder and (folder / ADAPTER_CONFIG).is_file():
        logger.warning("%s also holds an adapter, which is not applied.", folder)
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


def resolve_model_folder(model: str | Path | None, *, progress: bool = True) -> Path:
    """Return the folder of the model to use, after checking the files that it must contain.

    Args:
        model: a model folder or an id of Hugging Face, see `locate_model`; None selects the bundled
            model.
        progress: show the progress of a download.

    Raises:
        SolverError: if the folder does not exist, or lacks config.json, weights or a tokenizer.
        eightfold.engine.UnsupportedModelError: if a model is not downloaded because the engine
            cannot run it.
    """
    if model is None:
        return bundled_model()
    folder = locate_model(model, progress=progress)
    check_checkpoint(folder)
    return folder


def sampling_values(folder: Path | None, config: SolverConfig) -> SamplingValues:
    """Return the sampling values of the configuration.

    A value that it leaves open is taken from the checkpoint's generation_config.json, or else is
    neutral. A warning names the entries of that file that are not applied.

    Raises:
        SolverError: if generation_config.json cannot be read, or a value in it is out of range.
    """
    with _solver_errors():
        own = read_json(folder / "generation_config.json") if folder else {}
    check_sampling(own, source=f"{folder}/generation_config.json: " if folder else "")
    left_out = _entries_not_applied(own)
    if left_out:
        logger.warning("%s/generation_config.json: not applied: %s.", folder, ", ".join(left_out))

    def chosen(name: str, neutral: float) -> float:
        values = (getattr(config, name), own.get(name), neutral)
        return next(value for value in values if value is not None)

    temperature = float(chosen("temperature", 1.0))
    if 0 < temperature < MIN_TEMPERATURE:
        raise SolverError(
            f"temperature must be 0 or at least {MIN_TEMPERATURE}, not {temperature}; give 0 for "
            "the most likely token."
        )
    return SamplingValues(
        temperature=temperature,
        top_p=float(chosen("top_p", 1.0)),
        top_k=int(chosen("top_k", 0)),
        min_p=float(chosen("min_p", 0.0)),
    )


def _entries_not_applied(generation: dict[str, Any]) -> list[str]:
    """Return the entries, with their values, that ask for what the engine does not do."""
    found = [
        f"{name} {one_line(repr(generation[name]), 60)}"
        for name, neutral in NOT_APPLIED.items()
        if generation.get(name) is not None and generation[name] not in neutral
    ]
    if generation.get("do_sample") is False:
        found.append(
            "do_sample False (equal attempts cannot vote; set the temperature to 0 for it)"
        )
    return found


@contextmanager
def _solver_errors() -> Iterator[None]:
    """Turn an error of the checkpoint's files into a `SolverError`."""
    try:
        yield
    except CheckpointError as error:
        raise SolverError(str(error)) from error
