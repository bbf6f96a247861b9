"""Recorded tokens as drafts that the device looks up itself, so that steps do not wait."""

from typing import Any

import torch

from eightfold.engine.execution.draft_chain import DeviceDrafter
from eightfold.engine.execution.gpu_runner import GpuRunner
from eightfold.engine.scheduling.scheduled_step import ScheduledTokens
from eightfold.engine.speculation.replay_drafter import ReplayDrafter


class DeviceReplay(ReplayDrafter):
    """A `ReplayDrafter` whose records are on the device, too.

    Args:
        runner: the runner whose steps it follows.
        records, vocabulary, acceptance: as in `ReplayDrafter`.
        cost: a drafter that drafts before each lookup, for the time that this takes.
    """

    def __init__(
        self,
        runner: GpuRunner,
        records: dict[tuple[tuple[int, ...], int], list[int]],
        vocabulary: int,
        acceptance: tuple[float, ...] = (),
        cost: DeviceDrafter | None = None,
    ) -> None:
        super().__init__(records, vocabulary, acceptance)
        self._runner, self._cost = runner, cost
        self._tables: dict[tuple[int, ...], tuple[torch.Tensor, torch.Tensor]] = {}

    def draft(self, sequences: list[Any], count: int) -> list[Any]:
        """Return the next recorded tokens, thinned, and take the time of the other drafter."""
        if self._cost is not None:
            self._cost.draft(sequences, count)  # type: ignore[attr-defined]
        return super().draft(sequences, count)

    def draft_behind(self, scheduled: list[ScheduledTokens], sequences: int, count: int) -> None:
        """Look up the tokens behind the newest of each sequence (see ``DeviceDrafter``)."""
        if self._cost is not None:
            self._cost.draft_behind(scheduled, sequences, count)
        ids = tuple(entry.seq.id for entry in scheduled)
        if ids not in self._tables:
            self._tables[ids] = self._make_tables(scheduled, sequences)
        table, wrong = self._tables[ids]
        chain = self._runner.chain
        begin = (chain.positions[:sequences] + 1).clamp(max=table.shape[1] - 1 - count)
        depth = torch.arange(count, device=table.device)
        tokens = table.gather(1, begin[:, None] + depth)
        shifted = wrong.gather(1, begin[:, None]) == depth
        chain.drafts[:sequences, :count] = (tokens + shifted) % self._vocabulary

    def _make_tables(
        self, scheduled: list[ScheduledTokens], sequences: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the recorded tokens, and the depth of the wrong draft at each position."""
        lines = [self._record_of.get(entry.seq.id, [0]) for entry in scheduled]
        width = max(map(len, lines)) + 32
        table = torch.zeros(sequences, width, dtype=torch.int64)
        wrong = torch.full((sequences, width), 1 << 20, dtype=torch.int64)
        for index, (entry, line) in enumerate(zip(scheduled, lines, strict=True)):
            table[index, : len(line)] = torch.tensor(line)
            for begin in range(entry.seq.prompt_length, len(line)):
                wrong[index, begin] = self.wrong_depth(entry.seq.params.seed, begin, 16)
        device = self._runner.device
        return table.to(device), wrong.to(device)
