"""Linear layers of many rows against float64. Need a Hopper GPU, except for refused inputs.

Outputs are filled with NaN first, including rows beyond the last.
"""

import pytest
import torch
from helpers.kernel_cases.kernel_devices import DEVICE, HOPPER, needs_hopper, relative_error

import eightfold.kernels.layers.linear_many_rows as linear_many_rows_module
from eightfold.kernels.layers.linear_many_rows import (
    linear_many_rows,
    linear_many_rows_fits,
    linear_many_rows_reference,
    tile_utilization,
)

LIMIT = 3e-3  # one rounding to bfloat16 is 1.7e-3


def randn(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, device=DEVICE).bfloat16()


def run(x: torch.Tensor, weight: torch.Tensor, gated: bool) -> torch.Tensor:
    """Return the result, written into memory that was NaN, with a tile's rows to spare."""
    (rows, _), n = x.shape, weight.shape[0] // (2 if gated else 1)
    whole = torch.full((rows + 256, n), float("nan"), device=DEVICE).bfloat16()
    linear_many_rows(x, weight, whole[:rows], gated=gated)
    torch.cuda.synchronize()
    assert whole[rows:].isnan().all(), "a row beyond the last was written"
    return whole[:rows]


@needs_hopper
@pytest.mark.timeout(60)
@pytest.mark.parametrize("rows", [1, 65, 127, 128, 129, 300, 1000, 1024, 2048])
@pytest.mark.parametrize("gated", [False, True])
@pytest.mark.parametrize(("n", "inner"), [(64, 128), (1000, 192), (2688, 1024), (5376, 8192)])
def test_matches_float64(rows: int, gated: bool, n: int, inner: int) -> None:
    torch.manual_seed(rows + n)
    x, weight = randn(rows, inner), randn(n * (2 if gated else 1), inner) * inner**-0.5
    assert linear_many_rows_fits(weight, gated=gated)
    wanted = linear_many_rows_reference(x, weight, gated)
    found = run(x, weight, gated)
    assert relative_error(found, wanted) < LIMIT
    assert all(torch.equal(run(x, weight, gated), found) for _ in range(3))


@needs_hopper
@pytest.mark.timeout(60)
@pytest.mark.parametrize(("n", "inner"), [(64, 128), (1000, 192), (5120, 1024)])
@pytest.mark.parametrize(
    ("tile", "gated"), [(128, False), (160, False), (168, False), (176, True), (192, True)]
)
def test_every_tile_gives_the_same(
    tile: int, gated: bool, n: int, inner: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    for rows in (1, 129, 300, 1024):
        x, weight = randn(rows, inner), randn(n * (2 if gated else 1), inner) * inner**-0.5
        monkeypatch.setattr(linear_many_rows_module, "tile_width", lambda *_: 192)
        usual = run(x, weight, gated)
        monkeypatch.setattr(linear_many_rows_module, "tile_width", lambda *_: tile)
        assert relative_error(usual, linear_many_rows_reference(x, weight, gated)) < LIMIT
        assert all(torch.equal(run(x, weight, gated), usual) for _ in range(3))


@needs_hopper
@pytest.mark.timeout(60)
@pytest.mark.parametrize("gated", [False, True])
def test_rows_do_not_depend_on_one_another(gated: bool) -> None:
    x, weight = randn(1024, 1024), randn(5376, 1024) * 1024**-0.5
    whole = run(x, weight, gated)
    for rows in (65, 128, 300, 1000):
        assert torch.equal(run(x[:rows], weight, gated), whole[:rows])


@needs_hopper
def test_extreme_gates_are_as_exact_as_others() -> None:
    inner = 128
    gates = torch.linspace(-90, 90, 64).repeat_interleave(8)
    weight = torch.zeros(1024, inner)
    weight[:512, 0], weight[512:, 1] = gates, 1.0
    x = torch.zeros(256, inner)
    x[:, 0], x[:, 1] = 1.0, torch.linspace(-4, 4, 256)
    x, weight = x.to(DEVICE).bfloat16(), weight.to(DEVICE).bfloat16()
    found, wanted = run(x, weight, True), linear_many_rows_reference(x, weight, True)
    # Half a step of bfloat16, at most one part in 256: 1.0 at 360, the largest result.
    assert ((found.double() - wanted).abs() <= wanted.abs() * (1.001 / 256) + 1e-6).all()


@pytest.mark.parametrize(
    ("n", "gated"),
    [
        (16384, False), (18432, False), (5376, False), (21504, True),  # Gemma-4-31B
        (10240, False), (5120, False), (25600, True),  # Qwen3-32B
        (6144, False), (4096, False), (14336, True),  # Llama-3.1-8B
    ],
)  # fmt: skip
def test_tiles_fill_the_multiprocessors(n: int, gated: bool) -> None:
    for rows in (1024, 2048):
        assert tile_utilization(rows, n, gated, 132) > 0.95
    assert tile_utilization(64, n, gated, 132) < 0.5


def test_unsupported_weights_do_not_fit() -> None:
    weight = randn(64, 256)
    assert linear_many_rows_fits(weight) == HOPPER
    assert not linear_many_rows_fits(randn(60, 256))
    assert not linear_many_rows_fits(randn(72, 256), gated=True)
    assert not linear_many_rows_fits(randn(64, 64))
    assert not linear_many_rows_fits(weight.float())


def test_unsupported_calls_are_refused() -> None:
    x, weight, out = randn(128, 256), randn(64, 256), randn(128, 64)
    for wrong, message in (
        ((x[:, :192].contiguous(), weight, out), "192 columns"),
        ((x, weight, randn(127, 64)), "out has shape"),
        ((x.float(), weight, out), "x is"),
        ((x, weight.T, out), "contiguous"),
        ((x, randn(60, 256), randn(128, 60)), "multiple of 8"),
        ((randn(128, 96), randn(64, 96), out), "multiple of 64"),
        ((x[:0], weight, out[:0]), "no rows"),
        ((randn(128 * 256 + 1)[1:].view(128, 256), weight, out), "x must begin"),
    ):
        with pytest.raises(ValueError, match=message):
            linear_many_rows(*wrong)
    with pytest.raises(ValueError, match="multiple of 16"):
        linear_many_rows(x, randn(72, 256), randn(128, 36), gated=True)
    if not HOPPER:
        with pytest.raises(ValueError, match="Hopper"):
            linear_many_rows(x, weight, out)
