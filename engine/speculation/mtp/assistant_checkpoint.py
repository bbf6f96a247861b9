"""A drafter's checkpoint: whether it fits its model, and its weights."""

import inspect
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import CONFIG_MAPPING, PretrainedConfig, PreTrainedModel

from eightfold.common.error_text import first_line

from ...inspection.architecture import Architecture
from ...inspection.kv_geometry import LayerSpec, read_layers
from ...loading.checkpoint import parse_config
from ...loading.model_folder import check_model_folder
from ...loading.safetensors_headers import read_stored_tensors
from ...model_errors import CheckpointError, UnsupportedModelError

MODEL_TYPES = ("gemma4_assistant", "gemma4_unified_assistant")
DRAFTERS_RUN = any(name in CONFIG_MAPPING for name in MODEL_TYPES)
"""True if the installed transformers can build these drafters."""

FAULTS = {
    "mismatched_keys": "misshapen",
    "missing_keys": "missing",
    "unexpected_keys": "unexpected",
}
"""The words of transformers for tensors that it cannot load, and ours."""

FRACTIONAL = ("F64", "F32", "F16", "BF16")
ORDER = ".token_ordering"  # of a head of centroids; a table of token ids


@dataclass(frozen=True, slots=True)
class LoadedAssistant:
    """A drafter with its weights.

    Attributes:
        checkpoint: where it comes from.
        model: transformers' module.
    """

    checkpoint: "AssistantCheckpoint"
    model: PreTrainedModel

    @property
    def nbytes(self) -> int:
        """Bytes of the weights on the device."""
        tensors = {t.data_ptr(): t.nbytes for t in self.model.parameters()}
        return sum(tensors.values())


@dataclass(frozen=True, slots=True)
class AssistantCheckpoint:
    """A checkpoint of a drafter that fits its model; no weight is read yet.

    Attributes:
        folder: the checkpoint's folder.
        config: its configuration.
        sources: for each of its layers, the layer of the model whose cache it reads.
        suppressed: tokens that it must not draft.
    """

    folder: Path
    config: PretrainedConfig
    sources: tuple[LayerSpec, ...]
    suppressed: tuple[int, ...]

    def load(self, device: torch.device, dtype: torch.dtype) -> LoadedAssistant:
        """Read the weights.

        Raises:
            CheckpointError: if tensors are missing, unexpected, misshapen or broken.
        """
        from transformers import Gemma4AssistantForCausalLM

        self._check_types()
        try:
            model, info = Gemma4AssistantForCausalLM.from_pretrained(
                self.folder,
                config=self.config,
                dtype=dtype,
                local_files_only=True,
                output_loading_info=True,
                ignore_mismatched_sizes=True,  # they are named below
            )
        except (OSError, RuntimeError, ValueError) as error:
            raise CheckpointError(
                f"The drafter in {self.folder} cannot be loaded: {first_line(error)}"
            ) from error
        for fault, kind in FAULTS.items():
            found = [name if isinstance(name, str) else name[0] for name in info.get(fault) or ()]
            if found:
                raise self._damage(f"{kind} tensors", min(found))
        return LoadedAssistant(self, model.to(device).eval())

    def _check_types(self) -> None:
        """Check that files are whole and weights are stored as numbers with a fraction.

        Raises:
            CheckpointError: if not.
        """
        for tensor in read_stored_tensors(self.folder):
            if tensor.dtype not in FRACTIONAL and not tensor.name.endswith(ORDER):
                raise self._damage("tensors of the wrong type", f"{tensor.name} in {tensor.dtype}")

    def _damage(self, fault: str, name: str) -> CheckpointError:
        return CheckpointError(
            f"The drafter in {self.folder} has {fault}, such as {name}; get its checkpoint again."
        )


def row_options(drafter: PreTrainedModel) -> dict[str, Any]:
    """Return the options with which the drafter's layers compute every row.

    Newer transformers drop all rows but the last before layers that share their keys, unless
    ``logits_to_keep`` is a tensor; older ones do not know the option.
    """
    known = inspect.signature(type(drafter.model).forward).parameters
    return {"logits_to_keep": torch.empty(0)} if "logits_to_keep" in known else {}


def read_assistant(folder: str | Path, architecture: Architecture) -> AssistantCheckpoint:
    """Read a drafter's configuration and check that it fits a model.

    Raises:
        CheckpointError: if files are missing or the configuration cannot be read.
        UnsupportedModelError: if it is no drafter, or one of another model.
    """
    folder = Path(folder)
    check_model_folder(folder)
    config = parse_config(folder)
    if config.model_type not in MODEL_TYPES:
        raise UnsupportedModelError(
            f"{folder} holds a {config.model_type} model, which is no drafter; give the folder of "
            "an -assistant checkpoint, or use 'ngram'."
        )
    text: Any = config.get_text_config()
    target: Any = architecture.config
    for name, mine, other in (
        ("a vocabulary", text.vocab_size, target.vocab_size),
        ("a backbone width", config.backbone_hidden_size, target.hidden_size),
    ):
        if mine != other:
            raise _misfit(folder, f"{name} of {mine}", str(other))
    # As if its layers had keys of their own, which says what keys they read.
    try:
        layers = read_layers({**text.to_dict(), "num_kv_shared_layers": 0})
    except UnsupportedModelError as error:
        raise UnsupportedModelError(f"The drafter in {folder} cannot run: {error}") from error
    sources = tuple(_source(folder, layer, architecture) for layer in layers)
    return AssistantCheckpoint(folder, config, sources, _suppressed(folder, text.vocab_size))


def _source(folder: Path, mine: LayerSpec, architecture: Architecture) -> LayerSpec:
    """Return the model's last layer of a layer's kind that has keys and values of its own."""
    own = [layer for layer in architecture.layers if layer.owns_kv]
    found = [layer for layer in own if (layer.window is None) == (mine.window is None)]
    if not found:
        kind = "full-attention" if mine.window is None else "sliding-window"
        raise _misfit(folder, f"{kind} layers", "none")
    theirs = found[-1]
    shapes = [(layer.window, layer.kv_heads, layer.head_dim) for layer in (mine, theirs)]
    if shapes[0] != shapes[1]:
        raise _misfit(
            folder,
            f"window, key heads and head width of {shapes[0]} in layer {mine.index}",
            str(shapes[1]),
        )
    return theirs


def _misfit(folder: Path, mine: str, other: str) -> UnsupportedModelError:
    return UnsupportedModelError(
        f"The drafter in {folder} does not fit the model: it has {mine}, the model has {other}; "
        "give the drafter of this model, or use 'ngram'."
    )


def _suppressed(folder: Path, vocabulary: int) -> tuple[int, ...]:
    path = folder / "generation_config.json"
    if not path.is_file():
        return ()
    try:
        found = json.loads(path.read_text(encoding="utf-8")).get("suppress_tokens") or ()
        wrong = [token for token in found if type(token) is not int or not 0 <= token < vocabulary]
    except (ValueError, AttributeError, TypeError) as error:
        raise CheckpointError(f"{path} cannot be used: {first_line(error)}.") from error
    if wrong:
        raise CheckpointError(
            f"{path} cannot be used: suppress_tokens has {wrong[0]!r}, which is not one of the "
            f"drafter's {vocabulary} tokens; get it again."
        )
    return tuple(found)
