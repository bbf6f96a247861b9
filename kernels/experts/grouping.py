"""Group pairs of a row and one of its experts by expert, on the device.

Pair ``row * top_k + slot`` belongs to expert ``ids[row, slot]``. Pairs are sorted by expert, those
of an expert in ascending order, and cut into tiles of at most ``tile_rows`` pairs of one expert.
"""

from dataclasses import dataclass

import torch
import triton
import triton.language as tl

from ..triton_launch import next_power_of_2, pdl_launch_dependents, pdl_options, pdl_wait

PAIRS = 256  # of a program
LANES = 64  # pairs, or tiles, at a time
PROGRAMS = 16  # whose counts are read at a time


@dataclass(frozen=True, slots=True)
class PairGroups:
    """Sorted pairs and their tiles.

    Attributes:
        order: int32 [pairs]: the pair at each sorted position.
        tiles: int32 [3, most]: each tile's expert (-1 beyond the last tile), its first sorted
            position, and its number of pairs.
        tile_rows: most pairs of a tile.
    """

    order: torch.Tensor
    tiles: torch.Tensor
    tile_rows: int


def most_tiles(pairs: int, experts: int, tile_rows: int) -> int:
    """Return the largest number of tiles that pairs can need, however they are routed."""
    touched = min(pairs, experts)
    return touched + (pairs - touched) // tile_rows


@triton.jit
def _one_hot(ids, pair, last, pairs, EXPERTS: tl.constexpr, EP: tl.constexpr):
    """Return int32 [pairs, experts], 1 for each pair's expert. Ids are clamped to valid ones."""
    live = pair < last
    expert = tl.load(ids + pair, mask=live, other=0)
    expert = tl.minimum(tl.maximum(expert, 0), EXPERTS - 1)
    return ((expert[:, None] == tl.arange(0, EP)[None, :]) & live[:, None]).to(tl.int32)


@triton.jit(do_not_specialize=["pairs"])
def count_pairs_kernel(
    ids, counts, pairs,
    EXPERTS: tl.constexpr, EP: tl.constexpr, PAIRS: tl.constexpr, LANES: tl.constexpr,
    PDL: tl.constexpr,
):  # fmt: skip
    """Write counts [programs, EP]: the pairs of each expert among a program's pairs."""
    pdl_launch_dependents(PDL)
    pdl_wait(PDL)
    begin = tl.program_id(0) * PAIRS
    last = tl.minimum(begin + PAIRS, pairs)
    count = tl.zeros([EP], tl.int32)
    for at in range(begin, last, LANES):
        count += tl.sum(_one_hot(ids, at + tl.arange(0, LANES), last, pairs, EXPERTS, EP), 0)
    tl.store(counts + tl.program_id(0) * EP + tl.arange(0, EP), count)


@triton.jit(do_not_specialize=["pairs", "programs", "most"])
def place_pairs_kernel(
    ids, counts, order, tiles, pairs, programs, most,
    EXPERTS: tl.constexpr, EP: tl.constexpr, PAIRS: tl.constexpr, LANES: tl.constexpr,
    PROGRAMS: tl.constexpr, TILE_ROWS: tl.constexpr, ALONE: tl.constexpr, PDL: tl.constexpr,
):  # fmt: skip
    """Write the sorted positions of a program's pairs, and some of the tiles."""
    pdl_launch_dependents(PDL)
    pdl_wait(PDL)
    expert = tl.arange(0, EP)
    lane = tl.arange(0, LANES)
    begin = tl.program_id(0) * PAIRS
    last = tl.minimum(begin + PAIRS, pairs)
    total = tl.zeros([EP], tl.int32)
    before = tl.zeros([EP], tl.int32)
    if ALONE:
        for at in range(begin, last, LANES):
            total += tl.sum(_one_hot(ids, at + lane, last, pairs, EXPERTS, EP), 0)
    else:
        for at in range(0, programs, PROGRAMS):
            program = at + tl.arange(0, PROGRAMS)
            places = counts + program[:, None] * EP + expert[None, :]
            count = tl.load(places, mask=(program < programs)[:, None], other=0)
            total += tl.sum(count, 0)
            before += tl.sum(tl.where((program < tl.program_id(0))[:, None], count, 0), 0)
    first = tl.cumsum(total, 0) - total
    offset = first + before
    for at in range(begin, last, LANES):
        pair = at + lane
        mine = _one_hot(ids, pair, last, pairs, EXPERTS, EP)
        rank = tl.cumsum(mine, 0) - mine
        position = tl.sum(mine * (rank + offset[None, :]), 1)
        tl.store(order + position, pair, mask=pair < last)
        offset += tl.sum(mine, 0)
    # Programs take turns at the tiles.
    needed = (total + TILE_ROWS - 1) // TILE_ROWS
    end = tl.cumsum(needed, 0)
    all_tiles = tl.sum(needed, 0)
    for at in range(tl.program_id(0) * LANES, most, programs * LANES):
        tile = at + lane
        owner = tl.sum((end[None, :] <= tile[:, None]).to(tl.int32), 1)
        own = (owner[:, None] == expert[None, :]).to(tl.int32)
        number = tile - tl.sum(own * (end - needed)[None, :], 1)
        position = tl.sum(own * first[None, :], 1) + number * TILE_ROWS
        rows = tl.sum(own * total[None, :], 1) - number * TILE_ROWS
        live = tile < most
        tl.store(tiles + tile, tl.where(tile < all_tiles, owner, -1), mask=live)
        tl.store(tiles + most + tile, position, mask=live)
        tl.store(tiles + 2 * most + tile, tl.minimum(rows, TILE_ROWS), mask=live)


def grouping_sizes(pairs: int, experts: int, tile_rows: int) -> list[int]:
    """Return the int32 elements of the counts, the order and the tiles."""
    programs = -(-pairs // PAIRS)
    counts = programs * next_power_of_2(experts) if programs > 1 else 0
    return [counts, pairs, 3 * most_tiles(pairs, experts, tile_rows)]


def group_pairs(
    ids: torch.Tensor, experts: int, tile_rows: int, parts: list[torch.Tensor], *, pdl: bool
) -> PairGroups:
    """Sort pairs by expert and cut them into tiles.

    Args:
        ids: int32 [rows, top_k].
        experts: number of experts.
        tile_rows: most pairs of a tile.
        parts: int32 memory of ``grouping_sizes``.
        pdl: launch with programmatic dependent launch.
    """
    counts, order, tiles = parts
    pairs, programs = ids.numel(), -(-ids.numel() // PAIRS)
    sizes = {"EXPERTS": experts, "EP": next_power_of_2(experts), "PAIRS": PAIRS, "LANES": LANES}
    alone = programs == 1
    if not alone:
        count_pairs_kernel[(programs,)](
            ids, counts, pairs, **sizes, num_warps=8, **pdl_options(pdl)
        )
    place_pairs_kernel[(programs,)](
        ids, ids if alone else counts, order, tiles, pairs, programs, tiles.numel() // 3,
        **sizes, PROGRAMS=PROGRAMS, TILE_ROWS=tile_rows, ALONE=alone, num_warps=8,
        **pdl_options(pdl),
    )  # fmt: skip
    return PairGroups(order, tiles.view(3, -1), tile_rows)
