"""Classes of multiprocessors by how fast they read memory while all do (``rates_sm90.cu``).

On an H100 the clusters of multiprocessors (GPCs) share the memory's bandwidth evenly, however many
of their multiprocessors work: one of 12 gives each half as much again as one of 18. Which are small
differs from card to card, so it is measured. Work cut to the same size for all leaves the fast ones
idle.
"""

import ctypes
import functools
import itertools
from dataclasses import dataclass, replace

import torch

from .launch import multiprocessors
from .nvrtc import kernel_or_none, tensor_map

ROWS, COLUMNS = 16384, 8192  # 256 MiB of bfloat16, five times the L2 cache
SHARED = 12 * 64 * 256 + 1024
NANOSECONDS, REPEATS = 300_000, 5
GAP = 0.05  # a class begins where a rate exceeds the next lower one by so much
MOST = 3


@dataclass(frozen=True, slots=True, eq=False)
class RateClasses:
    """counts: programs of each class, one a multiprocessor. rates: of one of them, relative.

    table: int32 [multiprocessors], ``class << 16 | rank`` by the number of the multiprocessor;
    ``None`` with a single class, in which a program's rank is its own number.
    """

    counts: tuple[int, ...]
    rates: tuple[float, ...]
    table: torch.Tensor | None


@dataclass(frozen=True, slots=True)
class Share:
    """Rows [begin, end) of a class: ``tiles`` of ``tile`` rows, the last one drawn back."""

    begin: int
    end: int
    tile: int
    tiles: int


@functools.lru_cache(maxsize=256)
def shares(classes: RateClasses, n: int, most: int) -> tuple[Share, ...]:
    """Each class's part of ``n`` rows such that all programs are done at the same time.

    A tile has at most ``most`` rows; every program of a class has as many tiles, where there are
    enough.
    """
    counts, rates = classes.counts, classes.rates
    seconds = n / sum(count * rate for count, rate in zip(counts, rates, strict=True))
    while True:
        rows = [max(1, int(seconds * rate + 1e-6)) for rate in rates]
        parts = [-(-each // most) for each in rows]
        tiles = [each // number for each, number in zip(rows, parts, strict=True)]
        whole = [c * t * p for c, t, p in zip(counts, tiles, parts, strict=True)]
        if sum(whole) >= n:
            break
        seconds = min((each + 1) / rate for each, rate in zip(rows, rates, strict=True))
    found, begin = [], 0
    for i, size in enumerate(whole):
        end = n if i + 1 == len(whole) else min(n, begin + size)
        # The last class has what is left, which may be less.
        tile = max(1, min(tiles[i], -(-(end - begin) // (counts[i] * parts[i]))))
        found.append(Share(begin, end, tile, -(-(end - begin) // tile)))
        begin = end
    return tuple(found)


def even(programs: int) -> RateClasses:
    """One class."""
    return RateClasses((programs,), (1.0,), None)


@functools.cache
def rate_classes(device: torch.device) -> RateClasses:
    """Measured at the first call, in 2 ms; not to be called first while a graph is captured.

    One class where rates cannot be told apart, or nothing can be measured.
    """
    programs = multiprocessors(device)
    rates = _measure(device, programs)
    classes = even(programs) if rates is None else classify(rates)
    if classes.table is None:
        return classes
    return replace(classes, table=classes.table.to(device))


def classify(rates: list[float]) -> RateClasses:
    """Classes of multiprocessors with these rates, the slowest first."""
    order = sorted(range(len(rates)), key=rates.__getitem__)
    members: list[list[int]] = [[order[0]]]
    for before, sm in itertools.pairwise(order):
        if rates[sm] > rates[before] * (1 + GAP):
            members.append([])
        members[-1].append(sm)
    # Rates that run into one another are no classes.
    spread = max(rates[each[-1]] / rates[each[0]] for each in members)
    if not 1 < len(members) <= MOST or spread > 1 + 2 * GAP:
        return even(len(rates))
    table = torch.zeros(len(rates), dtype=torch.int32)
    for number, each in enumerate(members):
        for rank, sm in enumerate(sorted(each)):
            table[sm] = number << 16 | rank
    means = [sum(rates[sm] for sm in each) / len(each) for each in members]
    return RateClasses(
        tuple(len(each) for each in members), tuple(mean / means[0] for mean in means), table
    )


def _measure(device: torch.device, programs: int) -> list[float] | None:
    """Bytes a nanosecond by number of the multiprocessor, medians of several launches."""
    if device.type != "cuda" or torch.cuda.get_device_capability(device) != (9, 0):
        return None
    kernel = kernel_or_none(
        device, ("sm90.cuh", "rates_sm90.cu"), "stream_rates", (), SHARED, "work is cut evenly"
    )
    if kernel is None:
        return None
    try:
        memory = torch.empty(ROWS, COLUMNS, dtype=torch.bfloat16, device=device)
    except torch.OutOfMemoryError:
        return None
    rates = torch.zeros(REPEATS, programs, device=device)
    seen = torch.zeros(programs, dtype=torch.int32, device=device)
    box = (64, ROWS, COLUMNS // 64), (COLUMNS * 2, 128), (64, 64, 2)
    with torch.cuda.device(device):
        for row in (rates[0], *rates):  # the first one warms up
            arguments = (
                tensor_map(memory.data_ptr(), *box), ctypes.c_int(ROWS // 64),
                ctypes.c_int(COLUMNS // 128), ctypes.c_uint64(NANOSECONDS),
                ctypes.c_void_p(row.data_ptr()), ctypes.c_void_p(seen.data_ptr()),
            )  # fmt: skip
            kernel.launch(programs, 32, arguments, False)
        medians = rates.median(0).values.tolist()
        once = bool((seen == REPEATS + 1).all())  # a program on each, under its number
        del memory
        torch.cuda.empty_cache()  # all of it is needed for pools
    return medians if once and min(medians) > 0 else None
