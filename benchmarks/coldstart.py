"""Loading a large checkpoint, from the disk and from the page cache: our loader against others.

    python benchmarks/coldstart.py --h100            20 GB of Gemma 4 31B's shapes, at most 350 s
    python benchmarks/coldstart.py --gb 1 --device cpu

Writes a checkpoint of random numbers with as many layers as the size asks for, in several shards.
"Cold" is after posix_fadvise(DONTNEED), which mincore must confirm; what lies below (a
hypervisor's cache, the drive's own) is not emptied. Limits: for cold loads the best rate at which
threads read the same files, buffered or direct; for warm ones a copy from page-locked memory. On a
CPU each contestant's tensors are touched page by page, since mapped files are not there before.
Contestants run in a process that is ended when one takes too long; what has been measured by then
is kept, and the last line is the whole result as JSON, also after an interrupt.
"""

from __future__ import annotations

import argparse
import json
import math
import mmap
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

from support import rival_loaders
from support.random_checkpoint import write_checkpoint

MIB = 1 << 20
FIRST_TOKEN_SECONDS = 75.0  # kept for it while loaders run
START_SECONDS = 90.0  # that a worker may take to import and to find its device


class Worker:
    """A process that runs contestants; made anew after one that died or took too long."""

    def __init__(self, folder: Path, device: str) -> None:
        self._arguments = (folder, device)
        self._process: Any = None

    def run(self, job: tuple[Any, ...], seconds: float) -> dict[str, Any]:
        """The job's result, or a note on why there is none."""
        if self._process is None:
            self._start()
        self._pipe.send(job)
        return self._answer(seconds)

    def close(self, patience: float = 10) -> None:
        if self._process is not None:
            self._pipe.close()  # which ends it, where it listens
            self._process.join(patience)
            self._process.kill()
            self._process.join()
        self._process = None

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=rival_loaders.serve, args=(theirs, *self._arguments))
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


class Run:
    """One run: what is measured is in `result` as soon as it is known."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.folder: Path = options.folder
        self.device: str = options.device
        self.until = time.monotonic() + options.seconds
        self.gb: float = options.gb
        self.result: dict[str, Any] = {"limits": {}, "loaders": {}, "first token": [], "sweep": []}
        self.worker = Worker(self.folder, self.device)

    @property
    def left(self) -> float:
        return self.until - time.monotonic()

    def main(self) -> None:
        self.write()
        if self.device != "cpu":
            self.link_runtime()
        self.limits()
        names = rival_loaders.installed()
        self.result["not installed"] = sorted(set(rival_loaders.LOADERS) - set(names))
        reserve = min(FIRST_TOKEN_SECONDS, self.left / 4)
        for name in names:
            self.load(name, reserve)
        self.worker.close()  # the first token needs the device's memory
        for cold in (True, False):
            self.first_token(cold)
        self.sweep()
        self.limits_again()

    def write(self) -> None:
        """The checkpoint, smaller where disk space or time would not do."""
        self.folder.mkdir(parents=True)
        rate = write_rate(self.folder / "probe")
        free = shutil.disk_usage(self.folder).free
        fits = min(0.9 * free, 0.35 * self.left * rate) / 1e9
        if fits < self.gb:
            self.say(f"only {fits:.1f} GB: {free / 1e9:.0f} GB free, writes {rate / 1e9:.2f} GB/s")
        began = time.monotonic()
        self.nbytes = write_checkpoint(self.folder, min(self.gb, fits))
        seconds = time.monotonic() - began
        self.result |= {"gb": self.nbytes / 1e9, "write seconds": round(seconds, 1)}
        self.say(f"wrote {self.nbytes / 1e9:.2f} GB in {seconds:.0f} s")

    def link_runtime(self) -> None:
        """fastsafetensors asks for libcudart.so; PyTorch's packages have it with a version."""
        for place in map(Path, sys.path):
            for library in place.glob("nvidia/*/lib/libcudart.so.*"):
                (self.folder / "lib").mkdir(exist_ok=True)
                (self.folder / "lib" / "libcudart.so").symlink_to(library)
                rest = os.environ.get("LD_LIBRARY_PATH", "")
                os.environ["LD_LIBRARY_PATH"] = f"{(self.folder / 'lib').resolve()}:{rest}"
                return

    def limits(self) -> None:
        """Rates in bytes a second; the disk's is the best of three ways to read a third each."""
        limits = self.result["limits"]
        files = rival_loaders.shards(self.folder)
        third = -(-len(files) // 3)
        parts = [files[i : i + third] for i in range(0, len(files), third)]
        self.result["resident after drop"] = rival_loaders.drop(self.folder)
        limits["disk, 8 threads"] = read_rate(parts[0], 8)
        limits["disk, 16 threads"] = read_rate(parts[1], 16)
        limits["disk, direct"] = read_rate(parts[2], 16, direct=True)
        limits["disk"] = max(limits.values())
        limits["page cache"] = read_rate(parts[1], 16)
        copy = self.worker.run(("copy",), 60)
        limits["copy"] = copy.get("rate", 0.0)
        self.result["device"] = copy.get("device", copy.get("note"))
        self.say(" ".join(f"{name}: {rate / 1e9:.2f} GB/s;" for name, rate in limits.items()))

    def load(self, name: str, reserve: float) -> None:
        row = self.result["loaders"].setdefault(name, {})
        for kind in ("cold", "warm"):
            # A cold load at a quarter of the disk's rate tells all that is to be known.
            bound = 20 + 4 * self.nbytes / self.result["limits"]["disk"]
            if self.left - reserve < bound / 4:
                row["note"] = "no time left"
                break
            job = ("load", name, kind == "cold")
            row[kind] = self.worker.run(job, min(bound, self.left - reserve))
            self.say(f"{name}, {kind}: {row[kind]}")
            if "seconds" not in row[kind]:
                row["note"] = row.pop(kind)["note"]
                break
            if row[kind].get("resident"):
                row["note"] = f"not cold: {row[kind]['resident']:.0%} resident before"

    def first_token(self, cold: bool) -> None:
        """Phases of a fresh process up to its first token, in seconds since it was started."""
        if self.left < 15:
            return
        row: dict[str, Any] = {"cold": cold}
        self.result["first token"].append(row)
        if cold:
            row["resident"] = rival_loaders.drop(self.folder)
        program = str(Path(__file__).with_name("support") / "first_token_process.py")
        command = [sys.executable, program, str(self.folder), self.device, str(time.time())]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            timer = threading.Timer(self.left - 5, process.kill)
            timer.start()
            try:
                for line in process.stdout or ():
                    if line.startswith("{"):
                        row |= json.loads(line)
            finally:
                timer.cancel()
                process.kill()
        if process.returncode:
            row["note"] = f"ended early ({process.returncode})"
        self.say(f"first token: {row}")

    def sweep(self) -> None:
        """Our loader's streaming part on warm files, by threads and bytes of a read."""
        if self.device == "cpu":
            return  # nothing is streamed there
        for threads, span in ((8, 8), (16, 4), (16, 8), (16, 16), (32, 8)):
            if self.left < 20:
                break
            found = self.worker.run(
                ("sweep", {"threads": threads, "span_bytes": span * MIB}), self.left - 5
            )
            self.result["sweep"].append({"threads": threads, "MiB": span} | found)
            self.say(str(self.result["sweep"][-1]))
        self.worker.close()

    def limits_again(self) -> None:
        """The disk's rate at the end: whether it drifted."""
        if self.left > 5 + self.nbytes / 3 / self.result["limits"]["disk"]:
            rival_loaders.drop(self.folder)
            part = rival_loaders.shards(self.folder)[:2]
            self.result["limits"]["disk at the end"] = read_rate(part, 16)

    def say(self, text: str) -> None:
        print(f"[{self.left:5.0f} s left] {text}", flush=True)

    def table(self) -> None:
        limits = self.result["limits"]
        print(f"\n{'':26} {'cold s':>7} {'GB/s':>6} {'of disk':>7} {'warm s':>7} {'GB/s':>6} "
              f"{'of copy':>7} {'wrong':>8}")  # fmt: skip
        for name, row in self.result["loaders"].items():
            cells, checks = [], ""
            for kind, limit in (("cold", "disk"), ("warm", "copy")):
                if kind in row:
                    rate = self.nbytes / row[kind]["seconds"]
                    share = rate / limits[limit] if limits.get(limit) else float("nan")
                    cells.append(f"{row[kind]['seconds']:7.2f} {rate / 1e9:6.2f} {share:7.0%}")
                    checks = f"{row[kind]['wrong']} of {row[kind]['checked']}"
                else:
                    cells.append(" " * 22)
            print(f"{name:26} {' '.join(cells)} {checks:>8} {row.get('note', '')}")


def write_rate(file: Path) -> float:
    """Bytes a second of a short write that reaches the disk."""
    block = os.urandom(8 * MIB)
    began = time.monotonic()
    with file.open("wb") as stream:
        for _ in range(32):
            stream.write(block)
        stream.flush()
        os.fsync(stream.fileno())
    file.unlink()
    return 32 * len(block) / (time.monotonic() - began)


def read_rate(files: list[Path], threads: int, direct: bool = False) -> float:
    """Bytes a second, read in blocks of 16 MiB in the order of the files."""
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


def has_gpu() -> bool:
    import torch

    return torch.cuda.is_available()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--h100", action="store_true", help="--gb 20 --device cuda --seconds 350")
    parser.add_argument("--gb", type=float, default=1.0)
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--seconds", type=float, default=240.0)
    parser.add_argument("--folder", type=Path, default=Path("coldstart-checkpoint"))
    parser.add_argument("--out", type=Path, help="file for the JSON, beside the last line")
    options = parser.parse_args()
    if options.h100:
        options.gb, options.device, options.seconds = 20.0, "cuda", 350.0
    for name in ("gb", "seconds"):
        if not 0 < getattr(options, name) < math.inf:
            parser.error(f"--{name} must be more than 0, not {getattr(options, name)}")
    if options.folder.exists():
        parser.error(f"{options.folder} exists; name a folder that may be made and removed")
    if options.device == "cuda" and not has_gpu():
        parser.error("PyTorch finds no GPU here; name --device cpu")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("terminated"))
    options.device = {"cuda": "cuda:0"}.get(options.device, options.device)
    run = Run(options)
    try:
        run.main()
    except BaseException as error:  # a partial result is worth more than none
        run.result["ended by"] = f"{type(error).__name__}: {error}"[:300]
        raise
    finally:
        run.worker.close()
        shutil.rmtree(options.folder, ignore_errors=True)
        run.table()
        text = json.dumps(run.result)
        if options.out:
            options.out.write_text(text + "\n")
        print(text, flush=True)


if __name__ == "__main__":
    main()
