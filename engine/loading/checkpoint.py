"""Opens a model folder: its configuration, its weights and its end tokens."""

import logging
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path

import torch
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError
from transformers import AutoConfig, GenerationConfig, PretrainedConfig, PreTrainedModel
from transformers.utils import logging as transformers_logging

from eightfold.common.error_text import first_line

from ..inspection.architecture import Architecture
from ..inspection.meta_model import Allocate, build_meta_model, materialize, named_tensors
from ..model_errors import CheckpointError, UnsupportedModelError
from ..quantization.meta_modules import (
    has_stored_weights,
    stored_linears,
    use_stored_weights,
)
from ..quantization.quantization_config import ROUNDED_WHILE_LOADING
from .cpu_loader import map_weights
from .fp8_loader import divide_experts, load_rounded
from .gpu_loader import read_tensors
from .model_folder import check_model_folder, end_token_ids, parse_token_ids
from .read_spans import TORCH_DTYPES
from .refusals.matching_faults import QUANTIZED_PARTS, check_matching
from .refusals.stored_values import check_stored_values
from .safetensors_headers import StoredTensor, read_stored_tensors
from .weight_matching import WeightMatching, match_weights

logger = logging.getLogger(__name__)

DuringLoad = Callable[[PreTrainedModel], AbstractContextManager[object]]
"""Makes a context manager that is active while a model's parameters are filled."""

CONFIG_ERRORS = (
    ValueError, OSError, LookupError, TypeError, AttributeError, ArithmeticError,
    StrictDataclassError,
)  # fmt: skip
"""Exceptions with which transformers refuses a configuration."""

# How the names of the text model's tensors in a multimodal checkpoint become the text model's own.
TEXT_KEY_MAPPING = {
    r"^model\.language_model\.": "model.",
    r"^language_model\.model\.": "model.",
    r"^language_model\.lm_head\.": "lm_head.",
}


def read_config(folder: str | Path) -> PretrainedConfig:
    """Return the configuration in a model folder.

    Raises:
        CheckpointError: if the folder, its config.json or its safetensors files are missing, or if
            the configuration cannot be read.
    """
    folder = Path(folder)
    check_model_folder(folder)
    end_token_ids(folder)
    return parse_config(folder)


def parse_config(folder: Path) -> PretrainedConfig:
    """Return what a folder's config.json configures; no other file needs to be there.

    Raises:
        CheckpointError: if the configuration cannot be read.
    """
    try:
        return AutoConfig.from_pretrained(folder, local_files_only=True)
    except CONFIG_ERRORS as error:
        cause = error.__cause__ if isinstance(error, StrictDataclassError) else None
        reason = first_line(cause or error).rstrip(".")
        raise CheckpointError(f"{folder}/config.json cannot be used: {reason}.") from error


def load_weights(
    folder: str | Path,
    architecture: Architecture,
    device: torch.device,
    dtype: torch.dtype | None,
    allocate: Allocate | None = None,
    during_load: DuringLoad = nullcontext,
) -> PreTrainedModel:
    """Return the model with its weights, in evaluation mode, with every tensor accounted for.

    Names, shapes and types are compared before any weight is read. On a GPU each tensor is read
    straight into its parameter (:mod:`.gpu_loader`), on a CPU the files are mapped into memory
    (:mod:`.cpu_loader`). A checkpoint that needs more than copies and conversions between
    floating-point types, for example one whose experts must be merged, is loaded by transformers.

    Args:
        folder: the model folder.
        architecture: what is known about the model's layers.
        device: the device to load to.
        dtype: the type to convert to; ``None`` keeps the checkpoint's.
        allocate: allocates the parameters, also on a CPU. By default each has its own tensor. Not
            called if transformers loads.
        during_load: entered with the model once its parameters are allocated, and left once they
            are filled. Not called if files are mapped or transformers loads.

    Raises:
        CheckpointError: if tensors are missing, unexpected, truncated or of the wrong shape, if
            their type cannot be converted to the model's, or if scales are no finite numbers.
        UnsupportedModelError: if quantized weights cannot be expanded to the model's type, or would
            have to be merged.
    """
    folder = Path(folder)
    stored = read_stored_tensors(folder)
    quantization = architecture.quantization
    rounded = quantization is not None and quantization.method == ROUNDED_WHILE_LOADING
    key_mapping = TEXT_KEY_MAPPING if architecture.wrapped else None
    with _quiet_transformers():
        model_dtype = dtype or _stored_dtype(architecture.config, stored)
        model = meta_model_for(architecture, model_dtype, stored)
        if rounded:
            stored = divide_experts(model, stored)
        matching = match_weights(model, named_tensors(model), stored, key_mapping)
        if not matching.copies_suffice and architecture.quantization is None:
            return _load_with_transformers(folder, architecture, device, dtype)
        _check_matching(folder, architecture, matching)
        if not matching.copies_suffice:
            raise UnsupportedModelError(
                f"{folder} needs tensors to be merged or split, which the engine does not do with "
                "quantized weights; use a checkpoint in bfloat16, float16 or float32, and leave "
                "weights at None."
            )
        if rounded:
            report = load_rounded(matching.pairs, model, device, allocate, during_load)
        elif device.type == "cpu" and allocate is None:
            report = map_weights(matching.pairs, model)
        else:
            materialize(model, device, model.dtype, allocate)
            with during_load(model):
                report = read_tensors(matching.pairs, named_tensors(model), device)
        for layer in stored_linears(model):
            layer.finish_loading()
        check_stored_values(folder, model)
        logger.info("%s: %s", folder, report)
        if model.can_generate() and (folder / "generation_config.json").is_file():
            model.generation_config = GenerationConfig.from_pretrained(
                folder, local_files_only=True
            )
    return model.eval()


def meta_model_for(
    architecture: Architecture, dtype: torch.dtype, stored: Iterable[StoredTensor] = ()
) -> PreTrainedModel:
    """Return the model on the meta device, its quantized weights as the checkpoint stores them.

    Args:
        dtype: type of everything that is not quantized, in which the model computes.
        stored: the checkpoint's tensors. Without them config.json alone says what is quantized.

    Raises:
        UnsupportedModelError: if quantized weights cannot be expanded to the type, or do not fit
            the model's shapes.
        CheckpointError: if config.json says that weights are quantized, but none is.
    """
    model = build_meta_model(architecture.config, dtype)
    quantization = architecture.quantization
    if quantization is not None and quantization.method != ROUNDED_WHILE_LOADING:
        types = {tensor.name: tensor.dtype for tensor in stored}
        use_stored_weights(model, quantization, types)
        if not has_stored_weights(model):
            fault = (
                "names all of them as not quantized; copy config.json again"
                if any(map(QUANTIZED_PARTS.search, types))
                else "none is; remove quantization_config from it"
            )
            raise CheckpointError(
                f"config.json says that weights are stored as {quantization}, but {fault}."
            )
    return model


def _stored_dtype(config: PretrainedConfig, stored: list[StoredTensor]) -> torch.dtype:
    """Return the configuration's type, else that of the first floating-point tensor."""
    if config.dtype is not None:
        return config.dtype
    dtypes = (TORCH_DTYPES.get(tensor.dtype) for tensor in stored)
    return next((dtype for dtype in dtypes if dtype and dtype.is_floating_point), torch.float32)


def _load_with_transformers(
    folder: Path, architecture: Architecture, device: torch.device, dtype: torch.dtype | None
) -> PreTrainedModel:
    """Do the same as :func:`load_weights` with ``from_pretrained``."""
    try:
        model, report = architecture.model_class.from_pretrained(
            folder,
            config=architecture.config,
            dtype="auto" if dtype is None else dtype,
            device_map=None if device.type == "cpu" else {"": device},
            key_mapping=TEXT_KEY_MAPPING if architecture.wrapped else None,
            output_loading_info=True,
            ignore_mismatched_sizes=True,
            local_files_only=True,
            use_safetensors=True,
        )
    except (SafetensorError, OSError, ValueError, RuntimeError) as error:
        raise CheckpointError(
            f"{folder} cannot be loaded: {first_line(error).rstrip('.')}."
        ) from error
    except (KeyError, TypeError) as error:  # such as an index without "metadata"
        raise CheckpointError(
            f"{folder} cannot be loaded: transformers, which this checkpoint needs, cannot read it "
            f"({type(error).__name__}: {first_line(error)})."
        ) from error
    logger.info("%s: loaded by transformers, as %s", folder, model.dtype)
    mismatched = [
        f"{name} is {tuple(found)} and should be {tuple(wanted)}"
        for name, found, wanted in sorted(report["mismatched_keys"])
    ]
    matching = WeightMatching(
        pairs=(),
        unexpected=tuple(sorted(report["unexpected_keys"])),
        missing=tuple(sorted(report["missing_keys"])),
        mismatched=tuple(mismatched),
    )
    _check_matching(folder, architecture, matching)
    return model.eval()


def _check_matching(folder: Path, architecture: Architecture, matching: WeightMatching) -> None:
    check_matching(
        folder,
        matching,
        wrapped=architecture.wrapped,
        quantization=architecture.quantization,
    )


def model_end_token_ids(model: PreTrainedModel) -> frozenset[int]:
    """Return the end tokens that a model's two configurations name, combined.

    :func:`.model_folder.end_token_ids` does this for a folder whose model is not loaded.
    """
    found: set[int] = set()
    for config in (model.config, getattr(model, "generation_config", None)):
        found |= parse_token_ids(getattr(config, "eos_token_id", None))
    return frozenset(found)


@contextmanager
def _quiet_transformers() -> Iterator[None]:
    """Silence transformers' report and progress bars; whatever matters in them is raised."""
    verbosity = transformers_logging.get_verbosity()
    bars_enabled = transformers_logging.is_progress_bar_enabled()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(verbosity)
        if bars_enabled:
            transformers_logging.enable_progress_bar()
