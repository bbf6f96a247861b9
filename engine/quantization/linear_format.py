"""How the weight of a quantized linear layer is stored. Imports neither torch nor transformers."""

from dataclasses import dataclass
from typing import Literal

Packing = Literal["fp8", "compressed-tensors", "gptq", "gptq_v2", "awq"]

FP8_BLOCK = 128
INT4_GROUPS = (32, 64, 128)


@dataclass(frozen=True, slots=True)
class LinearFormat:
    """How the weight of a linear layer is stored.

    Attributes:
        packing: names and layout of the tensors; "fp8" for floats of 8 bits, else 4 bits.
        rows_per_scale: consecutive rows (outputs) that share scales; 0 for all.
        columns_per_scale: consecutive columns (inputs) that share a scale; 0 for all.
        symmetric: False if each group has a zero point.
        scale_name: name of the tensor of scales, only for "fp8".
    """

    packing: Packing
    rows_per_scale: int = 1
    columns_per_scale: int = 0
    symmetric: bool = True
    scale_name: str = "weight_scale"

    @property
    def is_fp8(self) -> bool:
        """Whether an element takes 8 bits, not 4."""
        return self.packing == "fp8"

    def __str__(self) -> str:
        if not self.is_fp8:
            each = f"groups of {self.columns_per_scale}" if self.columns_per_scale else "rows"
            return f"4 bits in {each}" + ("" if self.symmetric else " with zero points")
        if self.rows_per_scale == 0:
            return "FP8 per tensor"
        return "FP8 per channel" if self.columns_per_scale == 0 else "FP8 in blocks of 128"
