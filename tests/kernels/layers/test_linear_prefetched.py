"""Small linear layers with prefetched weights: on Hopper, and the instructions on a CPU."""

import shutil
from pathlib import Path

import pytest
import torch
from helpers.kernel_cases.kernel_devices import CUDA, DEVICE, needs_hopper, relative_error
from helpers.kernel_cases.stream_emulation import EmulatedStream

from eightfold.kernels.layers.beside_experts import linear_prefetched as prefetched
from eightfold.kernels.layers.beside_experts.linear_prefetched import (
    linear_prefetched,
    linear_prefetched_fits,
    linear_prefetched_reference,
    sum_norm_linear,
    sum_norm_reference,
)

LIMIT, EPS = 4e-3, 1e-5
emulated = [
    pytest.mark.skipif(CUDA, reason="on a GPU the kernel itself is tested"),
    pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++"),
]


class Case:
    """Random tensors of a call."""

    def __init__(self, rows: int, columns: int, outputs: int, parts: int) -> None:
        generator = torch.Generator().manual_seed(rows + columns)

        def draw(*shape: int) -> torch.Tensor:
            return torch.randn(shape, generator=generator).to(DEVICE)

        self.x, self.weight = draw(rows, columns).bfloat16(), draw(outputs, columns).bfloat16()
        self.weight *= columns**-0.5
        self.parts, self.residual = draw(parts, rows, columns), draw(rows, columns).bfloat16()
        self.norm = draw(columns).abs()
        self.out = torch.full((rows, outputs), float("nan"), device=DEVICE).bfloat16()
        self.counter = torch.zeros(1, dtype=torch.int32, device=DEVICE)
        self.wanted_residual, self.wanted_x = sum_norm_reference(
            self.parts, self.residual, self.norm, EPS
        )

    def check_sum(self) -> None:
        """Compare what ``sum_norm_linear`` has written."""
        assert torch.equal(self.residual.double(), self.wanted_residual)
        assert relative_error(self.x, self.wanted_x) < LIMIT
        wanted = linear_prefetched_reference(self.x, self.weight)
        assert relative_error(self.out, wanted) < LIMIT


@pytest.mark.parametrize(
    ("rows", "columns", "outputs", "parts", "grid"),
    [
        pytest.param(3, 96, 40, 0, 1, marks=emulated),
        pytest.param(7, 160, 64, 3, 2, marks=emulated),
        pytest.param(8, 2880, 24, 2, 2, marks=emulated),
    ],
)
def test_the_kernels_instructions(
    rows: int, columns: int, outputs: int, parts: int, grid: int, tmp_path: Path
) -> None:
    case = Case(rows, columns, outputs, max(parts, 1))
    defines = prefetched.kernel_defines(columns, parts, torch.float32)
    kernel = EmulatedStream(
        "linear_prefetched.cu", "linear_prefetched", defines, prefetched.CONSUMERS, tmp_path
    )
    tensors = (case.x, case.weight, case.out, case.parts, case.residual, case.norm, case.counter)
    kernel.launch(grid, (*tensors, EPS, rows, outputs))
    if parts > 0:
        case.check_sum()
        assert case.counter.item() == rows
        return
    assert relative_error(case.out, linear_prefetched_reference(case.x, case.weight)) < LIMIT


@needs_hopper
@pytest.mark.parametrize("rows", [1, 5, 8])
@pytest.mark.parametrize("shape", [(2880, 5120, 4), (2048, 5120, 8), (96, 40, 3)], ids=str)
def test_layers_on_hopper(rows: int, shape: tuple[int, int, int]) -> None:
    columns, outputs, parts = shape
    case = Case(rows, columns, outputs, parts)
    assert linear_prefetched_fits(rows, case.weight)
    assert linear_prefetched_fits(rows, case.weight, parts, case.norm.dtype)
    linear_prefetched(case.x, case.weight, case.out)
    wanted = linear_prefetched_reference(case.x, case.weight)
    assert relative_error(case.out, wanted) < LIMIT
    first = case.out.clone()
    case.x[1:] = float("nan")
    linear_prefetched(case.x, case.weight, case.out)
    assert torch.equal(case.out[0], first[0])
    sum_norm_linear(
        case.parts, case.residual, case.norm, case.x, case.weight, case.out, case.counter, eps=EPS
    )
    case.check_sum()


def test_what_does_not_fit_is_refused() -> None:
    weight = torch.zeros(40, 96, dtype=torch.bfloat16)
    assert not linear_prefetched_fits(8, weight)
    x, out = torch.zeros(2, 96).bfloat16(), torch.zeros(2, 48).bfloat16()
    with pytest.raises(ValueError, match="do not fit"):
        linear_prefetched(x, weight, out)
