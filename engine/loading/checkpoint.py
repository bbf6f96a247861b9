"""Opening a model folder: what it is, its weights, its end tokens."""

import logging
import re
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path

import torch
from safetensors import SafetensorError
from transformers import AutoConfig, GenerationConfig, PretrainedConfig, PreTrainedModel
from transformers.utils import logging as transformers_logging

from eightfold.common.error_text import first_line

from ..inspection.architecture import Architecture
from ..inspection.meta_model import Allocate, build, materialise, places
from ..model_errors import CheckpointError
from .cpu_loader import load_mapped
from .gpu_loader import load
from .model_folder import check_model_folder, parse_token_ids
from .read_spans import DTYPES
from .safetensors_headers import StoredTensor, stored_tensors
from .weight_names import Matching, match

logger = logging.getLogger(__name__)

Meanwhile = Callable[[PreTrainedModel], AbstractContextManager[object]]
"""What is done while the places of a model's weights are filled."""

# A multimodal checkpoint's names for the text model's tensors, and the tensors beside it.
TEXT_NAMES = {
    r"^model\.language_model\.": "model.",
    r"^language_model\.model\.": "model.",
    r"^language_model\.lm_head\.": "lm_head.",
}
OTHER_PARTS = re.compile(
    r"(model\.)?(vision_tower|vision_model|visual|embed_vision|audio_tower|embed_audio"
    r"|multi_modal_projector)\."
)


def read_config(folder: str | Path) -> PretrainedConfig:
    """The configuration in a model folder.

    Raises:
        CheckpointError: where the folder, its config.json or its safetensors files are missing, or
            the configuration cannot be read.
    """
    folder = Path(folder)
    check_model_folder(folder)
    try:
        return AutoConfig.from_pretrained(folder, local_files_only=True)
    except (ValueError, OSError, KeyError, TypeError) as error:
        raise CheckpointError(
            f"{folder}/config.json cannot be used: {first_line(error)}"
        ) from error


def load_weights(
    folder: str | Path,
    architecture: Architecture,
    device: torch.device,
    dtype: torch.dtype | None,
    allocate: Allocate | None = None,
    meanwhile: Meanwhile = nullcontext,
) -> PreTrainedModel:
    """The model with its weights, in evaluation mode, every tensor accounted for.

    Names, shapes and types are compared before a weight is read. On a GPU each tensor is read
    straight into its place (:mod:`.loader`), on a CPU the files are mapped (:mod:`.mapped`). A
    checkpoint that needs more than copying and another floating-point type, such as experts to be
    merged, is loaded by transformers.

    Args:
        dtype: to convert to; ``None`` keeps the checkpoint's.
        allocate: makes the parameters' places, also on a CPU; by default each has its own tensor.
            Not called where transformers loads.
        meanwhile: entered with the model once its parameters have their places, left once they are
            filled. Not called where files are mapped or transformers loads.

    Raises:
        CheckpointError: where tensors are missing, surplus, truncated or of the wrong shape, or of
            a type that does not become the model's.
    """
    folder = Path(folder)
    stored = stored_tensors(folder)
    mapping = TEXT_NAMES if architecture.wrapped else None
    with _quiet():
        model = build(architecture.config, dtype or _stored_dtype(architecture.config, stored))
        matching = match(model, places(model), stored, mapping)
        if not matching.plain:
            return _by_transformers(folder, architecture, device, dtype)
        _account(folder, architecture.wrapped, matching)
        if device.type == "cpu" and allocate is None:
            report = load_mapped(matching.pairs, model)
        else:
            materialise(model, device, model.dtype, allocate)
            with meanwhile(model):
                report = load(matching.pairs, places(model), device)
        logger.info("%s: %s", folder, report)
        if model.can_generate() and (folder / "generation_config.json").is_file():
            model.generation_config = GenerationConfig.from_pretrained(
                folder, local_files_only=True
            )
    return model.eval()


def _stored_dtype(config: PretrainedConfig, stored: list[StoredTensor]) -> torch.dtype:
    """The configuration's type, else that of the first floating-point tensor."""
    if config.dtype is not None:
        return config.dtype
    kinds = (DTYPES.get(tensor.dtype) for tensor in stored)
    return next((kind for kind in kinds if kind and kind.is_floating_point), torch.float32)


def _by_transformers(
    folder: Path, architecture: Architecture, device: torch.device, dtype: torch.dtype | None
) -> PreTrainedModel:
    """As :func:`load_weights`, by ``from_pretrained``."""
    try:
        model, report = architecture.model_class.from_pretrained(
            folder,
            config=architecture.config,
            dtype="auto" if dtype is None else dtype,
            device_map=None if device.type == "cpu" else {"": device},
            key_mapping=TEXT_NAMES if architecture.wrapped else None,
            output_loading_info=True,
            ignore_mismatched_sizes=True,
            local_files_only=True,
            use_safetensors=True,
        )
    except (SafetensorError, OSError, ValueError, RuntimeError) as error:
        raise CheckpointError(f"{folder} cannot be loaded: {first_line(error)}") from error
    except (KeyError, TypeError) as error:  # an index without "metadata", which it alone wants
        raise CheckpointError(
            f"{folder} cannot be loaded: transformers, which this checkpoint needs, cannot read it "
            f"({type(error).__name__}: {first_line(error)})"
        ) from error
    logger.info("%s: loaded by transformers, as %s", folder, model.dtype)
    shapes = [
        f"{name} is {tuple(found)} and should be {tuple(wanted)}"
        for name, found, wanted in sorted(report["mismatched_keys"])
    ]
    found = Matching(
        pairs=(),
        surplus=tuple(sorted(report["unexpected_keys"])),
        missing=tuple(sorted(report["missing_keys"])),
        misshaped=tuple(shapes),
    )
    _account(folder, architecture.wrapped, found)
    return model.eval()


def _account(folder: Path, wrapped: bool, found: Matching) -> None:
    left_over = [name for name in found.surplus if not (wrapped and OTHER_PARTS.match(name))]
    for what, names in (
        ("tensors of the wrong shape", found.misshaped),
        ("missing tensors", found.missing),
        ("surplus tensors", left_over),
        ("tensors to be stored as bfloat16 instead", found.mistyped),
    ):
        if names:
            shown = ", ".join(names[:5]) + (f" and {len(names) - 5} more" if names[5:] else "")
            raise CheckpointError(f"{folder} has {what}: {shown}")


def end_tokens(model: PreTrainedModel) -> frozenset[int]:
    """End tokens that the configuration and the generation configuration name, together."""
    found: set[int] = set()
    for config in (model.config, getattr(model, "generation_config", None)):
        found |= parse_token_ids(getattr(config, "eos_token_id", None))
    return frozenset(found)


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence transformers' report and bars: what matters in them is raised."""
    level, bars = (
        transformers_logging.get_verbosity(),
        transformers_logging.is_progress_bar_enabled(),
    )
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(level)
        if bars:
            transformers_logging.enable_progress_bar()
