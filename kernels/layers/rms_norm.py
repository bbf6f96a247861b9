"""RMSNorm of a block's output, its addition to the residual, and the next norm, in one pass."""

import torch
import triton
import triton.language as tl

from ..argument_checks import FLOAT_DTYPES, require, require_tensor
from ..triton_launch import next_power_of_2, pdl_launch_dependents, pdl_options, pdl_wait


@triton.jit(do_not_specialize=["rows"])
def add_rms_norm_kernel(
    y, bias, residual, post_weight, next_weight, out, rows, scale, eps,
    N: tl.constexpr, BLOCK: tl.constexpr, PARTS: tl.constexpr, HAS_Y: tl.constexpr,
    HAS_BIAS: tl.constexpr, HAS_POST: tl.constexpr, HAS_NEXT: tl.constexpr, PDL: tl.constexpr,
):  # fmt: skip
    pdl_launch_dependents(PDL)
    d = tl.arange(0, BLOCK)
    live = d < N
    if HAS_BIAS:
        offset = tl.load(bias + d, mask=live, other=0.0).to(tl.float32)
    if HAS_POST:
        post = tl.load(post_weight + d, mask=live, other=0.0).to(tl.float32)
    if HAS_NEXT:
        weight = tl.load(next_weight + d, mask=live, other=0.0).to(tl.float32)
    pdl_wait(PDL)
    row = tl.program_id(0).to(tl.int64)
    total = tl.load(residual + row * N + d, mask=live, other=0.0).to(tl.float32)
    if HAS_Y:
        added = tl.load(y + row * N + d, mask=live, other=0.0).to(tl.float32)
        for part in tl.static_range(1, PARTS):
            added += tl.load(y + (part * rows + row) * N + d, mask=live, other=0.0)
        if HAS_BIAS:
            added += offset
        if HAS_POST:
            added = added * tl.rsqrt(tl.sum(added * added, 0) / N + eps) * post
        total = (total + added) * scale
        tl.store(residual + row * N + d, total.to(residual.dtype.element_ty), mask=live)
    if HAS_NEXT:
        # Normalize the rounded residual, which is what later kernels read.
        total = total.to(residual.dtype.element_ty).to(tl.float32)
        normed = total * tl.rsqrt(tl.sum(total * total, 0) / N + eps) * weight
        tl.store(out + row * N + d, normed.to(out.dtype.element_ty), mask=live)


def add_rms_norm(
    y: torch.Tensor | None,
    residual: torch.Tensor,
    post_weight: torch.Tensor | None,
    next_weight: torch.Tensor | None,
    out: torch.Tensor | None,
    *,
    bias: torch.Tensor | None = None,
    scale: float = 1.0,
    eps: float = 1e-6,
    pdl: bool = False,
) -> torch.Tensor | None:
    """Add ``rms_norm(y)`` to the residual, scale it, and normalize it for the next layer.

    Computes ``residual = (residual + rms(y + bias) * post_weight) * scale`` and
    ``out = rms(residual) * next_weight``, where ``rms(v)`` is v over its root mean square.

    Args:
        y: [rows, N], or float32 [parts, rows, N], whose sum over the parts counts (see
            ``linear_few_rows``). ``None`` leaves the residual unchanged.
        residual: [rows, N], updated in place.
        post_weight: [N]; ``None`` adds y without a norm.
        next_weight: [N]; ``None``, as ``out``, to update the residual only.
        out: [rows, N].
        bias: [N], bias of the linear layer that computed y; ``None`` for none.
        scale: factor of the residual.
        eps: added to the mean squares.
        pdl: launch with programmatic dependent launch.

    Returns:
        ``out``.

    Raises:
        ValueError: a shape or dtype does not fit.
    """
    _check(y, residual, {"bias": bias, "post_weight": post_weight, "next_weight": next_weight}, out)
    rows, n = residual.shape
    parts = y.shape[0] if y is not None and y.dim() == 3 else 1
    unused = residual  # stands for tensors that this variant of the kernel does not read
    add_rms_norm_kernel[(rows,)](
        unused if y is None else y, unused if bias is None else bias, residual,
        unused if post_weight is None else post_weight,
        unused if next_weight is None else next_weight, unused if out is None else out,
        rows, scale, eps,
        N=n, BLOCK=next_power_of_2(n), PARTS=parts, HAS_Y=y is not None, HAS_BIAS=bias is not None,
        HAS_POST=post_weight is not None, HAS_NEXT=next_weight is not None,
        num_warps=16 if rows <= 64 and n > 2048 else 8 if n > 1024 else 4, **pdl_options(pdl),
    )  # fmt: skip
    return out


def _check(
    y: torch.Tensor | None,
    residual: torch.Tensor,
    weights: dict[str, torch.Tensor | None],
    out: torch.Tensor | None,
) -> None:
    """Raise ValueError unless the tensors of a call fit together."""
    require_tensor("residual", residual, FLOAT_DTYPES, 2)
    shape = tuple(residual.shape)
    if y is not None:
        if y.dim() == 3:
            require_tensor("y in parts", y, torch.float32, 3)
        else:
            require_tensor("y", y, FLOAT_DTYPES, 2)
        require(
            tuple(y.shape[-2:]) == shape,
            f"y has shape {tuple(y.shape)}, which does not fit the residual's, {shape}.",
        )
    for name, weight in weights.items():
        require(
            weight is None or tuple(weight.shape) == shape[1:],
            f"{name} must have {shape[1]} elements.",
        )
    require((weights["next_weight"] is None) == (out is None), "next_weight and out go together.")
    if out is not None:
        require_tensor("out", out, FLOAT_DTYPES, 2)
        require(
            tuple(out.shape) == shape,
            f"out has shape {tuple(out.shape)}; it must be the residual's, {shape}.",
        )


def divide_by_rms(x: torch.Tensor, eps: float = 1e-6) -> torch.Tensor:
    """Divide x by its root mean square along the last axis."""
    return x * (x.pow(2).mean(-1, keepdim=True) + eps).rsqrt()


def add_rms_norm_reference(
    y: torch.Tensor | None,
    residual: torch.Tensor,
    post_weight: torch.Tensor | None,
    next_weight: torch.Tensor | None,
    *,
    bias: torch.Tensor | None = None,
    scale: float = 1.0,
    eps: float = 1e-6,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Compute what ``add_rms_norm`` computes, in float64; return the residual and ``out``."""
    total = residual.double()
    if y is not None:
        added = y.double().sum(0) if y.dim() == 3 else y.double()
        if bias is not None:
            added = added + bias.double()
        if post_weight is not None:
            added = divide_by_rms(added, eps) * post_weight.double()
        total = (total + added) * scale
    normed = None if next_weight is None else divide_by_rms(total, eps) * next_weight.double()
    return total, normed
