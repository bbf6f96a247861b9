"""Measures how fast a GPU reads its memory and multiplies, the limits that benchmarks show."""

from collections.abc import Callable

import torch
import triton
import triton.language as tl

BYTES = 2 << 30
BLOCK, STEPS = 2048, 16


@triton.jit
def _read(source, out, BLOCK: tl.constexpr, STEPS: tl.constexpr):  # type: ignore[no-untyped-def]
    at = tl.program_id(0).to(tl.int64) * (BLOCK * STEPS) + tl.arange(0, BLOCK)
    folded = tl.zeros([BLOCK], tl.int32)
    for step in range(STEPS):
        folded ^= tl.load(source + at + step * BLOCK)
    tl.store(out + tl.program_id(0), tl.xor_sum(folded, 0))


def read_bandwidth(device: torch.device) -> float:
    """Return the bytes per second of reading 2 GiB, by a plain kernel or torch's sum."""
    source = torch.randint(1 << 30, (BYTES // 4,), dtype=torch.int32, device=device)
    out = torch.empty(source.numel() // (BLOCK * STEPS), dtype=torch.int32, device=device)
    wide = source.view(torch.float32)
    calls = (lambda: _read[(out.numel(),)](source, out, BLOCK, STEPS), lambda: wide.sum())
    return BYTES / min(device_seconds(call, 10) for call in calls)


def product_rate(device: torch.device, size: int = 8192) -> float:
    """Return the operations per second of a large product in bfloat16, by torch."""
    a, b = (torch.randn(size, size, device=device, dtype=torch.bfloat16) for _ in range(2))
    return 2 * size**3 / device_seconds(lambda: torch.mm(a, b), 10)


def device_seconds(call: Callable[[], object], repeats: int) -> float:
    """Return the device seconds of one call, the best of three rounds of `repeats`."""
    call()
    best = float("inf")
    for _ in range(3):
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        for _ in range(repeats):
            call()
        end.record()
        end.synchronize()
        best = min(best, begin.elapsed_time(end) / 1e3 / repeats)
    return best
