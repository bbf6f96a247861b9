"""The start of a step: its tokens, their embeddings, and the first layer's norm."""

import torch
import triton
import triton.language as tl

from ..argument_checks import FLOAT_DTYPES, require, require_tensor
from ..triton_launch import next_power_of_2, pdl_launch_dependents, pdl_options, pdl_wait
from .rms_norm import divide_by_rms


@triton.jit(do_not_specialize=["rows"])
def fill_sampled_tokens_kernel(tokens, source, sampled, filled, rows, BLOCK: tl.constexpr):
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    live = at < rows
    row = tl.load(source + at, mask=live, other=-1)
    token = tl.load(tokens + at, mask=live, other=0)
    last = tl.load(sampled + tl.maximum(row, 0), mask=live & (row >= 0), other=0).to(tl.int32)
    tl.store(filled + at, tl.where(row >= 0, last, token), mask=live)


def fill_sampled_tokens(
    tokens: torch.Tensor, source: torch.Tensor, sampled: torch.Tensor
) -> torch.Tensor:
    """Fill in the tokens that the step before sampled, without waiting for them on the host.

    Args:
        tokens: int32 [T].
        source: int32 [T]; the index into ``sampled``, or a negative number to keep the token.
        sampled: int64 [R], tokens that the step before sampled.

    Returns:
        int32 [T]: ``sampled[source]`` where ``source`` is not negative, ``tokens`` elsewhere.

    Raises:
        ValueError: a shape or dtype does not fit.
    """
    require_tensor("tokens", tokens, torch.int32, 1)
    require_tensor("source", source, torch.int32, 1)
    require_tensor("sampled", sampled, torch.int64, 1)
    require(
        tokens.shape == source.shape,
        f"source has {len(source)} entries; it must have one for each of {len(tokens)} tokens.",
    )
    filled, rows = torch.empty_like(tokens), len(tokens)
    fill_sampled_tokens_kernel[(-(-rows // 1024),)](
        tokens, source, sampled, filled, rows, BLOCK=1024, num_warps=4
    )
    return filled


def fill_sampled_tokens_reference(
    tokens: torch.Tensor, source: torch.Tensor, sampled: torch.Tensor
) -> torch.Tensor:
    """Compute what ``fill_sampled_tokens`` computes, with PyTorch's operations."""
    return torch.where(source >= 0, sampled[source.clamp(min=0).long()].int(), tokens)


@triton.jit(do_not_specialize=["zeros"])
def embed_rms_norm_kernel(
    tokens, embedding, residual, weight, out, zero, zeros, scale, eps, N: tl.constexpr,
    BLOCK: tl.constexpr, ZBLOCK: tl.constexpr, HAS_NORM: tl.constexpr, PDL: tl.constexpr,
):  # fmt: skip
    pdl_launch_dependents(PDL)
    d = tl.arange(0, BLOCK)
    live = d < N
    if HAS_NORM:
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
    if HAS_NORM:
        # Normalize the rounded residual, which is what later kernels read.
        total = total.to(tl.float32)
        normed = total * tl.rsqrt(tl.sum(total * total, 0) / N + eps) * factor
        tl.store(out + row * N + d, normed.to(out.dtype.element_ty), mask=live)


def embed_rms_norm(
    tokens: torch.Tensor,
    embedding: torch.Tensor,
    scale: float,
    residual: torch.Tensor,
    weight: torch.Tensor | None,
    out: torch.Tensor | None,
    *,
    zero: torch.Tensor,
    eps: float = 1e-6,
    pdl: bool = False,
) -> None:
    """Look up embeddings and normalize them for the first layer.

    Computes ``residual = embedding[tokens] * scale`` and ``out = rms(residual) * weight``, where
    ``rms(v)`` is v over its root mean square.

    Args:
        tokens: int32 [rows].
        embedding: [vocabulary, N].
        scale: factor of the embeddings.
        residual: [rows, N], written.
        weight: [N]; ``None``, as ``out``, for a model whose first layer has no norm before it.
        out: [rows, N].
        zero: int32 counters of later launches, which this launch sets to zero.
        eps: added to the mean square.
        pdl: launch with programmatic dependent launch.

    Raises:
        ValueError: a shape or dtype does not fit.
    """
    require_tensor("tokens", tokens, torch.int32, 1)
    require_tensor("embedding", embedding, FLOAT_DTYPES, 2)
    require_tensor("residual", residual, FLOAT_DTYPES, 2)
    rows, n = residual.shape
    require(len(tokens) == rows, f"There are {len(tokens)} tokens for {rows} rows of the residual.")
    require((weight is None) == (out is None), "weight and out go together.")
    if out is not None:
        require_tensor("out", out, FLOAT_DTYPES, 2)
        require(
            out.shape == residual.shape,
            f"out has shape {tuple(out.shape)}; it must be the residual's, {(rows, n)}.",
        )
    require(
        embedding.shape[1] == n and (weight is None or weight.shape[0] == n),
        f"embedding and weight must have {n} columns, as the residual has.",
    )
    unused = residual  # stands for tensors that this variant of the kernel does not use
    embed_rms_norm_kernel[(rows,)](
        tokens, embedding, residual, unused if weight is None else weight,
        unused if out is None else out, zero, zero.numel(), scale, eps, N=n,
        BLOCK=next_power_of_2(n), ZBLOCK=1024, HAS_NORM=weight is not None,
        num_warps=16 if n > 2048 else 4, **pdl_options(pdl),
    )  # fmt: skip


def embed_rms_norm_reference(
    tokens: torch.Tensor,
    embedding: torch.Tensor,
    scale: float,
    weight: torch.Tensor,
    eps: float = 1e-6,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Compute what ``embed_rms_norm`` computes, in float64; return the residual and ``out``."""
    residual = embedding.double()[tokens.long()] * scale
    return residual, divide_by_rms(residual, eps) * weight.double()
