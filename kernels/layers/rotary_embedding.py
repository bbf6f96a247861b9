"""Query, key and value norms, rotary embedding and the cache write, all heads in one launch."""

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
from .rms_norm import rms


@triton.jit(do_not_specialize=["rows"])
def _norm_rope_and_cache(
    qkv, q_weight, k_weight, cos, sin, positions, slots, q_out, key_cache, value_cache, rows, eps,
    HQ: tl.constexpr, HK: tl.constexpr, HEADS: tl.constexpr, D: tl.constexpr, HALF: tl.constexpr,
    PAIRS: tl.constexpr, BH: tl.constexpr, PARTS: tl.constexpr, ONE_COPY: tl.constexpr,
    PDL: tl.constexpr,
):  # fmt: skip
    """A program takes BH heads of one kind of one token, as two half heads [BH, HALF]."""
    pdl_launch_dependents(PDL)
    pdl_wait(PDL)
    token = tl.program_id(0)
    h0 = tl.program_id(1) * BH
    heads = tl.arange(0, BH)
    i = tl.arange(0, HALF)
    live = i < D // 2
    at = (token.to(tl.int64) * HEADS + h0 + heads)[:, None] * D + i[None, :]
    a = tl.load(qkv + at, mask=live[None, :], other=0.0).to(tl.float32)
    b = tl.load(qkv + at + D // 2, mask=live[None, :], other=0.0).to(tl.float32)
    for part in tl.static_range(1, PARTS):
        before = (part * rows).to(tl.int64) * (HEADS * D)
        a += tl.load(qkv + before + at, mask=live[None, :], other=0.0)
        b += tl.load(qkv + before + at + D // 2, mask=live[None, :], other=0.0)
    factor = tl.rsqrt((tl.sum(a * a, 1) + tl.sum(b * b, 1)) / D + eps)[:, None]
    a = a * factor
    b = b * factor
    is_query = h0 < HQ
    is_value = h0 >= HQ + HK
    if is_query or (not ONE_COPY and not is_value):
        weight = q_weight if is_query else k_weight
        a = a * tl.load(weight + i, mask=live, other=0.0).to(tl.float32)[None, :]
        b = b * tl.load(weight + D // 2 + i, mask=live, other=0.0).to(tl.float32)[None, :]
        if not ONE_COPY:
            row = tl.load(positions + token).to(tl.int64) * PAIRS
            c = tl.load(cos + row + i, mask=i < PAIRS, other=1.0)[None, :]
            s = tl.load(sin + row + i, mask=i < PAIRS, other=0.0)[None, :]
            turned = a * c - b * s
            b = b * c + a * s
            a = turned
    if is_query:
        to = q_out + (token.to(tl.int64) * HQ + h0 + heads)[:, None] * D + i[None, :]
        tl.store(to, a.to(q_out.dtype.element_ty), mask=live[None, :])
        tl.store(to + D // 2, b.to(q_out.dtype.element_ty), mask=live[None, :])
    else:
        slot = tl.load(slots + token).to(tl.int64)
        cache = value_cache if is_value else key_cache
        first = h0 - HQ - HK if is_value else h0 - HQ
        to = cache + (slot * HK + first + heads)[:, None] * D + i[None, :]
        stored = live[None, :] & (slot >= 0)
        tl.store(to, a.to(key_cache.dtype.element_ty), mask=stored)
        tl.store(to + D // 2, b.to(key_cache.dtype.element_ty), mask=stored)


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
    """Norms each head, rotates queries and keys, writes keys and values to their slots.

    Args:
        qkv: [tokens, (heads + 2 * kv_heads) * head_dim], queries then keys then values, or float32
            [parts, tokens, ...] whose sum is meant. With one copy: queries then keys only.
        q_weight: [head_dim]; with one copy the folded one (``fold_key_weight``).
        k_weight: [head_dim]; ``None`` means one copy (``value_cache`` is ``None`` too): the cache
            takes the normalised key without weight or rotation, and the query stays unrotated, as
            ``paged_decode`` and ``paged_prefill`` want it.
        cos, sin: float32 [positions, pairs]; the pairs are (i, i + head_dim / 2), i < pairs.
        positions, slots: int32 or int64 [tokens]. A negative slot is not written.
        q_out: [tokens, heads, head_dim]. Caches: [pages, page_size, kv_heads, head_dim].

    Returns:
        ``q_out``.

    Raises:
        ValueError: a shape or dtype that does not fit.
    """
    one_copy = value_cache is None
    require((k_weight is None) == one_copy, "k_weight and value_cache go together")
    _check(qkv, cos, sin, positions, slots, q_out, key_cache, value_cache)
    tokens, heads, head_dim = q_out.shape
    kv_heads = key_cache.shape[2]
    parts = qkv.shape[0] if qkv.dim() == 3 else 1
    all_heads = qkv.shape[-1] // head_dim
    shared = math.gcd(heads, kv_heads)
    block = min(shared & -shared, 8 if tokens > 64 else 4)
    _norm_rope_and_cache[(tokens, all_heads // block)](
        qkv, q_weight, q_weight if k_weight is None else k_weight, cos, sin, positions, slots,
        q_out, key_cache, key_cache if value_cache is None else value_cache, tokens, eps,
        HQ=heads, HK=kv_heads, HEADS=all_heads, D=head_dim, HALF=next_power_of_2(head_dim // 2),
        PAIRS=cos.shape[1], BH=block, PARTS=parts, ONE_COPY=one_copy, num_warps=4,
        **pdl_options(pdl),
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
    """ValueError where the tensors of ``norm_rope_and_cache`` do not fit together."""
    require_tensor("q_out", q_out, FLOAT_DTYPES, 3)
    require_tensor("key_cache", key_cache, FLOAT_DTYPES, 4)
    tokens, heads, head_dim = q_out.shape
    summed = qkv.dim() == 3 and qkv.shape[0] > 1
    require_tensor("qkv", qkv, torch.float32 if summed else FLOAT_DTYPES, qkv.dim())
    width = (heads + key_cache.shape[2] * (1 if value_cache is None else 2)) * head_dim
    require(
        tuple(qkv.shape[-2:]) == (tokens, width) and qkv.dim() in (2, 3),
        f"qkv is {tuple(qkv.shape)}; it must end in {(tokens, width)}",
    )
    require(key_cache.shape[3] == head_dim, f"key_cache has head_dim {key_cache.shape[3]}")
    if value_cache is not None:
        require_tensor("value_cache", value_cache, key_cache.dtype, 4)
        require(value_cache.shape == key_cache.shape, "the caches differ in shape")
    for name, tensor in (("positions", positions), ("slots", slots)):
        require_tensor(name, tensor, (torch.int32, torch.int64), 1)
    require(len(positions) == len(slots) == tokens, f"{tokens} tokens need as many positions")
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
    """In float64: queries, and the keys (or n) and values the caches receive, [tokens, h, d]."""
    summed = qkv.double().sum(0) if qkv.dim() == 3 else qkv.double()
    x = rms(summed.unflatten(1, (-1, q_weight.shape[0])), eps)
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
