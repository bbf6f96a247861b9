"""The loaders that `coldstart.py` compares; each returns all tensors by their stored names."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

Tensors = dict[str, Any]
reports: list[Any] = []
"""The reports of our loader's reading part."""


def load_ours(folder: Path, device: Any, **settings: Any) -> tuple[Any, Tensors]:
    """Load as `Engine` does: into fused parameters if the fused kernels are to run.

    Args:
        folder: the checkpoint.
        device: a torch device.
        settings: of `LoaderConfig`.
    """
    from eightfold.engine import EngineConfig
    from eightfold.engine.loading import checkpoint, gpu_loader
    from eightfold.engine.startup.runner_factory import choose_fused, parameter_allocator

    read_tensors: Any = checkpoint.read_tensors
    config = gpu_loader.LoaderConfig(**settings)

    def read_and_report(*arguments: Any) -> Any:
        reports.append(read_tensors(*arguments, config))
        return reports[-1]

    architecture = inspected(folder)
    checkpoint.read_tensors = read_and_report  # type: ignore[assignment]
    try:
        fused = choose_fused(architecture, EngineConfig(), device.type == "cuda").architecture
        allocate = parameter_allocator(fused)
        model = checkpoint.load_weights(folder, architecture, device, None, allocate)
    finally:
        checkpoint.read_tensors = read_tensors
    return model, tensors_of(model)


@cache
def inspected(folder: Path) -> Any:
    """Return what the engine finds out about the layers; not a loader's work, so not timed."""
    from eightfold.engine.inspection.architecture import inspect_architecture
    from eightfold.engine.loading.checkpoint import read_config

    return inspect_architecture(read_config(folder))


def load_ours_beside_preload(folder: Path, device: Any) -> tuple[Any, Tensors]:
    from eightfold.engine import Preload

    with Preload(folder):
        return load_ours(folder, device)


def tensors_of(model: Any) -> Tensors:
    """Return a model's parameters and buffers by name."""
    return dict(model.named_parameters()) | dict(model.named_buffers())


def load_transformers(folder: Path, device: Any, parallel: bool) -> tuple[Any, Tensors]:
    import torch
    from transformers import Gemma4ForCausalLM

    os.environ["HF_DEACTIVATE_ASYNC_LOAD"] = "0" if parallel else "1"
    model = Gemma4ForCausalLM.from_pretrained(
        folder, dtype=torch.bfloat16, device_map={"": device}, local_files_only=True
    )
    return model, tensors_of(model)


def load_safetensors(folder: Path, device: Any) -> tuple[Any, Tensors]:
    from safetensors.torch import load_file

    found: Tensors = {}
    for file in shards(folder):
        found |= load_file(file, device=str(device))
    return None, found


def load_fastsafetensors(folder: Path, device: Any) -> tuple[Any, Tensors]:
    from fastsafetensors import SafeTensorsFileLoader, SingleGroup  # type: ignore[import-not-found]

    loader = SafeTensorsFileLoader(SingleGroup(), str(device), nogds=True, set_numa=False)
    loader.add_filenames({0: [str(file) for file in shards(folder)]})
    buffers = loader.copy_files_to_device()
    return (loader, buffers), {key: buffers.get_tensor(key) for key in loader.get_keys()}


def load_runai(folder: Path, device: Any) -> tuple[Any, Tensors]:
    from runai_model_streamer import SafetensorsStreamer  # type: ignore[import-not-found]

    os.environ.setdefault("RUNAI_STREAMER_CONCURRENCY", "16")
    held: Tensors = {}
    with SafetensorsStreamer() as streamer:
        streamer.stream_files([str(file) for file in shards(folder)])
        for name, tensor in streamer.get_tensors():
            # The streamer reuses its buffer, so this copy cannot be deferred.
            held[name] = tensor.to(device, copy=True)
    return None, held


LOADERS: dict[str, Callable[[Path, Any], tuple[Any, Tensors]]] = {
    "ours": load_ours,
    "transformers, parallel": lambda folder, device: load_transformers(folder, device, True),
    "fastsafetensors": load_fastsafetensors,
    "runai_model_streamer": load_runai,
    "safetensors load_file": load_safetensors,
    "transformers, one by one": lambda folder, device: load_transformers(folder, device, False),
    "ours beside preload": load_ours_beside_preload,
}
"""Each returns what must stay alive, and the tensors."""


def installed_loaders() -> list[str]:
    """Return the contestants that can be imported here, the most important ones first."""
    return [
        name for name in LOADERS
        if name not in ("fastsafetensors", "runai_model_streamer") or importlib.util.find_spec(name)
    ]  # fmt: skip


def shards(folder: Path) -> list[Path]:
    """Return the checkpoint's files with weights."""
    return sorted(folder.glob("*.safetensors"))
