"""Inputs of each layer from a token's embedding and a projection of its first hidden state."""

import torch
import triton
import triton.language as tl

from ..argument_checks import FLOAT_DTYPES, require, require_tensor
from ..triton_launch import next_power_of_2, pdl_launch_dependents, pdl_options, pdl_wait
from .rms_norm import divide_by_rms


@triton.jit
def per_layer_inputs_kernel(
    tokens, projected, embedding, weight, out, projection_scale, embedding_scale, scale, eps,
    WIDTH: tl.constexpr, LAYERS: tl.constexpr, BLOCK: tl.constexpr, PDL: tl.constexpr,
):  # fmt: skip
    pdl_launch_dependents(PDL)
    d = tl.arange(0, BLOCK)
    live = d < WIDTH
    factor = tl.load(weight + d, mask=live, other=0.0).to(tl.float32)
    pdl_wait(PDL)
    row = tl.program_id(0).to(tl.int64)
    at = tl.program_id(1) * WIDTH + d
    x = tl.load(projected + row * (LAYERS * WIDTH) + at, mask=live, other=0.0).to(tl.float32)
    x *= projection_scale
    x = x * tl.rsqrt(tl.sum(x * x, 0) / WIDTH + eps) * factor
    token = tl.load(tokens + row).to(tl.int64)
    own = tl.load(embedding + token * (LAYERS * WIDTH) + at, mask=live, other=0.0).to(tl.float32)
    result = (x + own * embedding_scale) * scale
    tl.store(out + row * (LAYERS * WIDTH) + at, result.to(out.dtype.element_ty), mask=live)


def combine_per_layer_inputs(
    tokens: torch.Tensor,
    projected: torch.Tensor,
    embedding: torch.Tensor,
    weight: torch.Tensor,
    out: torch.Tensor,
    *,
    projection_scale: float,
    embedding_scale: float,
    scale: float,
    eps: float = 1e-6,
    pdl: bool = False,
) -> torch.Tensor:
    """Add each layer's embedding of a token to the norm of its projection.

    Computes ``(rms(projected * projection_scale) * weight + embedding[tokens] * embedding_scale) *
    scale`` for each layer, where ``rms(v)`` is v over its root mean square.

    Args:
        tokens: int32 [rows].
        projected: [rows, layers * width].
        embedding: [vocabulary, layers * width].
        weight: [width].
        out: as ``projected``.
        projection_scale: factor of ``projected``.
        embedding_scale: factor of the embeddings.
        scale: factor of the sum.
        eps: added to the mean square.
        pdl: launch with programmatic dependent launch.

    Returns:
        ``out``.

    Raises:
        ValueError: a shape or dtype does not fit.
    """
    require_tensor("tokens", tokens, torch.int32, 1)
    require_tensor("projected", projected, FLOAT_DTYPES, 2)
    require_tensor("embedding", embedding, FLOAT_DTYPES, 2)
    require_tensor("out", out, FLOAT_DTYPES, 2)
    (rows, columns), width = projected.shape, weight.shape[0]
    require(
        len(tokens) == rows and out.shape == projected.shape and embedding.shape[1] == columns,
        f"tokens, embedding and out do not fit projected, {(rows, columns)}.",
    )
    require(columns % width == 0, f"projected has {columns} columns, not a multiple of {width}.")
    per_layer_inputs_kernel[(rows, columns // width)](
        tokens, projected, embedding, weight, out, projection_scale, embedding_scale, scale, eps,
        WIDTH=width, LAYERS=columns // width, BLOCK=next_power_of_2(width), num_warps=2,
        **pdl_options(pdl),
    )  # fmt: skip
    return out


def combine_per_layer_inputs_reference(
    tokens: torch.Tensor,
    projected: torch.Tensor,
    embedding: torch.Tensor,
    weight: torch.Tensor,
    *,
    projection_scale: float,
    embedding_scale: float,
    scale: float,
    eps: float = 1e-6,
) -> torch.Tensor:
    """Compute what ``combine_per_layer_inputs`` computes, in float64."""
    x = projected.double().unflatten(1, (-1, weight.shape[0])) * projection_scale
    normed = (divide_by_rms(x, eps) * weight.double()).flatten(1)
    return (normed + embedding.double()[tokens.long()] * embedding_scale) * scale
