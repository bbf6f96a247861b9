"""MXFP4 expands as the specification says and as transformers does, and rounds to nearest."""

import pytest
import torch
from transformers.integrations.mxfp4 import convert_moe_packed_tensors

from eightfold.kernels.experts.mxfp4_reference import (
    BLOCK,
    BLOCK_BYTES,
    DTYPES,
    E2M1_VALUES,
    expand_mxfp4,
    round_to_mxfp4,
)


def random_weights(*shape: int, scales: tuple[int, int] = (100, 140)) -> tuple[torch.Tensor, ...]:
    """Return random blocks and scales of weights [..., K]."""
    generator = torch.Generator().manual_seed(3)
    rows, groups = shape[:-1], shape[-1] // BLOCK
    blocks = torch.randint(0, 256, (*rows, groups, BLOCK_BYTES), generator=generator)
    exponents = torch.randint(*scales, (*rows, groups), generator=generator)
    return blocks.to(torch.uint8), exponents.to(torch.uint8)


def test_every_code_and_scale_by_hand() -> None:
    signed = [*E2M1_VALUES, *(-value for value in E2M1_VALUES)]
    # Low nibbles are the even elements.
    blocks = torch.tensor([low + 16 * (15 - low) for low in range(16)], dtype=torch.uint8)
    expected = [value for low in range(16) for value in (signed[low], signed[15 - low])]
    scales = torch.arange(256, dtype=torch.uint8)[:, None]
    found = expand_mxfp4(blocks.expand(256, 1, BLOCK_BYTES), scales, torch.float64)
    wanted = torch.tensor(expected, dtype=torch.float64) * 2.0 ** (scales.double() - 127)
    assert torch.equal(found[:255], wanted[:255])
    assert found[255].isnan().all(), "the specification's scale that is not a number"


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_equals_transformers(dtype: torch.dtype) -> None:
    blocks, scales = random_weights(3, 10, 3 * BLOCK)
    expected = convert_moe_packed_tensors(blocks, scales, dtype=dtype).transpose(1, 2)
    found = expand_mxfp4(blocks, scales, dtype)
    assert found.dtype == dtype
    assert torch.equal(found, expected)


def test_every_value_is_exact_in_bfloat16() -> None:
    blocks, scales = random_weights(4, 64 * BLOCK, scales=(0, 255))
    exact = expand_mxfp4(blocks, scales, torch.float64)
    finite = exact.abs() < torch.finfo(torch.bfloat16).max
    assert torch.equal(expand_mxfp4(blocks, scales).double()[finite], exact[finite])


def test_rounding_keeps_what_is_exact_and_is_nearest() -> None:
    blocks, scales = random_weights(2, 5, 4 * BLOCK)
    exact = expand_mxfp4(blocks, scales, torch.float64)
    assert torch.equal(expand_mxfp4(*round_to_mxfp4(exact), torch.float64), exact)
    generator = torch.Generator().manual_seed(4)
    weights = torch.randn(200, 2 * BLOCK, generator=generator, dtype=torch.float64)
    blocks, scales = round_to_mxfp4(weights)
    powers = 2.0 ** (scales.double() - 127)[..., None]
    grid = torch.tensor([s * value for value in E2M1_VALUES for s in (1, -1)], dtype=torch.float64)
    nearest = ((weights.unflatten(-1, (-1, BLOCK)) / powers)[..., None] - grid).abs().amin(-1)
    error = (expand_mxfp4(blocks, scales, torch.float64) - weights).unflatten(-1, (-1, BLOCK)).abs()
    assert torch.equal(error / powers, nearest)
    assert float(powers.max()) <= 1, "a scale larger than the largest magnitude divided by 4"


def test_ties_go_to_the_even_code() -> None:
    weights = torch.zeros(BLOCK)
    weights[:9] = torch.tensor([6.0, 0.25, 0.75, 1.25, 1.75, 2.5, 3.5, 5.0, -5.0])
    found = expand_mxfp4(*round_to_mxfp4(weights), torch.float32)
    assert found[:9].tolist() == [6.0, 0.0, 1.0, 1.0, 2.0, 2.0, 4.0, 4.0, -4.0]


def test_wrong_shapes_and_types_are_refused() -> None:
    blocks, scales = random_weights(2, 4, 2 * BLOCK)
    for wrong in (
        (blocks[..., :8], scales),
        (blocks, scales[..., :1]),
        (blocks.to(torch.int8), scales),
        (blocks, scales.float()),
    ):
        with pytest.raises(ValueError, match="must be"):
            expand_mxfp4(*wrong)
    with pytest.raises(ValueError, match="expand to bfloat16"):
        expand_mxfp4(blocks, scales, torch.float16)
    with pytest.raises(ValueError, match="not whole blocks"):
        round_to_mxfp4(torch.zeros(3, BLOCK + 1))
