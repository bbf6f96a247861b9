"""Loading a large checkpoint, from the disk and from the page cache: our loader against others.

    python benchmarks/coldstart.py [--gb 20.5] [--folder /tmp/coldstart] [--seconds 140]

Writes a checkpoint of random numbers in the shape of Gemma 4 31B with fewer layers, in several
shards. "Cold" is after posix_fadvise(DONTNEED), which mincore must confirm; what lies below (a
hypervisor's cache, the drive's own) is not emptied. Limits: for cold loads the rate at which
threads read the same files into reused buffers, for warm ones a copy from page-locked memory.
Each contestant runs where time is left; all leave every tensor on the device, ours in the final
places of a built model. The first token is timed from the start of a process of its own.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from randommodel import write_checkpoint

MIB = 1 << 20


@dataclass
class Bench:
    """Folder, device, bytes of the checkpoint, and when to stop."""

    folder: Path
    device: Any
    until: float
    nbytes: int = 0

    @property
    def left(self) -> float:
        return self.until - time.monotonic()

    @property
    def shards(self) -> list[Path]:
        return sorted(self.folder.glob("*.safetensors"))


def drop(bench: Bench) -> float:
    """Empty the page cache of the shards; the share that mincore still finds."""
    from eightfold.engine.residency import resident_bytes

    resident = 0
    for file in bench.shards:
        fd = os.open(file, os.O_RDONLY)
        for _ in range(3):
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
            found = resident_bytes(file)
            if not found:
                break
        os.close(fd)
        resident += found or 0
    return resident / bench.nbytes


# ---- limits


def read_speed(files: list[Path], threads: int, direct: bool = False) -> float:
    """Bytes a second, read in blocks of 16 MiB in the order of the files."""
    import mmap

    block = 16 * MIB
    jobs = iter([(f, at) for f in files for at in range(0, f.stat().st_size, block)])
    lock, total = threading.Lock(), [0]

    def main() -> None:
        buffer = mmap.mmap(-1, block)
        fds = {f: os.open(f, os.O_RDONLY | (os.O_DIRECT if direct else 0)) for f in files}
        while True:
            with lock:
                job = next(jobs, None)
            if job is None:
                break
            got = os.preadv(fds[job[0]], [buffer], job[1])
            with lock:
                total[0] += got
        for fd in fds.values():
            os.close(fd)

    workers = [threading.Thread(target=main) for _ in range(threads)]
    began = time.monotonic()
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return total[0] / (time.monotonic() - began)


def pinned_speed(device: Any) -> float:
    """Bytes a second from page-locked memory to the GPU; on a CPU, of a copy."""
    import torch

    size = (1024 if device.type == "cuda" else 256) * MIB
    host = torch.ones(size, dtype=torch.uint8, pin_memory=device.type == "cuda")
    target = torch.empty_like(host, device=device)
    best = 0.0
    for _ in range(5):
        began = time.monotonic()
        target.copy_(host, non_blocking=True)
        synchronise(device)
        best = max(best, size / (time.monotonic() - began))
    return best


def disk_bytes() -> int:
    """Bytes that this process has had fetched from the disk."""
    for line in Path("/proc/self/io").read_text().splitlines():
        if line.startswith("read_bytes"):
            return int(line.split()[1])
    return 0


def synchronise(device: Any) -> None:
    import torch

    if device.type == "cuda":
        torch.cuda.synchronize()


# ---- contestants: each returns something that holds the tensors


def ours(bench: Bench, **settings: Any) -> Any:
    from eightfold.engine import checkpoint, loader
    from eightfold.engine.architecture import inspect

    real = checkpoint.load
    config = loader.LoaderConfig(**settings)
    checkpoint.load = lambda *rest: last.append(real(*rest, config)) or last[-1]  # type: ignore
    try:
        architecture = inspect(checkpoint.read_config(bench.folder))
        return checkpoint.load_weights(bench.folder, architecture, bench.device, None)
    finally:
        checkpoint.load = real


last: list[Any] = []  # reports of our loader


def ours_beside_preload(bench: Bench) -> Any:
    from eightfold.engine.preload import Preload

    with Preload(bench.folder):
        return ours(bench)


def transformers_load(bench: Bench, parallel: bool) -> Any:
    import torch
    from transformers import Gemma4ForCausalLM

    os.environ["HF_DEACTIVATE_ASYNC_LOAD"] = "0" if parallel else "1"
    return Gemma4ForCausalLM.from_pretrained(
        bench.folder, dtype=torch.bfloat16, device_map={"": bench.device}, local_files_only=True
    )


def safetensors_load(bench: Bench) -> Any:
    from safetensors.torch import load_file

    return [load_file(file, device=str(bench.device)) for file in bench.shards]


def fastsafetensors_load(bench: Bench) -> Any:
    from fastsafetensors import SafeTensorsFileLoader, SingleGroup

    files = {0: [str(file) for file in bench.shards]}
    loader = SafeTensorsFileLoader(SingleGroup(), str(bench.device), nogds=True, set_numa=False)
    loader.add_filenames(files)
    buffers = loader.copy_files_to_device()
    return loader, buffers, {key: buffers.get_tensor(key) for key in loader.get_keys()}


def runai_load(bench: Bench) -> Any:
    from runai_model_streamer import SafetensorsStreamer

    os.environ.setdefault("RUNAI_STREAMER_CONCURRENCY", "16")
    held = {}
    with SafetensorsStreamer() as streamer:
        streamer.stream_files([str(file) for file in bench.shards])
        for name, tensor in streamer.get_tensors():
            # The streamer uses its buffer again, so that this copy cannot be deferred.
            held[name] = tensor.to(bench.device, copy=True)
    return held


def contestants() -> Iterator[tuple[str, Callable[[Bench], Any]]]:
    yield "ours", ours
    yield "transformers, parallel", lambda bench: transformers_load(bench, True)
    for module, run in (
        ("fastsafetensors", fastsafetensors_load),
        ("runai_model_streamer", runai_load),
    ):
        if importlib.util.find_spec(module):
            yield module, run
    yield "safetensors load_file", safetensors_load
    yield "ours beside preload", ours_beside_preload
    yield "transformers, one by one", lambda bench: transformers_load(bench, False)


# ---- measuring


@contextmanager
def released(device: Any) -> Iterator[None]:
    import gc

    import torch

    try:
        yield
    finally:
        gc.collect()
        if device.type == "cuda":
            torch.cuda.empty_cache()


def timed(bench: Bench, run: Callable[[Bench], Any]) -> tuple[float, int, Any]:
    """Seconds, bytes fetched from the disk, and what was loaded."""
    before, began = disk_bytes(), time.monotonic()
    held = run(bench)
    synchronise(bench.device)
    return time.monotonic() - began, disk_bytes() - before, held


def wrong_tensors(bench: Bench, model: Any) -> int:
    """Tensors of the first shard that differ from safetensors' own reading."""
    import torch
    from safetensors import safe_open

    found = dict(model.named_parameters()) | dict(model.named_buffers())
    with safe_open(bench.shards[0], "pt", device=str(bench.device)) as file:
        names = list(file.keys())
        return sum(not torch.equal(file.get_tensor(name), found[name]) for name in names)


def measure(bench: Bench, limits: dict[str, float]) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for name, run in contestants():
        row: dict[str, Any] = {"name": name}
        for kind in ("cold", "warm"):
            longest = max([r.get(kind, 0) for r in rows] + [bench.nbytes / limits["disk"]])
            if bench.left < 1.5 * longest:
                row["note"] = "no time left"
                break
            if kind == "cold":
                row["resident"] = drop(bench)
            try:
                seconds, fetched, held = timed(bench, run)
            except Exception as error:
                row["note"] = f"{type(error).__name__}: {error}"[:200]
                break
            row[kind], row[f"{kind} fetched"] = seconds, fetched
            if name == "ours" and kind == "cold":
                row["wrong"] = wrong_tensors(bench, held)
            if name == "ours":
                row[f"{kind} stream"] = last[-1].seconds
            with released(bench.device):
                del held
        rows.append(row)
        print(row, flush=True)
    return rows


def sweep(bench: Bench) -> list[dict[str, Any]]:
    """Our loader's streaming part on warm files, by threads and bytes of a read."""
    rows = []
    for threads, span in ((8, 16), (16, 4), (16, 8), (16, 16), (16, 32), (32, 8)):
        if bench.left < 5:
            break
        with released(bench.device):
            ours(bench, threads=threads, span_bytes=span * MIB)
        rate = bench.nbytes / last[-1].seconds / 1e9
        rows.append({"threads": threads, "span MiB": span, "GB/s": round(rate, 2)})
        print(rows[-1], flush=True)
    return rows


def first_token(bench: Bench, cold: bool) -> dict[str, Any]:
    """Phases of a fresh process up to its first token, in seconds since it was started."""
    resident = drop(bench) if cold else None
    program = str(Path(__file__).with_name("firsttoken.py"))
    command = [sys.executable, program, str(bench.folder), str(bench.device)]
    began = time.time()
    try:
        done = subprocess.run(
            [*command, str(began)], capture_output=True, text=True, timeout=max(5.0, bench.left)
        )
        found = json.loads(done.stdout.strip().splitlines()[-1])
    except (subprocess.TimeoutExpired, IndexError, ValueError) as error:
        tail = getattr(error, "stderr", None) or ("" if "done" not in locals() else done.stderr)
        return {"note": f"{type(error).__name__}: {str(tail)[-300:]}"}
    return {"cold": cold, "resident": resident, **found}


def table(bench: Bench, rows: list[dict[str, Any]], limits: dict[str, float]) -> None:
    print(f"\n{bench.nbytes / 1e9:.1f} GB; limits in GB/s: "
          + ", ".join(f"{name} {rate / 1e9:.2f}" for name, rate in limits.items()))  # fmt: skip
    print(
        f"{'':26} {'cold s':>7} {'GB/s':>6} {'of disk':>7} {'warm s':>7} {'GB/s':>6} {'of copy':>7}"
    )
    for row in rows:
        cells = []
        for kind, limit in (("cold", "disk"), ("warm", "pinned copy")):
            if kind in row:
                rate = bench.nbytes / row[kind]
                cells.append(f"{row[kind]:7.2f} {rate / 1e9:6.2f} {rate / limits[limit]:7.0%}")
            else:
                cells.append(" " * 22)
        print(f"{row['name']:26} {' '.join(cells)} {row.get('note', '')}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--gb", type=float, default=20.5)
    parser.add_argument("--folder", type=Path, default=Path("/tmp/coldstart"))
    parser.add_argument("--device", default=None)
    parser.add_argument("--seconds", type=float, default=140.0)
    options = parser.parse_args()
    until = time.monotonic() + options.seconds
    import torch

    device = torch.device(options.device or ("cuda:0" if torch.cuda.is_available() else "cpu"))
    bench = Bench(options.folder, device, until)
    shutil.rmtree(options.folder, ignore_errors=True)
    result: dict[str, Any] = {
        "device": torch.cuda.get_device_name() if device.type == "cuda" else "cpu"
    }
    try:
        bench.nbytes = write_checkpoint(options.folder, options.gb, device)
        print(f"wrote {bench.nbytes / 1e9:.1f} GB; {bench.left:.0f} s left", flush=True)
        limits = {"pinned copy": pinned_speed(device)}
        third = -(-len(bench.shards) // 3)
        parts = [bench.shards[i : i + third] for i in range(0, len(bench.shards), third)]
        result["resident after drop"] = drop(bench)
        limits["disk, 8 threads"] = read_speed(parts[0], 8)
        limits["disk, 16 threads"] = read_speed(parts[1], 16)
        limits["disk, direct, 16"] = read_speed(parts[2], 16, direct=True)
        limits["disk"] = max(limits["disk, 8 threads"], limits["disk, 16 threads"])
        limits["page cache, 16"] = read_speed(parts[1], 16)
        print({key: round(value / 1e9, 2) for key, value in limits.items()}, flush=True)
        rows = measure(bench, limits)
        result |= {"gb": bench.nbytes / 1e9, "limits": limits, "loaders": rows}
        result["sweep"] = sweep(bench)
        result["first token"] = [
            first_token(bench, cold) for cold in (True, False) if bench.left > 20
        ]
        table(bench, rows, limits)
        for each in (*result["sweep"], *result["first token"]):
            print(each)
    finally:
        shutil.rmtree(options.folder, ignore_errors=True)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
