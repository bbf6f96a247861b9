"""Loading a large checkpoint from the disk and from the OS page cache: our loader against others.

    python benchmarks/coldstart.py --h100            20 GB of Gemma 4 31B's shapes, at most 350 s
    python benchmarks/coldstart.py --gb 1 --device cpu

Writes a checkpoint of random numbers, in several shards, with as many layers as the size asks for.
"Cold" means after posix_fadvise(DONTNEED), which mincore must confirm; caches below that (a
hypervisor's, the drive's own) are not emptied. The limit of a cold load is the best rate at which
threads read the same files, through the OS page cache or bypassing it. The limit of a warm load is
a copy from page-locked memory. On a CPU, each loader's tensors are touched page by page, because
mapped files are not in memory before that. The loaders run in a process that is ended if one of
them takes too long; what has been measured by then is kept. The last line is the whole result as
JSON, also after an interrupt.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

from support.loading.checkpoint_writer import write_checkpoint
from support.loading.disk_rates import MIB, read_rate, write_rate
from support.loading.load_measurement import MeasuringProcess, drop_page_cache
from support.loading.loader_contestants import LOADERS, installed_loaders, shards

FIRST_TOKEN_SECONDS = 75.0  # reserved for the first token while loaders run
FIRST_TOKEN_PROGRAM = Path(__file__).parent / "support" / "loading" / "first_token_process.py"


class ColdStartRun:
    """One run of the benchmark; `result` holds each measurement as soon as it is made."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.folder: Path = options.folder
        self.device: str = options.device
        self.until = time.monotonic() + options.seconds
        self.gb: float = options.gb
        self.result: dict[str, Any] = {"limits": {}, "loaders": {}, "first token": [], "sweep": []}
        self.process = MeasuringProcess(self.folder, self.device)

    @property
    def left(self) -> float:
        """Seconds left."""
        return self.until - time.monotonic()

    def run(self) -> None:
        """Measure everything that there is time for."""
        self.write()
        if self.device != "cpu":
            self.link_cuda_runtime()
        self.measure_limits()
        names = installed_loaders()
        self.result["not installed"] = sorted(set(LOADERS) - set(names))
        reserve = min(FIRST_TOKEN_SECONDS, self.left / 4)
        for name in names:
            self.load(name, reserve)
        self.process.close()  # the first token needs the device's memory
        for cold in (True, False):
            self.first_token(cold)
        self.sweep()
        self.measure_disk_again()

    def write(self) -> None:
        """Write the checkpoint, a smaller one if disk space or time does not suffice."""
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

    def link_cuda_runtime(self) -> None:
        """Provide libcudart.so for fastsafetensors; PyTorch's packages name it with a version."""
        for place in map(Path, sys.path):
            for library in place.glob("nvidia/*/lib/libcudart.so.*"):
                (self.folder / "lib").mkdir(exist_ok=True)
                (self.folder / "lib" / "libcudart.so").symlink_to(library)
                rest = os.environ.get("LD_LIBRARY_PATH", "")
                os.environ["LD_LIBRARY_PATH"] = f"{(self.folder / 'lib').resolve()}:{rest}"
                return

    def measure_limits(self) -> None:
        """Measure rates in bytes per second; the disk's is the best of three ways to read."""
        limits = self.result["limits"]
        files = shards(self.folder)
        third = -(-len(files) // 3)
        parts = [files[i : i + third] for i in range(0, len(files), third)]
        self.result["resident after drop"] = drop_page_cache(self.folder)
        limits["disk, 8 threads"] = read_rate(parts[0], 8)
        limits["disk, 16 threads"] = read_rate(parts[1], 16)
        limits["disk, direct"] = read_rate(parts[2], 16, direct=True)
        limits["disk"] = max(limits.values())
        limits["page cache"] = read_rate(parts[1], 16)
        copy = self.process.run(("copy",), 60)
        limits["copy"] = copy.get("rate", 0.0)
        self.result["device"] = copy.get("device", copy.get("note"))
        self.say(" ".join(f"{name}: {rate / 1e9:.2f} GB/s;" for name, rate in limits.items()))

    def load(self, name: str, reserve: float) -> None:
        """Measure a loader cold and warm; `reserve` seconds are left for what follows."""
        row = self.result["loaders"].setdefault(name, {})
        for kind in ("cold", "warm"):
            # A load at a quarter of the disk's rate is slow enough to need no exact figure.
            bound = 20 + 4 * self.nbytes / self.result["limits"]["disk"]
            if self.left - reserve < bound / 4:
                row["note"] = "no time left"
                break
            job = ("load", name, kind == "cold")
            row[kind] = self.process.run(job, min(bound, self.left - reserve))
            self.say(f"{name}, {kind}: {row[kind]}")
            if "seconds" not in row[kind]:
                row["note"] = row.pop(kind)["note"]
                break
            if row[kind].get("resident"):
                row["note"] = f"not cold: {row[kind]['resident']:.0%} resident before"

    def first_token(self, cold: bool) -> None:
        """Measure a fresh process's phases up to its first token, in seconds since its start."""
        if self.left < 15:
            return
        row: dict[str, Any] = {"cold": cold}
        self.result["first token"].append(row)
        if cold:
            row["resident"] = drop_page_cache(self.folder)
        program = [sys.executable, str(FIRST_TOKEN_PROGRAM)]
        command = [*program, str(self.folder), self.device, str(time.time())]
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
        """Measure our loader's reading part on warm files, by threads and bytes of a read."""
        if self.device == "cpu":
            return  # files are mapped there, not read
        for threads, mib in ((8, 8), (16, 4), (16, 8), (16, 16), (32, 8)):
            if self.left < 20:
                break
            settings = {"threads": threads, "span_bytes": mib * MIB}
            found = self.process.run(("sweep", settings), self.left - 5)
            self.result["sweep"].append({"threads": threads, "MiB": mib} | found)
            self.say(str(self.result["sweep"][-1]))
        self.process.close()

    def measure_disk_again(self) -> None:
        """Measure the disk's rate at the end, which shows if it drifted."""
        if self.left > 5 + self.nbytes / 3 / self.result["limits"]["disk"]:
            drop_page_cache(self.folder)
            self.result["limits"]["disk at the end"] = read_rate(shards(self.folder)[:2], 16)

    def say(self, text: str) -> None:
        print(f"[{self.left:5.0f} s left] {text}", flush=True)

    def print_table(self) -> None:
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


def has_gpu() -> bool:
    import torch

    return torch.cuda.is_available()


def parse_options() -> argparse.Namespace:
    """Return the command line's options; exit with code 2 and one sentence if they are wrong."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument(
        "--h100", action="store_true", help="same as --gb 20 --device cuda --seconds 350"
    )
    parser.add_argument("--gb", type=float, default=1.0, help="checkpoint's size (%(default)g)")
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--seconds", type=float, default=240.0, help="for everything (%(default)g)")
    parser.add_argument(
        "--folder",
        type=Path,
        default=Path("coldstart-checkpoint"),
        help="for the checkpoint; removed at the end (%(default)s)",
    )
    parser.add_argument("--out", type=Path, help="file that gets the last line's JSON too")
    options = parser.parse_args()
    if options.h100:
        options.gb, options.device, options.seconds = 20.0, "cuda", 350.0
    for name in ("gb", "seconds"):
        if not 0 < getattr(options, name) < math.inf:
            parser.error(f"--{name} must be more than 0, not {getattr(options, name)}")
    if options.folder.exists():
        parser.error(f"{options.folder} exists; name a folder that may be created and removed")
    if options.device == "cuda" and not has_gpu():
        parser.error("PyTorch finds no GPU here; use --device cpu")
    options.device = {"cuda": "cuda:0"}.get(options.device, options.device)
    return options


def main() -> None:
    options = parse_options()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("terminated"))
    run = ColdStartRun(options)
    try:
        run.run()
    except BaseException as error:  # a partial result is better than none
        run.result["ended by"] = f"{type(error).__name__}: {error}"[:300]
        raise
    finally:
        run.process.close()
        shutil.rmtree(options.folder, ignore_errors=True)
        run.print_table()
        text = json.dumps(run.result)
        if options.out:
            options.out.write_text(text + "\n")
        print(text, flush=True)


if __name__ == "__main__":
    main()
