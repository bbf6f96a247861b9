"""Sampling among few candidates: most rows that filter are settled by four launches.

Logits are cut into parts of ``PART``. The k-th largest of the parts' maxima is a bound that at
least k tokens reach, and seldom many more: those that do are the candidates. One warp per row sorts
them, derives how far below the largest logit top-k and top-p reach, and draws. A row whose filters
may keep a token that is no candidate, or that has over ``MAX_CANDIDATES`` of them, is left to the passes over
all logits in ``sampler``; ``chosen`` is -1 there. Greedy rows are settled too: candidates are then
the tokens equal to the largest.

Candidates are collected in no fixed order, but only their sorted values are added up, and the draw
compares single tokens: it repeats bit for bit.
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
from .gumbel_noise import add_gumbel_noise, scaled_logits
from .torch_sampler import SamplingBatch

BLOCK, PART = 4096, 1024
PARTS = BLOCK // PART
MAX_CANDIDATES = 256
SHARE = 2  # where top-k does not say: candidates reach the largest of one in two parts


@triton.jit
def _survey(
    logits, temperature, maxima, parts, masses, counts, V, softcap, NB: tl.constexpr,
    BLOCK: tl.constexpr, PARTS: tl.constexpr, PDL: tl.constexpr,
):  # fmt: skip
    """Largest logit of each block and each of its parts; its mass relative to its largest."""
    pdl_launch_dependents(PDL)
    pdl_wait(PDL)
    row, block = tl.program_id(0), tl.program_id(1)
    at = block * BLOCK + tl.arange(0, BLOCK)
    z = scaled_logits(logits, row, at, V, softcap, tl.load(temperature + row))
    tops = tl.max(tl.reshape(z, [PARTS, BLOCK // PARTS]), 1)
    top = tl.max(tops, 0)
    tl.store(maxima + row * NB + block, top)
    tl.store(parts + (row * NB + block) * PARTS + tl.arange(0, PARTS), tops)
    shift = tl.where(top == float("-inf"), 0.0, top)
    tl.store(masses + row * NB + block, tl.sum(tl.exp(z - shift), 0))
    if block == 0:
        tl.store(counts + row, 0)


@triton.jit
def _bound(
    temperature, top_k, top_p, min_p, parts, bounds, NB: tl.constexpr, NP: tl.constexpr,
    PARTS: tl.constexpr, SHARE: tl.constexpr, PDL: tl.constexpr,
):  # fmt: skip
    """What a candidate must reach; infinite where a row keeps every token."""
    pdl_launch_dependents(PDL)
    pdl_wait(PDL)
    row = tl.program_id(0)
    heat = tl.load(temperature + row)
    k = tl.load(top_k + row)
    filters = (k > 0) | (tl.load(top_p + row) < 1.0) | (tl.load(min_p + row) > 0.0)
    bound = tl.full([], float("inf"), tl.float32)
    if filters | (heat == 0):
        wanted = tl.where(heat == 0, 1, tl.where(k > 0, k, NB * PARTS // SHARE))
        p = tl.arange(0, NP)
        of_row = parts + row * NB * PARTS
        tops = tl.load(of_row + p, mask=p < NB * PARTS, other=float("-inf"))
        larger = tl.zeros([NP], tl.int32)
        for first in range(0, NB * PARTS, 64):
            q = first + tl.arange(0, 64)
            others = tl.load(of_row + q, mask=q < NB * PARTS, other=float("-inf"))
            larger += tl.sum((others[None, :] > tops[:, None]).to(tl.int32), 1)
        bound = tl.min(tl.where(larger < wanted, tops, float("inf")), 0)
    tl.store(bounds + row, bound)


@triton.jit
def _collect(
    logits, temperature, maxima, bounds, counts, values, tokens, V, softcap, NB: tl.constexpr,
    BLOCK: tl.constexpr, MAX_CANDIDATES: tl.constexpr, PDL: tl.constexpr,
):  # fmt: skip
    """Append each block's candidates to those of its row."""
    pdl_launch_dependents(PDL)
    pdl_wait(PDL)
    row, block = tl.program_id(0), tl.program_id(1)
    bound = tl.load(bounds + row)
    if tl.load(maxima + row * NB + block) >= bound:
        heat = tl.load(temperature + row)
        at = block * BLOCK + tl.arange(0, BLOCK)
        z = scaled_logits(logits, row, at, V, softcap, heat)
        reach = (z >= bound) & (at < V)
        found = reach.to(tl.int32)
        place = tl.atomic_add(counts + row, tl.sum(found, 0)) + tl.cumsum(found, 0) - 1
        kept = reach & (place < MAX_CANDIDATES)
        tl.store(values + row * MAX_CANDIDATES + place, z, mask=kept)
        tl.store(tokens + row * MAX_CANDIDATES + place, at, mask=kept)


@triton.jit
def _settle(
    temperature, top_k, top_p, min_p, seeds, positions, maxima, masses, bounds, counts, values,
    tokens, chosen, V, NB: tl.constexpr, NBP: tl.constexpr, MAX_CANDIDATES: tl.constexpr,
    PDL: tl.constexpr,
):  # fmt: skip
    """Draw where the candidates hold all that the filters keep."""
    pdl_launch_dependents(PDL)
    pdl_wait(PDL)
    row = tl.program_id(0)
    heat = tl.load(temperature + row)
    k = tl.load(top_k + row)
    p = tl.load(top_p + row)
    least = tl.load(min_p + row)
    token = tl.full([], -1, tl.int32)
    if (k > 0) | (p < 1.0) | (least > 0.0) | (heat == 0):
        count = tl.load(counts + row)
        c = tl.arange(0, MAX_CANDIDATES)
        z = tl.load(values + row * MAX_CANDIDATES + c, mask=c < count, other=float("-inf"))
        ids = tl.load(tokens + row * MAX_CANDIDATES + c, mask=c < count, other=0)
        largest = tl.max(z, 0)
        distance = largest - z
        if heat == 0:
            if count <= MAX_CANDIDATES:
                token = tl.min(tl.where(c < count, ids, V), 0)
        else:
            sorted_z = tl.sort(z, descending=True)
            reach_k = tl.full([], float("inf"), tl.float32)
            if k > 0:
                reach_k = largest - tl.max(tl.where(c == k - 1, sorted_z, float("-inf")), 0)
            mass = tl.where(largest - sorted_z <= reach_k, tl.exp(sorted_z - largest), 0.0)
            b = tl.arange(0, NBP)
            tops = tl.load(maxima + row * NB + b, mask=b < NB, other=float("-inf"))
            whole = tl.load(masses + row * NB + b, mask=b < NB, other=0.0)
            whole = tl.sum(whole * tl.exp(tops - largest), 0)
            if k > 0:
                whole = tl.sum(mass, 0)
            reach_p = tl.full([], float("inf"), tl.float32)
            if p < 1.0:
                # The first to reach the share is the last kept; equal ones are kept with it.
                enough = tl.cumsum(mass, 0) >= p * whole
                reach_p = largest - tl.max(tl.where(enough, sorted_z, float("-inf")), 0)
            # A bound on what is no candidate: all of it must fall to a filter.
            outside = tl.exp(tl.load(bounds + row) - largest)
            held = ((k > 0) & (count >= tl.minimum(k, V))) | ((k == 0) & (count == V))
            held = held | ((k == 0) & (reach_p < float("inf")))
            held = held | ((outside < least) & ((k == 0) | (p >= 1.0)))
            if held & (count <= MAX_CANDIDATES):
                kept = (distance <= reach_k) & (distance <= reach_p) & (tl.exp(-distance) >= least)
                place = tl.load(positions + row).to(tl.int32)
                race = add_gumbel_noise(z, ids, tl.load(seeds + row), place, MAX_CANDIDATES)
                race = tl.where(kept & (c < count), race, float("-inf"))
                token = tl.min(tl.where((race == tl.max(race, 0)) & kept, ids, V), 0).to(tl.int32)
    tl.store(chosen + row, token)


def candidate_workspace_size(rows: int, vocabulary: int) -> int:
    """float32 elements ``sample_candidates`` needs, ``maxima`` not counted."""
    return workspace_size(_sizes(rows, vocabulary))


def _sizes(rows: int, vocabulary: int) -> list[int]:
    """Of the parts' maxima, the blocks' masses, bounds, counts, and the candidates."""
    blocks = -(-vocabulary // BLOCK)
    return [
        rows * blocks * PARTS,
        rows * blocks,
        rows,
        rows,
        rows * MAX_CANDIDATES,
        rows * MAX_CANDIDATES,
    ]


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
    """Settle the rows that few candidates suffice for.

    Args:
        logits: [R, V], any float type.
        maxima: float32 [R * blocks], gets each block's largest scaled logit.
        chosen: int32 [R], gets the token drawn, or -1.
        workspace: float32, ``candidate_workspace_size(R, V)`` elements.

    All of it is checked by ``sample_tokens``.
    """
    rows, vocabulary = logits.shape
    blocks = -(-vocabulary // BLOCK)
    parts, masses, bounds, counts, values, tokens = split_workspace(
        workspace, _sizes(rows, vocabulary)
    )
    counts, tokens = counts.view(torch.int32), tokens.view(torch.int32)
    grid, launch = (rows, blocks), pdl_options(pdl)
    _survey[grid](
        logits, batch.temperature, maxima, parts, masses, counts, vocabulary, softcap,
        NB=blocks, BLOCK=BLOCK, PARTS=PARTS, num_warps=8, **launch,
    )  # fmt: skip
    _bound[(rows,)](
        batch.temperature, batch.top_k, batch.top_p, batch.min_p, parts, bounds, NB=blocks,
        NP=triton.next_power_of_2(blocks * PARTS), PARTS=PARTS, SHARE=SHARE, num_warps=16, **launch,
    )  # fmt: skip
    _collect[grid](
        logits, batch.temperature, maxima, bounds, counts, values, tokens, vocabulary, softcap,
        NB=blocks, BLOCK=BLOCK, MAX_CANDIDATES=MAX_CANDIDATES, num_warps=8, **launch,
    )  # fmt: skip
    _settle[(rows,)](
        batch.temperature, batch.top_k, batch.top_p, batch.min_p, batch.seeds, batch.positions,
        maxima, masses, bounds, counts, values, tokens, chosen, vocabulary, NB=blocks,
        NBP=triton.next_power_of_2(blocks), MAX_CANDIDATES=MAX_CANDIDATES, num_warps=1, **launch,
    )  # fmt: skip
