"""Sampling inside a CUDA graph: fixed launches, nothing read back, the same draws as ``sampling``.

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

from .launch import FLOATS, dependent, let_next_start, require, require_tensor, wait_for_inputs
from .sampling import SamplingBatch

PASSES, WAYS, RANGE = 6, 16, 64.0
BLOCK = 4096
LANES = 1024
SEARCH_WARPS = 8


@triton.jit
def _scaled(logits, row, at, V, softcap, temperature):
    """Logits after softcap and temperature, -inf beyond the vocabulary; greedy rows at 1."""
    z = tl.load(logits + row.to(tl.int64) * V + at, mask=at < V, other=float("-inf"))
    z = z.to(tl.float32)
    if softcap > 0:
        # tanh(u) = 1 - 2 / (exp(2u) + 1) does not overflow to NaN at either end.
        capped = softcap * (1.0 - 2.0 / (tl.exp(2.0 * z / softcap) + 1.0))
        z = tl.where(at < V, capped, float("-inf"))
    return z / tl.where(temperature == 0, 1.0, temperature)


@triton.jit
def _largest(maxima, row, NB: tl.constexpr, NBP: tl.constexpr):
    b = tl.arange(0, NBP)
    return tl.max(tl.load(maxima + row * NB + b, mask=b < NB, other=float("-inf")), 0)


@triton.jit
def _maxima(
    logits, temperature, maxima, V, softcap, NB: tl.constexpr, BLOCK: tl.constexpr,
    PDL: tl.constexpr,
):  # fmt: skip
    let_next_start(PDL)
    wait_for_inputs(PDL)
    row = tl.program_id(0)
    at = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    z = _scaled(logits, row, at, V, softcap, tl.load(temperature + row))
    tl.store(maxima + row * NB + tl.program_id(1), tl.max(z, 0))


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
    logits, temperature, setting, maxima, states, all_sums, limits, V, softcap, step, rows,
    LAST: tl.constexpr, MASS: tl.constexpr, NB: tl.constexpr, NBP: tl.constexpr,
    BLOCK: tl.constexpr, LANES: tl.constexpr, WAYS: tl.constexpr, RANGE: tl.constexpr,
    PDL: tl.constexpr,
):  # fmt: skip
    """Pass ``step`` of the search for each row's distance; the last writes it to ``limits``.

    limits: [2, rows], the distances that top-k and top-p allow.
    """
    let_next_start(PDL)
    wait_for_inputs(PDL)
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
    if wanted:
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
                    d = largest - _scaled(logits, row, at, V, softcap, heat)
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
    logits, temperature, min_p, seeds, positions, maxima, limits, best, best_at, V, softcap, rows,
    NB: tl.constexpr, NBP: tl.constexpr, BLOCK: tl.constexpr,
    PDL: tl.constexpr,
):  # fmt: skip
    """Each block's winner of the exponential race among the tokens kept."""
    let_next_start(PDL)
    wait_for_inputs(PDL)
    row = tl.program_id(0)
    at = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    heat = tl.load(temperature + row)
    z = _scaled(logits, row, at, V, softcap, heat)
    score = z
    if heat > 0:
        d = _largest(maxima, row, NB, NBP) - z
        limit = tl.minimum(tl.load(limits + row), tl.load(limits + rows + row))
        kept = (d <= limit) & (tl.exp(-d) >= tl.load(min_p + row))
        position = tl.load(positions + row).to(tl.int32)
        zero = tl.zeros([BLOCK], tl.int32)
        # Four tokens share a counter, one output word each (see philox.py).
        a, b, c, e = tl.philox(tl.load(seeds + row), at >> 2, zero + position, zero, zero)
        word = at & 3
        bits = tl.where(word < 2, tl.where(word == 0, a, b), tl.where(word == 2, c, e))
        u = (bits.to(tl.uint32, bitcast=True).to(tl.float32) + 0.5) * (2.0**-32)
        # -log1p(-u) by Kahan's correction of log(1 - u), as exact as log itself.
        rest = 1.0 - u
        ratio = tl.where(rest == 1.0, 1.0, tl.log(rest) / tl.where(rest == 1.0, 1.0, rest - 1.0))
        score = tl.where(kept, z - tl.log(u * ratio), float("-inf"))
    top = tl.max(score, 0)
    to = row * NB + tl.program_id(1)
    tl.store(best + to, top)
    tl.store(best_at + to, tl.min(tl.where((score == top) & (at < V), at, V), 0))


@triton.jit
def _finish(best, best_at, out, V, NB: tl.constexpr, NBP: tl.constexpr, PDL: tl.constexpr):
    let_next_start(PDL)
    wait_for_inputs(PDL)
    row = tl.program_id(0)
    b = tl.arange(0, NBP)
    scores = tl.load(best + row * NB + b, mask=b < NB, other=float("-inf"))
    tokens = tl.load(best_at + row * NB + b, mask=b < NB, other=V)
    tl.store(out + row, tl.min(tl.where(scores == tl.max(scores, 0), tokens, V), 0).to(tl.int64))


def sampler_workspace(rows: int, vocabulary: int) -> int:
    """float32 elements ``sample_tokens`` needs."""
    blocks = -(-vocabulary // BLOCK)
    return rows * (3 * blocks + 2 + PASSES * (3 + blocks * 2 * WAYS))


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
        out: int64 [R]. workspace: float32, ``sampler_workspace(R, V)`` elements.
        softcap: logits become ``softcap * tanh(logits / softcap)`` first; 0 for none.

    Returns:
        ``out``.
    """
    require_tensor("logits", logits, FLOATS, 2)
    require_tensor("out", out, torch.int64, 1)
    rows, vocabulary = logits.shape
    blocks = -(-vocabulary // BLOCK)
    need = sampler_workspace(rows, vocabulary)
    require(out.shape[0] == rows, f"out holds {out.shape[0]} tokens for {rows} rows")
    require(workspace.numel() >= need, f"workspace holds {workspace.numel()}; {need} are needed")
    padded = triton.next_power_of_2(blocks)
    sizes = [rows * blocks] * 3 + [2 * rows, PASSES * rows * 3]
    maxima, best, best_at, limits, states, sums = workspace[:need].split(
        [*sizes, need - sum(sizes)]
    )
    best_at = best_at.view(torch.int32)
    shared = {"NB": blocks, "NBP": padded, "num_warps": 8, **dependent(pdl)}
    grid = (rows, blocks)
    _maxima[grid](logits, batch.temperature, maxima, vocabulary, softcap, NB=blocks, BLOCK=BLOCK,
                  num_warps=8, **dependent(pdl))  # fmt: skip
    for setting, mass in ((batch.top_k, False), (batch.top_p, True)):
        for step in range(PASSES + 1):
            _search[grid if step < PASSES else (rows, 1)](
                logits, batch.temperature, setting, maxima, states, sums, limits, vocabulary,
                softcap, step, rows, LAST=step == PASSES, MASS=mass, BLOCK=BLOCK, LANES=LANES,
                WAYS=WAYS, RANGE=RANGE, NB=blocks, NBP=padded, num_warps=SEARCH_WARPS,
                **dependent(pdl),
            )  # fmt: skip
    _draw[grid](
        logits, batch.temperature, batch.min_p, batch.seeds, batch.positions, maxima, limits,
        best, best_at, vocabulary, softcap, rows, BLOCK=BLOCK, **shared,
    )  # fmt: skip
    _finish[(rows,)](best, best_at, out, vocabulary, NB=blocks, NBP=padded, num_warps=1,
                     **dependent(pdl))  # fmt: skip
    return out
