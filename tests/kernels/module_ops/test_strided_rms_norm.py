"""RMSNorm of strided rows against float64."""

import pytest
import torch
from helpers.kernel_cases.kernel_devices import CUDA, DEVICE, DTYPE, relative_error

from eightfold.kernels.module_ops.strided_rms_norm import (
    row_strides,
    strided_rms_norm,
    strided_rms_norm_reference,
)

LIMIT = 4e-3 if CUDA else 1e-6
VIEWS = {
    "rows": lambda x: x,
    "one row": lambda x: x[:1],
    "part of wider rows": lambda x: x[:, 8:40],
    "heads of a part": lambda x: x[None, :, 16:48].unflatten(2, (4, 8)),
    "transposed heads": lambda x: x[None, :, 16:48].unflatten(2, (4, 8)).transpose(1, 2),
    "no order that the kernel knows": lambda x: x.T,
}


@pytest.mark.parametrize("weighted", [True, False])
@pytest.mark.parametrize("name", VIEWS)
def test_matches_float64(name: str, weighted: bool) -> None:
    torch.manual_seed(3)
    x = VIEWS[name](torch.randn(5, 50, device=DEVICE).to(DTYPE))
    weight = torch.randn(x.shape[-1], device=DEVICE) if weighted else None
    out = strided_rms_norm(x, weight, eps=1e-5, pdl=True)
    assert out.is_contiguous()
    assert (out.shape, out.dtype) == (x.shape, x.dtype)
    assert relative_error(out, strided_rms_norm_reference(x, weight, eps=1e-5)) < LIMIT


def test_strides_of_rows() -> None:
    x = torch.zeros(2, 3, 4, 8)
    assert row_strides(x) == (24, 0, 8)
    assert row_strides(x[:, :, 1:3]) == (2, 32, 8)
    assert row_strides(x[:1, :, :2].transpose(1, 2)) == (3, 8, 32)
    assert row_strides(x.transpose(1, 2)[..., :4]) is None
    assert row_strides(x.transpose(2, 3)) is None


def test_wrong_weights_are_refused() -> None:
    x = torch.zeros(2, 8, device=DEVICE)
    with pytest.raises(ValueError, match="weight has 7 elements; x has rows of 8"):
        strided_rms_norm(x, torch.zeros(7, device=DEVICE), eps=1e-6)
    assert strided_rms_norm(x[:0], None, eps=1e-6).shape == (0, 8)
