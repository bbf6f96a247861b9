"""Sampling inside a CUDA graph: fixed launches, nothing read back, the same draws as ``sampling``.

Rows that few tokens suffice for are settled by ``candidates``; the rest go through the passes here,
which settled rows leave at once.

The sets top-k, top-p and min-p keep are all "no further than some distance d below the largest
logit". The distance is found by halving an interval four times per pass: a pass counts, for 16
distances at once, the tokens (for top-k) or their mass (for top-p) within them; six passes resolve
64 / 16**6 = 2**-18. A block whose largest logit is out of reach is not read again. Partial sums are
added in a fixed order, so a draw repeats bit for bit. Tokens equal to the last kept one are kept
too. Rows that do not filter leave every pass at once.
"""

import torch
import triton
import triton.language as tl

from ..triton_launch import (
    FLOAT_DTYPES,
    pdl_launch_dependents,
    pdl_options,
    pdl_wait,
    require,
    require_tensor,
    split_workspace,
    workspace_size,
)
from .candidate_sampler import BLOCK, candidate_workspace_size, sample_candidates
from .gumbel_noise import add_gumbel_noise, scaled_logits
from .torch_sampler import SamplingBatch

PASSES, WAYS, RANGE = 6, 16, 64.0
LANES = 1024
SEARCH_WARPS = 8
SETTINGS = {
    **dict.fromkeys(("temperature", "top_p", "min_p"), torch.float32),
    **dict.fromkeys(("top_k", "seeds", "positions"), torch.int64),
}


@triton.jit
def _largest(maxima, row, NB: tl.constexpr, NBP: tl.constexpr):
    b = tl.arange(0, NBP)
    return tl.max(tl.load(maxima + row * NB + b, mask=b < NB, other=float("-inf")), 0)


@triton.jit
def _narrow(
    state, sums, row, step, MASS: tl.constexpr, NB: tl.constexpr, NBP: tl.constexpr,
    WAYS: tl.constexpr,
):  # fmt: skip
    """(low, width, goal) of a pass from the state and the sums of the pass before it."""
    low = tl.load(state + row * 3)
    width = tl.load(state + row * 3 + 1) / WAYS
    goal = tl.load(state + row * 3 + 2)
    b = tl.arange(0, NBP)
    j = tl.arange(0, 2 * WAYS)
    each = tl.load(
        sums + (row * NB + b)[:, None] * (2 * WAYS) + j[None, :],
        mask=(b < NB)[:, None] & (j <= WAYS)[None, :],
        other=0.0,
    )
    within = tl.sum(each, 0)
    if MASS:
        # top-p is a share of the mass that top-k left, which column WAYS holds.
        goal = tl.where(step == 1, goal * tl.sum(tl.where(j == WAYS, within, 0.0), 0), goal)
    chosen = tl.min(tl.where((within >= goal) & (j < WAYS), j, WAYS), 0)
    # Where not even the whole range holds enough, everything is kept.
    low = tl.where((step == 1) & (chosen == WAYS), float("inf"), low)
    return low + tl.minimum(chosen, WAYS - 1) * width, width, goal


@triton.jit(do_not_specialize=["step", "rows"])
def _search(
    logits, temperature, setting, maxima, states, all_sums, limits, chosen, V, softcap, step, rows,
    LAST: tl.constexpr, MASS: tl.constexpr, NB: tl.constexpr, NBP: tl.constexpr,
    BLOCK: tl.constexpr, LANES: tl.constexpr, WAYS: tl.constexpr, RANGE: tl.constexpr,
    PDL: tl.constexpr,
):  # fmt: skip
    """Pass ``step`` of the search for each row's distance; the last writes it to ``limits``.

    limits: [2, rows], the distances that top-k and top-p allow.
    """
    pdl_launch_dependents(PDL)
    pdl_wait(PDL)
    row = tl.program_id(0)
    block = tl.program_id(1)
    goal = tl.load(setting + row).to(tl.float32)
    heat = tl.load(temperature + row)
    limit = limits + row
    if MASS:
        limit += rows
    wanted = heat > 0
    if MASS:  # noqa: SIM108
        wanted = wanted & (goal < 1.0)
    else:
        wanted = wanted & (goal > 0.0)
    if wanted & (tl.load(chosen + row) < 0):
        low = tl.full([], 0.0, tl.float32)
        width = tl.full([], RANGE, tl.float32)
        if step > 0:
            low, width, goal = _narrow(
                states + (step - 1) * rows * 3, all_sums + (step - 1) * rows * NB * 2 * WAYS, row,
                step, MASS, NB, NBP, WAYS,
            )  # fmt: skip
        if LAST:
            tl.store(limit, low + width)
        else:
            if block == 0:
                to = states + (step * rows + row) * 3
                tl.store(to, low)
                tl.store(to + 1, width)
                tl.store(to + 2, goal)
            ways = tl.arange(0, WAYS)
            edges = low + (ways + 1) * (width / WAYS)
            largest = _largest(maxima, row, NB, NBP)
            # Tokens further off than the last edge count nowhere; most blocks hold no others.
            reach = low + width
            if MASS:
                reach = tl.minimum(reach, tl.load(limits + row))
            within = tl.zeros([WAYS, LANES], tl.float32)
            total = tl.zeros([LANES], tl.float32)
            if largest - tl.load(maxima + row * NB + block) <= reach:
                for begin in tl.static_range(0, BLOCK, LANES):
                    at = block * BLOCK + begin + tl.arange(0, LANES)
                    d = largest - scaled_logits(logits, row, at, V, softcap, heat)
                    if MASS:
                        values = tl.where(d <= tl.load(limits + row), tl.exp(-d), 0.0)
                    else:
                        values = tl.where(at < V, 1.0, 0.0)
                    within += tl.where(d[None, :] <= edges[:, None], values[None, :], 0.0)
                    total += values
            to = all_sums + ((step * rows + row) * NB + block) * (2 * WAYS)
            tl.store(to + ways, tl.sum(within, 1))
            tl.store(to + WAYS, tl.sum(total, 0))
    elif LAST:
        tl.store(limit, float("inf"))


@triton.jit(do_not_specialize=["rows"])
def _draw(
    logits, temperature, min_p, seeds, positions, maxima, limits, chosen, best, best_at, V,
    softcap, rows, NB: tl.constexpr, NBP: tl.constexpr, BLOCK: tl.constexpr, PDL: tl.constexpr,
):  # fmt: skip
    """Each block's winner of the exponential race among the tokens kept."""
    pdl_launch_dependents(PDL)
    pdl_wait(PDL)
    row = tl.program_id(0)
    if tl.load(chosen + row) < 0:
        at = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
        heat = tl.load(temperature + row)
        z = scaled_logits(logits, row, at, V, softcap, heat)
        race = z
        if heat > 0:
            d = _largest(maxima, row, NB, NBP) - z
            limit = tl.minimum(tl.load(limits + row), tl.load(limits + rows + row))
            kept = (d <= limit) & (tl.exp(-d) >= tl.load(min_p + row))
            position = tl.load(positions + row).to(tl.int32)
            race = add_gumbel_noise(z, at, tl.load(seeds + row), position, BLOCK)
            race = tl.where(kept, race, float("-inf"))
        top = tl.max(race, 0)
        to = row * NB + tl.program_id(1)
        tl.store(best + to, top)
        tl.store(best_at + to, tl.min(tl.where((race == top) & (at < V), at, V), 0))


@triton.jit
def _finish(best, best_at, chosen, out, V, NB: tl.constexpr, NBP: tl.constexpr, PDL: tl.constexpr):
    pdl_launch_dependents(PDL)
    pdl_wait(PDL)
    row = tl.program_id(0)
    token = tl.load(chosen + row)
    if token < 0:
        b = tl.arange(0, NBP)
        scores = tl.load(best + row * NB + b, mask=b < NB, other=float("-inf"))
        tokens = tl.load(best_at + row * NB + b, mask=b < NB, other=V)
        token = tl.min(tl.where(scores == tl.max(scores, 0), tokens, V), 0)
    # Nobody wins where logits are no numbers. The next step reads this token's embedding before the
    # host sees that.
    tl.store(out + row, tl.minimum(token, V - 1).to(tl.int64))


def sampler_workspace_size(rows: int, vocabulary: int) -> int:
    """float32 elements ``sample_tokens`` needs."""
    return workspace_size(_sizes(rows, vocabulary))


def _sizes(rows: int, vocabulary: int) -> list[int]:
    """Of maxima, best, best_at, chosen, limits, states, the candidates' space, sums."""
    blocks = -(-vocabulary // BLOCK)
    few = candidate_workspace_size(rows, vocabulary)
    sums = PASSES * rows * blocks * 2 * WAYS
    return [*[rows * blocks] * 3, rows, 2 * rows, PASSES * rows * 3, few, sums]


def sample_tokens(
    logits: torch.Tensor,
    batch: SamplingBatch,
    out: torch.Tensor,
    workspace: torch.Tensor,
    *,
    softcap: float = 0.0,
    pdl: bool = False,
) -> torch.Tensor:
    """Draw a token per row, as ``sampling.sample`` does, without host decisions.

    Args:
        logits: [R, V]. batch: its tensors are read on the device; ``max_top_k``, ``greedy`` and
            ``filtered`` are ignored, so that one captured graph serves any settings.
        out: int64 [R]. workspace: float32, ``sampler_workspace_size(R, V)`` elements.
        softcap: logits become ``softcap * tanh(logits / softcap)`` first; 0 for none.

    Returns:
        ``out``. Where logits are NaN or infinite it holds some token of the vocabulary.

    Raises:
        ValueError: a shape or dtype that does not fit.
    """
    require_tensor("logits", logits, FLOAT_DTYPES, 2)
    require_tensor("out", out, torch.int64, 1)
    rows, vocabulary = logits.shape
    blocks = -(-vocabulary // BLOCK)
    need = sampler_workspace_size(rows, vocabulary)
    for name, dtype in SETTINGS.items():
        setting = getattr(batch, name)
        require_tensor(name, setting, dtype, 1)
        require(len(setting) == rows, f"{name} holds {len(setting)} settings for {rows} rows")
    require(out.shape[0] == rows, f"out holds {out.shape[0]} tokens for {rows} rows")
    require(workspace.numel() >= need, f"workspace holds {workspace.numel()}; {need} are needed")
    padded = triton.next_power_of_2(blocks)
    maxima, best, best_at, chosen, limits, states, space, sums = split_workspace(
        workspace, _sizes(rows, vocabulary)
    )
    best_at, chosen = best_at.view(torch.int32), chosen.view(torch.int32)
    shared = {"NB": blocks, "NBP": padded, "num_warps": 8, **pdl_options(pdl)}
    grid = (rows, blocks)
    sample_candidates(logits, batch, maxima, chosen, space, softcap=softcap, pdl=pdl)
    for setting, mass in ((batch.top_k, False), (batch.top_p, True)):
        for step in range(PASSES + 1):
            _search[grid if step < PASSES else (rows, 1)](
                logits, batch.temperature, setting, maxima, states, sums, limits, chosen,
                vocabulary, softcap, step, rows, LAST=step == PASSES, MASS=mass, BLOCK=BLOCK,
                LANES=LANES, WAYS=WAYS, RANGE=RANGE, NB=blocks, NBP=padded,
                num_warps=SEARCH_WARPS, **pdl_options(pdl),
            )  # fmt: skip
    _draw[grid](
        logits, batch.temperature, batch.min_p, batch.seeds, batch.positions, maxima, limits,
        chosen, best, best_at, vocabulary, softcap, rows, BLOCK=BLOCK, **shared,
    )  # fmt: skip
    _finish[(rows,)](best, best_at, chosen, out, vocabulary, NB=blocks, NBP=padded, num_warps=1,
                     **pdl_options(pdl))  # fmt: skip
    return out
