"""Chooses an engine's device and dtype, and the GPU kernels or plain PyTorch."""

import logging
from contextlib import suppress
from pathlib import Path

import torch
from transformers import PreTrainedModel

from eightfold.common.error_text import first_line
from eightfold.kernels.supported_gpus import (
    BFLOAT16_MIN_CAPABILITY,
    experience,
    is_supported,
    unsupported_reason,
)

from ..engine_config import EngineConfig
from ..inspection.architecture import Architecture
from ..loading.safetensors_headers import weight_bytes
from ..model_errors import ModelError, UnsupportedModelError

MAX_WIDENED_BYTES = 1 << 30
"""Above this size in float32, a checkpoint in bfloat16 stays in it on CPUs that compute in it.

Then reading the weights decides how long a step takes; Qwen2.5-Coder-0.5B is 2.2 times as fast."""
logger = logging.getLogger(__name__)


def model_device(model: PreTrainedModel, config: EngineConfig) -> torch.device:
    """Return the device of a model that is already made; it is neither moved nor converted.

    Puts the model in evaluation mode.

    Raises:
        ValueError: if ``config`` names another device or dtype.
    """
    if config.device is not None and torch.device(config.device).type != model.device.type:
        raise ValueError(f"The model is on {model.device}, but device says {config.device!r}.")
    if config.dtype is not None and getattr(torch, config.dtype) != model.dtype:
        raise ValueError(f"The model is in {model.dtype}, but dtype says {config.dtype!r}.")
    model.eval()
    return model.device


def select_device(name: str | None) -> torch.device:
    """Return the named device, or by default the GPU if PyTorch can use it, else the CPU.

    Raises:
        ValueError: if there is no such device, or PyTorch has no code for it.
        ModelError: if the GPU has no free memory at all.
    """
    if name is None:
        if not torch.cuda.is_available():
            return torch.device("cpu")
        why = _unusable_reason(torch.device("cuda"))
        if why is not None:
            logger.warning("the engine runs on the CPU: %s", why)
        return torch.device("cuda" if why is None else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise ValueError(f"{name!r} is not a device; use 'cpu' or 'cuda'.") from None
    if device.type == "cuda":
        why = "there is no CUDA device"
        if torch.cuda.is_available():
            why = _unusable_reason(device)
        if why is not None:
            raise ValueError(f"Device {name!r} cannot be used: {why}; use device='cpu'.")
    return device


def _unusable_reason(device: torch.device) -> str | None:
    """Return why PyTorch cannot compute on a GPU: it has code for some generations only.

    Raises:
        ModelError: if not even a few bytes are free.
    """
    try:
        torch.zeros(2, device=device).add_(1).tolist()
    except RuntimeError as error:
        first = first_line(error)
        if "out of memory" in first:  # the CPU, which takes hours, would be no help
            raise ModelError(
                "The GPU's memory is taken, perhaps by another process; free it."
            ) from error
        return f"this PyTorch cannot use {torch.cuda.get_device_name(device)} ({first})"
    return None


def _capability(device: torch.device) -> float:
    major, minor = torch.cuda.get_device_capability(device)
    return major + minor / 10


def uses_kernels(device: torch.device, config: EngineConfig, architecture: Architecture) -> bool:
    """Return True if steps run the GPU kernels, False if they run plain PyTorch.

    Raises:
        UnsupportedModelError: if ``config`` asks for kernels that cannot run.
    """
    why = missing_kernels_reason(device, architecture)
    if why is not None and (config.kernels or (config.fused and device.type == "cuda")):
        option = "kernels" if config.kernels else "fused"
        raise UnsupportedModelError(f"The GPU kernels cannot run: {why}; leave {option} at None.")
    if why is not None and device.type == "cuda" and config.kernels is None:
        logger.warning("the GPU runs plain PyTorch: %s", why)
    return config.kernels is not False and why is None


def missing_kernels_reason(device: torch.device, architecture: Architecture) -> str | None:
    """Return as a clause why the GPU kernels cannot run a model; ``None`` if they can."""
    if device.type != "cuda":
        return "there is no GPU in use"
    capability = _capability(device)
    return None if is_supported(capability) else unsupported_reason(capability)


def kernels_experience(device: torch.device) -> str:
    """Return as a clause on what GPUs the kernels have run, for the start-up table."""
    return experience(_capability(device))


def select_dtype(
    name: str | None,
    device: torch.device,
    stored: torch.dtype | None = None,
    folder: Path | None = None,
) -> torch.dtype | None:
    """Return the named dtype, or by default the one that suits the device.

    Args:
        name: ``EngineConfig.dtype``.
        device: the device.
        stored: the type of the checkpoint's weights, as its configuration says.
        folder: the checkpoint's.

    Returns:
        By default float32 on a CPU and on GPUs that have no units for bfloat16; ``None``, which
        means the checkpoint's own, on others, and on CPUs that have units for bfloat16 if the
        checkpoint is in it and would take more than ``MAX_WIDENED_BYTES`` in float32.
    """
    if name is not None:
        return getattr(torch, name)
    if device.type != "cpu":
        return torch.float32 if _capability(device) < BFLOAT16_MIN_CAPABILITY else None
    large = False
    if stored is torch.bfloat16 and folder is not None:
        with suppress(OSError):  # a missing file is found by whoever reads it
            large = 2 * weight_bytes(folder) > MAX_WIDENED_BYTES
    return None if large and cpu_has_bfloat16() else torch.float32


def cpu_has_bfloat16() -> bool:
    """Return whether this CPU multiplies in bfloat16, by AVX-512 or AMX, and PyTorch can tell."""
    names = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return any(getattr(torch.cpu, name)() for name in names if hasattr(torch.cpu, name))


def out_of_memory_message(config: EngineConfig, device: torch.device) -> str:
    """Say in one sentence what to do if a model does not fit a GPU's memory."""
    total = torch.cuda.get_device_properties(device).total_memory / 2**30
    widened = config.dtype is None and select_dtype(None, device) is not None
    return (
        f"The model does not fit the GPU's memory of {total:.1f} GiB"
        f"{' in float32, which this GPU needs' if widened else ''}; free memory, take a smaller "
        f"model{' or dtype=float16 if it was made for that' if widened else ''}, or lower "
        f"max_step_tokens ({config.max_step_tokens}) or max_running ({config.max_running})."
    )
