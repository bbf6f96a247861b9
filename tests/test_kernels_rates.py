"""Rows shared out by how fast each multiprocessor reads; measured on a Hopper GPU only."""

import pytest
import torch
from kernel_device import CUDA, DEVICE

from eightfold.kernels.rates import RateClasses, classify, even, rate_classes, shares

HOPPER = CUDA and torch.cuda.get_device_capability() == (9, 0)
CARD = [32.2 if 32 <= sm < 44 or 78 <= sm < 88 or sm in (126, 127) else 21.6 for sm in range(132)]


def per_program(classes: RateClasses, n: int, most: int) -> list[int]:
    """Rows that a program of each class reads."""
    found = shares(classes, n, most)
    return [
        share.tile * -(-share.tiles // count)
        for share, count in zip(found, classes.counts, strict=True)
    ]


def test_two_kinds_of_clusters_are_two_classes() -> None:
    classes = classify([rate + 0.02 * (i % 9) for i, rate in enumerate(CARD)])
    assert classes.counts == (108, 24)
    assert classes.rates == pytest.approx((1.0, 32.2 / 21.6), rel=0.01)
    assert classes.table is not None
    entries = classes.table.tolist()
    assert [entry >> 16 for entry in entries] == [int(rate > 30) for rate in CARD]
    for number, count in enumerate(classes.counts):
        ranks = [entry & 0xFFFF for entry in entries if entry >> 16 == number]
        assert sorted(ranks) == list(range(count))


@pytest.mark.parametrize(
    "rates",
    [
        [20.0] * 132,
        [20.0 + 0.1 * i for i in range(132)],  # no gap between them
        [10.0, 12.0, 14.5, 17.5, 21.0] * 26,  # more kinds than the kernel takes
    ],
)
def test_what_has_no_classes_is_cut_evenly(rates: list[float]) -> None:
    classes = classify(rates)
    assert classes.counts == (len(rates),)
    assert classes.table is None


@pytest.mark.parametrize("classes", [even(132), even(1), classify(CARD), classify(CARD[:40])])
@pytest.mark.parametrize("most", [8, 64])
@pytest.mark.parametrize("n", [1, 64, 131, 133, 768, 5376, 16384, 21504, 262144, 600001])
def test_shares_cover_all_rows_once(classes: RateClasses, n: int, most: int) -> None:
    found, at = shares(classes, n, most), 0
    for share in found:
        assert share.begin == at
        assert 1 <= share.tile <= min(most, n)
        assert share.tiles == -(-(share.end - share.begin) // share.tile)
        at = share.end
    assert at == n


@pytest.mark.parametrize("n", [5376, 16384, 18432, 21504, 262144])
def test_all_are_done_at_nearly_the_same_time(n: int) -> None:
    classes = classify(CARD)
    pairs = zip(per_program(classes, n, 64), classes.rates, strict=True)
    seconds = [rows / rate for rows, rate in pairs]
    ideal = n / sum(count * rate for count, rate in zip(classes.counts, classes.rates, strict=True))
    assert max(seconds) < 1.02 * ideal
    assert all(
        share.tiles >= count
        for share, count in zip(shares(classes, n, 64), classes.counts, strict=True)
    )


@pytest.mark.skipif(not HOPPER, reason="needs a Hopper GPU")
def test_measured_classes_hold_every_multiprocessor() -> None:
    classes = rate_classes(torch.device(DEVICE, torch.cuda.current_device()))
    programs = torch.cuda.get_device_properties(DEVICE).multi_processor_count
    assert sum(classes.counts) == programs
    assert min(classes.rates) == 1.0
    if classes.table is not None:
        assert len(set(classes.table.tolist())) == programs


def test_without_a_hopper_gpu_work_is_cut_evenly() -> None:
    if not HOPPER:
        assert rate_classes(torch.device("cpu")).table is None
