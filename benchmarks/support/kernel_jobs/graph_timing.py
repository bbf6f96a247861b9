"""Times kernels with CUDA graphs that walk over several sets of buffers."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch


@dataclass
class KernelTiming:
    """Result of a job.

    Attributes:
        name: what was timed, with its shape.
        config: the kernel's configuration.
        microseconds: time of one call.
        gigabytes: read or written by one call; teraflops for a job that is limited by arithmetic.
        error: relative to the reference.
        extra: further figures.
    """

    name: str
    config: str
    microseconds: float
    gigabytes: float
    error: float
    extra: dict = field(default_factory=dict)


def time_calls(calls: Sequence[Callable[[], object]], repeats: int = 3) -> float:
    """Return the microseconds per call of a graph of all calls, the median of its replays."""
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        calls[0]()
        stream.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=stream):
            for call in calls:
                call()
        graph.replay()
        times = []
        for _ in range(repeats):
            begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            begin.record(stream)
            graph.replay()
            end.record(stream)
            end.synchronize()
            times.append(begin.elapsed_time(end) * 1e3 / len(calls))
    return sorted(times)[len(times) // 2]


def relative_error(out: torch.Tensor, reference: torch.Tensor) -> float:
    """Return the relative error in the Frobenius norm; infinite if `out` holds a NaN."""
    error = (out.double() - reference.double()).norm() / reference.double().norm()
    return float(error.nan_to_num(float("inf")))


class BufferPool:
    """A large bfloat16 tensor on the GPU whose parts serve as weights and caches.

    Args:
        elements: number of its elements.
    """

    def __init__(self, elements: int) -> None:
        self.device = torch.device("cuda")
        self.pool = torch.empty(elements, dtype=torch.bfloat16, device=self.device)
        self._taken = 0

    def fill(self) -> None:
        """Fill the pool with random numbers."""
        for part in self.pool.split(1 << 28):
            part.normal_()

    def randn(self, *shape: int) -> torch.Tensor:
        """Return a new tensor of random numbers, which is not part of the pool."""
        return torch.randn(*shape, device=self.device).to(torch.bfloat16)

    def views(self, *shape: int, at_most: int = 6) -> list[torch.Tensor]:
        """Return as many disjoint views of the pool as fit, from its start on."""
        size = torch.Size(shape).numel()
        count = max(1, min(at_most, self.pool.numel() // size))
        return [self.pool[i * size : (i + 1) * size].view(shape) for i in range(count)]

    def reset(self) -> None:
        """Let `take` begin again at the pool's start."""
        self._taken = 0

    def take(self, *shape: int) -> torch.Tensor:
        """Return the next part of the pool that has not been taken since the last reset."""
        amount = torch.Size(shape).numel()
        view = self.pool[self._taken : self._taken + amount].view(shape)
        self._taken += amount
        return view
