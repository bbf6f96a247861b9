"""Norms of queries, keys and values, rotary embedding and the cache write in one launch."""

import math

import torch
import triton
import triton.language as tl

from ..triton_launch import (
    FLOAT_DTYPES,
    next_power_of_2,
    pdl_launch_dependents,
    pdl_options,
    pdl_wait,
    require,
    require_tensor,
)
from .rms_norm import divide_by_rms


@triton.jit(do_not_specialize=["rows"])
def norm_rope_and_cache_kernel(
    qkv, q_weight, k_weight, cos, sin, positions, slots, q_out, key_cache, value_cache, rows, eps,
    HEADS: tl.constexpr, KV_HEADS: tl.constexpr, ALL_HEADS: tl.constexpr, HEAD_DIM: tl.constexpr,
    BLOCK_HEADS: tl.constexpr, BLOCK_HALF: tl.constexpr, PAIRS: tl.constexpr, PARTS: tl.constexpr,
    ONE_COPY: tl.constexpr, PDL: tl.constexpr,
):  # fmt: skip
    """A program takes BLOCK_HEADS heads of a token, all queries, keys or values.

    It handles them as two halves [BLOCK_HEADS, BLOCK_HALF].
    """
    pdl_launch_dependents(PDL)
    pdl_wait(PDL)
    token = tl.program_id(0)
    h0 = tl.program_id(1) * BLOCK_HEADS
    heads = tl.arange(0, BLOCK_HEADS)
    i = tl.arange(0, BLOCK_HALF)
    live = i < HEAD_DIM // 2
    at = (token.to(tl.int64) * ALL_HEADS + h0 + heads)[:, None] * HEAD_DIM + i[None, :]
    a = tl.load(qkv + at, mask=live[None, :], other=0.0).to(tl.float32)
    b = tl.load(qkv + at + HEAD_DIM // 2, mask=live[None, :], other=0.0).to(tl.float32)
    for part in tl.static_range(1, PARTS):
        before = (part * rows).to(tl.int64) * (ALL_HEADS * HEAD_DIM)
        a += tl.load(qkv + before + at, mask=live[None, :], other=0.0)
        b += tl.load(qkv + before + at + HEAD_DIM // 2, mask=live[None, :], other=0.0)
    factor = tl.rsqrt((tl.sum(a * a, 1) + tl.sum(b * b, 1)) / HEAD_DIM + eps)[:, None]
    a = a * factor
    b = b * factor
    is_query = h0 < HEADS
    is_value = h0 >= HEADS + KV_HEADS
    if is_query or (not ONE_COPY and not is_value):
        weight = q_weight if is_query else k_weight
        a = a * tl.load(weight + i, mask=live, other=0.0).to(tl.float32)[None, :]
        b = b * tl.load(weight + HEAD_DIM // 2 + i, mask=live, other=0.0).to(tl.float32)[None, :]
        if not ONE_COPY:
            row = tl.load(positions + token).to(tl.int64) * PAIRS
            c = tl.load(cos + row + i, mask=i < PAIRS, other=1.0)[None, :]
            s = tl.load(sin + row + i, mask=i < PAIRS, other=0.0)[None, :]
            turned = a * c - b * s
            b = b * c + a * s
            a = turned
    if is_query:
        to = q_out + (token.to(tl.int64) * HEADS + h0 + heads)[:, None] * HEAD_DIM + i[None, :]
        tl.store(to, a.to(q_out.dtype.element_ty), mask=live[None, :])
        tl.store(to + HEAD_DIM // 2, b.to(q_out.dtype.element_ty), mask=live[None, :])
    else:
        slot = tl.load(slots + token).to(tl.int64)
        cache = value_cache if is_value else key_cache
        first = h0 - HEADS - KV_HEADS if is_value else h0 - HEADS
        to = cache + (slot * KV_HEADS + first + heads)[:, None] * HEAD_DIM + i[None, :]
        stored = live[None, :] & (slot >= 0)
        tl.store(to, a.to(key_cache.dtype.element_ty), mask=stored)
        tl.store(to + HEAD_DIM // 2, b.to(key_cache.dtype.element_ty), mask=stored)


def norm_rope_and_cache(
    qkv: torch.Tensor,
    q_weight: torch.Tensor,
    k_weight: torch.Tensor | None,
    cos: torch.Tensor,
    sin: torch.Tensor,
    positions: torch.Tensor,
    slots: torch.Tensor,
    q_out: torch.Tensor,
    key_cache: torch.Tensor,
    value_cache: torch.Tensor | None,
    *,
    eps: float = 1e-6,
    pdl: bool = False,
) -> torch.Tensor:
    """Normalize each head, rotate queries and keys, and write keys and values to their slots.

    Args:
        qkv: queries, keys and values, [tokens, (heads + 2 * kv_heads) * head_dim], or float32
            [parts, tokens, ...], whose sum over the parts counts. With one copy there are only
            queries and keys.
        q_weight: [head_dim]; with one copy, the folded weight (``fold_key_weight``).
        k_weight: [head_dim]. With one copy it is ``None``, as ``value_cache`` is: the cache takes
            the normalized key without weight or rotation, and the query is not rotated, as
            ``paged_decode`` and ``paged_prefill`` expect.
        cos: float32 [positions, pairs]. Pair i consists of the elements i and i + head_dim / 2.
        sin: float32 [positions, pairs].
        positions: int32 or int64 [tokens].
        slots: int32 or int64 [tokens]; nothing is written to a negative slot.
        q_out: [tokens, heads, head_dim].
        key_cache: [pages, page_size, kv_heads, head_dim].
        value_cache: as ``key_cache``.
        eps: added to the mean squares.
        pdl: launch with programmatic dependent launch.

    Returns:
        ``q_out``.

    Raises:
        ValueError: a shape or dtype does not fit.
    """
    one_copy = value_cache is None
    require((k_weight is None) == one_copy, "k_weight and value_cache go together.")
    _check(qkv, cos, sin, positions, slots, q_out, key_cache, value_cache)
    tokens, heads, head_dim = q_out.shape
    kv_heads = key_cache.shape[2]
    parts = qkv.shape[0] if qkv.dim() == 3 else 1
    all_heads = qkv.shape[-1] // head_dim
    shared = math.gcd(heads, kv_heads)
    block = min(shared & -shared, 8 if tokens > 64 else 4)
    norm_rope_and_cache_kernel[(tokens, all_heads // block)](
        qkv, q_weight, q_weight if k_weight is None else k_weight, cos, sin, positions, slots,
        q_out, key_cache, key_cache if value_cache is None else value_cache, tokens, eps,
        HEADS=heads, KV_HEADS=kv_heads, ALL_HEADS=all_heads, HEAD_DIM=head_dim, BLOCK_HEADS=block,
        BLOCK_HALF=next_power_of_2(head_dim // 2), PAIRS=cos.shape[1], PARTS=parts,
        ONE_COPY=one_copy, num_warps=4, **pdl_options(pdl),
    )  # fmt: skip
    return q_out


def _check(
    qkv: torch.Tensor,
    cos: torch.Tensor,
    sin: torch.Tensor,
    positions: torch.Tensor,
    slots: torch.Tensor,
    q_out: torch.Tensor,
    key_cache: torch.Tensor,
    value_cache: torch.Tensor | None,
) -> None:
    """Raise ValueError unless the tensors of a call fit together."""
    require_tensor("q_out", q_out, FLOAT_DTYPES, 3)
    require_tensor("key_cache", key_cache, FLOAT_DTYPES, 4)
    tokens, heads, head_dim = q_out.shape
    summed = qkv.dim() == 3 and qkv.shape[0] > 1
    require_tensor("qkv", qkv, torch.float32 if summed else FLOAT_DTYPES, qkv.dim())
    width = (heads + key_cache.shape[2] * (1 if value_cache is None else 2)) * head_dim
    require(
        tuple(qkv.shape[-2:]) == (tokens, width) and qkv.dim() in (2, 3),
        f"qkv has shape {tuple(qkv.shape)}; its last axes must be {(tokens, width)}.",
    )
    require(
        key_cache.shape[3] == head_dim,
        f"key_cache has head_dim {key_cache.shape[3]}, but q_out has {head_dim}.",
    )
    if value_cache is not None:
        require_tensor("value_cache", value_cache, key_cache.dtype, 4)
        require(value_cache.shape == key_cache.shape, "The caches differ in shape.")
    for name, tensor in (("positions", positions), ("slots", slots)):
        require_tensor(name, tensor, (torch.int32, torch.int64), 1)
    require(
        len(positions) == len(slots) == tokens,
        f"positions and slots must have one entry for each of {tokens} tokens.",
    )
    require_tensor("cos", cos, torch.float32, 2)
    require_tensor("sin", sin, torch.float32, 2)


def norm_rope_and_cache_reference(
    qkv: torch.Tensor,
    q_weight: torch.Tensor,
    k_weight: torch.Tensor | None,
    cos: torch.Tensor,
    sin: torch.Tensor,
    positions: torch.Tensor,
    heads: int,
    kv_heads: int,
    *,
    eps: float = 1e-6,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
    """Compute what ``norm_rope_and_cache`` computes, in float64.

    Returns:
        Queries, and what the caches receive: keys (with one copy, without weight or rotation) and
        values, [tokens, heads, head_dim] each.
    """
    summed = qkv.double().sum(0) if qkv.dim() == 3 else qkv.double()
    x = divide_by_rms(summed.unflatten(1, (-1, q_weight.shape[0])), eps)
    q, k = x[:, :heads] * q_weight.double(), x[:, heads : heads + kv_heads]
    if k_weight is None:
        return q, k, None
    c, s = (t[positions.long()][:, None, :].double() for t in (cos, sin))
    return _rotate(q, c, s), _rotate(k * k_weight.double(), c, s), x[:, heads + kv_heads :]


def _rotate(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    pairs, half = cos.shape[-1], x.shape[-1] // 2
    a, b = x[..., :pairs], x[..., half : half + pairs]
    out = x.clone()
    out[..., :pairs] = a * cos - b * sin
    out[..., half : half + pairs] = b * cos + a * sin
    return out
