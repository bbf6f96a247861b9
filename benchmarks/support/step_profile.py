"""Profiles steps of an engine: microseconds of each kernel, and the share of the bandwidth."""

from collections import defaultdict

import torch

from eightfold.engine import Engine

# Parts of kernels' names, by what of `step_bytes` they read.
READERS = {
    "weights": ("layer_tail", "linear_few_rows", "linear_many_rows", "gemm", "nvjet"),
    "experts": ("expert", "gate_up", "down_kernel", "few_rows_"),
    "KV": ("paged_decode", "decode_attention", "one_copy_attention", "split_combine"),
}


def profile(engine: Engine, steps: int = 4) -> tuple[dict[str, list[float]], float]:
    """Return the microseconds and launches per step of each kernel, and the share of idle time."""
    activities = [torch.profiler.ProfilerActivity.CUDA]
    with torch.profiler.profile(activities=activities) as recorded:
        for _ in range(steps):
            engine.step()
        torch.cuda.synchronize()
    kernels = sorted(
        (e.time_range.end, e.time_range.start, e.name)
        for e in recorded.events()
        if e.device_type == torch.autograd.DeviceType.CUDA and "Memcpy" not in e.name
    )
    found: dict[str, list[float]] = defaultdict(lambda: [0.0, 0])
    last_end, idle = kernels[0][1], 0.0
    for end, begin, name in kernels:
        idle += max(0.0, begin - last_end)
        found[name][0] += (max(end, last_end) - last_end) / steps
        found[name][1] += 1 / steps
        last_end = max(end, last_end)
    return dict(found), idle / (last_end - kernels[0][1])


def print_profile(found: dict[str, list[float]]) -> None:
    """Print the kernels that take longest."""
    print(f"{'kernel':48s} {'launches':>8s} {'us':>9s}")
    for label, (microseconds, launches) in sorted(found.items(), key=lambda item: -item[1][0])[:16]:
        print(f"{label[:48]:48s} {launches:8.1f} {microseconds:9.1f}")


def print_shares(
    found: dict[str, list[float]], sizes: dict[str, int], bandwidth: float
) -> dict[str, float]:
    """Print and return the share of the bandwidth that each kind of reader reaches.

    Args:
        sizes: as from `step_bytes`.
        bandwidth: bytes per second.
    """
    shares = {}
    for kind in READERS:
        taken = sum(us for name, (us, _) in found.items() if reader_of(name) == kind)
        if kind == "KV":
            size = sum(n for name, n in sizes.items() if name not in READERS)
        else:
            size = sizes.get(kind, 0)
        if taken and size:
            shares[kind] = round(size / bandwidth / (taken * 1e-6), 4)
            print(f"{kind}: {size / 1e9:.3f} GB in {taken:.0f} us, {shares[kind]:.1%}")
    others = sum(us for name, (us, _) in found.items() if reader_of(name) is None)
    print(f"other kernels: {others:.0f} us")
    return shares


def reader_of(kernel: str) -> str | None:
    """Return what a kernel reads, a key of `READERS`; ``None`` if it reads activations."""
    # Experts first: the names of their kernels contain those of others.
    for kind in ("experts", "KV", "weights"):
        if any(part in kernel for part in READERS[kind]):
            return kind
    return None
