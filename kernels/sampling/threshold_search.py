"""Search for how far below the largest logit top-k and top-p reach, in passes on the device.

Both filters keep the tokens that lie no further than some distance below the largest logit. A pass
divides an interval that holds the distance into ``WAYS`` parts. For the ends of all parts at once,
it counts the tokens (for top-k) or their mass (for top-p) up to there. ``PASSES`` passes resolve a
distance of up to ``RANGE`` to 64 / 16**6 = 2**-18. A block whose largest logit is out of reach is
not read again. Partial sums are added in a fixed order, so that a search repeats bit for bit.
"""

import torch
import triton
import triton.language as tl

from ..triton_launch import pdl_launch_dependents, pdl_options, pdl_wait
from .candidate_sampler import BLOCK
from .gumbel_max import scaled_logits
from .torch_sampler import SamplingBatch

PASSES, WAYS, RANGE = 6, 16, 64.0
LANES = 1024  # tokens of a block that a program holds at once
SEARCH_WARPS = 8


@triton.jit
def row_maximum(maxima, row, NUM_BLOCKS: tl.constexpr, PADDED_BLOCKS: tl.constexpr):
    """Return the largest logit of a row from those of its blocks."""
    block = tl.arange(0, PADDED_BLOCKS)
    tops = tl.load(maxima + row * NUM_BLOCKS + block, mask=block < NUM_BLOCKS, other=float("-inf"))
    return tl.max(tops, 0)


@triton.jit
def _narrow(
    state, sums, row, step, MASS: tl.constexpr, NUM_BLOCKS: tl.constexpr,
    PADDED_BLOCKS: tl.constexpr, WAYS: tl.constexpr,
):  # fmt: skip
    """Return (low, width, goal) of a pass from the state and the sums of the pass before it."""
    low = tl.load(state + row * 3)
    width = tl.load(state + row * 3 + 1) / WAYS
    goal = tl.load(state + row * 3 + 2)
    block = tl.arange(0, PADDED_BLOCKS)
    way = tl.arange(0, 2 * WAYS)
    each = tl.load(
        sums + (row * NUM_BLOCKS + block)[:, None] * (2 * WAYS) + way[None, :],
        mask=(block < NUM_BLOCKS)[:, None] & (way <= WAYS)[None, :],
        other=0.0,
    )
    within = tl.sum(each, 0)
    if MASS:
        # top-p is a share of the mass that top-k left, which column WAYS holds.
        goal = tl.where(step == 1, goal * tl.sum(tl.where(way == WAYS, within, 0.0), 0), goal)
    first = tl.min(tl.where((within >= goal) & (way < WAYS), way, WAYS), 0)
    # If not even the whole range holds enough, everything is kept.
    low = tl.where((step == 1) & (first == WAYS), float("inf"), low)
    return low + tl.minimum(first, WAYS - 1) * width, width, goal


@triton.jit
def _sums_within(
    logits, row, block, maxima, limits, temperature, low, width, vocab_size, softcap,
    MASS: tl.constexpr, NUM_BLOCKS: tl.constexpr, PADDED_BLOCKS: tl.constexpr,
    BLOCK: tl.constexpr, LANES: tl.constexpr, WAYS: tl.constexpr,
):  # fmt: skip
    """Return what a block holds up to each edge [WAYS, LANES], and in all [LANES]."""
    edges = low + (tl.arange(0, WAYS) + 1) * (width / WAYS)
    largest = row_maximum(maxima, row, NUM_BLOCKS, PADDED_BLOCKS)
    # Tokens beyond the last edge count nowhere; most blocks hold no others.
    reach = low + width
    if MASS:
        reach = tl.minimum(reach, tl.load(limits + row))
    within = tl.zeros([WAYS, LANES], tl.float32)
    total = tl.zeros([LANES], tl.float32)
    if largest - tl.load(maxima + row * NUM_BLOCKS + block) <= reach:
        for begin in tl.static_range(0, BLOCK, LANES):
            token = block * BLOCK + begin + tl.arange(0, LANES)
            z = scaled_logits(logits, row, token, vocab_size, softcap, temperature)
            distance = largest - z
            if MASS:
                values = tl.where(distance <= tl.load(limits + row), tl.exp(-distance), 0.0)
            else:
                values = tl.where(token < vocab_size, 1.0, 0.0)
            within += tl.where(distance[None, :] <= edges[:, None], values[None, :], 0.0)
            total += values
    return within, total


@triton.jit(do_not_specialize=["step", "rows"])
def search_pass_kernel(
    logits, temperature, setting, maxima, states, all_sums, limits, chosen, vocab_size, softcap,
    step, rows,
    LAST: tl.constexpr, MASS: tl.constexpr, NUM_BLOCKS: tl.constexpr,
    PADDED_BLOCKS: tl.constexpr, BLOCK: tl.constexpr, LANES: tl.constexpr, WAYS: tl.constexpr,
    RANGE: tl.constexpr, PDL: tl.constexpr,
):  # fmt: skip
    """Run pass ``step`` of the search for each row's distance; the last writes it to ``limits``.

    ``limits`` is [2, rows], the distances that top-k and top-p allow.
    """
    pdl_launch_dependents(PDL)
    pdl_wait(PDL)
    row = tl.program_id(0)
    block = tl.program_id(1)
    goal = tl.load(setting + row).to(tl.float32)
    row_temperature = tl.load(temperature + row)
    limit = limits + row
    if MASS:
        limit += rows
    filters = row_temperature > 0
    if MASS:  # noqa: SIM108
        filters = filters & (goal < 1.0)
    else:
        filters = filters & (goal > 0.0)
    if filters & (tl.load(chosen + row) < 0):
        low = tl.full([], 0.0, tl.float32)
        width = tl.full([], RANGE, tl.float32)
        if step > 0:
            low, width, goal = _narrow(
                states + (step - 1) * rows * 3,
                all_sums + (step - 1) * rows * NUM_BLOCKS * 2 * WAYS,
                row, step, MASS, NUM_BLOCKS, PADDED_BLOCKS, WAYS,
            )  # fmt: skip
        if LAST:
            tl.store(limit, low + width)
        else:
            if block == 0:
                state = states + (step * rows + row) * 3
                tl.store(state, low)
                tl.store(state + 1, width)
                tl.store(state + 2, goal)
            within, total = _sums_within(
                logits, row, block, maxima, limits, row_temperature, low, width, vocab_size,
                softcap, MASS, NUM_BLOCKS, PADDED_BLOCKS, BLOCK, LANES, WAYS,
            )  # fmt: skip
            sums = all_sums + ((step * rows + row) * NUM_BLOCKS + block) * (2 * WAYS)
            tl.store(sums + tl.arange(0, WAYS), tl.sum(within, 1))
            tl.store(sums + WAYS, tl.sum(total, 0))
    elif LAST:
        tl.store(limit, float("inf"))


def search_sizes(rows: int, blocks: int) -> list[int]:
    """Return how many float32 elements limits, states and sums of a search need."""
    return [2 * rows, PASSES * rows * 3, PASSES * rows * blocks * 2 * WAYS]


def search_thresholds(
    logits: torch.Tensor,
    batch: SamplingBatch,
    maxima: torch.Tensor,
    chosen: torch.Tensor,
    limits: torch.Tensor,
    states: torch.Tensor,
    sums: torch.Tensor,
    *,
    softcap: float,
    pdl: bool,
) -> None:
    """Find how far below the largest logit top-k and top-p reach in each row.

    Rows that do not filter, and rows whose token is already chosen, leave every pass at once.

    Args:
        logits: [R, V], any float type.
        batch: settings of the rows.
        maxima: float32 [R * blocks], largest scaled logit of each block.
        chosen: int32 [R], -1 for rows whose token is still to be drawn.
        limits: float32 [2 * R], receives the distances for top-k and for top-p; infinity for rows
            that are not searched.
        states: float32, memory for the interval of each pass (see ``search_sizes``).
        sums: float32, memory for the sums of each pass.
        softcap: as in ``sample_tokens``.
        pdl: launch the kernels with programmatic dependent launch.
    """
    rows, vocab_size = logits.shape
    blocks = -(-vocab_size // BLOCK)
    for setting, mass in ((batch.top_k, False), (batch.top_p, True)):
        for step in range(PASSES + 1):
            search_pass_kernel[(rows, blocks if step < PASSES else 1)](
                logits, batch.temperature, setting, maxima, states, sums, limits, chosen,
                vocab_size, softcap, step, rows, LAST=step == PASSES, MASS=mass, BLOCK=BLOCK,
                LANES=LANES, WAYS=WAYS, RANGE=RANGE, NUM_BLOCKS=blocks,
                PADDED_BLOCKS=triton.next_power_of_2(blocks), num_warps=SEARCH_WARPS,
                **pdl_options(pdl),
            )  # fmt: skip
