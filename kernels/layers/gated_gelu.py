"""gelu_tanh(gate) * up for many rows; ``linear_few_rows`` includes it."""

import torch
import torch.nn.functional as F
import triton
import triton.language as tl

from ..triton_launch import FLOAT_DTYPES, require, require_tensor
from .linear_few_rows import gelu_tanh


@triton.jit
def gated_gelu_kernel(gate_up, out, N: tl.constexpr, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    d = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    live = d < N
    gate = tl.load(gate_up + row * (2 * N) + d, mask=live, other=0.0).to(tl.float32)
    up = tl.load(gate_up + row * (2 * N) + N + d, mask=live, other=0.0).to(tl.float32)
    tl.store(out + row * N + d, (gelu_tanh(gate) * up).to(out.dtype.element_ty), mask=live)


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
    require_tensor("out", out, FLOAT_DTYPES, 2)
    rows, n = out.shape
    wanted = (rows, 2 * n)
    require(
        tuple(gate_up.shape) == wanted,
        f"gate_up has shape {tuple(gate_up.shape)}; for this out it must be {wanted}.",
    )
    block = 2048
    gated_gelu_kernel[(rows, -(-n // block))](gate_up, out, N=n, BLOCK=block, num_warps=8)
    return out


def gated_gelu_reference(gate_up: torch.Tensor) -> torch.Tensor:
    """Compute what ``gated_gelu`` computes, in float64."""
    gate, up = gate_up.double().chunk(2, dim=1)
    return F.gelu(gate, approximate="tanh") * up
