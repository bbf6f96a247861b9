"""The contestants of `coldstart.py`: each leaves every tensor on the device, by its stored name."""

from __future__ import annotations

import importlib.util
import os
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

Tensors = dict[str, Any]
CHECKED_BYTES = 512 << 20  # of tensors compared with safetensors' own reading


def ours(folder: Path, device: Any, **settings: Any) -> tuple[Any, Tensors]:
    """As `Engine` loads: into the joint places of the fused kernels where they are to run."""
    from eightfold.engine import EngineConfig
    from eightfold.engine.loading import checkpoint, gpu_loader
    from eightfold.engine.startup.kv_cache_sizing import allocation, fused_architecture

    real = checkpoint.read_tensors
    config = gpu_loader.LoaderConfig(**settings)

    def load(*rest: Any) -> Any:
        reports.append(real(*rest, config))
        return reports[-1]

    architecture = looked_at(folder)
    checkpoint.read_tensors = load
    try:
        fused = fused_architecture(architecture, EngineConfig(), device.type == "cuda")
        model = checkpoint.load_weights(folder, architecture, device, None, allocation(fused))
    finally:
        checkpoint.read_tensors = real
    return model, tensors_of(model)


@cache
def looked_at(folder: Path) -> Any:
    """What the engine finds out about the layers; no loader's business, and so not timed."""
    from eightfold.engine.inspection.architecture import inspect
    from eightfold.engine.loading.checkpoint import read_config

    return inspect(read_config(folder))


reports: list[Any] = []  # of our loader's streaming part


def ours_beside_preload(folder: Path, device: Any) -> tuple[Any, Tensors]:
    from eightfold.engine.loading.file_preload import Preload

    with Preload(folder):
        return ours(folder, device)


def tensors_of(model: Any) -> Tensors:
    return dict(model.named_parameters()) | dict(model.named_buffers())


def transformers_load(folder: Path, device: Any, parallel: bool) -> tuple[Any, Tensors]:
    import torch
    from transformers import Gemma4ForCausalLM

    os.environ["HF_DEACTIVATE_ASYNC_LOAD"] = "0" if parallel else "1"
    model = Gemma4ForCausalLM.from_pretrained(
        folder, dtype=torch.bfloat16, device_map={"": device}, local_files_only=True
    )
    return model, tensors_of(model)


def safetensors_load(folder: Path, device: Any) -> tuple[Any, Tensors]:
    from safetensors.torch import load_file

    found: Tensors = {}
    for file in shards(folder):
        found |= load_file(file, device=str(device))
    return None, found


def fastsafetensors_load(folder: Path, device: Any) -> tuple[Any, Tensors]:
    from fastsafetensors import SafeTensorsFileLoader, SingleGroup

    loader = SafeTensorsFileLoader(SingleGroup(), str(device), nogds=True, set_numa=False)
    loader.add_filenames({0: [str(file) for file in shards(folder)]})
    buffers = loader.copy_files_to_device()
    return (loader, buffers), {key: buffers.get_tensor(key) for key in loader.get_keys()}


def runai_load(folder: Path, device: Any) -> tuple[Any, Tensors]:
    from runai_model_streamer import SafetensorsStreamer

    os.environ.setdefault("RUNAI_STREAMER_CONCURRENCY", "16")
    held: Tensors = {}
    with SafetensorsStreamer() as streamer:
        streamer.stream_files([str(file) for file in shards(folder)])
        for name, tensor in streamer.get_tensors():
            # The streamer uses its buffer again, so that this copy cannot be deferred.
            held[name] = tensor.to(device, copy=True)
    return None, held


LOADERS: dict[str, Callable[[Path, Any], tuple[Any, Tensors]]] = {
    "ours": ours,
    "transformers, parallel": lambda folder, device: transformers_load(folder, device, True),
    "fastsafetensors": fastsafetensors_load,
    "runai_model_streamer": runai_load,
    "safetensors load_file": safetensors_load,
    "transformers, one by one": lambda folder, device: transformers_load(folder, device, False),
    "ours beside preload": ours_beside_preload,
}


def installed() -> list[str]:
    """Names of the contestants that can be imported here, those that matter most first."""
    return [
        name for name in LOADERS
        if name not in ("fastsafetensors", "runai_model_streamer") or importlib.util.find_spec(name)
    ]  # fmt: skip


def shards(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.safetensors"))


# ---- measuring, in a process that can be ended


def serve(pipe: Any, folder: Path, device_name: str) -> None:
    """Answers jobs until the pipe closes: ("load", name, cold), ("sweep", settings), ("copy",)."""
    import torch

    device = torch.device(device_name)
    from eightfold.solver.model_defaults import bundled_model

    # Imports, tables of names and the device's context are there before anything is timed.
    for name in ("ours", "transformers, parallel"):
        LOADERS[name](bundled_model(), device)
    looked_at(folder)
    jobs = {"load": timed_load, "sweep": timed_sweep, "copy": copy_rate}
    pipe.send("ready")
    while True:
        try:
            kind, *rest = pipe.recv()
        except EOFError:
            return
        try:
            found = jobs[kind](folder, device, *rest)
        except Exception as error:
            found = {"note": " ".join(f"{type(error).__name__}: {error}".split())[:200]}
        pipe.send(found)
        release(device)


def timed_load(folder: Path, device: Any, name: str, cold: bool) -> dict[str, Any]:
    """Seconds of a load, its fetches from the disk, and tensors that came out wrong."""
    resident = drop(folder) if cold else None
    reports.clear()
    # By default these two read past the page cache, which warm files are not asked for.
    buffered = {"FASTSAFETENSORS_ODIRECT": "0", "RUNAI_STREAMER_FS_STRATEGY": "sync_buffered"}
    for variable, value in buffered.items():
        os.environ.pop(variable, None)
        if not cold:
            os.environ[variable] = value
    before, began = disk_bytes(), time.monotonic()
    held = LOADERS[name](folder, device)
    tensors = held[1]
    if device.type == "cpu":
        touch(tensors)
    synchronise(device)
    row = {"seconds": time.monotonic() - began, "fetched": disk_bytes() - before}
    if resident is not None:
        row["resident"] = resident
    if reports:
        row["streaming"] = reports[-1].seconds
    return row | compared(folder, tensors)


def timed_sweep(folder: Path, device: Any, settings: dict[str, int]) -> dict[str, Any]:
    reports.clear()
    ours(folder, device, **settings)
    return {"seconds": reports[-1].seconds} if reports else {"note": "mapped, not read"}


def touch(tensors: Tensors) -> None:
    """Read a byte of every page: a mapped file is not there before that."""
    import torch

    for tensor in tensors.values():
        tensor.detach().reshape(-1).view(torch.uint8)[::4096].max()


def compared(folder: Path, tensors: Tensors) -> dict[str, int]:
    """How many tensors were held against safetensors' own reading, and how many differ."""
    import torch
    from safetensors import safe_open

    checked = wrong = nbytes = 0
    for file in shards(folder):
        with safe_open(file, "pt") as stored:
            # The smallest ones, of which a layer has every kind, and a large one per shard.
            names = sorted(stored.keys(), key=lambda n: stored.get_tensor(n).nbytes)
            for name in (*names[: len(names) // 2], names[len(names) * 3 // 4]):
                tensor = stored.get_tensor(name)
                nbytes += tensor.nbytes
                if nbytes <= CHECKED_BYTES:
                    checked += 1
                    wrong += not torch.equal(tensor, tensors[name].detach().cpu())
    return {"checked": checked, "wrong": wrong}


def copy_rate(folder: Path, device: Any) -> dict[str, Any]:
    """Bytes a second from page-locked memory to the GPU; on a CPU, of a copy."""
    import torch

    size = (1024 if device.type == "cuda" else 256) << 20
    host = torch.ones(size, dtype=torch.uint8, pin_memory=device.type == "cuda")
    target = torch.empty_like(host, device=device)
    best = 0.0
    for _ in range(5):
        began = time.monotonic()
        target.copy_(host, non_blocking=True)
        synchronise(device)
        best = max(best, size / (time.monotonic() - began))
    name = torch.cuda.get_device_name() if device.type == "cuda" else "cpu"
    return {"rate": best, "device": name}


def drop(folder: Path) -> float:
    """Empty the page cache of the shards; the share that mincore still finds."""
    from eightfold.engine.loading.os_page_cache import resident_bytes

    left = size = 0
    for file in shards(folder):
        fd = os.open(file, os.O_RDONLY)
        found = None
        for _ in range(20):
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
            found = resident_bytes(file)
            if not found:
                break
            time.sleep(0.05)  # pages on their way in cannot be dropped
        os.close(fd)
        if found is None:
            raise RuntimeError("the kernel does not tell what is resident; run as the files' owner")
        left, size = left + found, size + file.stat().st_size
    return left / size


def disk_bytes() -> int:
    """Bytes that this process has had fetched from the disk."""
    for line in Path("/proc/self/io").read_text().splitlines():
        if line.startswith("read_bytes"):
            return int(line.split()[1])
    return 0


def synchronise(device: Any) -> None:
    import torch

    if device.type == "cuda":
        torch.cuda.synchronize(device)


def release(device: Any) -> None:
    import gc

    import torch

    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
