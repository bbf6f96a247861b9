"""A plan as tensors for plain torch."""

from dataclasses import dataclass

import numpy as np
import torch

from eightfold.kernels.attention.torch_fallback import PrefillChunk, TorchAttentionBatch
from eightfold.kernels.sampling.torch_sampler import SamplingBatch

from ..scheduling.scheduled_step import ScheduledTokens

CPU = torch.device("cpu")


@dataclass(frozen=True, slots=True)
class Batch:
    """A step of T tokens, R of which give a token; its tensors are on the model's device.

    tokens, positions: int64 [1, T]; a carried token's entry is 0 until the runner fills it.
    carried: rows of carried tokens and their sequences' numbers. sample_rows: int64 [R].
    attention: one entry per page group. sampling: ``None`` where nothing samples.
    """

    tokens: torch.Tensor
    positions: torch.Tensor
    carried: tuple[tuple[int, ...], tuple[int, ...]]
    sample_rows: torch.Tensor
    attention: dict[int | None, TorchAttentionBatch]
    sampling: SamplingBatch | None
    entropy: bool


def build(
    scheduled: list[ScheduledTokens],
    windows: tuple[int | None, ...],
    page_size: int,
    device: torch.device = CPU,
) -> Batch:
    """Stage the scheduled tokens of one plan for a model on ``device``."""
    tokens: list[int] = []
    positions: list[int] = []
    carried: list[tuple[int, int]] = []
    sample_rows: list[int] = []
    for entry in scheduled:
        end = entry.start + entry.count
        known = entry.seq.tokens[entry.start : end]
        tokens += known
        if entry.carried:
            carried.append((len(tokens), entry.seq.id))
            tokens.append(0)
        positions += range(entry.start, end)
        if entry.samples:
            sample_rows.append(len(tokens) - 1)
    sampling = [entry for entry in scheduled if entry.samples]
    return Batch(
        tokens=_tensor(np.array(tokens)[None], device),
        positions=_tensor(np.array(positions)[None], device),
        carried=(tuple(row for row, _ in carried), tuple(seq for _, seq in carried)),
        sample_rows=_tensor(np.array(sample_rows, dtype=np.int64), device),
        attention={
            window: _attention(scheduled, group, window, page_size, device)
            for group, window in enumerate(windows)
        },
        sampling=_sampling(sampling, device) if sampling else None,
        entropy=any(entry.seq.params.entropy for entry in sampling),
    )


def _tensor(array: np.ndarray, device: torch.device) -> torch.Tensor:
    return torch.from_numpy(array).to(device)


def _attention(
    scheduled: list[ScheduledTokens],
    group: int,
    window: int | None,
    page_size: int,
    device: torch.device,
) -> TorchAttentionBatch:
    write: list[np.ndarray] = []
    decode_rows: list[int] = []
    decode_slots: list[np.ndarray] = []
    chunks: list[PrefillChunk] = []
    row = 0
    for entry in scheduled:
        end = entry.start + entry.count
        low = 0 if window is None else max(0, entry.start - window + 1)
        first = low // page_size
        table = np.array(entry.seq.tables[group][first : -(-end // page_size)])
        slots = (table[:, None] * page_size + np.arange(page_size)).reshape(-1)
        slots = slots[low - first * page_size : end - first * page_size]
        write.append(slots[-entry.count :])
        if entry.count == 1:
            decode_rows.append(row)
            decode_slots.append(slots)
        else:
            query = np.arange(entry.start, end)[:, None]
            key = np.arange(low, end)[None, :]
            visible = key <= query
            if window is not None:
                visible &= key > query - window
            chunks.append(
                PrefillChunk(
                    row, row + entry.count, _tensor(slots, device), _tensor(visible, device)
                )
            )
        row += entry.count
    padded, mask = _pad(decode_slots) if decode_slots else (None, None)
    return TorchAttentionBatch(
        write_slots=_tensor(np.concatenate(write), device),
        decode_rows=_tensor(np.array(decode_rows), device) if decode_rows else None,
        decode_slots=None if padded is None else _tensor(padded, device),
        decode_mask=None if mask is None else _tensor(mask[:, None, None, :], device),
        chunks=tuple(chunks),
    )


def _pad(rows: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray | None]:
    """Rows of slots as one array, and its mask if any row is shorter."""
    lengths = np.array([len(row) for row in rows])
    width = int(lengths.max())
    slots = np.zeros((len(rows), width), dtype=np.int64)
    for index, row in enumerate(rows):
        slots[index, : len(row)] = row
    if (lengths == width).all():
        return slots, None
    return slots, np.arange(width)[None, :] < lengths[:, None]


def _sampling(scheduled: list[ScheduledTokens], device: torch.device = CPU) -> SamplingBatch:
    params = [entry.seq.params for entry in scheduled]
    drawn = [p for p in params if p.temperature > 0]
    top_ks = [p.top_k for p in drawn]

    def floats(name: str) -> torch.Tensor:
        return _tensor(np.array([getattr(p, name) for p in params], dtype=np.float32), device)

    seeds = np.array([p.seed for p in params], dtype=np.uint64).astype(np.int64)
    return SamplingBatch(
        temperature=floats("temperature"),
        top_k=_tensor(np.array([p.top_k for p in params]), device),
        top_p=floats("top_p"),
        min_p=floats("min_p"),
        seeds=_tensor(seeds, device),
        positions=_tensor(np.array([entry.start + entry.count for entry in scheduled]), device),
        max_top_k=max(top_ks) if top_ks and min(top_ks) > 0 else 0,
        all_greedy=not drawn,
        any_filtered=any(p.top_k or p.top_p < 1 or p.min_p > 0 for p in drawn),
    )
