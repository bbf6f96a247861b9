"""A step on its way, and the tokens it draws."""

from dataclasses import dataclass
from math import isnan

import torch

from ..model_errors import ModelError
from ..scheduling.scheduled_step import StepPlan, StepResult

DEPTH = 3  # results being read, and those of the steps in flight


@dataclass(slots=True)
class Flight:
    """A step that was launched.

    broken: whether a logit is no number, where entropies do not tell.
    """

    plan: StepPlan
    tokens: torch.Tensor | None
    entropies: torch.Tensor | None
    done: torch.cuda.Event | None
    broken: torch.Tensor | None = None

    def wait(self) -> StepResult:
        """Block until what was drawn is on the host.

        Raises:
            ModelError: where the model's logits are no numbers, from which nothing can be drawn.
        """
        if self.done is not None:
            self.done.synchronize()
        if self.tokens is None:
            return StepResult([], [])
        tokens = self.tokens.tolist()
        entropies = [0.0] * len(tokens) if self.entropies is None else self.entropies.tolist()
        if any(isnan(entropy) for entropy in entropies) or (
            self.broken is not None and bool(self.broken)
        ):
            raise ModelError(
                "the model's logits are not numbers (NaN): its weights are broken, or its type "
                "overflows, as float16 does for models made for bfloat16"
            )
        return StepResult(tokens, entropies)


class Draws:
    """What the last step drew, on a GPU, and which row of it belongs to which sequence.

    tokens: int64 [rows]. entropies: float32 [rows], nats.
    """

    def __init__(self, rows: int, device: torch.device) -> None:
        # Behind one another, so that one copy takes both to the host.
        size = rows * (torch.int64.itemsize + torch.float32.itemsize)
        self._device = torch.zeros(size, dtype=torch.uint8, device=device)
        self.tokens, self.entropies = _views(self._device, rows)
        self.row_of: dict[int, int] = {}
        pinned = device.type == "cuda"
        self._host = [torch.zeros(size, dtype=torch.uint8, pin_memory=pinned) for _ in range(DEPTH)]
        self._turn = 0

    def depart(self, plan: StepPlan) -> Flight:
        """The flight of a step whose launches are all queued."""
        sampling = [entry for entry in plan.scheduled if entry.samples]
        self.row_of = {entry.seq.id: row for row, entry in enumerate(sampling)}
        count = len(sampling)
        self._turn = (self._turn + 1) % DEPTH
        host = self._host[self._turn]
        host.copy_(self._device, non_blocking=True)
        tokens, entropies = (view[:count] for view in _views(host, len(self.tokens)))
        done = None
        if self.tokens.is_cuda:
            done = torch.cuda.Event()
            done.record()
        return Flight(plan, tokens, entropies, done)


def _views(memory: torch.Tensor, rows: int) -> tuple[torch.Tensor, torch.Tensor]:
    """int64 [rows] and float32 [rows] behind one another in bytes."""
    tokens, entropies = memory.split([rows * 8, rows * 4])
    return tokens.view(torch.int64), entropies.view(torch.float32)
