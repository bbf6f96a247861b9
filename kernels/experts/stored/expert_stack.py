"""The matrices of all experts as they are stored in FP8 or 4 bits, one after another."""

from dataclasses import dataclass

import torch

from ...quantized.stored_matrix import (
    FP8,
    StoredMatrix,
    join_matrices,
    pack_nibbles,
    unpack_nibbles,
)

PAIRED = 16
"""Columns between the two codes of a byte, so that each half of the bytes has columns in a row."""


@dataclass(frozen=True, slots=True)
class StoredStack:
    """Matrices [N, K] of experts, whose elements are those of ``StoredMatrix``.

    Attributes:
        codes: uint8 [experts, N, K] with the bits of FP8 (E4M3), or [experts, N, K / 2] with two
            codes of 4 bits a byte: of 32 columns, byte i has column i in its low half and column
            i + 16 in its high half.
        scales: floats [experts, groups, ceil(N / rows_per_scale)].
        zeros: uint8 [experts, groups, N], only of 4 bits; ``None`` for 8 everywhere.
        is_fp8: whether codes are floats of 8 bits.
        rows_per_scale: consecutive rows that share scales.
        columns_per_scale: consecutive columns that share a scale.
    """

    codes: torch.Tensor
    scales: torch.Tensor
    zeros: torch.Tensor | None
    is_fp8: bool
    rows_per_scale: int
    columns_per_scale: int

    @property
    def columns(self) -> int:
        """Number of columns, K."""
        return self.codes.shape[2] * (1 if self.is_fp8 else 2)

    @property
    def groups(self) -> int:
        """Number of scales of a row."""
        return self.scales.shape[1]

    @property
    def nbytes(self) -> int:
        """Bytes of codes, scales and zeros."""
        zeros = 0 if self.zeros is None else self.zeros.nbytes
        return self.codes.nbytes + self.scales.nbytes + zeros

    def matrix(self, expert: int) -> StoredMatrix:
        """Return the matrix of one expert, with its codes in their own order."""
        codes = self.codes[expert]
        return StoredMatrix(
            codes.view(FP8) if self.is_fp8 else _in_order(codes),
            self.scales[expert].T,
            None if self.zeros is None else self.zeros[expert].T,
            self.rows_per_scale,
            self.columns_per_scale,
        )


def stack_matrices(matrices: list[StoredMatrix], each: int = 1) -> StoredStack:
    """Return the matrices of all experts as the experts' kernels take them, copied.

    Args:
        matrices: the experts' matrices, one expert after another. Those of an expert, gate and up
            or down alone, become one.
        each: matrices of an expert.

    Raises:
        ValueError: if they are not stored in the same way, or have 4 bits and columns that are
            not a multiple of 32.
    """
    joined = join_matrices(matrices)
    experts = len(matrices) // each
    rows, shared = joined.rows // experts, joined.rows_per_scale
    if shared > 1 and rows % shared:
        raise ValueError(f"Experts of {rows} rows cannot share scales of {shared} rows.")
    codes = joined.codes.view(torch.uint8)
    if not joined.is_fp8:
        if joined.columns % (2 * PAIRED):
            raise ValueError(
                f"Experts in 4 bits have {joined.columns} columns; it must be a multiple of "
                f"{2 * PAIRED}."
            )
        codes = _paired(codes)

    def by_group(values: torch.Tensor) -> torch.Tensor:
        return values.view(experts, -1, joined.groups).transpose(1, 2).contiguous()

    return StoredStack(
        codes.view(experts, rows, -1),
        by_group(joined.scales),
        None if joined.zeros is None else by_group(joined.zeros),
        joined.is_fp8,
        shared,
        joined.columns_per_scale,
    )


def _paired(codes: torch.Tensor) -> torch.Tensor:
    """Move codes of 4 bits [N, K / 2] from neighbors in a byte to columns 16 apart."""
    first, second = codes.unflatten(1, (-1, 2, PAIRED // 2)).unbind(2)
    low = (first & 15) | (second << 4)
    high = (first >> 4) | (second & 0xF0)
    return torch.stack([low, high], dim=-1).flatten(1)


def _in_order(codes: torch.Tensor) -> torch.Tensor:
    """Do the reverse of :func:`_paired`."""
    halves = unpack_nibbles(codes).unflatten(1, (-1, PAIRED, 2))
    return pack_nibbles(halves.transpose(2, 3).flatten(1))
