"""Entropy of each row's distribution over a large vocabulary, without a copy of the logits."""

import torch
import triton
import triton.language as tl

from ..argument_checks import FLOAT_DTYPES, require, require_tensor
from ..triton_launch import (
    next_power_of_2,
    pdl_launch_dependents,
    pdl_options,
    pdl_wait,
    split_workspace,
    workspace_size,
)
from .torch_sampler import entropy

BLOCK = 8192  # tokens of a program


@triton.jit
def block_entropy_kernel(
    logits, maxima, masses, moments, vocab_size, softcap, NUM_BLOCKS: tl.constexpr,
    BLOCK: tl.constexpr, PDL: tl.constexpr,
):  # fmt: skip
    """Compute each block's largest logit m, sum exp(z - m) and sum exp(z - m) (z - m)."""
    pdl_launch_dependents(PDL)
    pdl_wait(PDL)
    row = tl.program_id(0)
    token = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    z = tl.load(
        logits + row.to(tl.int64) * vocab_size + token, mask=token < vocab_size, other=float("-inf")
    )
    z = z.to(tl.float32)
    if softcap > 0:
        capped = softcap * (1.0 - 2.0 / (tl.exp(2.0 * z / softcap) + 1.0))
        z = tl.where(token < vocab_size, capped, z)
    top = tl.max(z, 0)
    # A token forbidden by -inf has no mass, nor has a block of such tokens. A NaN makes all NaN.
    allowed = z != float("-inf")
    shifted = tl.where(allowed, z, 0.0) - tl.where(top > float("-inf"), top, 0.0)
    mass = tl.where(allowed, tl.exp(shifted), 0.0)
    moment = mass * tl.where(allowed, shifted, 0.0)
    index = row * NUM_BLOCKS + tl.program_id(1)
    tl.store(maxima + index, top)
    tl.store(masses + index, tl.sum(mass, 0))
    tl.store(moments + index, tl.sum(moment, 0))


@triton.jit
def merge_entropy_kernel(
    maxima, masses, moments, out, NUM_BLOCKS: tl.constexpr, PADDED_BLOCKS: tl.constexpr,
    PDL: tl.constexpr,
):  # fmt: skip
    """Merge a row's blocks: log(sum exp(z - M)) minus the mean of z - M, M the largest logit."""
    pdl_launch_dependents(PDL)
    pdl_wait(PDL)
    row = tl.program_id(0)
    block = tl.arange(0, PADDED_BLOCKS)
    live = block < NUM_BLOCKS
    tops = tl.load(maxima + row * NUM_BLOCKS + block, mask=live, other=float("-inf"))
    mass = tl.load(masses + row * NUM_BLOCKS + block, mask=live, other=0.0)
    moment = tl.load(moments + row * NUM_BLOCKS + block, mask=live, other=0.0)
    top = tl.max(tops, 0)
    shift = tl.where(mass > 0, tops, top) - top
    factor = tl.where(mass > 0, tl.exp(shift), 0.0)
    total = tl.sum(mass * factor, 0)
    mean = tl.sum((moment + mass * shift) * factor, 0) / total
    tl.store(out + row, tl.log(total) - mean)


def entropy_workspace_size(rows: int, vocab_size: int) -> int:
    """Return how many float32 elements ``row_entropy`` needs."""
    return workspace_size([rows * -(-vocab_size // BLOCK)] * 3)


def row_entropy(
    logits: torch.Tensor,
    out: torch.Tensor,
    workspace: torch.Tensor,
    *,
    softcap: float = 0.0,
    pdl: bool = False,
) -> torch.Tensor:
    """Compute the Shannon entropy of softmax(logits), in nats.

    Args:
        logits: [R, V], any float type.
        out: float32 [R], receives the entropies.
        workspace: float32, ``entropy_workspace_size(R, V)`` elements.
        softcap: logits become ``softcap * tanh(logits / softcap)`` first; 0 for no cap.
        pdl: launch the kernels with programmatic dependent launch.

    Returns:
        ``out``. It is NaN in rows with a logit that is NaN or infinity.

    Raises:
        ValueError: a shape or dtype does not fit.
    """
    require_tensor("logits", logits, FLOAT_DTYPES, 2)
    require_tensor("out", out, torch.float32, 1)
    rows, vocab_size = logits.shape
    require(
        out.shape[0] == rows, f"out holds {out.shape[0]} entropies; the logits have {rows} rows."
    )
    need = entropy_workspace_size(rows, vocab_size)
    require(
        workspace.numel() >= need,
        f"workspace holds {workspace.numel()} float32 elements; {need} are needed.",
    )
    blocks = -(-vocab_size // BLOCK)
    maxima, masses, moments = split_workspace(workspace, [rows * blocks] * 3)
    block_entropy_kernel[(rows, blocks)](
        logits, maxima, masses, moments, vocab_size, softcap, NUM_BLOCKS=blocks, BLOCK=BLOCK,
        num_warps=8, **pdl_options(pdl),
    )  # fmt: skip
    merge_entropy_kernel[(rows,)](
        maxima, masses, moments, out, NUM_BLOCKS=blocks, PADDED_BLOCKS=next_power_of_2(blocks),
        num_warps=1, **pdl_options(pdl),
    )  # fmt: skip
    return out


def row_entropy_reference(logits: torch.Tensor, softcap: float = 0.0) -> torch.Tensor:
    """Return what ``row_entropy`` computes, by PyTorch."""
    logits = logits.float()
    return entropy(softcap * torch.tanh(logits / softcap) if softcap else logits)
