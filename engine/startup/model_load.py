"""Inspects a model, and loads it from a folder while its kernels compile."""

from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from transformers import PreTrainedModel

from ..engine_config import EngineConfig
from ..inspection.architecture import Architecture, inspect_architecture, text_model
from ..inspection.kv_geometry import with_fp8_cache
from ..loading.checkpoint import DuringLoad, load_weights, read_config
from .device_selection import model_device, select_device, select_dtype
from .kernel_warmup import kernel_warmup
from .runner_factory import parameter_allocator


def inspect_model(
    model: str | Path | PreTrainedModel, config: EngineConfig
) -> tuple[str | Path | PreTrainedModel, Architecture, torch.device]:
    """Return a model or its folder, what is known about its layers, and the device it runs on.

    Of a multimodal model that is loaded, its text model is returned. No weight is read.

    Raises:
        CheckpointError: see `read_config`.
        UnsupportedModelError: see `inspect_architecture`.
        ValueError: if a setting contradicts a loaded model, or the device cannot be used.
    """
    if isinstance(model, PreTrainedModel):
        if config.weights is not None:
            raise ValueError("weights rounds a checkpoint; give its folder, or leave it at None.")
        architecture = inspect_architecture(model.config)
        model = text_model(model, architecture)
        device = model_device(model, config)
    else:
        device = select_device(config.device)
        architecture = inspect_architecture(read_config(model), config.weights)
    if config.kv is not None:
        architecture = replace(architecture, layers=with_fp8_cache(architecture.layers))
    return model, architecture, device


def load_model(
    folder: Path,
    architecture: Architecture,
    fused: Architecture | None,
    device: torch.device,
    config: EngineConfig,
    kernels: bool,
) -> PreTrainedModel:
    """Return the model with its weights on the device.

    Args:
        folder: the model folder.
        architecture: of the folder's configuration.
        fused: what the fused decoder runs; ``None`` if transformers' modules run.
        device: the device to load to.
        config: the engine's.
        kernels: whether steps run GPU kernels, which compile while weights are read.

    Raises:
        CheckpointError: see `load_weights`.
        UnsupportedModelError: see `load_weights`.
        torch.OutOfMemoryError: the weights do not fit the device.
    """
    dtype = select_dtype(config.dtype, device, architecture.config.dtype, folder)
    during_load: DuringLoad = nullcontext
    if kernels:
        during_load = partial(
            kernel_warmup,
            architecture=fused or architecture,
            config=config,
            fused=fused is not None,
        )
    allocate = parameter_allocator(fused)
    return load_weights(folder, architecture, device, dtype, allocate, during_load)
