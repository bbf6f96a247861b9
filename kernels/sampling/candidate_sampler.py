"""Sampling among few candidates: four launches suffice for most rows that filter.

Logits are cut into parts of ``PART`` tokens. The k-th largest of the parts' maxima is a bound that
at least k tokens reach, and seldom many more. The tokens that reach it are the candidates. One warp
per row sorts them, derives how far below the largest logit top-k and top-p reach, and draws. If the
filters of a row may keep a token that is no candidate, or if it has more than ``MAX_CANDIDATES``
candidates, the row is left to the passes of ``triton_sampler`` over all logits; ``chosen`` is -1
there. Greedy rows are drawn here, too: their candidates are the tokens equal to the largest.

Candidates are collected in no fixed order. Draws repeat bit for bit all the same, because only
sorted values are added up, and the draw itself compares single tokens.
"""

import torch
import triton
import triton.language as tl

from ..triton_launch import (
    pdl_launch_dependents,
    pdl_options,
    pdl_wait,
    split_workspace,
    workspace_size,
)
from .gumbel_max import add_gumbel_noise, scaled_logits
from .torch_sampler import SamplingBatch

BLOCK = 4096  # tokens of a program
PART = 1024
PARTS = BLOCK // PART
MAX_CANDIDATES = 256
# Without top-k, the bound is chosen so that one in so many parts of a row has candidates.
PARTS_PER_CANDIDATE = 2


@triton.jit
def block_maxima_kernel(
    logits, temperature, maxima, part_maxima, masses, counts, vocab_size, softcap,
    NUM_BLOCKS: tl.constexpr, BLOCK: tl.constexpr, PARTS: tl.constexpr, PDL: tl.constexpr,
):  # fmt: skip
    """Compute the largest logit of each block and of its parts, and the block's mass.

    The mass is relative to the block's largest logit. Sets the row's count of candidates to 0.
    """
    pdl_launch_dependents(PDL)
    pdl_wait(PDL)
    row, block = tl.program_id(0), tl.program_id(1)
    token = block * BLOCK + tl.arange(0, BLOCK)
    z = scaled_logits(logits, row, token, vocab_size, softcap, tl.load(temperature + row))
    tops = tl.max(tl.reshape(z, [PARTS, BLOCK // PARTS]), 1)
    top = tl.max(tops, 0)
    tl.store(maxima + row * NUM_BLOCKS + block, top)
    tl.store(part_maxima + (row * NUM_BLOCKS + block) * PARTS + tl.arange(0, PARTS), tops)
    shift = tl.where(top == float("-inf"), 0.0, top)
    tl.store(masses + row * NUM_BLOCKS + block, tl.sum(tl.exp(z - shift), 0))
    if block == 0:
        tl.store(counts + row, 0)


@triton.jit
def candidate_bound_kernel(
    temperature, top_k, top_p, min_p, part_maxima, bounds, NUM_BLOCKS: tl.constexpr,
    PADDED_PARTS: tl.constexpr, PARTS: tl.constexpr, PARTS_PER_CANDIDATE: tl.constexpr,
    PDL: tl.constexpr,
):  # fmt: skip
    """Compute the logit that a candidate must reach; infinity for a row that keeps every token."""
    pdl_launch_dependents(PDL)
    pdl_wait(PDL)
    row = tl.program_id(0)
    row_temperature = tl.load(temperature + row)
    k = tl.load(top_k + row)
    filters = (k > 0) | (tl.load(top_p + row) < 1.0) | (tl.load(min_p + row) > 0.0)
    bound = tl.full([], float("inf"), tl.float32)
    if filters | (row_temperature == 0):
        by_share = NUM_BLOCKS * PARTS // PARTS_PER_CANDIDATE
        wanted = tl.where(row_temperature == 0, 1, tl.where(k > 0, k, by_share))
        part = tl.arange(0, PADDED_PARTS)
        of_row = part_maxima + row * NUM_BLOCKS * PARTS
        tops = tl.load(of_row + part, mask=part < NUM_BLOCKS * PARTS, other=float("-inf"))
        larger = tl.zeros([PADDED_PARTS], tl.int32)
        for first in range(0, NUM_BLOCKS * PARTS, 64):
            other = first + tl.arange(0, 64)
            others = tl.load(of_row + other, mask=other < NUM_BLOCKS * PARTS, other=float("-inf"))
            larger += tl.sum((others[None, :] > tops[:, None]).to(tl.int32), 1)
        bound = tl.min(tl.where(larger < wanted, tops, float("inf")), 0)
    tl.store(bounds + row, bound)


@triton.jit
def collect_candidates_kernel(
    logits, temperature, maxima, bounds, counts, values, tokens, vocab_size, softcap,
    NUM_BLOCKS: tl.constexpr, BLOCK: tl.constexpr, MAX_CANDIDATES: tl.constexpr,
    PDL: tl.constexpr,
):  # fmt: skip
    """Append each block's candidates to those of its row."""
    pdl_launch_dependents(PDL)
    pdl_wait(PDL)
    row, block = tl.program_id(0), tl.program_id(1)
    bound = tl.load(bounds + row)
    if tl.load(maxima + row * NUM_BLOCKS + block) >= bound:
        row_temperature = tl.load(temperature + row)
        token = block * BLOCK + tl.arange(0, BLOCK)
        z = scaled_logits(logits, row, token, vocab_size, softcap, row_temperature)
        reaches = (z >= bound) & (token < vocab_size)
        found = reaches.to(tl.int32)
        index = tl.atomic_add(counts + row, tl.sum(found, 0)) + tl.cumsum(found, 0) - 1
        kept = reaches & (index < MAX_CANDIDATES)
        tl.store(values + row * MAX_CANDIDATES + index, z, mask=kept)
        tl.store(tokens + row * MAX_CANDIDATES + index, token, mask=kept)


@triton.jit
def _filter_reach(
    z, largest, row, maxima, masses, k, p, NUM_BLOCKS: tl.constexpr,
    PADDED_BLOCKS: tl.constexpr, MAX_CANDIDATES: tl.constexpr,
):  # fmt: skip
    """Return how far below the largest logit top-k and top-p reach; infinity for no limit."""
    candidate = tl.arange(0, MAX_CANDIDATES)
    sorted_z = tl.sort(z, descending=True)
    reach_k = tl.full([], float("inf"), tl.float32)
    if k > 0:
        reach_k = largest - tl.max(tl.where(candidate == k - 1, sorted_z, float("-inf")), 0)
    mass = tl.where(largest - sorted_z <= reach_k, tl.exp(sorted_z - largest), 0.0)
    block = tl.arange(0, PADDED_BLOCKS)
    live = block < NUM_BLOCKS
    tops = tl.load(maxima + row * NUM_BLOCKS + block, mask=live, other=float("-inf"))
    whole = tl.load(masses + row * NUM_BLOCKS + block, mask=live, other=0.0)
    whole = tl.sum(whole * tl.exp(tops - largest), 0)
    if k > 0:
        whole = tl.sum(mass, 0)
    reach_p = tl.full([], float("inf"), tl.float32)
    if p < 1.0:
        # The first token to reach the share is the last kept; equal ones are kept with it.
        enough = tl.cumsum(mass, 0) >= p * whole
        reach_p = largest - tl.max(tl.where(enough, sorted_z, float("-inf")), 0)
    return reach_k, reach_p


@triton.jit
def draw_candidates_kernel(
    temperature, top_k, top_p, min_p, seeds, positions, maxima, masses, bounds, counts, values,
    tokens, chosen, vocab_size, NUM_BLOCKS: tl.constexpr, PADDED_BLOCKS: tl.constexpr,
    MAX_CANDIDATES: tl.constexpr, PDL: tl.constexpr,
):  # fmt: skip
    """Draw a token if the candidates hold all tokens that the filters keep, otherwise choose -1."""
    pdl_launch_dependents(PDL)
    pdl_wait(PDL)
    row = tl.program_id(0)
    row_temperature = tl.load(temperature + row)
    k = tl.load(top_k + row)
    p = tl.load(top_p + row)
    row_min_p = tl.load(min_p + row)
    drawn = tl.full([], -1, tl.int32)
    if (k > 0) | (p < 1.0) | (row_min_p > 0.0) | (row_temperature == 0):
        count = tl.load(counts + row)
        candidate = tl.arange(0, MAX_CANDIDATES)
        live = candidate < count
        z = tl.load(values + row * MAX_CANDIDATES + candidate, mask=live, other=float("-inf"))
        token = tl.load(tokens + row * MAX_CANDIDATES + candidate, mask=live, other=0)
        largest = tl.max(z, 0)
        distance = largest - z
        if row_temperature == 0:
            if count <= MAX_CANDIDATES:
                drawn = tl.min(tl.where(live, token, vocab_size), 0)
        else:
            reach_k, reach_p = _filter_reach(
                z, largest, row, maxima, masses, k, p, NUM_BLOCKS, PADDED_BLOCKS, MAX_CANDIDATES
            )
            # Bounds the probability of all other tokens: a filter must drop every one of them.
            outside = tl.exp(tl.load(bounds + row) - largest)
            complete = ((k > 0) & (count >= tl.minimum(k, vocab_size))) | (
                (k == 0) & (count == vocab_size)
            )
            complete = complete | ((k == 0) & (reach_p < float("inf")))
            complete = complete | ((outside < row_min_p) & ((k == 0) | (p >= 1.0)))
            if complete & (count <= MAX_CANDIDATES):
                kept = (distance <= reach_k) & (distance <= reach_p)
                kept = kept & (tl.exp(-distance) >= row_min_p)
                position = tl.load(positions + row).to(tl.int32)
                seed = tl.load(seeds + row)
                noisy = add_gumbel_noise(z, token, seed, position, MAX_CANDIDATES)
                noisy = tl.where(kept & live, noisy, float("-inf"))
                winner = (noisy == tl.max(noisy, 0)) & kept
                drawn = tl.min(tl.where(winner, token, vocab_size), 0).to(tl.int32)
    tl.store(chosen + row, drawn)


def candidate_workspace_size(rows: int, vocab_size: int) -> int:
    """Return how many float32 elements ``sample_candidates`` needs besides ``maxima``."""
    return workspace_size(_sizes(rows, vocab_size))


def _sizes(rows: int, vocab_size: int) -> list[int]:
    """Sizes of the parts' maxima, the masses, bounds and counts, the candidates' values and ids."""
    blocks = -(-vocab_size // BLOCK)
    return [
        rows * blocks * PARTS, rows * blocks, rows, rows, rows * MAX_CANDIDATES,
        rows * MAX_CANDIDATES,
    ]  # fmt: skip


def sample_candidates(
    logits: torch.Tensor,
    batch: SamplingBatch,
    maxima: torch.Tensor,
    chosen: torch.Tensor,
    workspace: torch.Tensor,
    *,
    softcap: float,
    pdl: bool,
) -> None:
    """Draw the tokens of the rows for which few candidates suffice.

    ``sample_tokens`` checks the arguments.

    Args:
        logits: [R, V], any float type.
        batch: settings of the rows.
        maxima: float32 [R * blocks], receives the largest scaled logit of each block.
        chosen: int32 [R], receives the token drawn, or -1.
        workspace: float32, ``candidate_workspace_size(R, V)`` elements.
        softcap: as in ``sample_tokens``.
        pdl: launch the kernels with programmatic dependent launch.
    """
    rows, vocab_size = logits.shape
    blocks = -(-vocab_size // BLOCK)
    part_maxima, masses, bounds, counts, values, tokens = split_workspace(
        workspace, _sizes(rows, vocab_size)
    )
    counts, tokens = counts.view(torch.int32), tokens.view(torch.int32)
    grid, launch = (rows, blocks), pdl_options(pdl)
    block_maxima_kernel[grid](
        logits, batch.temperature, maxima, part_maxima, masses, counts, vocab_size, softcap,
        NUM_BLOCKS=blocks, BLOCK=BLOCK, PARTS=PARTS, num_warps=8, **launch,
    )  # fmt: skip
    candidate_bound_kernel[(rows,)](
        batch.temperature, batch.top_k, batch.top_p, batch.min_p, part_maxima, bounds,
        NUM_BLOCKS=blocks, PADDED_PARTS=triton.next_power_of_2(blocks * PARTS), PARTS=PARTS,
        PARTS_PER_CANDIDATE=PARTS_PER_CANDIDATE, num_warps=16, **launch,
    )  # fmt: skip
    collect_candidates_kernel[grid](
        logits, batch.temperature, maxima, bounds, counts, values, tokens, vocab_size, softcap,
        NUM_BLOCKS=blocks, BLOCK=BLOCK, MAX_CANDIDATES=MAX_CANDIDATES, num_warps=8, **launch,
    )  # fmt: skip
    draw_candidates_kernel[(rows,)](
        batch.temperature, batch.top_k, batch.top_p, batch.min_p, batch.seeds, batch.positions,
        maxima, masses, bounds, counts, values, tokens, chosen, vocab_size, NUM_BLOCKS=blocks,
        PADDED_BLOCKS=triton.next_power_of_2(blocks), MAX_CANDIDATES=MAX_CANDIDATES, num_warps=1,
        **launch,
    )  # fmt: skip
