"""A step plan as tensors for plain PyTorch."""

from dataclasses import dataclass
from itertools import accumulate

import numpy as np
import torch

from eightfold.kernels.attention.torch_fallback import PrefillChunk, TorchAttentionBatch
from eightfold.kernels.sampling.torch_sampler import SamplingBatch

from ..scheduling.scheduled_step import ScheduledTokens
from .step_arrays import VisiblePages, sampling_arrays, token_arrays, visible_pages

CPU = torch.device("cpu")
# Keys of single rows are padded to a multiple of this, with a mask. Then the results of a row are
# bitwise independent of the rows beside it, which have other numbers of keys.
KEY_BLOCK = 64


@dataclass(frozen=True, slots=True)
class CpuBatch:
    """A step of T tokens, R of which give a token. Tensors are on the model's device.

    Attributes:
        tokens: int64 [1, T]; 0 for carried tokens, which the runner fills in.
        positions: int64 [1, T].
        carried: (row, sequence id) of each carried token.
        sample_rows: int64 [R].
        attention: batch of each window.
        sampling: ``None`` if nothing samples.
        entropy: True if an entropy is wanted.
    """

    tokens: torch.Tensor
    positions: torch.Tensor
    carried: list[tuple[int, int]]
    sample_rows: torch.Tensor
    attention: dict[int | None, TorchAttentionBatch]
    sampling: SamplingBatch | None
    entropy: bool


def make_cpu_batch(
    scheduled: list[ScheduledTokens],
    windows: tuple[int | None, ...],
    page_size: int,
    device: torch.device = CPU,
) -> CpuBatch:
    """Turn the entries of a plan into tensors on ``device``.

    Despite the name this may be any device on which plain PyTorch runs the model.
    """
    *starts, rows = accumulate((entry.count for entry in scheduled), initial=0)
    arrays = token_arrays(scheduled, starts, rows, np.int64)
    sampling = [entry for entry in scheduled if entry.samples]
    return CpuBatch(
        tokens=_tensor(arrays.tokens[None], device),
        positions=_tensor(arrays.positions[None], device),
        carried=arrays.carried,
        sample_rows=_tensor(np.array(arrays.sample_rows, dtype=np.int64), device),
        attention={
            window: _attention_batch(scheduled, starts, group, window, page_size, device)
            for group, window in enumerate(windows)
        },
        sampling=sampling_batch(sampling, device) if sampling else None,
        entropy=any(entry.seq.params.entropy for entry in sampling),
    )


def _tensor(array: np.ndarray, device: torch.device) -> torch.Tensor:
    return torch.from_numpy(array).to(device)


def _attention_batch(
    scheduled: list[ScheduledTokens],
    starts: list[int],
    group: int,
    window: int | None,
    page_size: int,
    device: torch.device,
) -> TorchAttentionBatch:
    write: list[np.ndarray] = []
    decode_rows: list[int] = []
    decode_slots: list[np.ndarray] = []
    chunks: list[PrefillChunk] = []
    for entry, row in zip(scheduled, starts, strict=True):
        visible = visible_pages(entry, group, window, page_size)
        slots = visible.slots(visible.begin)
        write.append(slots[-entry.count :])
        if not entry.is_chunk:
            decode_rows += range(row, row + entry.count)
            decode_slots += _row_slots(entry, visible, window)
        else:
            shown = None
            if entry.start > 0 or (window is not None and entry.count > window):
                shown = _tensor(_causal_mask(entry, visible, window), device)
            chunks.append(PrefillChunk(row, row + entry.count, _tensor(slots, device), shown))
    padded, mask = pad_slots(decode_slots) if decode_slots else (None, None)
    return TorchAttentionBatch(
        write_slots=_tensor(np.concatenate(write), device),
        decode_rows=_tensor(np.array(decode_rows), device) if decode_rows else None,
        decode_slots=None if padded is None else _tensor(padded, device),
        decode_mask=None if mask is None else _tensor(mask[:, None, None, :], device),
        chunks=tuple(chunks),
    )


def _row_slots(
    entry: ScheduledTokens, visible: VisiblePages, window: int | None
) -> list[np.ndarray]:
    """Slots that each row of a token and its drafts sees: what precedes it on its path, and it."""
    begin, start = visible.begin, entry.start
    slots = visible.slots(begin)
    before, new = slots[: start - begin], slots[start - begin :]
    found = []
    for row, position in enumerate(entry.positions):
        path = np.concatenate([before, new[entry.drafts.path(row)]])
        found.append(path if window is None else path[max(0, position - window + 1 - begin) :])
    return found


def _causal_mask(entry: ScheduledTokens, visible: VisiblePages, window: int | None) -> np.ndarray:
    """[count, keys], True if the query sees the key."""
    query = np.arange(entry.start, visible.end)[:, None]
    key = np.arange(visible.begin, visible.end)[None, :]
    mask = key <= query
    if window is not None:
        mask &= key > query - window
    return mask


def pad_slots(rows: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Stack rows of slots, with a mask."""
    lengths = np.array([len(row) for row in rows])
    width = -(-int(lengths.max()) // KEY_BLOCK) * KEY_BLOCK
    slots = np.zeros((len(rows), width), dtype=np.int64)
    for index, row in enumerate(rows):
        slots[index, : len(row)] = row
    return slots, np.arange(width)[None, :] < lengths[:, None]


def sampling_batch(sampling: list[ScheduledTokens], device: torch.device = CPU) -> SamplingBatch:
    """Return the settings of entries that all sample, as the sampler takes them."""
    arrays = sampling_arrays(sampling, sum(entry.draw_count for entry in sampling))
    tensors = {name: _tensor(array, device) for name, array in arrays.items()}
    random = [p for entry in sampling if (p := entry.seq.params).temperature > 0]
    top_ks = [p.top_k for p in random]
    return SamplingBatch(
        temperature=tensors["temperature"],
        top_k=tensors["top_k"],
        top_p=tensors["top_p"],
        min_p=tensors["min_p"],
        seeds=tensors["seeds"],
        positions=tensors["sample_positions"],
        max_top_k=max(top_ks) if top_ks and min(top_ks) > 0 else 0,
        all_greedy=not random,
        any_filtered=any(p.top_k or p.top_p < 1 or p.min_p > 0 for p in random),
    )
