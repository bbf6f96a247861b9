"""Sampling inside a CUDA graph: fixed launches, nothing read back, the tokens of ``torch_sampler``.

``candidate_sampler`` draws for the rows for which few tokens suffice. For the others
``threshold_search`` finds the distances below the largest logit that top-k and top-p allow, and the
kernels here draw among the tokens within them and min-p's. Rows that are drawn already leave every
launch at once.

Tokens equal to the last kept one are kept, too. ``torch_sampler`` keeps only as many of them as the
filters ask for.
"""

import torch
import triton
import triton.language as tl

from ..argument_checks import FLOAT_DTYPES, require, require_tensor
from ..triton_launch import (
    pdl_launch_dependents,
    pdl_options,
    pdl_wait,
    split_workspace,
    workspace_size,
)
from .candidate_sampler import BLOCK, candidate_workspace_size, sample_candidates
from .gumbel_max import add_gumbel_noise, scaled_logits
from .threshold_search import row_maximum, search_sizes, search_thresholds
from .torch_sampler import SamplingBatch

SETTING_DTYPES = {
    **dict.fromkeys(("temperature", "top_p", "min_p"), torch.float32),
    **dict.fromkeys(("top_k", "seeds", "positions"), torch.int64),
}


@triton.jit(do_not_specialize=["rows"])
def draw_blocks_kernel(
    logits, temperature, min_p, seeds, positions, maxima, limits, chosen, best, best_token,
    vocab_size, softcap, rows, NUM_BLOCKS: tl.constexpr, PADDED_BLOCKS: tl.constexpr,
    BLOCK: tl.constexpr, PDL: tl.constexpr,
):  # fmt: skip
    """Find the token of each block with the largest noisy logit among those that are kept."""
    pdl_launch_dependents(PDL)
    pdl_wait(PDL)
    row = tl.program_id(0)
    if tl.load(chosen + row) < 0:
        token = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
        row_temperature = tl.load(temperature + row)
        z = scaled_logits(logits, row, token, vocab_size, softcap, row_temperature)
        noisy = z
        if row_temperature > 0:
            distance = row_maximum(maxima, row, NUM_BLOCKS, PADDED_BLOCKS) - z
            limit = tl.minimum(tl.load(limits + row), tl.load(limits + rows + row))
            kept = (distance <= limit) & (tl.exp(-distance) >= tl.load(min_p + row))
            position = tl.load(positions + row).to(tl.int32)
            noisy = add_gumbel_noise(z, token, tl.load(seeds + row), position, BLOCK)
            noisy = tl.where(kept, noisy, float("-inf"))
        top = tl.max(noisy, 0)
        index = row * NUM_BLOCKS + tl.program_id(1)
        tl.store(best + index, top)
        winner = (noisy == top) & (token < vocab_size)
        tl.store(best_token + index, tl.min(tl.where(winner, token, vocab_size), 0))


@triton.jit
def pick_token_kernel(
    best, best_token, chosen, out, vocab_size, NUM_BLOCKS: tl.constexpr,
    PADDED_BLOCKS: tl.constexpr, PDL: tl.constexpr,
):  # fmt: skip
    """Write each row's token: the one chosen before, or the best of its blocks."""
    pdl_launch_dependents(PDL)
    pdl_wait(PDL)
    row = tl.program_id(0)
    token = tl.load(chosen + row)
    if token < 0:
        block = tl.arange(0, PADDED_BLOCKS)
        live = block < NUM_BLOCKS
        scores = tl.load(best + row * NUM_BLOCKS + block, mask=live, other=float("-inf"))
        tokens = tl.load(best_token + row * NUM_BLOCKS + block, mask=live, other=vocab_size)
        token = tl.min(tl.where(scores == tl.max(scores, 0), tokens, vocab_size), 0)
    # If logits are NaN, no token wins. The next step reads the embedding of this token before the
    # host can notice.
    tl.store(out + row, tl.minimum(token, vocab_size - 1).to(tl.int64))


def sampler_workspace_size(rows: int, vocab_size: int) -> int:
    """Return how many float32 elements ``sample_tokens`` needs."""
    return workspace_size(_sizes(rows, vocab_size))


def _sizes(rows: int, vocab_size: int) -> list[int]:
    """Sizes of maxima, best, best_token, chosen, the candidates' space, limits, states and sums."""
    blocks = -(-vocab_size // BLOCK)
    candidates = candidate_workspace_size(rows, vocab_size)
    limits, states, sums = search_sizes(rows, blocks)
    return [*[rows * blocks] * 3, rows, limits, states, candidates, sums]


def sample_tokens(
    logits: torch.Tensor,
    batch: SamplingBatch,
    out: torch.Tensor,
    workspace: torch.Tensor,
    *,
    softcap: float = 0.0,
    pdl: bool = False,
) -> torch.Tensor:
    """Draw a token for each row like ``torch_sampler.sample``, without decisions on the host.

    Args:
        logits: [R, V], any float type.
        batch: settings of the rows. The tensors are read on the device. ``max_top_k``,
            ``all_greedy`` and ``any_filtered`` are ignored, so that one captured graph serves any
            settings.
        out: int64 [R], receives the tokens.
        workspace: float32, ``sampler_workspace_size(R, V)`` elements.
        softcap: logits become ``softcap * tanh(logits / softcap)`` first; 0 for no cap.
        pdl: launch the kernels with programmatic dependent launch.

    Returns:
        ``out``. If logits are NaN or infinite, it holds some token of the vocabulary.

    Raises:
        ValueError: a shape or dtype does not fit.
    """
    _check(logits, batch, out, workspace)
    rows, vocab_size = logits.shape
    blocks = -(-vocab_size // BLOCK)
    maxima, best, best_token, chosen, limits, states, candidates, sums = split_workspace(
        workspace, _sizes(rows, vocab_size)
    )
    best_token, chosen = best_token.view(torch.int32), chosen.view(torch.int32)
    shared = {
        "NUM_BLOCKS": blocks, "PADDED_BLOCKS": triton.next_power_of_2(blocks), **pdl_options(pdl)
    }  # fmt: skip
    sample_candidates(logits, batch, maxima, chosen, candidates, softcap=softcap, pdl=pdl)
    search_thresholds(logits, batch, maxima, chosen, limits, states, sums, softcap=softcap, pdl=pdl)
    draw_blocks_kernel[(rows, blocks)](
        logits, batch.temperature, batch.min_p, batch.seeds, batch.positions, maxima, limits,
        chosen, best, best_token, vocab_size, softcap, rows, BLOCK=BLOCK, num_warps=8, **shared,
    )  # fmt: skip
    pick_token_kernel[(rows,)](best, best_token, chosen, out, vocab_size, num_warps=1, **shared)
    return out


def _check(
    logits: torch.Tensor, batch: SamplingBatch, out: torch.Tensor, workspace: torch.Tensor
) -> None:
    """Raise ValueError unless the arguments of ``sample_tokens`` fit together."""
    require_tensor("logits", logits, FLOAT_DTYPES, 2)
    require_tensor("out", out, torch.int64, 1)
    rows, vocab_size = logits.shape
    for name, dtype in SETTING_DTYPES.items():
        setting = getattr(batch, name)
        require_tensor(name, setting, dtype, 1)
        require(
            len(setting) == rows,
            f"{name} holds {len(setting)} settings; the logits have {rows} rows.",
        )
    require(out.shape[0] == rows, f"out holds {out.shape[0]} tokens; the logits have {rows} rows.")
    need = sampler_workspace_size(rows, vocab_size)
    require(
        workspace.numel() >= need,
        f"workspace holds {workspace.numel()} float32 elements; {need} are needed.",
    )
