"""A layer in one launch against float64; needs a Hopper GPU. Without one: it builds, and refuses.

Outputs are poisoned first, rows beyond the last as well.
"""

import ctypes
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from helpers.kernel_cases.kernel_devices import CUDA, DEVICE, HOPPER, needs_hopper, relative

import eightfold.kernels.layers.layer_tail as layer_tail_module
from eightfold.kernels.cuda import nvrtc
from eightfold.kernels.layers.layer_tail import (
    LayerTailWeights,
    layer_tail,
    layer_tail_fits,
    layer_tail_reference,
)

LIMIT = 6e-3


def randn(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, device=DEVICE).bfloat16()


def layer(attended: int, width: int, inner: int, following: int) -> LayerTailWeights:
    """Weights that keep activations of order one."""
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
    weights: LayerTailWeights, attended: torch.Tensor, residual: torch.Tensor, dtype: torch.dtype
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
    """(residual, normed, out), each written into poisoned memory with a row to spare."""
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
    )  # fmt: skip
    torch.cuda.synchronize()
    for tensor in (y, normed, hidden, out, residual):
        assert tensor[rows].isnan().all(), "a row of nobody was written"
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
def test_layer(shape: tuple[int, int, int, int], dtype: torch.dtype, rows: int) -> None:
    weights = layer(*shape)
    assert layer_tail_fits(weights)
    attended, residual = randn(rows, shape[0]), randn(rows, shape[1])
    found = run(weights, attended, residual, dtype)
    for mine, wanted in zip(found, layer_tail_reference(attended, residual, weights), strict=True):
        assert (mine is None) == (wanted is None)
        if mine is not None and wanted is not None:
            assert relative(mine, wanted) < LIMIT


@needs_hopper
@pytest.mark.timeout(60)
def test_result_is_independent_of_the_batch_and_repeats() -> None:
    weights = layer(1024, 2560, 5120, 2048)
    attended, residual = randn(64, 1024), randn(64, 2560)
    whole = run(weights, attended, residual, torch.bfloat16)
    for _ in range(20):
        again = run(weights, attended, residual, torch.bfloat16)
        assert all(torch.equal(a, b) for a, b in zip(again, whole, strict=True))
    for rows in (1, 8, 9, 16, 32):
        part = run(weights, attended[:rows], residual[:rows], torch.bfloat16)
        assert all(torch.equal(a, b[:rows]) for a, b in zip(part, whole, strict=True))


def test_what_does_not_fit_is_refused() -> None:
    if not HOPPER:
        assert not layer_tail_fits(layer(256, 256, 256, 64))
    assert not layer_tail_fits(layer(256, 320, 256, 64))
    assert not layer_tail_fits(layer(128, 256, 256, 64))
    weights = layer(128, 256, 64, 0)
    rows, counters = randn(8, 256), torch.zeros(8, dtype=torch.int32, device=DEVICE)
    with pytest.raises(ValueError, match="out and following"):
        layer_tail(randn(8, 128), rows, weights, (rows, rows, randn(8, 64)), rows, counters)
    with pytest.raises(ValueError, match="fits"):
        layer_tail(randn(8, 64), rows, weights, (rows, rows, randn(8, 64)), None, counters)
    whole = (randn(8, 128), rows)
    after = ((rows, rows, randn(8, 64)), None, counters)
    for name, wrong in (
        ("gate_up", randn(128, 320)), ("gate_up", randn(64, 256)), ("down", randn(320, 64)),
        ("output", randn(320, 128)), ("next_norm", randn(255)), ("post_attention", randn(1, 256)),
    ):  # fmt: skip
        with pytest.raises(ValueError, match="a weight is"):
            layer_tail(*whole, replace(weights, **{name: wrong}), *after)
    with pytest.raises(ValueError, match="a weight is"):
        layer_tail(
            *whole, replace(weights, following=randn(64, 128)), after[0], randn(8, 64), counters
        )
    if not CUDA:
        with pytest.raises(ValueError, match="needs a Hopper GPU"):
            layer_tail(*whole, weights, *after)
    wide = randn(65, 256)
    with pytest.raises(ValueError, match="65 rows"):
        layer_tail(randn(65, 128), wide, weights, (wide, wide, randn(65, 64)), None, counters)


def layouts_agree() -> str:
    """What the compiler refuses where a struct of the kernel is laid out otherwise in Python."""
    checks = ""
    for name, own in (("Phase", layer_tail_module._Phase), ("Chain", layer_tail_module._Chain)):
        checks += f"static_assert(sizeof({name}) == {ctypes.sizeof(own)});\n"
        for field, _ in own._fields_:
            if field != "pad":
                offset = getattr(own, field).offset
                checks += f"static_assert(__builtin_offsetof({name}, {field}) == {offset});\n"
    return checks


@pytest.mark.skipif(shutil.which("nvcc") is None, reason="needs nvcc")
@pytest.mark.parametrize("rows", [8, 64])
def test_builds_without_spills(tmp_path: Path, rows: int) -> None:
    folder = nvrtc.SOURCE_FOLDER
    source = tmp_path / "chain.cu"
    text = "".join((folder / name).read_text() for name in layer_tail_module.SOURCES)
    source.write_text(text + layouts_agree())
    command = ["nvcc", "-arch=sm_90a", "-cubin", "-Xptxas", "-v"]
    command += [f"-D{name}={value}" for name, value in layer_tail_module.defines(rows, 5376)]
    command += ["-o", str(tmp_path / "chain.cubin"), str(source)]
    built = subprocess.run(command, capture_output=True, text=True, timeout=280)
    assert built.returncode == 0, built.stderr
    assert "0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads" in built.stderr
