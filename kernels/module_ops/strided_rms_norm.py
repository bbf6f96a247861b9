"""RMSNorm of rows that need not lie one after another, such as heads within a fused projection."""

import torch
import triton
import triton.language as tl

from ..argument_checks import FLOAT_DTYPES, require, require_tensor
from ..triton_launch import next_power_of_2, pdl_launch_dependents, pdl_options, pdl_wait

MAX_BLOCK = 4096  # elements of a program, unless a row is longer


@triton.jit(do_not_specialize=["rows", "inner"])
def strided_rms_norm_kernel(
    x, weight, out, rows, inner, outer_stride, inner_stride, eps,
    N: tl.constexpr, BLOCK: tl.constexpr, ROWS: tl.constexpr, HAS_WEIGHT: tl.constexpr,
    PDL: tl.constexpr,
):  # fmt: skip
    """Normalize ROWS rows per program; row r begins at its place among outer and inner rows."""
    pdl_launch_dependents(PDL)
    d = tl.arange(0, BLOCK)
    live = d < N
    if HAS_WEIGHT:
        factor = tl.load(weight + d, mask=live, other=0.0)
    pdl_wait(PDL)
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    begin = (row // inner).to(tl.int64) * outer_stride + (row % inner).to(tl.int64) * inner_stride
    mask = (row < rows)[:, None] & live[None, :]
    v = tl.load(x + begin[:, None] + d[None, :], mask=mask, other=0.0).to(tl.float32)
    v = v * tl.rsqrt(tl.sum(v * v, 1) / N + eps)[:, None]
    if HAS_WEIGHT:
        v = v * factor[None, :]
    to = out + row.to(tl.int64)[:, None] * N + d[None, :]
    tl.store(to, v.to(out.dtype.element_ty), mask=mask)


def row_strides(x: torch.Tensor) -> tuple[int, int, int] | None:
    """Return how the rows (last axis) of a tensor lie in memory.

    Returns:
        Number of inner rows, and the strides between outer and between inner rows, in elements;
        ``None`` if the rows are not contiguous, or lie in more than two levels.
    """
    if x.stride(-1) != 1 and x.shape[-1] > 1:
        return None
    levels: list[list[int]] = []  # (size, stride) from the innermost axis on, merged where possible
    for size, stride in zip(reversed(x.shape[:-1]), reversed(x.stride()[:-1]), strict=True):
        if size == 1:
            continue
        if levels and stride == levels[-1][0] * levels[-1][1]:
            levels[-1][0] *= size
        else:
            levels.append([size, stride])
    if len(levels) > 2:
        return None
    levels += [[1, 0]] * (2 - len(levels))
    return levels[0][0], levels[1][1], levels[0][1]


def strided_rms_norm(
    x: torch.Tensor, weight: torch.Tensor | None, *, eps: float, pdl: bool = False
) -> torch.Tensor:
    """Compute ``x / rms(x) * weight`` along the last axis.

    Args:
        x: [..., N] with any strides; rows that the kernel cannot address are copied first.
        weight: float32 [N]; ``None`` for none.
        eps: added to the mean squares.
        pdl: launch with programmatic dependent launch.

    Returns:
        A contiguous tensor of x's shape and type.

    Raises:
        ValueError: a type or shape does not fit.
    """
    n = x.shape[-1]
    require(x.dtype in FLOAT_DTYPES, f"x is {x.dtype}; it must be a float type.")
    if weight is not None:
        require_tensor("weight", weight, torch.float32, 1)
        require(len(weight) == n, f"weight has {len(weight)} elements; x has rows of {n}.")
    strides = row_strides(x)
    if strides is None:
        x = x.contiguous()
        strides = row_strides(x)
        assert strides is not None
    out = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    rows = x.numel() // n
    if not rows:
        return out
    block = next_power_of_2(n)
    per_program = max(1, min(next_power_of_2(rows), MAX_BLOCK // block, 16))
    strided_rms_norm_kernel[(-(-rows // per_program),)](
        x, x if weight is None else weight, out, rows, *strides, eps,
        N=n, BLOCK=block, ROWS=per_program, HAS_WEIGHT=weight is not None,
        num_warps=16 if block > 4096 and rows <= 64 else 8 if block > 1024 else 4,
        **pdl_options(pdl),
    )  # fmt: skip
    return out


def strided_rms_norm_reference(
    x: torch.Tensor, weight: torch.Tensor | None, *, eps: float
) -> torch.Tensor:
    """Compute what ``strided_rms_norm`` computes, in float64."""
    x = x.double()
    normed = x * (x.pow(2).mean(-1, keepdim=True) + eps).rsqrt()
    return normed if weight is None else normed * weight.double()
