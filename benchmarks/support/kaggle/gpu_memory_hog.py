"""Takes all of a GPU's free memory but a few MiB, to try what other processes do without it.

    python benchmarks/support/kaggle/gpu_memory_hog.py 300 900

leaves 300 MiB free, 900 MiB after a line of input, and all after another line.
"""

from __future__ import annotations

import argparse
import sys

import torch


def free_mib() -> int:
    """Return the GPU's free memory in MiB."""
    return torch.cuda.mem_get_info()[0] >> 20


def take(leave: int, held: list[torch.Tensor]) -> None:
    """Add tensors to `held` until about `leave` MiB are free."""
    while free_mib() > leave + 4:
        size = min(8 << 10, free_mib() - leave) << 20
        try:
            held.append(torch.empty(size, dtype=torch.uint8, device="cuda"))
        except torch.OutOfMemoryError:
            break


def give_back(leave: int, held: list[torch.Tensor]) -> None:
    """Remove tensors from the end of `held` until about `leave` MiB are free."""
    while held and free_mib() < leave - 4:
        held.pop()
        torch.cuda.empty_cache()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument(
        "leave", type=int, nargs="+", metavar="MIB", help="MiB to leave free, in ascending order"
    )
    leaves = parser.parse_args().leave
    if leaves != sorted(leaves) or leaves[0] < 0:
        parser.error("MIB must not be negative, and each must be above the one before")
    if not torch.cuda.is_available():
        parser.error("there is no GPU whose memory could be taken")
    held = [torch.zeros(1, device="cuda")]  # first the CUDA context, which takes memory too
    for leave in reversed(leaves):  # so that the memory given back first is at the end of the list
        take(leave, held)
    for leave in [*leaves, sys.maxsize]:
        give_back(leave, held)
        print(f"{free_mib()} MiB of the GPU's memory are free", flush=True)
        if leave != sys.maxsize:
            sys.stdin.readline()


if __name__ == "__main__":
    main()
