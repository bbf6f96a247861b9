"""Steps with drafts that follow one another on the device, without the host in between.

Behind the draws of a step with drafts, in the same captured graph, the device counts the right
drafts of each sequence and finds its newest token. A drafter that runs on the device goes on from
there. The next step may be launched before the host knows any of it: its arrays then hold the least
possible positions, and the graph begins by moving them, and by filling in the tokens.
"""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
import torch

from eightfold.kernels.attention.attention_shapes import NO_SLOT

from ..scheduling.scheduled_step import ScheduledTokens

Tensors = dict[str, torch.Tensor]


@runtime_checkable
class DeviceDrafter(Protocol):
    """A drafter that goes on by itself behind a step with drafts, on the device."""

    def draft_behind(self, scheduled: list[ScheduledTokens], sequences: int, count: int) -> None:
        """Queue ``count`` drafts of each sequence, written to the runner's ``DraftChain.drafts``.

        Nothing is waited for: what the step drew is known to the device alone.

        Args:
            scheduled: entries of the step just launched, each with its least possible position.
            sequences: sequences of that step, padding among them.
        """


@dataclass(frozen=True, slots=True)
class ChainShape:
    """Sizes of a step with drafts.

    Attributes:
        sequences: sequences, padding among them.
        rows: rows of each.
        windows: window of each page group.
        page_size: tokens of a page.
    """

    sequences: int
    rows: int
    windows: tuple[int | None, ...]
    page_size: int


class DraftChain:
    """Results of the last step with drafts, kept on the device, in the order of its sequences.

    Attributes:
        accepted: int32 [S], right drafts.
        newest: int64 [S], the newest token.
        positions: int64 [S], its position.
        state_rows: int64 [S], row of the step whose logits gave it.
        drafts: int64 [S, most], tokens that follow it; written by the drafter.

    Args:
        sequences: most sequences of a step with drafts.
        most: most drafts of a sequence.
        accepted: memory for ``accepted``.
    """

    def __init__(self, sequences: int, most: int, accepted: torch.Tensor) -> None:
        device = accepted.device
        self.accepted = accepted
        self.newest, self.positions, self.state_rows = torch.zeros(
            3, sequences, dtype=torch.int64, device=device
        )
        self.drafts = torch.zeros(sequences, most, dtype=torch.int64, device=device)
        # Index of each sequence id in the last step.
        self.index_of: dict[int, int] = {}

    def arrays(
        self, scheduled: list[ScheduledTokens], sequences: int, rows: int
    ) -> dict[str, np.ndarray]:
        """Return the host arrays of a step: where each sequence's rows begin, and what moves it."""
        first = np.full(sequences, rows - 1, dtype=np.int64)
        source = np.full(sequences, -1, dtype=np.int64)
        for index, entry in enumerate(scheduled):
            first[index] = rows - entry.count
            if entry.may_move:
                source[index] = self.index_of[entry.seq.id]
        return {"first_rows": first, "moved_by": source}

    def advance(self, views: Tensors, shape: ChainShape) -> None:
        """Move the sequences that the step before has moved, and fill in their tokens."""
        count, rows = shape.sequences, shape.rows
        source = views["moved_by"]
        moved, index = source >= 0, source.clamp(min=0)
        shift = torch.where(moved, self.accepted[index], 0)
        tokens = torch.cat([self.newest[index, None], self.drafts[index, : rows - 1]], dim=1)
        step = views["tokens"].view(count, rows)
        step.copy_(torch.where(moved[:, None], tokens.to(step.dtype), step))
        positions = views["positions"].view(count, rows)
        positions += shift[:, None]
        views["sample_positions"].view(count, rows).add_(shift[:, None])
        for group in range(len(shape.windows)):
            views[f"seq_lens{group}"].add_(shift)
            table, first = views[f"page_table{group}"], views[f"first_pos{group}"]
            entry = (positions - first[:, None]).clamp(min=0) // shape.page_size
            pages = table.gather(1, entry.clamp(max=table.shape[1] - 1).long())
            slots = pages * shape.page_size + positions % shape.page_size
            written = views[f"slot_mapping{group}"].view(count, rows)
            kept = ~moved[:, None] | (written == NO_SLOT)
            written.copy_(torch.where(kept, written, slots))

    def accept(self, views: Tensors, shape: ChainShape, draws: torch.Tensor) -> None:
        """Count the right drafts, and find the newest tokens.

        Args:
            draws: int64 [S * rows], the token that follows each row.
        """
        count, rows = shape.sequences, shape.rows
        tokens, drawn = views["tokens"].view(count, rows), draws.view(count, rows)
        first = views["first_rows"]
        right = tokens[:, 1:] == drawn[:, :-1]
        padding = torch.arange(1, rows, device=draws.device) <= first[:, None]
        last = (right | padding).long().cumprod(1).sum(1)
        self.accepted[:count] = last - first
        self.newest[:count] = drawn.gather(1, last[:, None])[:, 0]
        positions = views["positions"].view(count, rows)
        self.positions[:count] = positions.gather(1, last[:, None])[:, 0] + 1
        self.state_rows[:count] = last + torch.arange(0, count * rows, rows, device=draws.device)
