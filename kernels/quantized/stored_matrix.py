"""A weight matrix as it is stored: codes of 8 or 4 bits, and scales that rows or groups share."""

from dataclasses import dataclass

import torch

FP8 = torch.float8_e4m3fn
FP8_MAX = float(torch.finfo(FP8).max)
MIDDLE = 8
"""The code of 4 bits that means zero if a matrix has no zero points of its own."""


@dataclass(frozen=True, slots=True)
class StoredMatrix:
    """A matrix [N, K]; an element is ``(code - zero) * scale``, of FP8 ``code * scale``.

    Attributes:
        codes: FP8 (E4M3) [N, K], or uint8 [N, K / 2]: two codes of 4 bits a byte, the even column
            in the low half.
        scales: floats [ceil(N / rows_per_scale), ceil(K / columns_per_scale)].
        zeros: uint8 [N, ceil(K / columns_per_scale)], only of 4 bits; ``None`` for
            :data:`MIDDLE` everywhere.
        rows_per_scale: consecutive rows that share scales.
        columns_per_scale: consecutive columns that share a scale.

    Raises:
        ValueError: if shapes or types do not fit together.
    """

    codes: torch.Tensor
    scales: torch.Tensor
    zeros: torch.Tensor | None = None
    rows_per_scale: int = 1
    columns_per_scale: int = 0

    def __post_init__(self) -> None:
        if self.codes.dtype not in (FP8, torch.uint8) or self.codes.dim() != 2:
            raise ValueError(f"Codes must be [N, K] of FP8 or uint8, not {self.codes.dtype}.")
        if self.columns_per_scale == 0:
            object.__setattr__(self, "columns_per_scale", self.columns)
        wanted = (-(-self.rows // self.rows_per_scale), self.groups)
        if tuple(self.scales.shape) != wanted or not self.scales.is_floating_point():
            raise ValueError(f"Scales must be floats {wanted}, not {tuple(self.scales.shape)}.")
        if self.zeros is not None and (
            self.zeros.dtype != torch.uint8
            or tuple(self.zeros.shape) != (self.rows, self.groups)
            or self.is_fp8
        ):
            raise ValueError(
                f"Zeros must be uint8 {(self.rows, self.groups)}, for codes of 4 bits."
            )

    @property
    def is_fp8(self) -> bool:
        """Whether the codes are floats of 8 bits, not whole numbers of 4."""
        return self.codes.dtype == FP8

    @property
    def rows(self) -> int:
        """Number of rows, N."""
        return self.codes.shape[0]

    @property
    def columns(self) -> int:
        """Number of columns, K."""
        return self.codes.shape[1] * (1 if self.is_fp8 else 2)

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns, as of the expanded matrix."""
        return self.rows, self.columns

    @property
    def groups(self) -> int:
        """Number of scales of a row."""
        return -(-self.columns // self.columns_per_scale)

    @property
    def nbytes(self) -> int:
        """Bytes of codes, scales and zeros."""
        zeros = 0 if self.zeros is None else self.zeros.nbytes
        return self.codes.nbytes + self.scales.nbytes + zeros

    def expand(self, dtype: torch.dtype) -> torch.Tensor:
        """Return the matrix [N, K]; products are rounded once, to ``dtype``."""
        wide = torch.float64 if dtype == torch.float64 else torch.float32
        if self.is_fp8:
            values = self.codes.to(wide)
        else:
            values = unpack_nibbles(self.codes).to(wide)
            values -= MIDDLE if self.zeros is None else self._spread(self.zeros.to(wide))
        scales = self.scales.to(wide)
        if self.rows_per_scale > 1:
            scales = scales.repeat_interleave(self.rows_per_scale, dim=0)[: self.rows]
        return (values * self._spread(scales)).to(dtype)

    def _spread(self, values: torch.Tensor) -> torch.Tensor:
        """Return what a row's groups share, [N, K] or [N, 1], for every column."""
        if self.groups == 1:
            return values
        return values.repeat_interleave(self.columns_per_scale, dim=1)[:, : self.columns]


Weight = torch.Tensor | StoredMatrix
"""The weight of a linear layer, [out, in]."""


def join_matrices(matrices: list[StoredMatrix]) -> StoredMatrix:
    """Return one matrix with the rows of several, one after another, copied unless there is one.

    Raises:
        ValueError: if they are not stored in the same way.
    """
    first = matrices[0]
    if len(matrices) == 1:
        return first
    kinds = {(each.is_fp8, each.columns, each.columns_per_scale) for each in matrices}
    if len(kinds) > 1 or len({each.zeros is None for each in matrices}) > 1:
        raise ValueError("Matrices that are stored in different ways cannot be joined.")
    shared = first.rows_per_scale
    if any(each.rows_per_scale != shared or each.rows % shared for each in matrices[:-1]):
        shared = 1
    if matrices[-1].rows_per_scale != shared or first.groups == 1:
        shared = 1
    parts = [
        each.scales
        if shared == each.rows_per_scale
        else each.scales.repeat_interleave(each.rows_per_scale, dim=0)[: each.rows]
        for each in matrices
    ]
    widest = torch.float32 if any(part.dtype == torch.float32 for part in parts) else parts[0].dtype
    zeros = [each.zeros for each in matrices if each.zeros is not None]
    codes = torch.cat([each.codes.view(torch.uint8) for each in matrices])
    return StoredMatrix(
        codes.view(first.codes.dtype),
        torch.cat([part.to(widest) for part in parts]),
        torch.cat(zeros) if zeros else None,
        shared,
        first.columns_per_scale,
    )


def unpack_nibbles(packed: torch.Tensor) -> torch.Tensor:
    """Return the codes of 4 bits in bytes: uint8 [N, K / 2] -> uint8 [N, K]."""
    return torch.stack([packed & 15, packed >> 4], dim=-1).flatten(-2)


def pack_nibbles(codes: torch.Tensor) -> torch.Tensor:
    """Do the reverse of :func:`unpack_nibbles`."""
    return (codes[..., ::2] | (codes[..., 1::2] << 4)).contiguous()


def round_to_fp8(weight: torch.Tensor) -> StoredMatrix:
    """Return the FP8 matrix near a given one, with a scale for each row.

    A row's largest magnitude becomes FP8's largest. Rows of zeros get the scale 1.

    Args:
        weight: finite floats [N, K].
    """
    values = weight.float()
    largest = values.abs().amax(dim=1, keepdim=True)
    scales = torch.where(largest > 0, largest / FP8_MAX, 1.0)
    return StoredMatrix((values / scales).clamp(-FP8_MAX, FP8_MAX).to(FP8), scales)


def round_to_int4(weight: torch.Tensor, group: int, *, symmetric: bool = True) -> StoredMatrix:
    """Return the matrix of 4 bits near a given one, with a scale for each group of columns.

    Args:
        weight: finite floats [N, K].
        group: columns that share a scale; divides K.
        symmetric: False to give each group a zero point, so that it spans the group's range.
    """
    grouped = weight.float().unflatten(1, (-1, group))
    if symmetric:
        scales, zeros = grouped.abs().amax(-1) / 7.5, None
        offset = torch.full_like(scales, MIDDLE)
    else:
        low, high = grouped.amin(-1).clamp(max=0), grouped.amax(-1).clamp(min=0)
        scales = (high - low) / 15
    scales = torch.where(scales > 0, scales, 1.0)
    if not symmetric:
        offset = (-low / scales).round().clamp(0, 15)
        zeros = offset.to(torch.uint8)
    codes = ((grouped / scales[..., None]).round() + offset[..., None]).clamp(0, 15)
    packed = pack_nibbles(codes.flatten(1).to(torch.uint8))
    return StoredMatrix(packed, scales, zeros, columns_per_scale=group)
