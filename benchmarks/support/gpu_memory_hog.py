"""Takes the GPU's free memory but some MiB, for trying what others do without.

python benchmarks/support/gpu_memory_hog.py 300 900: leaves 300 MiB,
after a line of input 900, after another all.
"""

from __future__ import annotations

import argparse
import sys

import torch


def free() -> int:
    """The GPU's free memory in MiB."""
    return torch.cuda.mem_get_info()[0] >> 20


def take(leave: int, held: list[torch.Tensor]) -> None:
    """Adds to `held` until `leave` MiB are free, nearly."""
    while free() > leave + 4:
        size = min(8 << 10, free() - leave) << 20
        try:
            held.append(torch.empty(size, dtype=torch.uint8, device="cuda"))
        except torch.OutOfMemoryError:
            break


def give(leave: int, held: list[torch.Tensor]) -> None:
    """Takes from the end of `held` until `leave` MiB are free, nearly."""
    while held and free() < leave - 4:
        held.pop()
        torch.cuda.empty_cache()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("leave", type=int, nargs="+", metavar="MIB", help="each above the last")
    leaves = parser.parse_args().leave
    if leaves != sorted(leaves) or leaves[0] < 0:
        parser.error("what is left must grow from one to the next")
    if not torch.cuda.is_available():
        parser.error("there is no GPU whose memory could be taken")
    held = [torch.zeros(1, device="cuda")]  # the context first: it takes memory too
    for leave in reversed(leaves):  # so that what is given back first was taken last
        take(leave, held)
    for leave in [*leaves, sys.maxsize]:
        give(leave, held)
        print(f"{free()} MiB of the GPU's memory are free", flush=True)
        if leave != sys.maxsize:
            sys.stdin.readline()


if __name__ == "__main__":
    main()
