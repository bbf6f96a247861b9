"""The start of a step: which tokens, their embeddings, and the first layer's norm."""

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
def _choose(tokens, source, drawn, chosen, rows, BLOCK: tl.constexpr):
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    live = at < rows
    row = tl.load(source + at, mask=live, other=-1)
    token = tl.load(tokens + at, mask=live, other=0)
    last = tl.load(drawn + tl.maximum(row, 0), mask=live & (row >= 0), other=0).to(tl.int32)
    tl.store(chosen + at, tl.where(row >= 0, last, token), mask=live)


def fill_sampled_tokens(
    tokens: torch.Tensor, source: torch.Tensor, drawn: torch.Tensor
) -> torch.Tensor:
    """int32 [T]: ``drawn[source]`` where ``source`` is not negative, else ``tokens``.

    Args:
        tokens, source: int32 [T]. drawn: int64 [R], what the step before drew.

    Raises:
        ValueError: a shape or dtype that does not fit.
    """
    require_tensor("tokens", tokens, torch.int32, 1)
    require_tensor("source", source, torch.int32, 1)
    require_tensor("drawn", drawn, torch.int64, 1)
    require(tokens.shape == source.shape, f"{len(source)} sources for {len(tokens)} tokens")
    chosen, rows = torch.empty_like(tokens), len(tokens)
    _choose[(-(-rows // 1024),)](tokens, source, drawn, chosen, rows, BLOCK=1024, num_warps=4)
    return chosen


@triton.jit(do_not_specialize=["zeros"])
def _embed_rms_norm(
    tokens, embedding, residual, weight, out, zero, zeros, scale, eps, N: tl.constexpr,
    BLOCK: tl.constexpr, ZBLOCK: tl.constexpr, PDL: tl.constexpr,
):  # fmt: skip
    pdl_launch_dependents(PDL)
    d = tl.arange(0, BLOCK)
    live = d < N
    factor = tl.load(weight + d, mask=live, other=0.0).to(tl.float32)
    pdl_wait(PDL)
    row = tl.program_id(0).to(tl.int64)
    if row == 0:
        for begin in range(0, zeros, ZBLOCK):
            at = begin + tl.arange(0, ZBLOCK)
            tl.store(zero + at, tl.zeros([ZBLOCK], tl.int32), mask=at < zeros)
    token = tl.load(tokens + row).to(tl.int64)
    total = tl.load(embedding + token * N + d, mask=live, other=0.0).to(tl.float32) * scale
    total = total.to(residual.dtype.element_ty)
    tl.store(residual + row * N + d, total, mask=live)
    # The norm sees what the residual holds after rounding.
    total = total.to(tl.float32)
    normed = total * tl.rsqrt(tl.sum(total * total, 0) / N + eps) * factor
    tl.store(out + row * N + d, normed.to(out.dtype.element_ty), mask=live)


def embed_rms_norm(
    tokens: torch.Tensor,
    embedding: torch.Tensor,
    scale: float,
    residual: torch.Tensor,
    weight: torch.Tensor,
    out: torch.Tensor,
    *,
    zero: torch.Tensor,
    eps: float = 1e-6,
    pdl: bool = False,
) -> None:
    """``residual = embedding[tokens] * scale; out = rms(residual) * weight``.

    Args:
        tokens: int32 [rows]. embedding: [V, N]. weight: [N]. residual, out: [rows, N].
        zero: int32, set to zero on the way: counters of later launches.

    Raises:
        ValueError: a shape or dtype that does not fit.
    """
    require_tensor("tokens", tokens, torch.int32, 1)
    require_tensor("embedding", embedding, FLOAT_DTYPES, 2)
    require_tensor("residual", residual, FLOAT_DTYPES, 2)
    require_tensor("out", out, FLOAT_DTYPES, 2)
    rows, n = residual.shape
    require(len(tokens) == rows, f"{len(tokens)} tokens for {rows} rows")
    require(out.shape == residual.shape, f"out {tuple(out.shape)}, residual {(rows, n)}")
    require(embedding.shape[1] == n == weight.shape[0], f"embedding, weight must have {n} columns")
    _embed_rms_norm[(rows,)](
        tokens, embedding, residual, weight, out, zero, zero.numel(), scale, eps, N=n,
        BLOCK=next_power_of_2(n), ZBLOCK=1024, num_warps=16 if n > 2048 else 4, **pdl_options(pdl),
    )  # fmt: skip


def embed_rms_norm_reference(
    tokens: torch.Tensor,
    embedding: torch.Tensor,
    scale: float,
    weight: torch.Tensor,
    eps: float = 1e-6,
) -> tuple[torch.Tensor, torch.Tensor]:
    """What ``embed_rms_norm`` computes, in float64: (residual, out)."""
    residual = embedding.double()[tokens.long()] * scale
    return residual, rms(residual, eps) * weight.double()
