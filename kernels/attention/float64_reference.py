"""Float64 references of ``paged_decode`` and ``paged_prefill`` for tests and benchmarks.

They attend to one sequence at a time and are slow. The fallback for devices on which the kernels
do not run is ``torch_fallback``.
"""

import torch

from .one_copy_keys import OneCopy, rebuild_keys


def paged_decode_reference(
    q: torch.Tensor,
    key_cache: torch.Tensor,
    value_cache: torch.Tensor | None,
    page_table: torch.Tensor,
    seq_lens: torch.Tensor,
    *,
    one_copy: OneCopy | None = None,
    sinks: torch.Tensor | None = None,
    first_pos: torch.Tensor | None = None,
    scale: float = 1.0,
    window: int = 0,
    q_len: int = 1,
    softcap: float = 0.0,
    tree: torch.Tensor | None = None,
) -> torch.Tensor:
    """Return what ``paged_decode`` computes from the same arguments, in float64."""
    page_size = key_cache.shape[1]
    group = q.shape[1] // key_cache.shape[2]
    out = torch.zeros(q.shape, dtype=torch.float64, device=q.device)
    for s, length in enumerate(seq_lens.tolist()):
        if not length:
            continue
        first = 0 if first_pos is None else int(first_pos[s])
        low = max(0, length - q_len - window + 1) if window else 0
        pos = torch.arange(low, length, device=q.device)
        pages = page_table[s].long()[(pos - first) // page_size]
        slots = pages * page_size + pos % page_size
        values = (key_cache if value_cache is None else value_cache).flatten(0, 1)[slots].double()
        rows = slice(s * q_len, (s + 1) * q_len)
        row_pos = torch.arange(length - q_len, length, device=q.device)
        query = q[rows].double()
        visible = (pos[None, :] <= row_pos[:, None]) & (row_pos[:, None] >= 0)
        if tree is not None:
            own = pos - (length - q_len)
            row_pos, sees = tree[rows].long().unbind(1)
            visible = (own < 0) | (sees[:, None] >> own.clamp(min=0) & 1).bool()
            pos = torch.where(own < 0, pos, row_pos[own.clamp(min=0)])
        if one_copy is None:
            keys = key_cache.flatten(0, 1)[slots].double()
        else:
            keys = rebuild_keys(values, one_copy, pos)
            unweighted = OneCopy(torch.ones_like(one_copy.key_weight), one_copy.cos, one_copy.sin)
            query = rebuild_keys(query, unweighted, row_pos)  # rotates only
        if window:
            visible &= pos[None, :] > row_pos[:, None] - window
        out[rows] = _attention(
            query, keys.repeat_interleave(group, 1), values.repeat_interleave(group, 1), visible,
            scale, sinks, softcap,
        )  # fmt: skip
    return out


def _attention(
    query: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    visible: torch.Tensor,
    scale: float,
    sinks: torch.Tensor | None,
    softcap: float,
) -> torch.Tensor:
    """Attention of rows [R, heads, head_dim] to keys [K, heads, head_dim]; 0 if none is visible."""
    scores = torch.einsum("rhd,khd->hrk", query, keys) * scale
    if softcap:
        scores = softcap * torch.tanh(scores / softcap)
    scores = scores.masked_fill(~visible, float("-inf"))
    if sinks is not None:
        sink = sinks.double()[:, None, None].expand(-1, len(query), 1)
        scores = torch.cat([scores, sink], 2)
    weights = scores.softmax(2)[..., : len(keys)].nan_to_num(0.0)
    return torch.einsum("hrk,khd->rhd", weights, values)


def paged_prefill_reference(
    q: torch.Tensor,
    key_cache: torch.Tensor,
    value_cache: torch.Tensor | None,
    page_table: torch.Tensor,
    query_starts: torch.Tensor,
    seq_lens: torch.Tensor,
    *,
    first_pos: torch.Tensor | None = None,
    **options: object,
) -> torch.Tensor:
    """Return what ``paged_prefill`` computes from the same arguments, in float64.

    A chunk of n tokens equals n decode rows of its sequence.
    """
    parts = []
    for s in range(page_table.shape[0]):
        begin, end = int(query_starts[s]), int(query_starts[s + 1])
        parts.append(
            paged_decode_reference(
                q[begin:end],
                key_cache,
                value_cache,
                page_table[s : s + 1],
                seq_lens[s : s + 1],
                q_len=end - begin,
                first_pos=None if first_pos is None else first_pos[s : s + 1],
                **options,  # type: ignore[arg-type]
            )
        )
    return torch.cat(parts)
