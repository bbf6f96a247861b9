"""A linear layer whose weight is held as the checkpoint stores it."""

from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import nn

from eightfold.kernels.quantized.stored_matrix import (
    FP8,
    StoredMatrix,
    pack_nibbles,
    unpack_nibbles,
)

from ..model_errors import UnsupportedModelError
from .linear_format import LinearFormat

WORD = 8  # codes of 4 bits in an int32
# Place in an AWQ word of each of eight consecutive columns.
AWQ_PLACES = (0, 4, 1, 5, 2, 6, 3, 7)


class StoredLinear(nn.Module):
    """Computes what ``nn.Linear`` does with the weight expanded.

    Before :meth:`finish_loading` it has the parameters that the checkpoint stores, under their
    names there; afterwards only a :class:`StoredMatrix`, in the layout of the kernels.

    Attributes:
        in_features, out_features: as of ``nn.Linear``.
        bias: [out_features] or ``None``.
        use_kernels: True to multiply on a GPU with our kernels; False at first.
        stored: how the checkpoint stores the weight.

    Args:
        linear: the layer that this one replaces, with its parameters on any device.
        stored: how the checkpoint stores the weight.

    Raises:
        UnsupportedModelError: if the layer's shape does not allow the format.
    """

    matrix: StoredMatrix
    bias: torch.Tensor | None

    def __init__(self, linear: nn.Linear, stored: LinearFormat) -> None:
        super().__init__()
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self.stored = stored
        device = linear.weight.device
        for name, (shape, dtype) in self._stored_tensors(stored).items():
            tensor = torch.empty(shape, dtype=dtype, device=device)
            self.register_parameter(name, nn.Parameter(tensor, requires_grad=False))
        self.register_parameter("bias", linear.bias)
        self.use_kernels = False

    def _stored_tensors(
        self, stored: LinearFormat
    ) -> dict[str, tuple[tuple[int, ...], torch.dtype]]:
        """Return the shape and the type of each stored tensor. Scales are widened to float32."""
        rows, columns = self.out_features, self.in_features
        if stored.is_fp8:
            scales: tuple[int, ...] = (rows, 1)
            if stored.rows_per_scale == 0:
                scales = (1,)
            elif stored.columns_per_scale:
                scales = (
                    -(-rows // stored.rows_per_scale),
                    -(-columns // stored.columns_per_scale),
                )
            return {
                "weight": ((rows, columns), FP8),
                stored.scale_name: (scales, torch.float32),
            }
        group = stored.columns_per_scale or columns
        if columns % group or columns % WORD or (rows % WORD and not stored.symmetric):
            raise UnsupportedModelError(
                f"A layer of {rows} rows and {columns} columns cannot be stored as {stored}; copy "
                "config.json again."
            )
        groups, whole, half = columns // group, torch.int32, torch.float32
        if stored.packing == "compressed-tensors":
            found = {
                "weight_packed": ((rows, columns // WORD), whole),
                "weight_scale": ((rows, groups), half),
                "weight_shape": ((2,), torch.int64),
            }
            if not stored.symmetric:
                found["weight_zero_point"] = ((rows // WORD, groups), whole)
            return found
        words = (columns, rows // WORD) if stored.packing == "awq" else (columns // WORD, rows)
        found = {
            "qweight": (words, whole),
            "qzeros": ((groups, rows // WORD), whole),
            "scales": ((groups, rows), half),
        }
        if stored.packing != "awq":
            found["g_idx"] = ((columns,), whole)
        return found

    def finish_loading(self) -> None:
        """Replace the stored parameters by the matrix.

        Raises:
            UnsupportedModelError: if columns are stored in an order of their own.
        """
        if self.stored.is_fp8:
            matrix = self._fp8_matrix()
        elif self.stored.packing == "compressed-tensors":
            matrix = self._packed_matrix()
        else:
            matrix = self._transposed_matrix()
        for name in self._stored_tensors(self.stored):
            delattr(self, name)
        self.matrix = _with_short_scales(matrix)

    def _fp8_matrix(self) -> StoredMatrix:
        scales = getattr(self, self.stored.scale_name).data
        rows = self.stored.rows_per_scale or self.out_features
        columns = self.stored.columns_per_scale
        return StoredMatrix(
            self._parameters["weight"].data,  # type: ignore[union-attr]
            scales.view(1, 1) if self.stored.rows_per_scale == 0 else scales,
            rows_per_scale=rows,
            columns_per_scale=columns,
        )

    def _packed_matrix(self) -> StoredMatrix:
        parts = {name: part.data for name, part in self._parameters.items() if part is not None}
        zeros = None
        if not self.stored.symmetric:
            words = parts["weight_zero_point"].T.contiguous()  # [groups, rows / 8]
            zeros = unpack_nibbles(words.view(torch.uint8)).T.contiguous()
        return StoredMatrix(
            parts["weight_packed"].view(torch.uint8),
            parts["weight_scale"],
            zeros,
            columns_per_scale=self.stored.columns_per_scale,
        )

    def _transposed_matrix(self) -> StoredMatrix:
        """Turn GPTQ's and AWQ's tensors, [inputs, outputs], into the kernels' layout."""
        parts = {name: part.data for name, part in self._parameters.items() if part is not None}
        group = self.stored.columns_per_scale or self.in_features
        zeros = unpack_nibbles(parts["qzeros"].view(torch.uint8))  # [groups, rows]
        if self.stored.packing == "awq":
            codes = unpack_nibbles(parts["qweight"].view(torch.uint8))  # [columns, rows]
            codes, zeros = _in_awq_order(codes), _in_awq_order(zeros)
            packed = pack_nibbles(codes.T)
        else:
            in_order = torch.arange(self.in_features, device=zeros.device) // group
            if not torch.equal(parts["g_idx"].long(), in_order):
                raise UnsupportedModelError(
                    "A GPTQ checkpoint with columns in the order of activations is not read; use "
                    "one that was made with desc_act=False."
                )
            packed = parts["qweight"].T.contiguous().view(torch.uint8)
            if self.stored.packing == "gptq":  # the first version stores one less
                zeros = (zeros + 1) & 15
        return StoredMatrix(
            packed,
            parts["scales"].T.contiguous(),
            zeros.T.contiguous(),
            columns_per_scale=self.stored.columns_per_scale,
        )

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        """[..., in_features] -> [..., out_features]."""
        if self.use_kernels:
            from eightfold.kernels.quantized.stored_product import stored_product

            flat = rows.reshape(-1, self.in_features).contiguous()
            out = flat.new_empty(flat.shape[0], self.out_features)
            stored_product(flat, self.matrix, out, bias=self.bias)
            return out.view(*rows.shape[:-1], self.out_features)
        return F.linear(rows, self.matrix.expand(rows.dtype), self.bias)


def _with_short_scales(matrix: StoredMatrix) -> StoredMatrix:
    """Return a matrix whose scales of groups are bfloat16 if that loses nothing."""
    short = matrix.scales.bfloat16()
    if matrix.groups == 1 or not torch.equal(short.to(matrix.scales.dtype), matrix.scales):
        return matrix
    return replace(matrix, scales=short)


def _in_awq_order(codes: torch.Tensor) -> torch.Tensor:
    """Return codes [..., N] whose groups of eight are stored in AWQ's order, in their own."""
    places = torch.tensor(AWQ_PLACES, device=codes.device)
    return codes.unflatten(-1, (-1, WORD))[..., places].flatten(-2)
