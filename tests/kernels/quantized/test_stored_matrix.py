"""Matrices in 8 and 4 bits expand to what their codes, scales and zero points say."""

import pytest
import torch

from eightfold.kernels.quantized.stored_matrix import (
    FP8,
    FP8_MAX,
    MIDDLE,
    StoredMatrix,
    join_matrices,
    pack_nibbles,
    round_to_fp8,
    round_to_int4,
    unpack_nibbles,
)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize(("rows_per_scale", "columns_per_scale"), [(1, 0), (130, 0), (64, 96)])
def test_fp8_by_hand(rows_per_scale: int, columns_per_scale: int) -> None:
    rows, columns = 130, 200
    codes = torch.randn(rows, columns, generator=generator()).to(FP8)
    groups = -(-columns // (columns_per_scale or columns))
    scales = torch.rand(-(-rows // rows_per_scale), groups, generator=generator(1)).bfloat16()
    matrix = StoredMatrix(codes, scales, None, rows_per_scale, columns_per_scale)
    expected = torch.empty(rows, columns, dtype=torch.float64)
    for n in range(rows):
        for k in range(columns):
            scale = scales[n // rows_per_scale, k // (columns_per_scale or columns)]
            expected[n, k] = codes[n, k].double() * scale.double()
    assert torch.equal(matrix.expand(torch.float64), expected)
    assert torch.equal(matrix.expand(torch.float32), expected.float())
    assert matrix.nbytes == rows * columns + 2 * scales.numel()


@pytest.mark.parametrize("zero_points", [False, True])
def test_int4_by_hand(zero_points: bool) -> None:
    rows, columns, group = 6, 128, 32
    codes = torch.randint(0, 16, (rows, columns), generator=generator()).to(torch.uint8)
    scales = torch.rand(rows, columns // group, generator=generator(1))
    zeros = torch.randint(0, 16, scales.shape, generator=generator(2)).to(torch.uint8)
    matrix = StoredMatrix(
        pack_nibbles(codes), scales, zeros if zero_points else None, columns_per_scale=group
    )
    assert (matrix.rows, matrix.columns, matrix.groups) == (rows, columns, columns // group)
    for n in range(rows):
        for k in range(columns):
            zero = int(zeros[n, k // group]) if zero_points else MIDDLE
            expected = (int(codes[n, k]) - zero) * float(scales[n, k // group])
            assert float(matrix.expand(torch.float64)[n, k]) == expected


def test_nibbles_keep_their_order() -> None:
    codes = torch.randint(0, 16, (3, 10), generator=generator()).to(torch.uint8)
    packed = pack_nibbles(codes)
    assert torch.equal(unpack_nibbles(packed), codes)
    assert int(packed[1, 2]) == int(codes[1, 4]) + 16 * int(codes[1, 5])


def test_rounding_to_fp8() -> None:
    weight = torch.randn(50, 96, generator=generator()) * torch.logspace(-3, 3, 50)[:, None]
    weight[7] = 0
    matrix = round_to_fp8(weight)
    found = matrix.expand(torch.float32)
    assert torch.equal(found[7], weight[7])
    largest = weight.abs().amax(1)
    assert torch.equal(matrix.codes.float().abs().amax(1) == FP8_MAX, largest > 0)
    # Half a step of three mantissa bits, or half the smallest step.
    step = torch.maximum(weight.abs() / 16, (largest / FP8_MAX * 2**-10)[:, None])
    assert bool(((found - weight).abs() <= step * 1.001).all())


@pytest.mark.parametrize("symmetric", [True, False])
def test_rounding_to_int4(symmetric: bool) -> None:
    weight = torch.randn(20, 128, generator=generator()) + 0.5
    matrix = round_to_int4(weight, 32, symmetric=symmetric)
    steps = matrix.scales.repeat_interleave(32, 1)
    error = (matrix.expand(torch.float32) - weight).abs()
    assert bool((error <= steps * 0.501).all())
    assert (matrix.zeros is None) == symmetric


@pytest.mark.parametrize(
    ("rows", "rows_per_scale", "columns_per_scale"),
    [((3, 5), (1, 1), 0), ((3, 5), (3, 5), 0), ((256, 130), (128, 128), 64), ((6, 8), (4, 4), 64)],
)
def test_joined_matrices(
    rows: tuple[int, int], rows_per_scale: tuple[int, int], columns_per_scale: int
) -> None:
    parts = []
    for seed, (n, shared) in enumerate(zip(rows, rows_per_scale, strict=True)):
        codes = torch.randn(n, 128, generator=generator(seed)).to(FP8)
        shape = (-(-n // shared), 128 // (columns_per_scale or 128))
        scales = torch.rand(shape, generator=generator(seed + 9))
        parts.append(StoredMatrix(codes, scales, None, shared, columns_per_scale))
    joined = join_matrices(parts)
    assert joined.shape == (sum(rows), 128)
    expected = torch.cat([part.expand(torch.float32) for part in parts])
    assert torch.equal(joined.expand(torch.float32), expected)
    assert join_matrices(parts[:1]) is parts[0]


def test_joined_matrices_of_4_bits() -> None:
    weights = [torch.randn(n, 64, generator=generator(n)) for n in (4, 6)]
    for symmetric in (True, False):
        parts = [round_to_int4(weight, 32, symmetric=symmetric) for weight in weights]
        expected = torch.cat([part.expand(torch.float32) for part in parts])
        assert torch.equal(join_matrices(parts).expand(torch.float32), expected)
    with pytest.raises(ValueError, match="cannot be joined"):
        join_matrices([parts[0], round_to_fp8(weights[0])])


def test_wrong_shapes_and_types_are_refused() -> None:
    codes, scales = torch.zeros(4, 8, dtype=torch.uint8), torch.ones(4, 1)
    with pytest.raises(ValueError, match="Codes must be"):
        StoredMatrix(codes.float(), scales)
    with pytest.raises(ValueError, match=r"Scales must be floats \(4, 2\)"):
        StoredMatrix(codes, scales, columns_per_scale=8)
    with pytest.raises(ValueError, match="Zeros must be"):
        StoredMatrix(codes, scales, scales)
    with pytest.raises(ValueError, match="Zeros must be"):
        StoredMatrix(codes.to(FP8), scales, torch.zeros(4, 1, dtype=torch.uint8))
