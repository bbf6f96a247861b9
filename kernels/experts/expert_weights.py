"""The weights of a layer's experts, as a checkpoint stores them."""

from dataclasses import dataclass
from typing import Literal, get_args

import torch

from ..argument_checks import FLOAT_DTYPES, require, require_tensor
from .mxfp4_reference import BLOCK, BLOCK_BYTES, expand_mxfp4
from .stored.expert_stack import StoredStack

Activation = Literal["silu", "gelu_tanh", "clamped_swiglu"]
SWIGLU_ALPHA, SWIGLU_LIMIT = 1.702, 7.0  # of gpt-oss
MIN_SCALE, MAX_SCALE = 66, 192
"""The kernels expand scales from 2^-61 to 2^65 (stored with a bias of 127) exactly."""


@dataclass(frozen=True, slots=True)
class ExpertWeights:
    """The experts of one layer: ``down(activation(gate(x)) * up(x))`` each.

    Either ``gate_up`` and ``down`` are given, or the four tensors of MXFP4 (``mxfp4_reference``).
    The former are tensors, or both are stacks of matrices in FP8 or 4 bits.

    Attributes:
        activation: "silu", "gelu_tanh", or "clamped_swiglu" of gpt-oss:
            ``(up + 1) * gate * sigmoid(1.702 * gate)``, gate at most 7, up within -7 and 7.
        interleaved: gate and up rows take turns, gate first; otherwise all gate rows come first.
        gate_up: [experts, 2 * inner, hidden].
        down: [experts, hidden, inner].
        gate_up_blocks: uint8 [experts, 2 * inner, hidden / 32, 16].
        gate_up_scales: uint8 [experts, 2 * inner, hidden / 32].
        down_blocks: uint8 [experts, hidden, inner / 32, 16].
        down_scales: uint8 [experts, hidden, inner / 32].
        gate_up_bias: [experts, 2 * inner].
        down_bias: [experts, hidden].
    """

    activation: Activation
    interleaved: bool = False
    gate_up: torch.Tensor | StoredStack | None = None
    down: torch.Tensor | StoredStack | None = None
    gate_up_blocks: torch.Tensor | None = None
    gate_up_scales: torch.Tensor | None = None
    down_blocks: torch.Tensor | None = None
    down_scales: torch.Tensor | None = None
    gate_up_bias: torch.Tensor | None = None
    down_bias: torch.Tensor | None = None

    @property
    def is_mxfp4(self) -> bool:
        """True if the weights are stored in MXFP4."""
        return self.gate_up_blocks is not None

    @property
    def is_stacked(self) -> bool:
        """True if the weights are stored in FP8 or 4 bits."""
        return isinstance(self.gate_up, StoredStack)

    @property
    def gate_up_rows(self) -> torch.Tensor:
        """Return what is stored of gate and up: a matrix for each expert."""
        return _rows(self.gate_up_blocks if self.gate_up is None else self.gate_up)

    @property
    def down_rows(self) -> torch.Tensor:
        """Return what is stored of the down projection: a matrix for each expert."""
        return _rows(self.down_blocks if self.down is None else self.down)

    @property
    def experts(self) -> int:
        """Number of experts."""
        return self.gate_up_rows.shape[0]

    @property
    def inner(self) -> int:
        """Width between the two projections."""
        return self.gate_up_rows.shape[1] // 2

    @property
    def hidden(self) -> int:
        """Width of inputs and outputs."""
        return self.down_rows.shape[1]

    def stored_bytes(self) -> int:
        """Bytes that reading every weight and bias of one expert takes."""
        tensors = (
            *(self.gate_up, self.down, self.gate_up_blocks, self.gate_up_scales),
            *(self.down_blocks, self.down_scales, self.gate_up_bias, self.down_bias),
        )
        return sum(t.nbytes for t in tensors if t is not None) // self.experts

    def check(self) -> None:
        """Raise ValueError unless the tensors fit together."""
        require(
            self.activation in get_args(Activation),
            f"The activation {self.activation!r} is not supported; use one of "
            f"{', '.join(get_args(Activation))}.",
        )
        plain = (self.gate_up, self.down)
        packed = (self.gate_up_blocks, self.gate_up_scales, self.down_blocks, self.down_scales)
        given = [t is not None for t in (*plain, *packed)]
        require(
            given in ([True] * 2 + [False] * 4, [False] * 2 + [True] * 4),
            "Give gate_up and down, or the blocks and scales of both.",
        )
        if self.is_mxfp4:
            self._check_packed("gate_up", self.gate_up_blocks, self.gate_up_scales, self.hidden)
            self._check_packed("down", self.down_blocks, self.down_scales, self.inner)
        elif self.is_stacked:
            self._check_stacked()
        else:
            self._check_plain()
        for name, bias, n in (
            ("gate_up_bias", self.gate_up_bias, 2 * self.inner),
            ("down_bias", self.down_bias, self.hidden),
        ):
            if bias is not None:
                require_tensor(name, bias, FLOAT_DTYPES, 2)
                _require_shape(name, bias, (self.experts, n))

    def _check_plain(self) -> None:
        assert isinstance(self.gate_up, torch.Tensor)
        assert isinstance(self.down, torch.Tensor)
        require_tensor("gate_up", self.gate_up, FLOAT_DTYPES, 3)
        require_tensor("down", self.down, self.gate_up.dtype, 3)
        experts, rows, hidden = self.gate_up.shape
        require(rows % 2 == 0, f"gate_up has {rows} rows; their number must be even.")
        _require_shape("down", self.down, (experts, hidden, rows // 2))

    def _check_stacked(self) -> None:
        gate_up, down = self.gate_up, self.down
        require(
            isinstance(gate_up, StoredStack) and isinstance(down, StoredStack),
            "gate_up and down must both be stacks, or both tensors.",
        )
        assert isinstance(gate_up, StoredStack)
        assert isinstance(down, StoredStack)
        require(
            self.gate_up_bias is None and self.down_bias is None and not self.interleaved,
            "Experts in FP8 or 4 bits have no biases, and all gate rows come first.",
        )
        rows = gate_up.codes.shape[1]
        require(rows % 2 == 0, f"gate_up has {rows} rows; their number must be even.")
        shape = (len(gate_up.codes), gate_up.columns, rows // 2)
        found = (len(down.codes), down.codes.shape[1], down.columns)
        require(found == shape, f"down has shape {found}; it must be {shape}.")

    def _check_packed(
        self, name: str, blocks: torch.Tensor | None, scales: torch.Tensor | None, width: int
    ) -> None:
        assert blocks is not None
        assert scales is not None
        require_tensor(f"{name}_blocks", blocks, torch.uint8, 4)
        require_tensor(f"{name}_scales", scales, torch.uint8, 3)
        require(
            width % BLOCK == 0, f"{name} has {width} columns; MXFP4 needs a multiple of {BLOCK}."
        )
        rows = 2 * self.inner if name == "gate_up" else self.hidden
        shape = (self.experts, rows, width // BLOCK)
        _require_shape(f"{name}_scales", scales, shape)
        _require_shape(f"{name}_blocks", blocks, (*shape, BLOCK_BYTES))

    def check_scales(self) -> None:
        """Raise ValueError if a scale is beyond what the kernels expand exactly.

        This reads all scales, once after loading.
        """
        for name, scales in (("gate_up", self.gate_up_scales), ("down", self.down_scales)):
            if scales is not None:
                low, high = (int(each) for each in scales.aminmax())
                require(
                    low >= MIN_SCALE and high <= MAX_SCALE,
                    f"{name}_scales holds values from {low} to {high}; only {MIN_SCALE} to "
                    f"{MAX_SCALE} (2^-61 to 2^65) are supported. Check the checkpoint.",
                )

    def expanded(self, expert: int, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
        """Return one expert's gate and up rows, as they are stored, and down rows."""
        if isinstance(self.gate_up, StoredStack) and isinstance(self.down, StoredStack):
            gate_up_matrix, down_matrix = self.gate_up.matrix(expert), self.down.matrix(expert)
            return gate_up_matrix.expand(dtype), down_matrix.expand(dtype)
        if isinstance(self.gate_up, torch.Tensor) and isinstance(self.down, torch.Tensor):
            return self.gate_up[expert].to(dtype), self.down[expert].to(dtype)
        packed = (self.gate_up_blocks, self.gate_up_scales, self.down_blocks, self.down_scales)
        gate_up, gate_up_scales, down, down_scales = (t[expert] for t in packed if t is not None)
        return (
            expand_mxfp4(gate_up, gate_up_scales, dtype),
            expand_mxfp4(down, down_scales, dtype),
        )


def _rows(stored: torch.Tensor | StoredStack | None) -> torch.Tensor:
    assert stored is not None
    return stored.codes if isinstance(stored, StoredStack) else stored.flatten(2)


def _require_shape(name: str, tensor: torch.Tensor, shape: tuple[int, ...]) -> None:
    require(
        tuple(tensor.shape) == shape,
        f"{name} has shape {tuple(tensor.shape)}; it must be {shape}.",
    )
