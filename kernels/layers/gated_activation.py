"""activation(gate) * up for many rows; for few rows ``linear_few_rows`` computes it itself."""

import torch
import triton
import triton.language as tl

from ..argument_checks import FLOAT_DTYPES, require, require_tensor
from ..triton_launch import pdl_options, pdl_wait
from .linear_few_rows import ACTIVATIONS, gate_activation, require_activation


@triton.jit
def gated_activation_kernel(
    gate, up, out, gate_stride, up_stride, N: tl.constexpr, BLOCK: tl.constexpr,
    SILU: tl.constexpr, PDL: tl.constexpr,
):  # fmt: skip
    pdl_wait(PDL)
    row = tl.program_id(0).to(tl.int64)
    d = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    live = d < N
    a = tl.load(gate + row * gate_stride + d, mask=live, other=0.0).to(tl.float32)
    b = tl.load(up + row * up_stride + d, mask=live, other=0.0).to(tl.float32)
    result = gate_activation(a, SILU) * b
    tl.store(out + row * N + d, result.to(out.dtype.element_ty), mask=live)


def gated_activation(
    gate: torch.Tensor,
    up: torch.Tensor,
    out: torch.Tensor,
    activation: str,
    *,
    pdl: bool = False,
) -> torch.Tensor:
    """Compute ``activation(gate) * up``.

    Args:
        gate: [rows, N]; rows may be any distance apart.
        up: as ``gate``.
        out: [rows, N], contiguous; it may be ``gate``.
        activation: a key of ``ACTIVATIONS``.
        pdl: launch with programmatic dependent launch.

    Returns:
        ``out``.

    Raises:
        ValueError: a shape, dtype or the activation does not fit.
    """
    require_activation(activation)
    require_tensor("out", out, FLOAT_DTYPES, 2)
    rows, n = out.shape
    for name, tensor in (("gate", gate), ("up", up)):
        require(
            tuple(tensor.shape) == (rows, n) and tensor.stride(1) == 1,
            f"{name} has shape {tuple(tensor.shape)} and strides {tensor.stride()}; for this out "
            f"it must be {(rows, n)} with contiguous rows.",
        )
        require(tensor.dtype in FLOAT_DTYPES, f"{name} is {tensor.dtype}; it must be a float type.")
    block = 2048
    gated_activation_kernel[(rows, -(-n // block))](
        gate, up, out, gate.stride(0), up.stride(0), N=n, BLOCK=block, SILU=activation == "silu",
        num_warps=8, **pdl_options(pdl),
    )  # fmt: skip
    return out


def gated_activation_reference(
    gate: torch.Tensor, up: torch.Tensor, activation: str
) -> torch.Tensor:
    """Compute what ``gated_activation`` computes, in float64."""
    return ACTIVATIONS[activation](gate.double()) * up.double()


def gated_gelu(gate_up: torch.Tensor, out: torch.Tensor) -> torch.Tensor:
    """Multiply gelu_tanh of the first half of each row by the second half.

    Args:
        gate_up: [rows, 2N].
        out: [rows, N].

    Returns:
        ``out``.

    Raises:
        ValueError: a shape or dtype does not fit.
    """
    require_tensor("gate_up", gate_up, FLOAT_DTYPES, 2)
    wanted = (out.shape[0], 2 * out.shape[1])
    require(
        tuple(gate_up.shape) == wanted,
        f"gate_up has shape {tuple(gate_up.shape)}; for this out it must be {wanted}.",
    )
    gate, up = gate_up.chunk(2, dim=1)
    return gated_activation(gate, up, out, "gelu_tanh")


def gated_gelu_reference(gate_up: torch.Tensor) -> torch.Tensor:
    """Compute what ``gated_gelu`` computes, in float64."""
    gate, up = gate_up.chunk(2, dim=1)
    return gated_activation_reference(gate, up, "gelu_tanh")
