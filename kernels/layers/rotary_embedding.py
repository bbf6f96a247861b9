"""Norms of queries, keys and values, rotary embedding and the cache write in one launch."""

import math

import torch
import triton
import triton.language as tl

from ..argument_checks import FLOAT_DTYPES, require, require_tensor
from ..triton_launch import next_power_of_2, pdl_launch_dependents, pdl_options, pdl_wait
from .rms_norm import divide_by_rms

PAIR_LAYOUTS = ("halves", "partial", "neighbors")
"""Elements that rotate together: i and i + head_dim / 2; i and i + pairs; 2i and 2i + 1."""


@triton.jit
def _load_elements(
    qkv, bias, row, at, live, rows, width, PARTS: tl.constexpr, HAS_BIAS: tl.constexpr
):
    """Load elements ``at`` of a token's row, which may be float32 parts to add up."""
    x = tl.load(qkv + row + at, mask=live, other=0.0).to(tl.float32)
    for part in tl.static_range(1, PARTS):
        x += tl.load(qkv + (part * rows).to(tl.int64) * width + row + at, mask=live, other=0.0)
    if HAS_BIAS:
        x += tl.load(bias + at, mask=live, other=0.0).to(tl.float32)
    return x


@triton.jit
def _store_pairs(to, a, b, first, second, live):
    """Store both elements of pairs in heads that begin at ``to``."""
    tl.store(to + first[None, :], a.to(to.dtype.element_ty), mask=live)
    tl.store(to + second[None, :], b.to(to.dtype.element_ty), mask=live)


@triton.jit
def _pair_elements(i, HEAD_DIM: tl.constexpr, PAIRS: tl.constexpr, LAYOUT: tl.constexpr):
    """Return the elements of a head that form pair i; from PAIRS on, two that do not rotate."""
    if LAYOUT == 0:  # halves
        first = i
        second = i + HEAD_DIM // 2
    elif LAYOUT == 1:  # halves of the first 2 * PAIRS elements
        first = tl.where(i < PAIRS, i, i + PAIRS)
        second = tl.where(i < PAIRS, i + PAIRS, i + HEAD_DIM // 2)
    else:  # neighbors
        first = 2 * i
        second = 2 * i + 1
    return first, second


@triton.jit
def _sum_of_squares(
    qkv, bias, row, begin, count, rows, width, PARTS: tl.constexpr, HAS_BIAS: tl.constexpr,
    WIDE: tl.constexpr,
):  # fmt: skip
    """Return the sum of the squares of a token's elements [begin, begin + count)."""
    squares = tl.zeros([WIDE], tl.float32)
    for d0 in range(0, count, WIDE):
        d = d0 + tl.arange(0, WIDE)
        x = _load_elements(qkv, bias, row, begin + d, d < count, rows, width, PARTS, HAS_BIAS)
        squares += x * x
    return tl.sum(squares, 0)


@triton.jit
def _rotate_pairs(a, b, cos, sin, position, i, PAIRS: tl.constexpr):
    """Return both elements of pairs i, rotated by the angles of a position."""
    angle = position.to(tl.int64) * PAIRS
    c = tl.load(cos + angle + i, mask=i < PAIRS, other=1.0)[None, :]
    s = tl.load(sin + angle + i, mask=i < PAIRS, other=0.0)[None, :]
    return a * c - b * s, b * c + a * s


@triton.jit(do_not_specialize=["rows"])
def norm_rope_and_cache_kernel(
    qkv, bias, q_weight, k_weight, cos, sin, positions, slots, q_out, key_cache, value_cache, rows,
    eps, HEADS: tl.constexpr, KV_HEADS: tl.constexpr, ALL_HEADS: tl.constexpr,
    HEAD_DIM: tl.constexpr, BLOCK_HEADS: tl.constexpr, BLOCK_HALF: tl.constexpr,
    PAIRS: tl.constexpr, LAYOUT: tl.constexpr, PARTS: tl.constexpr, HAS_BIAS: tl.constexpr,
    NORM: tl.constexpr, VALUE_NORM: tl.constexpr, ONE_COPY: tl.constexpr, WIDE: tl.constexpr,
    PDL: tl.constexpr,
):  # fmt: skip
    """Each program takes BLOCK_HEADS heads of a token: all of them queries, keys or values.

    It handles them as two parts [BLOCK_HEADS, BLOCK_HALF], which hold the first and the second
    elements of pairs. NORM is 0 for no norm of queries and keys, 1 for one of each head, 2 for one
    of all heads together, whose squares are added up WIDE elements at a time.
    """
    pdl_launch_dependents(PDL)
    pdl_wait(PDL)
    token = tl.program_id(0)
    h0 = tl.program_id(1) * BLOCK_HEADS
    heads = tl.arange(0, BLOCK_HEADS)
    i = tl.arange(0, BLOCK_HALF)
    first, second = _pair_elements(i, HEAD_DIM, PAIRS, LAYOUT)
    live = (i < HEAD_DIM // 2)[None, :]
    width = ALL_HEADS * HEAD_DIM
    row = token.to(tl.int64) * width
    of_head = (h0 + heads)[:, None] * HEAD_DIM
    a = _load_elements(qkv, bias, row, of_head + first[None, :], live, rows, width, PARTS, HAS_BIAS)
    b = _load_elements(
        qkv, bias, row, of_head + second[None, :], live, rows, width, PARTS, HAS_BIAS
    )
    is_query = h0 < HEADS
    is_value = h0 >= HEADS + KV_HEADS
    if NORM == 2:
        if not is_value:
            begin = 0 if is_query else HEADS * HEAD_DIM
            count = HEADS * HEAD_DIM if is_query else KV_HEADS * HEAD_DIM
            squares = _sum_of_squares(
                qkv, bias, row, begin, count, rows, width, PARTS, HAS_BIAS, WIDE
            )
            factor = tl.rsqrt(squares / count + eps)
            a = a * factor
            b = b * factor
    elif (is_value and VALUE_NORM) or (not is_value and NORM == 1):
        factor = tl.rsqrt((tl.sum(a * a, 1) + tl.sum(b * b, 1)) / HEAD_DIM + eps)[:, None]
        a = a * factor
        b = b * factor
    if is_query or (not ONE_COPY and not is_value):
        if NORM:
            weight = q_weight if is_query else k_weight
            if NORM == 1:
                at = tl.zeros([BLOCK_HEADS, 1], tl.int32)
            else:
                at = (h0 - (0 if is_query else HEADS) + heads)[:, None] * HEAD_DIM
            a *= tl.load(weight + at + first[None, :], mask=live, other=0.0).to(tl.float32)
            b *= tl.load(weight + at + second[None, :], mask=live, other=0.0).to(tl.float32)
        if not ONE_COPY:
            a, b = _rotate_pairs(a, b, cos, sin, tl.load(positions + token), i, PAIRS)
    if is_query:
        to = q_out + (token.to(tl.int64) * HEADS + h0 + heads)[:, None] * HEAD_DIM
        _store_pairs(to, a, b, first, second, live)
    else:
        slot = tl.load(slots + token).to(tl.int64)
        cache = value_cache if is_value else key_cache
        head = h0 - HEADS - KV_HEADS if is_value else h0 - HEADS
        to = cache + (slot * KV_HEADS + head + heads)[:, None] * HEAD_DIM
        _store_pairs(to, a, b, first, second, live & (slot >= 0))


def norm_rope_and_cache(
    qkv: torch.Tensor,
    q_weight: torch.Tensor | None,
    k_weight: torch.Tensor | None,
    cos: torch.Tensor,
    sin: torch.Tensor,
    positions: torch.Tensor,
    slots: torch.Tensor,
    q_out: torch.Tensor,
    key_cache: torch.Tensor | None,
    value_cache: torch.Tensor | None,
    *,
    bias: torch.Tensor | None = None,
    value_norm: bool = True,
    layout: str = "halves",
    eps: float = 1e-6,
    pdl: bool = False,
) -> torch.Tensor:
    """Normalize each head, rotate queries and keys, and write keys and values to their slots.

    Args:
        qkv: queries, keys and values, [tokens, (heads + 2 * kv_heads) * head_dim], or float32
            [parts, tokens, ...], whose sum over the parts counts. With one copy there are only
            queries and keys, without caches only queries.
        q_weight: [head_dim] for a norm of each head, [heads * head_dim] for one of all heads
            together, ``None`` for none; with one copy, the folded weight (``fold_key_weight``).
        k_weight: as ``q_weight``. With one copy it is ``None``, as ``value_cache`` is: the cache
            takes the normalized key without weight or rotation, and the query is not rotated, as
            ``paged_decode`` and ``paged_prefill`` expect.
        cos: float32 [positions, pairs]; ``layout`` says which elements are a pair.
        sin: float32 [positions, pairs].
        positions: int32 or int64 [tokens].
        slots: int32 or int64 [tokens]; nothing is written to a negative slot.
        q_out: [tokens, heads, head_dim].
        key_cache: [pages, page_size, kv_heads, head_dim]; ``None`` for a layer that reads another
            layer's keys and values.
        value_cache: as ``key_cache``.
        bias: bias of the linear layer that computed qkv, as wide as a row of it.
        value_norm: normalize each head of the values, without a weight.
        layout: a key of ``PAIR_LAYOUTS``.
        eps: added to the mean squares.
        pdl: launch with programmatic dependent launch.

    Returns:
        ``q_out``.

    Raises:
        ValueError: a shape or dtype does not fit.
    """
    tokens, heads, head_dim = q_out.shape
    one_copy = key_cache is not None and value_cache is None
    kv_heads = 0 if key_cache is None else key_cache.shape[2]
    _check(qkv, cos, sin, positions, slots, q_out, key_cache, value_cache)
    _check_weights(q_weight, k_weight, bias, q_out, kv_heads, one_copy)
    require(
        layout in PAIR_LAYOUTS,
        f"There is no layout of pairs {layout!r}; use one of {', '.join(PAIR_LAYOUTS)}.",
    )
    parts = qkv.shape[0] if qkv.dim() == 3 else 1
    all_heads = qkv.shape[-1] // head_dim
    shared = math.gcd(heads, kv_heads)
    block = min(shared & -shared, 8 if tokens > 64 else 4)
    norm = 0 if q_weight is None else 1 if q_weight.shape[0] == head_dim else 2
    unused = q_out  # stands for tensors that this variant of the kernel does not use
    if k_weight is None:
        k_weight = q_weight  # the kernel chooses between pointers, which must have one type
    norm_rope_and_cache_kernel[(tokens, all_heads // block)](
        qkv, unused if bias is None else bias, unused if q_weight is None else q_weight,
        unused if k_weight is None else k_weight, cos, sin, positions, slots, q_out,
        unused if key_cache is None else key_cache,
        unused if value_cache is None else value_cache, tokens, eps,
        HEADS=heads, KV_HEADS=kv_heads, ALL_HEADS=all_heads, HEAD_DIM=head_dim, BLOCK_HEADS=block,
        BLOCK_HALF=next_power_of_2(head_dim // 2), PAIRS=cos.shape[1],
        LAYOUT=PAIR_LAYOUTS.index(layout), PARTS=parts, HAS_BIAS=bias is not None, NORM=norm,
        VALUE_NORM=value_norm, ONE_COPY=one_copy, WIDE=1024, num_warps=4, **pdl_options(pdl),
    )  # fmt: skip
    return q_out


def _check(
    qkv: torch.Tensor,
    cos: torch.Tensor,
    sin: torch.Tensor,
    positions: torch.Tensor,
    slots: torch.Tensor,
    q_out: torch.Tensor,
    key_cache: torch.Tensor | None,
    value_cache: torch.Tensor | None,
) -> None:
    """Raise ValueError unless the activations and caches of a call fit together."""
    require_tensor("q_out", q_out, FLOAT_DTYPES, 3)
    tokens, heads, head_dim = q_out.shape
    caches = [cache for cache in (key_cache, value_cache) if cache is not None]
    require(key_cache is not None or value_cache is None, "key_cache is missing.")
    for cache in caches:
        require_tensor("A cache", cache, FLOAT_DTYPES, 4)
        require(
            cache.shape[3] == head_dim,
            f"A cache has head_dim {cache.shape[3]}, but q_out has {head_dim}.",
        )
        require(
            cache.shape == caches[0].shape and cache.dtype == caches[0].dtype, "The caches differ."
        )
    summed = qkv.dim() == 3 and qkv.shape[0] > 1
    require_tensor("qkv", qkv, torch.float32 if summed else FLOAT_DTYPES, qkv.dim())
    width = (heads + sum(cache.shape[2] for cache in caches)) * head_dim
    require(
        tuple(qkv.shape[-2:]) == (tokens, width) and qkv.dim() in (2, 3),
        f"qkv has shape {tuple(qkv.shape)}; its last axes must be {(tokens, width)}.",
    )
    for name, tensor in (("positions", positions), ("slots", slots)):
        require_tensor(name, tensor, (torch.int32, torch.int64), 1)
    require(
        len(positions) == len(slots) == tokens,
        f"positions and slots must have one entry for each of {tokens} tokens.",
    )
    require_tensor("cos", cos, torch.float32, 2)
    require_tensor("sin", sin, torch.float32, 2)


def _check_weights(
    q_weight: torch.Tensor | None,
    k_weight: torch.Tensor | None,
    bias: torch.Tensor | None,
    q_out: torch.Tensor,
    kv_heads: int,
    one_copy: bool,
) -> None:
    """Raise ValueError unless norms and bias fit the heads of a call."""
    _, heads, head_dim = q_out.shape
    width = (heads + kv_heads * (1 if one_copy else 2)) * head_dim
    require(bias is None or tuple(bias.shape) == (width,), f"bias must have {width} elements.")
    wants_key = q_weight is not None and bool(kv_heads) and not one_copy
    require(
        (k_weight is not None) == wants_key,
        "k_weight goes with q_weight and value_cache; with one copy it is folded into q_weight.",
    )
    require(not one_copy or q_weight is not None, "One copy needs a norm of each head.")
    if q_weight is None:
        return
    whole = q_weight.shape[0] != head_dim
    require(not (whole and one_copy), "One copy needs a norm of each head.")
    for name, weight, count in (("q_weight", q_weight, heads), ("k_weight", k_weight, kv_heads)):
        wanted = count * head_dim if whole else head_dim
        require(
            weight is None or tuple(weight.shape) == (wanted,),
            f"{name} must have {wanted} elements.",
        )


def norm_rope_and_cache_reference(
    qkv: torch.Tensor,
    q_weight: torch.Tensor | None,
    k_weight: torch.Tensor | None,
    cos: torch.Tensor,
    sin: torch.Tensor,
    positions: torch.Tensor,
    heads: int,
    kv_heads: int,
    *,
    bias: torch.Tensor | None = None,
    value_norm: bool = True,
    layout: str = "halves",
    eps: float = 1e-6,
) -> tuple[torch.Tensor, torch.Tensor | None, torch.Tensor | None]:
    """Compute what ``norm_rope_and_cache`` computes, in float64.

    Args:
        k_weight: ``None`` beside a ``q_weight`` says that there is one copy.
        kv_heads: 0 for a layer that reads another layer's keys and values.

    Returns:
        Queries, and what the caches receive: keys (with one copy, without weight or rotation) and
        values, [tokens, heads, head_dim] each; ``None`` without such a cache.
    """
    one_copy = q_weight is not None and k_weight is None and kv_heads > 0
    summed = qkv.double().sum(0) if qkv.dim() == 3 else qkv.double()
    if bias is not None:
        summed = summed + bias.double()
    counts = [heads, kv_heads] if one_copy or not kv_heads else [heads, kv_heads, kv_heads]
    x = summed.unflatten(1, (sum(counts), -1))
    q, k, *rest = x.split(counts, 1)
    if one_copy:
        assert q_weight is not None
        return divide_by_rms(q, eps) * q_weight.double(), divide_by_rms(k, eps), None
    c, s = (t[positions.long()][:, None, :].double() for t in (cos, sin))
    q = _rotate(_norm(q, q_weight, eps), c, s, layout)
    if not kv_heads:
        return q, None, None
    k = _rotate(_norm(k, k_weight, eps), c, s, layout)
    return q, k, divide_by_rms(rest[0], eps) if value_norm else rest[0]


def _norm(x: torch.Tensor, weight: torch.Tensor | None, eps: float) -> torch.Tensor:
    """Normalize each head, or all heads together if the weight is that wide."""
    if weight is None:
        return x
    if weight.shape[0] == x.shape[2]:
        return divide_by_rms(x, eps) * weight.double()
    return (divide_by_rms(x.flatten(1), eps) * weight.double()).view(x.shape)


def _rotate(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, layout: str) -> torch.Tensor:
    pairs, half = cos.shape[-1], x.shape[-1] // 2
    first = torch.arange(pairs, device=x.device) * (2 if layout == "neighbors" else 1)
    second = first + {"halves": half, "partial": pairs, "neighbors": 1}[layout]
    a, b = x[..., first], x[..., second]
    out = x.clone()
    out[..., first] = a * cos - b * sin
    out[..., second] = b * cos + a * sin
    return out
