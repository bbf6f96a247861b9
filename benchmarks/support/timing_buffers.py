"""Buffers that kernels are timed on, and how: graphs over several sets of them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch


@dataclass
class Result:
    name: str
    config: str
    microseconds: float
    gigabytes: float
    error: float
    extra: dict = field(default_factory=dict)


def timed(calls: Sequence[Callable[[], object]], repeats: int = 3) -> float:
    """Microseconds a call, from a graph of all of them; the median of the replays."""
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


def relative(out: torch.Tensor, reference: torch.Tensor) -> float:
    error = (out.double() - reference.double()).norm() / reference.double().norm()
    return float(error.nan_to_num(float("inf")))


class Buffers:
    """One large pool, and views of it."""

    def __init__(self, elements: int) -> None:
        self.device = torch.device("cuda")
        self.pool = torch.empty(elements, dtype=torch.bfloat16, device=self.device)

    def fill(self) -> None:
        for part in self.pool.split(1 << 28):
            part.normal_()

    def randn(self, *shape: int) -> torch.Tensor:
        return torch.randn(*shape, device=self.device).to(torch.bfloat16)

    def views(self, *shape: int, at_most: int = 6) -> list[torch.Tensor]:
        size = torch.Size(shape).numel()
        count = max(1, min(at_most, self.pool.numel() // size))
        return [self.pool[i * size : (i + 1) * size].view(shape) for i in range(count)]
