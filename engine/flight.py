"""A step on its way, and the tokens it draws."""

from dataclasses import dataclass

import torch

from .plan import Plan, Sampled

DEPTH = 3  # results being read, and those of the steps in flight


@dataclass(slots=True)
class Flight:
    """A step that was launched. ``wait`` blocks until its tokens are on the host."""

    plan: Plan
    tokens: torch.Tensor | None
    entropies: torch.Tensor | None
    done: torch.cuda.Event | None

    def wait(self) -> Sampled:
        if self.done is not None:
            self.done.synchronize()
        if self.tokens is None:
            return Sampled([], [])
        tokens = self.tokens.tolist()
        return Sampled(
            tokens, [0.0] * len(tokens) if self.entropies is None else self.entropies.tolist()
        )


class Draws:
    """What the last step drew, on a GPU, and which row of it belongs to which sequence.

    tokens: int64 [rows]. entropies: float32 [rows], nats.
    """

    def __init__(self, rows: int, device: torch.device) -> None:
        self.tokens = torch.zeros(rows, dtype=torch.int64, device=device)
        self.entropies = torch.zeros(rows, dtype=torch.float32, device=device)
        self.row_of: dict[int, int] = {}
        pinned = device.type == "cuda"
        self._host = [
            (
                torch.zeros(rows, dtype=torch.int64, pin_memory=pinned),
                torch.zeros(rows, dtype=torch.float32, pin_memory=pinned),
            )
            for _ in range(DEPTH)
        ]
        self._turn = 0

    def depart(self, plan: Plan) -> Flight:
        """The flight of a step whose launches are all queued."""
        sampling = [work for work in plan.works if work.samples]
        self.row_of = {work.seq.id: row for row, work in enumerate(sampling)}
        count = len(sampling)
        self._turn = (self._turn + 1) % DEPTH
        tokens, entropies = (tensor[:count] for tensor in self._host[self._turn])
        tokens.copy_(self.tokens[:count], non_blocking=True)
        entropies.copy_(self.entropies[:count], non_blocking=True)
        done = None
        if self.tokens.is_cuda:
            done = torch.cuda.Event()
            done.record()
        return Flight(plan, tokens, entropies, done)
