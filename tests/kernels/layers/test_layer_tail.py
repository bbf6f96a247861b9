"""The layer tail in one launch against float64. Needs a Hopper GPU, except for refused inputs.

Outputs are filled with NaN first, including rows beyond the last.
"""

from dataclasses import replace

import pytest
import torch
from helpers.kernel_cases.kernel_devices import CUDA, DEVICE, HOPPER, needs_hopper, relative_error

from eightfold.kernels.layers.layer_tail import (
    LayerTailWeights,
    layer_tail,
    layer_tail_fits,
    layer_tail_reference,
)
from eightfold.kernels.layers.linear_chain import (
    linear_stream,
    linear_stream_fits,
    squares_size,
)
from eightfold.kernels.layers.linear_few_rows import linear_few_rows_reference

LIMIT = 6e-3


def randn(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, device=DEVICE).bfloat16()


def weights_of(attended: int, width: int, inner: int, following: int) -> LayerTailWeights:
    """Random weights that keep activations of order one."""
    torch.manual_seed(attended + inner)
    norms = [(1 + 0.3 * torch.randn(width, device=DEVICE)).bfloat16() for _ in range(4)]
    return LayerTailWeights(
        output=randn(width, attended) * attended**-0.5,
        gate_up=randn(2 * inner, width) * width**-0.5,
        down=randn(width, inner) * inner**-0.5,
        following=randn(following, width) * width**-0.5 if following else None,
        post_attention=norms[0],
        pre_feedforward=norms[1],
        post_feedforward=norms[2],
        next_norm=norms[3],
        scale=0.7,
    )


def run(
    weights: LayerTailWeights,
    attended: torch.Tensor,
    residual: torch.Tensor,
    dtype: torch.dtype,
    squares: bool = False,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
    """Return (residual, normed, out), written into memory that was NaN, with a row to spare."""
    rows, width = residual.shape
    n = 0 if weights.following is None else weights.following.shape[0]
    y, normed, hidden = (
        torch.full((rows + 1, each), float("nan"), device=DEVICE).bfloat16()
        for each in (width, width, weights.down.shape[1])
    )
    out = torch.full((rows + 1, n), float("nan"), device=DEVICE, dtype=dtype)
    residual = torch.cat([residual, residual[:1] * float("nan")])
    layer_tail(
        attended, residual[:rows], weights, (y[:rows], normed[:rows], hidden[:rows]),
        out[:rows] if n else None, torch.zeros(8, dtype=torch.int32, device=DEVICE),
        squares=(
            torch.full((squares_size(width, residual.device),), float("nan"), device=DEVICE)
            if squares else None
        ),
    )  # fmt: skip
    torch.cuda.synchronize()
    for tensor in (y, normed, hidden, out, residual):
        assert tensor[rows].isnan().all(), "a row beyond the last was written"
    return residual[:rows], normed[:rows], out[:rows] if n else None


@needs_hopper
@pytest.mark.timeout(60)
@pytest.mark.parametrize("rows", [1, 7, 8, 13, 16, 32, 33, 64])
@pytest.mark.parametrize(
    ("shape", "dtype"),
    [
        ((256, 512, 256, 64), torch.bfloat16),
        ((1024, 768, 3072, 1600), torch.float32),
        ((8192, 5376, 21504, 16384), torch.bfloat16),
        ((4096, 1280, 8704, 0), torch.bfloat16),
    ],
)
def test_matches_float64(shape: tuple[int, int, int, int], dtype: torch.dtype, rows: int) -> None:
    weights = weights_of(*shape)
    assert layer_tail_fits(weights)
    attended, residual = randn(rows, shape[0]), randn(rows, shape[1])
    found = run(weights, attended, residual, dtype)
    for mine, wanted in zip(found, layer_tail_reference(attended, residual, weights), strict=True):
        assert (mine is None) == (wanted is None)
        if mine is not None and wanted is not None:
            assert relative_error(mine, wanted) < LIMIT


@needs_hopper
@pytest.mark.timeout(60)
@pytest.mark.parametrize("squares", [False, True])
@pytest.mark.parametrize("rows", [1, 8, 13, 33, 64])
@pytest.mark.parametrize(
    ("shape", "absent"),
    [
        ((256, 320, 704, 96), ("post_attention", "post_feedforward")),
        ((4096, 2880, 2880, 5120), ("post_attention", "post_feedforward")),
        ((1024, 2048, 3072, 1600), ("pre_feedforward", "next_norm")),
        ((1024, 2048, 3072, 1600), ("post_attention", "pre_feedforward", "post_feedforward")),
        ((4096, 5120, 8704, 0), ("post_attention", "post_feedforward")),
    ],
)
def test_families_without_some_norms(
    shape: tuple[int, int, int, int], absent: tuple[str, ...], rows: int, squares: bool
) -> None:
    whole = weights_of(*shape)
    weights = replace(
        whole, **dict.fromkeys(absent), output_bias=randn(shape[1]), activation="silu",
        norm_offset=1.0,
    )  # fmt: skip
    assert layer_tail_fits(weights)
    attended, residual = randn(rows, shape[0]), randn(rows, shape[1])
    found = run(weights, attended, residual, torch.bfloat16, squares)
    wanted = layer_tail_reference(attended, residual, weights)
    assert relative_error(found[0], wanted[0]) < LIMIT
    if wanted[2] is None:
        assert relative_error(found[1], wanted[1]) < LIMIT
    else:
        assert found[2] is not None
        assert relative_error(found[2], wanted[2]) < LIMIT


@needs_hopper
@pytest.mark.timeout(60)
@pytest.mark.parametrize("squares", [False, True])
def test_results_repeat_and_do_not_depend_on_the_batch(squares: bool) -> None:
    weights = weights_of(1024, 2560, 5120, 2048)
    if squares:
        weights = replace(weights, post_attention=None, post_feedforward=None)
    attended, residual = randn(64, 1024), randn(64, 2560)
    whole = run(weights, attended, residual, torch.bfloat16, squares)
    for _ in range(20):
        again = run(weights, attended, residual, torch.bfloat16, squares)
        assert all(torch.equal(a, b) for a, b in zip(again, whole, strict=True))
    for rows in (1, 8, 9, 16, 32):
        part = run(weights, attended[:rows], residual[:rows], torch.bfloat16, squares)
        assert all(torch.equal(a, b[:rows]) for a, b in zip(part, whole, strict=True))


@needs_hopper
@pytest.mark.timeout(60)
@pytest.mark.parametrize("rows", [1, 8, 13, 16, 64])
def test_a_linear_layer_as_a_chain_of_its_own(rows: int) -> None:
    weight, x = randn(2112, 2880) * 2880**-0.5, randn(rows, 2880)
    counters = torch.zeros(8, dtype=torch.int32, device=DEVICE)
    assert linear_stream_fits(weight, "silu")
    for gated, dtype in ((False, torch.bfloat16), (False, torch.float32), (True, torch.bfloat16)):
        out = torch.full((rows, 1056 if gated else 2112), float("nan"), device=DEVICE, dtype=dtype)
        linear_stream(x, weight, out, counters, gated=gated, activation="silu")
        assert relative_error(out, linear_few_rows_reference(x, weight, gated, "silu")) < LIMIT
        assert not counters.any()


def test_unsupported_weights_do_not_fit() -> None:
    if not HOPPER:
        assert not layer_tail_fits(weights_of(256, 256, 256, 64))
    assert not layer_tail_fits(weights_of(256, 352, 256, 64))
    assert not layer_tail_fits(weights_of(96, 256, 256, 64))


def test_unsupported_calls_are_refused() -> None:
    weights = weights_of(128, 256, 64, 0)
    rows, counters = randn(8, 256), torch.zeros(8, dtype=torch.int32, device=DEVICE)
    with pytest.raises(ValueError, match="An output and a weight go together"):
        layer_tail(randn(8, 128), rows, weights, (rows, rows, randn(8, 64)), rows, counters)
    with pytest.raises(ValueError, match=r"x is .* must be contiguous bfloat16"):
        layer_tail(randn(8, 64), rows, weights, (rows, rows, randn(8, 64)), None, counters)
    whole = (randn(8, 128), rows)
    after = ((rows, rows, randn(8, 64)), None, counters)
    for name, wrong in (
        ("gate_up", randn(128, 320)), ("gate_up", randn(64, 256)), ("down", randn(320, 64)),
        ("output", randn(320, 128)), ("next_norm", randn(255)), ("post_attention", randn(1, 256)),
    ):  # fmt: skip
        with pytest.raises(ValueError, match="A weight has shape"):
            layer_tail(*whole, replace(weights, **{name: wrong}), *after)
    with pytest.raises(ValueError, match="A weight has shape"):
        layer_tail(
            *whole, replace(weights, following=randn(64, 128)), after[0], randn(8, 64), counters
        )
    if not CUDA:
        with pytest.raises(ValueError, match="needs a Hopper GPU"):
            layer_tail(*whole, weights, *after)
    wide = randn(65, 256)
    with pytest.raises(ValueError, match="1 to 64 rows, not 65"):
        layer_tail(randn(65, 128), wide, weights, (wide, wide, randn(65, 64)), None, counters)
