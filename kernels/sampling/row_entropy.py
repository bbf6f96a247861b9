"""Entropy of each row's distribution over a large vocabulary, without a copy of the logits."""

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
    split_workspace,
    workspace_size,
)
from .torch_sampler import entropy

BLOCK = 8192


@triton.jit
def _partial(
    logits, maxima, masses, moments, V, softcap, NB: tl.constexpr, BLOCK: tl.constexpr,
    PDL: tl.constexpr,
):  # fmt: skip
    """Per block: the largest logit m, sum exp(z - m) and sum exp(z - m) (z - m)."""
    pdl_launch_dependents(PDL)
    pdl_wait(PDL)
    row = tl.program_id(0)
    at = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    z = tl.load(logits + row.to(tl.int64) * V + at, mask=at < V, other=float("-inf"))
    z = z.to(tl.float32)
    if softcap > 0:
        z = tl.where(at < V, softcap * (1.0 - 2.0 / (tl.exp(2.0 * z / softcap) + 1.0)), z)
    top = tl.max(z, 0)
    # A token forbidden by -inf has no mass, nor has a block of nothing else; NaN makes all NaN.
    seen = z != float("-inf")
    shifted = tl.where(seen, z, 0.0) - tl.where(top > float("-inf"), top, 0.0)
    mass = tl.where(seen, tl.exp(shifted), 0.0)
    moment = mass * tl.where(seen, shifted, 0.0)
    to = row * NB + tl.program_id(1)
    tl.store(maxima + to, top)
    tl.store(masses + to, tl.sum(mass, 0))
    tl.store(moments + to, tl.sum(moment, 0))


@triton.jit
def _merge(
    maxima, masses, moments, out, NB: tl.constexpr, NBP: tl.constexpr, PDL: tl.constexpr
):  # fmt: skip
    pdl_launch_dependents(PDL)
    pdl_wait(PDL)
    row = tl.program_id(0)
    b = tl.arange(0, NBP)
    tops = tl.load(maxima + row * NB + b, mask=b < NB, other=float("-inf"))
    mass = tl.load(masses + row * NB + b, mask=b < NB, other=0.0)
    moment = tl.load(moments + row * NB + b, mask=b < NB, other=0.0)
    top = tl.max(tops, 0)
    shift = tl.where(mass > 0, tops, top) - top
    factor = tl.where(mass > 0, tl.exp(shift), 0.0)
    total = tl.sum(mass * factor, 0)
    mean = tl.sum((moment + mass * shift) * factor, 0) / total
    tl.store(out + row, tl.log(total) - mean)


def entropy_workspace_size(rows: int, vocabulary: int) -> int:
    """float32 elements ``row_entropy`` needs."""
    return workspace_size([rows * -(-vocabulary // BLOCK)] * 3)


def row_entropy(
    logits: torch.Tensor,
    out: torch.Tensor,
    workspace: torch.Tensor,
    *,
    softcap: float = 0.0,
    pdl: bool = False,
) -> torch.Tensor:
    """Shannon entropy of softmax(logits), in nats.

    Args:
        logits: [R, V]. out: float32 [R]. workspace: float32, ``entropy_workspace_size(R, V)`` elements.
        softcap: logits become ``softcap * tanh(logits / softcap)`` first; 0 for none.

    Returns:
        ``out``; NaN where a logit is NaN or infinity.

    Raises:
        ValueError: a shape or dtype that does not fit.
    """
    require_tensor("logits", logits, FLOAT_DTYPES, 2)
    require_tensor("out", out, torch.float32, 1)
    rows, vocabulary = logits.shape
    require(out.shape[0] == rows, f"out holds {out.shape[0]} entropies for {rows} rows")
    need = entropy_workspace_size(rows, vocabulary)
    require(workspace.numel() >= need, f"workspace holds {workspace.numel()}; {need} are needed")
    blocks = -(-vocabulary // BLOCK)
    maxima, masses, moments = split_workspace(workspace, [rows * blocks] * 3)
    _partial[(rows, blocks)](
        logits, maxima, masses, moments, vocabulary, softcap, NB=blocks, BLOCK=BLOCK,
        num_warps=8, **pdl_options(pdl),
    )  # fmt: skip
    _merge[(rows,)](
        maxima, masses, moments, out, NB=blocks, NBP=next_power_of_2(blocks), num_warps=1,
        **pdl_options(pdl),
    )  # fmt: skip
    return out


def row_entropy_reference(logits: torch.Tensor, softcap: float = 0.0) -> torch.Tensor:
    """What ``row_entropy`` computes, by torch."""
    logits = logits.float()
    return entropy(softcap * torch.tanh(logits / softcap) if softcap else logits)
