"""Loads a model from a folder, and compiles its kernels meanwhile."""

from contextlib import nullcontext
from functools import partial
from pathlib import Path

import torch
from transformers import PreTrainedModel

from ..engine_config import EngineConfig
from ..inspection.architecture import Architecture
from ..loading.checkpoint import DuringLoad, load_weights
from .device_selection import select_dtype
from .kernel_warmup import kernel_warmup
from .runner_factory import parameter_allocator


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
