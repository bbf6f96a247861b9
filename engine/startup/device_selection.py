"""Where an engine runs, by the kernels or by transformers' modules alone, and in which type."""

import logging

import torch
from transformers import PreTrainedModel

from eightfold.common.error_text import first_line
from eightfold.kernels.supported_gpus import (
    BFLOAT16_MIN_CAPABILITY,
    is_supported,
    unsupported_reason,
)

from ..engine_config import EngineConfig
from ..inspection.architecture import Architecture
from ..model_errors import ModelError, UnsupportedModelError


def device_of(model: PreTrainedModel, config: EngineConfig) -> torch.device:
    """Where a model already made lies; it is neither moved nor converted.

    Raises:
        ValueError: where ``config`` says otherwise.
    """
    if config.device is not None and torch.device(config.device).type != model.device.type:
        raise ValueError(f"the model is on {model.device}, but device says {config.device!r}")
    if config.dtype is not None and getattr(torch, config.dtype) != model.dtype:
        raise ValueError(f"the model is in {model.dtype}, but dtype says {config.dtype!r}")
    model.eval()
    return model.device


def device_named(name: str | None) -> torch.device:
    """The device of that name; without one, the GPU where PyTorch can use it, else the CPU.

    Raises:
        ValueError: where there is none, or PyTorch has no code for it.
    """
    if name is None:
        if not torch.cuda.is_available():
            return torch.device("cpu")
        why = _unusable(torch.device("cuda"))
        if why is not None:
            logging.getLogger(__name__).warning("the engine runs on the CPU: %s", why)
        return torch.device("cuda" if why is None else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise ValueError(f"{name!r} is not a device; use 'cpu' or 'cuda'") from None
    if device.type == "cuda":
        why = "there is no CUDA device here"
        if torch.cuda.is_available():
            why = _unusable(device)
        if why is not None:
            raise ValueError(f"{why}; use device='cpu'")
    return device


def _unusable(device: torch.device) -> str | None:
    """Why PyTorch cannot compute on a GPU; it has code for some generations only.

    Raises:
        ModelError: not even a few bytes are free.
    """
    try:
        torch.zeros(2, device=device).add_(1).tolist()
    except RuntimeError as error:
        first = first_line(error)
        if "out of memory" in first:  # no reason to compute on the CPU, which takes hours
            raise ModelError(
                "the GPU's memory is taken, by another process perhaps; free it"
            ) from error
        return f"this PyTorch cannot use {torch.cuda.get_device_name(device)} ({first})"
    return None


def _capability(device: torch.device) -> float:
    major, minor = torch.cuda.get_device_capability(device)
    return major + minor / 10


def by_kernels(device: torch.device, config: EngineConfig, architecture: Architecture) -> bool:
    """Whether steps run by the GPU kernels; else by transformers' modules and plain PyTorch.

    Raises:
        UnsupportedModelError: where ``config`` asks for what cannot be.
    """
    if device.type != "cuda":
        why: str | None = "there is no GPU in use"
    elif architecture.softcap:
        why = f"{architecture.config.model_type} caps its attention scores"
    else:
        capability = _capability(device)
        why = None if is_supported(capability) else unsupported_reason(capability)
    if why is not None and (config.kernels or (config.fused and device.type == "cuda")):
        name = "kernels" if config.kernels else "fused"
        raise UnsupportedModelError(f"the GPU kernels cannot run: {why}; leave {name} at None")
    if why is not None and device.type == "cuda" and config.kernels is None:
        logging.getLogger(__name__).warning("the GPU runs plain PyTorch: %s", why)
    return config.kernels is not False and why is None


def dtype_for(name: str | None, device: torch.device) -> torch.dtype | None:
    """The type by that name; ``None`` for the checkpoint's own.

    float32 on a CPU, and on GPUs that compute bfloat16 by way of it.
    """
    if name is not None:
        return getattr(torch, name)
    slow = device.type == "cpu" or _capability(device) < BFLOAT16_MIN_CAPABILITY
    return torch.float32 if slow else None


def too_large(config: EngineConfig, device: torch.device) -> str:
    """What to do where a GPU's memory does not hold a model, in one sentence."""
    total = torch.cuda.get_device_properties(device).total_memory / 2**30
    widened = config.dtype is None and dtype_for(None, device) is not None
    return (
        f"the model does not fit the GPU's memory of {total:.1f} GiB"
        f"{' in float32, which this GPU needs' if widened else ''}; free memory, take a smaller "
        f"model{' or dtype=float16 if it was made for that' if widened else ''}, or lower "
        f"max_step_tokens ({config.max_step_tokens}) or max_running ({config.max_running})"
    )
