"""Rotary embedding of queries and keys, and the cache write of keys and values, in one launch.

Queries, keys and values come as transformers' modules pass them to attention: with any strides
between tokens and between heads.
"""

from dataclasses import dataclass

import torch
import triton
import triton.language as tl

from ..argument_checks import FLOAT_DTYPES, require, require_tensor
from ..triton_launch import next_power_of_2, pdl_launch_dependents, pdl_options, pdl_wait


@dataclass(frozen=True, slots=True)
class RotaryLayout:
    """Which elements of a head form the pairs that rotate, and where their angles are.

    Attributes:
        pairs: pairs that rotate; the elements of a head after the first ``2 * pairs`` do not.
        interleaved: True if pair p consists of elements 2p and 2p + 1, else of p and p + pairs.
        column_step: pair p takes column ``p * column_step`` of the tables of cos and sin.
    """

    pairs: int
    interleaved: bool
    column_step: int


@triton.jit
def _rotated(
    x, base, d, live, cos, sin, token, rotation_width,
    PAIRS: tl.constexpr, INTERLEAVED: tl.constexpr, STEP: tl.constexpr,
):  # fmt: skip
    """Load heads [heads, dims] at ``base``, and rotate their first 2 * PAIRS elements."""
    value = tl.load(x + base[:, None] + d[None, :], mask=live, other=0.0).to(tl.float32)
    if PAIRS > 0:
        turns = d < 2 * PAIRS
        if INTERLEAVED:
            partner = d ^ 1
            pair = d // 2
            first = d % 2 == 0
        else:
            partner = tl.where(d < PAIRS, d + PAIRS, d - PAIRS)
            pair = d % PAIRS
            first = d < PAIRS
        at = token.to(tl.int64) * rotation_width + pair * STEP
        c = tl.load(cos + at, mask=turns, other=1.0).to(tl.float32)
        s = tl.load(sin + at, mask=turns, other=0.0).to(tl.float32)
        other = tl.load(x + base[:, None] + partner[None, :], mask=live & turns[None, :], other=0.0)
        other = tl.where(first[None, :], -other.to(tl.float32), other.to(tl.float32))
        value = value * c[None, :] + other * s[None, :]
    return value


@triton.jit
def rotate_and_write_kernel(
    q, k, v, cos, sin, slots, q_out, key_cache, value_cache, rotation_width,
    q_token, q_head, k_token, k_head, v_token, v_head,
    HEADS: tl.constexpr, KV_HEADS: tl.constexpr, HEAD_DIM: tl.constexpr, BLOCK_DIM: tl.constexpr,
    BLOCK_HEADS: tl.constexpr, PAIRS: tl.constexpr, INTERLEAVED: tl.constexpr,
    STEP: tl.constexpr, PDL: tl.constexpr,
):  # fmt: skip
    """Each program takes BLOCK_HEADS heads of a token: all of them queries, keys or values."""
    pdl_launch_dependents(PDL)
    pdl_wait(PDL)
    QUERY_BLOCKS: tl.constexpr = (HEADS + BLOCK_HEADS - 1) // BLOCK_HEADS
    KEY_BLOCKS: tl.constexpr = (KV_HEADS + BLOCK_HEADS - 1) // BLOCK_HEADS
    token = tl.program_id(0)
    block = tl.program_id(1)
    d = tl.arange(0, BLOCK_DIM)
    if block < QUERY_BLOCKS:
        head = block * BLOCK_HEADS + tl.arange(0, BLOCK_HEADS)
        live = (head < HEADS)[:, None] & (d < HEAD_DIM)[None, :]
        base = token.to(tl.int64) * q_token + head.to(tl.int64) * q_head
        x = _rotated(
            q, base, d, live, cos, sin, token, rotation_width, PAIRS, INTERLEAVED, STEP
        )  # fmt: skip
        to = (token.to(tl.int64) * HEADS + head)[:, None] * HEAD_DIM + d[None, :]
        tl.store(q_out + to, x.to(q_out.dtype.element_ty), mask=live)
    else:
        slot = tl.load(slots + token).to(tl.int64)
        is_key = block < QUERY_BLOCKS + KEY_BLOCKS
        start = QUERY_BLOCKS if is_key else QUERY_BLOCKS + KEY_BLOCKS
        head = (block - start) * BLOCK_HEADS + tl.arange(0, BLOCK_HEADS)
        live = (head < KV_HEADS)[:, None] & (d < HEAD_DIM)[None, :]
        to = (slot * KV_HEADS + head)[:, None] * HEAD_DIM + d[None, :]
        written = live & (slot >= 0)
        if is_key:
            base = token.to(tl.int64) * k_token + head.to(tl.int64) * k_head
            x = _rotated(
                k, base, d, live, cos, sin, token, rotation_width, PAIRS, INTERLEAVED, STEP
            )  # fmt: skip
            tl.store(key_cache + to, x.to(key_cache.dtype.element_ty), mask=written)
        else:
            base = token.to(tl.int64) * v_token + head.to(tl.int64) * v_head
            value = tl.load(v + base[:, None] + d[None, :], mask=live, other=0.0)
            tl.store(value_cache + to, value.to(value_cache.dtype.element_ty), mask=written)


def rotate_and_write(
    q: torch.Tensor,
    k: torch.Tensor | None,
    v: torch.Tensor | None,
    rotation: tuple[torch.Tensor, torch.Tensor] | None,
    layout: RotaryLayout | None,
    slots: torch.Tensor,
    key_cache: torch.Tensor,
    value_cache: torch.Tensor,
    *,
    pdl: bool = False,
) -> torch.Tensor:
    """Rotate queries and keys, and write keys and values to their slots.

    Args:
        q: [tokens, heads, head_dim]; the last axis of q, k and v must be contiguous.
        k: [tokens, kv_heads, head_dim]; ``None``, as ``v``, to rotate the queries only.
        v: the same shape.
        rotation: cos and sin of each token, [tokens, width] each; ``None`` to rotate nothing.
        layout: how a head rotates; needed with ``rotation``.
        slots: int32 or int64 [tokens]; nothing is written to a negative slot.
        key_cache: [pages, page_size, kv_heads, head_dim].
        value_cache: the same shape.
        pdl: launch with programmatic dependent launch.

    Returns:
        The queries, rotated and contiguous, in the type of q.

    Raises:
        ValueError: a shape, a type or a stride does not fit.
    """
    _check(q, k, v, rotation, layout, slots, key_cache)
    tokens, heads, head_dim = q.shape
    q_out = torch.empty(q.shape, dtype=q.dtype, device=q.device)
    if not tokens:
        return q_out
    kv_heads = 0 if k is None else k.shape[1]
    cos, sin = (slots, slots) if rotation is None else rotation
    block = 8 if tokens > 64 else 4
    blocks = -(-heads // block) + 2 * -(-kv_heads // block)
    key, value = (q, q) if k is None or v is None else (k, v)
    rotate_and_write_kernel[(tokens, blocks)](
        q, key, value, cos, sin, slots, q_out, key_cache, value_cache,
        0 if rotation is None else cos.shape[1],
        q.stride(0), q.stride(1), key.stride(0), key.stride(1), value.stride(0), value.stride(1),
        HEADS=heads, KV_HEADS=max(1, kv_heads), HEAD_DIM=head_dim,
        BLOCK_DIM=next_power_of_2(head_dim), BLOCK_HEADS=block,
        PAIRS=layout.pairs if layout is not None and rotation is not None else 0,
        INTERLEAVED=bool(layout and layout.interleaved), STEP=layout.column_step if layout else 1,
        num_warps=4, **pdl_options(pdl),
    )  # fmt: skip
    return q_out


def _check(
    q: torch.Tensor,
    k: torch.Tensor | None,
    v: torch.Tensor | None,
    rotation: tuple[torch.Tensor, torch.Tensor] | None,
    layout: RotaryLayout | None,
    slots: torch.Tensor,
    key_cache: torch.Tensor,
) -> None:
    """Raise ValueError unless the tensors of a call fit together."""
    require((k is None) == (v is None), "Keys and values go together.")
    tokens, _, head_dim = q.shape
    for name, tensor in (("q", q), ("k", k), ("v", v)):
        if tensor is None:
            continue
        require(tensor.dtype in FLOAT_DTYPES, f"{name} is {tensor.dtype}; not a float type.")
        require(
            tensor.shape[0] == tokens and tensor.shape[2] == head_dim,
            f"{name} has shape {tuple(tensor.shape)}, which does not fit that of q, "
            f"{tuple(q.shape)}.",
        )
        require(tensor.stride(2) == 1, f"The last axis of {name} must be contiguous.")
    require_tensor("slots", slots, (torch.int32, torch.int64), 1)
    require_tensor("key_cache", key_cache, FLOAT_DTYPES, 4)
    require(len(slots) == tokens, f"slots must have one entry for each of {tokens} tokens.")
    require(
        k is None or key_cache.shape[2:] == k.shape[1:],
        f"The cache has heads {tuple(key_cache.shape[2:])}, which do not fit the keys.",
    )
    if rotation is None:
        return
    require(layout is not None, "layout is missing; pass it with rotation.")
    cos, sin = rotation
    require(
        cos.shape == sin.shape and cos.shape[0] == tokens and cos.is_contiguous()
        and sin.is_contiguous(),
        "cos and sin must be contiguous, with one row for each token.",
    )  # fmt: skip
    require(
        layout is None or 2 * layout.pairs <= head_dim,
        f"The rotated pairs do not fit heads of {head_dim}.",
    )


def rotate_reference(
    x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, layout: RotaryLayout
) -> torch.Tensor:
    """Rotate heads [tokens, heads, head_dim] by cos and sin [tokens, width], in float64."""
    pairs, step = layout.pairs, layout.column_step
    c, s = (table[:, None, : (pairs - 1) * step + 1 : step].double() for table in (cos, sin))
    out = x.double().clone()
    if layout.interleaved:
        first, second = slice(0, 2 * pairs, 2), slice(1, 2 * pairs, 2)
    else:
        first, second = slice(0, pairs), slice(pairs, 2 * pairs)
    a, b = x[..., first].double(), x[..., second].double()
    out[..., first] = a * c - b * s
    out[..., second] = b * c + a * s
    return out
