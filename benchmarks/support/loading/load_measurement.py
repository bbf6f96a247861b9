"""Measures loaders in a process of its own, which can be ended if one of them takes too long."""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from support.loading.loader_contestants import (
    LOADERS,
    Tensors,
    inspected,
    load_ours,
    reports,
    shards,
)

CHECKED_BYTES = 512 << 20  # of tensors that are compared with safetensors' own reading
START_SECONDS = 90.0  # that the process may take to import and to initialize its device


class MeasuringProcess:
    """A process that measures loaders; replaced if it dies or takes too long."""

    def __init__(self, folder: Path, device: str) -> None:
        self._arguments = (folder, device)
        self._process: Any = None

    def run(self, job: tuple[Any, ...], seconds: float) -> dict[str, Any]:
        """Return a job's result, or a note on why there is none.

        Args:
            job: see `serve_jobs`.
            seconds: that the job may take.
        """
        if self._process is None:
            self._start()
        self._pipe.send(job)
        return self._answer(seconds)

    def close(self, patience: float = 10) -> None:
        """End the process, by force after `patience` seconds."""
        if self._process is not None:
            self._pipe.close()  # which ends the process, if it is waiting for a job
            self._process.join(patience)
            self._process.kill()
            self._process.join()
        self._process = None

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=serve_jobs, args=(theirs, *self._arguments))
        self._process.start()
        theirs.close()
        if self._answer(START_SECONDS) != "ready":
            raise RuntimeError("the measuring process did not start")

    def _answer(self, seconds: float) -> Any:
        try:
            if self._pipe.poll(max(1.0, seconds)):
                return self._pipe.recv()
            note = f"cut off after {seconds:.0f} s"
        except (EOFError, OSError):
            self._process.join(5)
            note = f"the process died ({self._process.exitcode})"
        self.close(patience=0)
        return {"note": note}


def serve_jobs(pipe: Any, folder: Path, device_name: str) -> None:
    """Run jobs until the pipe closes.

    Args:
        pipe: receives ("load", name, cold), ("sweep", settings) or ("copy",), and is sent a
            dictionary for each, which holds a note if the job failed.
        folder: the checkpoint.
        device_name: the device to load to.
    """
    import torch

    device = torch.device(device_name)
    from eightfold.solver.model_defaults import bundled_model

    # Imports, name tables and the device's context exist before anything is timed.
    for name in ("ours", "transformers, parallel"):
        LOADERS[name](bundled_model(), device)
    inspected(folder)
    jobs: dict[str, Callable[..., dict[str, Any]]] = {
        "load": time_load,
        "sweep": time_sweep,
        "copy": copy_rate,
    }
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
        release_memory(device)


def time_load(folder: Path, device: Any, name: str, cold: bool) -> dict[str, Any]:
    """Return a load's seconds, the bytes fetched from the disk, and the tensors that are wrong."""
    resident = drop_page_cache(folder) if cold else None
    reports.clear()
    # By default these two bypass the OS page cache, where warm files are.
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
    synchronize(device)
    row = {"seconds": time.monotonic() - began, "fetched": disk_bytes() - before}
    if resident is not None:
        row["resident"] = resident
    if reports:
        row["streaming"] = reports[-1].seconds
    return row | compare(folder, tensors)


def time_sweep(folder: Path, device: Any, settings: dict[str, int]) -> dict[str, Any]:
    """Return the seconds of our loader's reading part under other settings."""
    reports.clear()
    load_ours(folder, device, **settings)
    return {"seconds": reports[-1].seconds} if reports else {"note": "mapped, not read"}


def touch(tensors: Tensors) -> None:
    """Read a byte of every page: a mapped file is not in memory before that."""
    import torch

    for tensor in tensors.values():
        tensor.detach().reshape(-1).view(torch.uint8)[::4096].max()


def compare(folder: Path, tensors: Tensors) -> dict[str, int]:
    """Compare tensors with safetensors' own reading; return how many, and how many differ."""
    import torch
    from safetensors import safe_open

    checked = wrong = nbytes = 0
    for file in shards(folder):
        with safe_open(file, "pt") as stored:
            # Per shard the smaller half, which includes every kind of a layer's tensors, and a
            # large one.
            names = sorted(stored.keys(), key=lambda n: stored.get_tensor(n).nbytes)
            for name in (*names[: len(names) // 2], names[len(names) * 3 // 4]):
                tensor = stored.get_tensor(name)
                nbytes += tensor.nbytes
                if nbytes <= CHECKED_BYTES:
                    checked += 1
                    wrong += not torch.equal(tensor, tensors[name].detach().cpu())
    return {"checked": checked, "wrong": wrong}


def copy_rate(folder: Path, device: Any) -> dict[str, Any]:
    """Return the bytes per second from page-locked memory to the GPU, or of a copy on a CPU."""
    import torch

    size = (1024 if device.type == "cuda" else 256) << 20
    host = torch.ones(size, dtype=torch.uint8, pin_memory=device.type == "cuda")
    target = torch.empty_like(host, device=device)
    best = 0.0
    for _ in range(5):
        began = time.monotonic()
        target.copy_(host, non_blocking=True)
        synchronize(device)
        best = max(best, size / (time.monotonic() - began))
    name = torch.cuda.get_device_name() if device.type == "cuda" else "cpu"
    return {"rate": best, "device": name}


def drop_page_cache(folder: Path) -> float:
    """Drop the shards from the OS page cache; return the share that mincore still finds there.

    Raises:
        RuntimeError: the kernel does not tell what is resident.
    """
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
            time.sleep(0.05)  # pages that are being read cannot be dropped
        os.close(fd)
        if found is None:
            raise RuntimeError("the kernel does not tell what is resident; run as the files' owner")
        left, size = left + found, size + file.stat().st_size
    return left / size


def disk_bytes() -> int:
    """Return the bytes that have been fetched from the disk for this process."""
    for line in Path("/proc/self/io").read_text().splitlines():
        if line.startswith("read_bytes"):
            return int(line.split()[1])
    return 0


def synchronize(device: Any) -> None:
    import torch

    if device.type == "cuda":
        torch.cuda.synchronize(device)


def release_memory(device: Any) -> None:
    import gc

    import torch

    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
