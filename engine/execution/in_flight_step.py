"""A step in flight, and the tokens that it samples."""

from dataclasses import dataclass
from itertools import accumulate
from math import isnan

import torch

from ..model_errors import ModelError
from ..scheduling.scheduled_step import StepPlan, StepResult

NUM_HOST_BUFFERS = 3  # one for the results being read, and one for each step in flight


@dataclass(slots=True)
class InFlightStep:
    """A step that was launched.

    Attributes:
        tokens: int64 [n], sampled tokens; ``None`` if nothing samples.
        entropies: float32 [n]; ``None`` if no entropy is wanted.
        done: recorded once the results are on the host; ``None`` without a GPU.
        any_nan: bool scalar, True if a logit is NaN; ``None`` if entropies show that.
        rows: index in ``tokens`` of each draw; ``None`` if all of them are draws in order.
        accepted: int32 [n], right drafts of each entry; ``None`` if the device has not counted.
        drafting: recorded before and after the drafts that the device made behind the step.
    """

    plan: StepPlan
    tokens: torch.Tensor | None
    entropies: torch.Tensor | None
    done: torch.cuda.Event | None
    any_nan: torch.Tensor | None = None
    rows: list[int] | None = None
    accepted: torch.Tensor | None = None
    drafting: tuple[torch.cuda.Event, torch.cuda.Event] | None = None

    def wait(self) -> StepResult:
        """Block until the sampled tokens are on the host.

        Raises:
            ModelError: if the model's logits are NaN, so that nothing can be sampled.
        """
        if self.done is not None:
            self.done.synchronize()
        if self.tokens is None:
            return StepResult([], [])
        tokens = self.tokens.tolist()
        entropies = [0.0] * len(tokens) if self.entropies is None else self.entropies.tolist()
        if self.rows is not None:
            tokens = [tokens[row] for row in self.rows]
            entropies = [entropies[row] for row in self.rows]
        if any(map(isnan, entropies)) or (self.any_nan is not None and bool(self.any_nan)):
            raise ModelError(
                "The model's logits are not numbers (NaN): its weights are broken, or its type "
                "overflows, as float16 does for models made for bfloat16."
            )
        accepted = None if self.accepted is None else self.accepted.tolist()
        return StepResult(tokens, entropies, accepted)

    def drafting_seconds(self) -> float:
        """Return how long the device took for drafts behind the step; 0.0 if it is not done."""
        if self.drafting is None or not self.drafting[1].query():
            return 0.0
        return self.drafting[0].elapsed_time(self.drafting[1]) / 1e3


class SampledTokens:
    """Results of the last step, on the device, and the row of each sequence in them.

    Attributes:
        tokens: int64 [rows].
        entropies: float32 [rows], nats.
        accepted: int32 [sequences], right drafts of each sequence.
        row_of: row of each sequence id.
    """

    def __init__(self, rows: int, sequences: int, device: torch.device) -> None:
        # Contiguous, so that one copy brings all of them to the host.
        size = rows * (torch.int64.itemsize + torch.float32.itemsize)
        size += sequences * torch.int32.itemsize
        self._device = torch.zeros(size, dtype=torch.uint8, device=device)
        self.tokens, self.entropies, self.accepted = _views(self._device, rows)
        self.row_of: dict[int, int] = {}
        pinned = device.type == "cuda"
        self._host = [
            torch.zeros(size, dtype=torch.uint8, pin_memory=pinned) for _ in range(NUM_HOST_BUFFERS)
        ]
        self._turn = 0

    def read_back(self, plan: StepPlan, rows: list[int] | None, drafted: bool) -> InFlightStep:
        """Queue the copy of the results to the host, behind the step's launches.

        Args:
            rows: row of each draw of the entries in turn; ``None`` if each entry that samples draws
                one token, in order.
            drafted: True if the device has counted right drafts.
        """
        sampling = [entry for entry in plan.scheduled if entry.samples]
        if rows is None:
            self.row_of = {entry.seq.id: row for row, entry in enumerate(sampling)}
            count = len(sampling)
        else:
            ends = accumulate(entry.draw_count for entry in sampling)
            self.row_of = {e.seq.id: rows[end - 1] for e, end in zip(sampling, ends, strict=True)}
            count = rows[-1] + 1 if rows else 0
        self._turn = (self._turn + 1) % NUM_HOST_BUFFERS
        host = self._host[self._turn]
        host.copy_(self._device, non_blocking=True)
        tokens, entropies, accepted = _views(host, len(self.tokens))
        done = None
        if self.tokens.is_cuda:
            done = torch.cuda.Event()
            done.record()
        step = InFlightStep(plan, tokens[:count], entropies[:count], done, rows=rows)
        step.accepted = accepted[: len(plan.scheduled)] if drafted else None
        return step


def _views(memory: torch.Tensor, rows: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """int64 [rows], float32 [rows] and int32 for what is left, one after the other in bytes."""
    tokens, entropies, accepted = memory.split([rows * 8, rows * 4, len(memory) - rows * 12])
    return tokens.view(torch.int64), entropies.view(torch.float32), accepted.view(torch.int32)
