"""Linear layers of 1 to 64 rows, which are limited by reading the weights once.

The product is computed transposed, ``W [tile_n, tile_k] @ x^T [tile_k, rows]``: weight rows fill
the matrix unit's M, the few activation rows its N. Each program streams one block of weight rows,
or one of ``splits`` equal parts of it along K. Parts are float32. The kernel that reads them adds
them in a fixed order; there are no atomics.

Before a program waits for its input, it prefetches the first ``prefetch`` bytes of each of its
weight rows into L2. With dependent launch this fills the time that the small kernels before it
take.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import torch
import torch.nn.functional as F
import triton
import triton.language as tl
from triton.tools.tensor_descriptor import TensorDescriptor

from ..argument_checks import FLOAT_DTYPES, require, require_tensor, require_tile
from ..triton_launch import (
    hopper_or_newer,
    pdl_launch_dependents,
    pdl_options,
    pdl_wait,
    shared_memory_bytes,
)

MAX_ROWS = 64
RESERVED_BYTES = 2048  # of shared memory, for barriers and the store
ACTIVATIONS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "gelu_tanh": partial(F.gelu, approximate="tanh"),
    "silu": F.silu,
}
"""Activations of gated layers, by name, as PyTorch computes them."""


def require_activation(name: str) -> None:
    """Raise ValueError unless the kernels have an activation of this name."""
    require(
        name in ACTIVATIONS,
        f"There is no activation {name!r}; use one of {', '.join(ACTIVATIONS)}.",
    )


@dataclass(frozen=True, slots=True)
class LinearConfig:
    """Launch configuration of ``linear_few_rows``.

    Attributes:
        tile_n: weight rows per program; in a gated layer, pairs of a gate row and an up row.
        tile_k: columns per step.
        warps: warps per program.
        stages: stages of the software pipeline.
        splits: parts along K.
        prefetch: bytes of each weight row that are prefetched into L2.
        tma: load weights through the bulk copy engine.
    """

    tile_n: int = 64
    tile_k: int = 128
    warps: int = 4
    stages: int = 4
    splits: int = 1
    prefetch: int = 0
    tma: bool = False


@triton.jit
def prefetch_l2(pointers, BYTES: tl.constexpr):
    """Prefetch BYTES (a multiple of 16) from each pointer (aligned to 16 bytes) into L2."""
    tl.inline_asm_elementwise(
        "cp.async.bulk.prefetch.L2.global [$1], $2; mov.u32 $0, 0;",
        "=r,l,r",
        [pointers.to(tl.int64), tl.full([], BYTES, tl.int32)],
        dtype=tl.int32,
        is_pure=False,
        pack=1,
    )


@triton.jit
def gelu_tanh(x):
    """GELU of float32 in its tanh approximation (``gelu_pytorch_tanh``)."""
    inner = 0.7978845608028654 * (x + 0.044715 * x * x * x)
    # tanh(u) = 1 - 2 / (exp(2u) + 1) does not overflow to NaN at either end.
    return x * (1.0 - 1.0 / (tl.exp(2.0 * inner) + 1.0))


@triton.jit
def silu(x):
    """SiLU of float32."""
    return x / (1.0 + tl.exp(-x))


@triton.jit
def gate_activation(x, SILU: tl.constexpr):
    """SiLU of float32 if SILU, else GELU in its tanh approximation."""
    return silu(x) if SILU else gelu_tanh(x)


@triton.jit
def _load_weights(
    w, w_rows, n0, k0, k, K: tl.constexpr, EVEN_K: tl.constexpr, TMA: tl.constexpr
):  # fmt: skip
    if TMA:
        tile = w.load([n0, k0])
    elif EVEN_K:
        tile = tl.load(w_rows[:, None] + k[None, :], eviction_policy="evict_first")
    else:
        tile = tl.load(w_rows[:, None] + k[None, :], mask=(k < K)[None, :], other=0.0,
                       eviction_policy="evict_first")  # fmt: skip
    return tile


@triton.jit(do_not_specialize=["M"])
def linear_few_rows_kernel(
    x, w, w_pointer, bias, out, M, N,
    K: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr,
    SPLITS: tl.constexpr, GATED: tl.constexpr, PREFETCH: tl.constexpr, TMA: tl.constexpr,
    STAGES: tl.constexpr, SILU: tl.constexpr, HAS_BIAS: tl.constexpr, PDL: tl.constexpr,
):  # fmt: skip
    """out [M, N] = x [M, K] @ w [N, K]^T, or act(x @ gate^T) * (x @ up^T) with w = [gate; up].

    If SPLITS > 1, out is float32 [SPLITS, M, N].
    """
    EVEN_K: tl.constexpr = K % BK == 0
    BLOCKS: tl.constexpr = (K + BK - 1) // BK
    PER_SPLIT: tl.constexpr = (BLOCKS + SPLITS - 1) // SPLITS
    n0 = tl.program_id(0) // SPLITS * BN
    part = tl.program_id(0) % SPLITS
    n = n0 + tl.arange(0, BN)
    m = tl.arange(0, BM)
    # Rows beyond the last read the last row and are not stored, so loads of weights need no mask.
    w_rows = w_pointer + tl.minimum(n, N - 1).to(tl.int64) * K
    up_rows = w_rows + tl.cast(N, tl.int64) * K  # N = 1 is a constant, which has no .to
    x_rows = x + tl.minimum(m, M - 1) * K
    begin = part * PER_SPLIT * BK
    if PREFETCH:
        prefetch_l2(w_rows + begin, PREFETCH)
        if GATED:
            prefetch_l2(up_rows + begin, PREFETCH)
    pdl_launch_dependents(PDL)
    pdl_wait(PDL)
    acc = tl.zeros([BN, BM], tl.float32)
    up_acc = tl.zeros([BN, BM], tl.float32)
    end = tl.minimum(begin + PER_SPLIT * BK, BLOCKS * BK)
    for k0 in tl.range(begin, end, BK, num_stages=STAGES):
        k = k0 + tl.arange(0, BK)
        if EVEN_K:
            rows = tl.load(x_rows[None, :] + k[:, None])
        else:
            rows = tl.load(x_rows[None, :] + k[:, None], mask=(k < K)[:, None], other=0.0)
        acc = tl.dot(_load_weights(w, w_rows, n0, k0, k, K, EVEN_K, TMA), rows, acc)
        if GATED:
            up = _load_weights(w, up_rows, n0 + N, k0, k, K, EVEN_K, TMA)
            up_acc = tl.dot(up, rows, up_acc)
    if GATED:
        acc = gate_activation(acc, SILU) * up_acc
    if HAS_BIAS:
        acc += tl.load(bias + tl.minimum(n, N - 1)).to(tl.float32)[:, None]
    to = out + (part * M + m[None, :]).to(tl.int64) * N + n[:, None]
    tl.store(to, acc.to(out.dtype.element_ty), mask=(m < M)[None, :] & (n < N)[:, None])


def linear_few_rows(
    x: torch.Tensor,
    weight: torch.Tensor,
    out: torch.Tensor,
    *,
    gated: bool = False,
    activation: str = "gelu_tanh",
    bias: torch.Tensor | None = None,
    config: LinearConfig | None = None,
    pdl: bool = False,
) -> torch.Tensor:
    """Compute ``x @ weight.T + bias`` for at most 64 rows.

    Args:
        x: [rows, K].
        weight: [N, K]; [2N, K] if gated, gate rows first.
        out: [rows, N] of any float dtype. If the configuration splits K: float32 [splits, rows, N],
            whose sum over the first axis is the result; ``add_rms_norm`` and
            ``norm_rope_and_cache`` accept it in this form.
        gated: compute ``activation(x @ gate.T) * (x @ up.T)``.
        activation: a key of ``ACTIVATIONS``.
        bias: [N]; only if neither gated nor split.
        config: launch configuration; ``None`` for ``linear_config``, as far as the GPU allows.
        pdl: launch with programmatic dependent launch.

    Returns:
        ``out``.

    Raises:
        ValueError: a shape or dtype does not fit.
    """
    require_tensor("x", x, FLOAT_DTYPES, 2)
    require_tensor("weight", weight, x.dtype, 2)
    (rows, inner), n = x.shape, weight.shape[0] // (2 if gated else 1)
    if config is None:
        config = fit_config(linear_config(rows, n, inner, gated), rows, gated, x)
    _check(x, weight, out, n, gated, config)
    require_activation(activation)
    require(
        bias is None or (tuple(bias.shape) == (n,) and not gated and config.splits == 1),
        f"bias must have {n} elements, in a layer that is neither gated nor split.",
    )
    # A prefetch must not extend beyond its row: the next row belongs to another program.
    prefetch = 0 if x.device.type != "cuda" else min(config.prefetch, inner * x.element_size())
    grid = (-(-n // config.tile_n) * config.splits,)
    w = weight
    if config.tma:
        w = TensorDescriptor.from_tensor(weight, [config.tile_n, config.tile_k])
    linear_few_rows_kernel[grid](
        x, w, weight, weight if bias is None else bias, out, rows, n,
        K=inner, BM=_padded_rows(rows), BN=config.tile_n, BK=config.tile_k,
        SPLITS=config.splits, GATED=gated, PREFETCH=prefetch // 16 * 16, TMA=config.tma,
        STAGES=config.stages, SILU=activation == "silu", HAS_BIAS=bias is not None,
        num_warps=config.warps, **pdl_options(pdl),
    )  # fmt: skip
    return out


def _check(
    x: torch.Tensor,
    weight: torch.Tensor,
    out: torch.Tensor,
    n: int,
    gated: bool,
    config: LinearConfig,
) -> None:
    """Raise ValueError unless the tensors and the configuration of a call fit together."""
    rows, inner = x.shape
    require_tile("tile_n", config.tile_n)
    require_tile("tile_k", config.tile_k)
    require(1 <= rows <= MAX_ROWS, f"linear_few_rows takes 1 to {MAX_ROWS} rows, not {rows}.")
    require(weight.shape[1] == inner, f"x has {inner} columns, but weight has {weight.shape[1]}.")
    wanted = (config.splits, rows, n) if config.splits > 1 else (rows, n)
    require(tuple(out.shape) == wanted, f"out has shape {tuple(out.shape)}; it must be {wanted}.")
    require(
        config.splits == 1 or (out.dtype == torch.float32 and not gated),
        "A layer that is split along K needs a float32 out and cannot be gated.",
    )
    require(
        not config.tma or n % config.tile_n == 0,
        f"tma needs a multiple of tile_n, {config.tile_n}, as N, not {n}.",
    )


def _padded_rows(rows: int) -> int:
    """Round up to one of only two sizes, each of which warmup compiles for every layer."""
    return 16 if rows <= 16 else MAX_ROWS


def linear_config(rows: int, n: int, inner: int, gated: bool) -> LinearConfig:
    """Return the fastest configuration measured on an H100 in Gemma-4-31B's shapes.

    The measurements are in docs/notebook/kernels_linear_layers.md.

    Splitting K gains up to 1 us per layer and costs its reader as much, so nothing is split. With
    few rows, five stages leave room for a second program on a multiprocessor; with dependent launch
    that is the next layer's. With 64 rows, the same is fastest if all programs fit at once, two on
    each multiprocessor.
    """
    tile_n = 128 if rows > 32 and n > 65536 else 64
    if n % tile_n or inner % 128:
        return LinearConfig(tile_n=64 if n >= 4096 else 32, tile_k=128)
    if gated:
        return LinearConfig(64, 128, 4, 4, tma=True)
    if n > 65536:
        if rows > 32:
            return LinearConfig(128, 128, 8, 4, tma=True)
        return LinearConfig(64, 128, 4, 6, prefetch=1024, tma=True)
    if rows > 32:
        return LinearConfig(64, 128, 4, 3 if 8192 < n <= 16384 else 5, tma=True)
    if rows <= 16 and n > 16384 and inner % 256 == 0:
        return LinearConfig(64, 256, 4, 5, tma=True)
    return LinearConfig(64, 128, 4, 5, tma=True)


def fit_config(config: LinearConfig, rows: int, gated: bool, x: torch.Tensor) -> LinearConfig:
    """Return a configuration without what a GPU lacks: bulk copies, and memory for its stages.

    Args:
        rows: rows of x.
        x: tensor on the device, of the weights' dtype.
    """
    if not hopper_or_newer(x.device):
        config = replace(config, tma=False, prefetch=0)
    weight_rows = config.tile_n * (2 if gated else 1)
    stage = (weight_rows + _padded_rows(rows)) * config.tile_k * x.element_size()
    most = (shared_memory_bytes(x.device) - RESERVED_BYTES) // stage
    return replace(config, stages=max(1, min(config.stages, most)))


def linear_few_rows_reference(
    x: torch.Tensor, weight: torch.Tensor, gated: bool = False, activation: str = "gelu_tanh"
) -> torch.Tensor:
    """Compute what ``linear_few_rows`` computes, with parts added up, in float64."""
    product = x.double() @ weight.double().T
    if not gated:
        return product
    gate, up = product.chunk(2, dim=1)
    return ACTIVATIONS[activation](gate) * up
