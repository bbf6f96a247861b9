"""The norms around a layer's experts and its router, for few rows: one launch before, one after.

Each row is taken by several programs, one for a few experts: the weights of a router are small, and
one program would read them too slowly. All of them compute the row's norms. The first one stores
them, to other memory than the others read.
"""

import torch
import triton
import triton.language as tl

from ...argument_checks import FLOAT_DTYPES, require, require_tensor
from ...triton_launch import next_power_of_2, pdl_launch_dependents, pdl_options, pdl_wait
from ..rms_norm import add_rms_norm_reference, divide_by_rms

EXPERTS_PER_PROGRAM = 4


@triton.jit
def _rms_factor(x, N: tl.constexpr, eps):
    return tl.rsqrt(tl.sum(x * x, 0) / N + eps)


@triton.jit
def norms_and_router_kernel(
    y, bias, residual, residual_out, post_weight, weight, x, router_weight, expert_weight, expert_x,
    router, router_bias, logits, eps,
    N: tl.constexpr, BLOCK: tl.constexpr, EXPERTS: tl.constexpr, EACH: tl.constexpr,
    HAS_BIAS: tl.constexpr, HAS_POST: tl.constexpr, BRANCH: tl.constexpr,
    HAS_ROUTER_BIAS: tl.constexpr, PDL: tl.constexpr,
):  # fmt: skip
    pdl_launch_dependents(PDL)
    d = tl.arange(0, BLOCK)
    live = d < N
    part = tl.program_id(1)
    e = part * EACH + tl.arange(0, EACH)
    # Weights do not change, so that they are loaded while the launch before still runs.
    routes = tl.load(
        router + tl.minimum(e, EXPERTS - 1)[:, None] * N + d[None, :], mask=live[None, :], other=0.0
    ).to(tl.float32)
    factor = tl.load(weight + d, mask=live, other=0.0).to(tl.float32)
    pdl_wait(PDL)
    row = tl.program_id(0).to(tl.int64)
    added = tl.load(y + row * N + d, mask=live, other=0.0).to(tl.float32)
    if HAS_BIAS:
        added += tl.load(bias + d, mask=live, other=0.0).to(tl.float32)
    if HAS_POST:
        post = tl.load(post_weight + d, mask=live, other=0.0).to(tl.float32)
        added = added * _rms_factor(added, N, eps) * post
    total = tl.load(residual + row * N + d, mask=live, other=0.0).to(tl.float32) + added
    rounded = total.to(residual_out.dtype.element_ty)
    total = rounded.to(tl.float32)
    unit = total * _rms_factor(total, N, eps)
    normed = (unit * factor).to(x.dtype.element_ty)
    if part == 0:
        tl.store(residual_out + row * N + d, rounded, mask=live)
        tl.store(x + row * N + d, normed, mask=live)
        if BRANCH:
            own = tl.load(expert_weight + d, mask=live, other=0.0).to(tl.float32)
            tl.store(expert_x + row * N + d, (unit * own).to(x.dtype.element_ty), mask=live)
    if BRANCH:
        scale = tl.load(router_weight + d, mask=live, other=0.0).to(tl.float32)
        normed = (unit * scale).to(x.dtype.element_ty)
    score = tl.sum(routes * normed.to(tl.float32)[None, :], 1)
    if HAS_ROUTER_BIAS:
        score += tl.load(router_bias + tl.minimum(e, EXPERTS - 1)).to(tl.float32)
    tl.store(logits + row * EXPERTS + e, score, mask=e < EXPERTS)


def norms_and_router(
    y: torch.Tensor,
    residual: torch.Tensor,
    residual_out: torch.Tensor,
    post_weight: torch.Tensor | None,
    weight: torch.Tensor,
    x: torch.Tensor,
    router: torch.Tensor,
    logits: torch.Tensor,
    *,
    bias: torch.Tensor | None = None,
    router_bias: torch.Tensor | None = None,
    branch: tuple[torch.Tensor, torch.Tensor, torch.Tensor] | None = None,
    eps: float = 1e-6,
    pdl: bool = False,
) -> None:
    """Add attention's output to the residual, normalize it, and compute the router's logits.

    Computes ``residual_out = residual + norm(y + bias)``, ``x = rms(residual_out) * weight`` and
    ``logits = x @ router.T + router_bias``, where ``rms(v)`` is v over its root mean square.

    Args:
        y: [rows, N].
        residual: [rows, N].
        residual_out: [rows, N], other memory than ``residual``.
        post_weight: [N], weight of y's norm; ``None`` adds y without a norm.
        weight: [N], weight of the residual's norm.
        x: [rows, N], written.
        router: [experts, N].
        logits: float32 [rows, experts], written.
        bias: [N], bias of the linear layer that computed y.
        router_bias: [experts].
        branch: for experts beside a dense block, the weights [N] of the router's norm and of the
            experts', and [rows, N] for the experts' input. ``x`` is the dense block's input then.
        eps: added to the mean squares.
        pdl: launch with programmatic dependent launch.

    Raises:
        ValueError: a shape or dtype does not fit.
    """
    (rows, n), experts = residual.shape, router.shape[0]
    router_weight, expert_weight, expert_x = branch or (weight, weight, x)
    rows_of = {"y": y, "residual": residual, "residual_out": residual_out, "x": x}
    for name, tensor in {**rows_of, "the experts' input": expert_x}.items():
        require_tensor(name, tensor, FLOAT_DTYPES, 2)
        require(tuple(tensor.shape) == (rows, n), f"{name} must have shape {(rows, n)}.")
    require_tensor("router", router, FLOAT_DTYPES, 2)
    require_tensor("logits", logits, torch.float32, 2)
    require(
        router.shape[1] == n and tuple(logits.shape) == (rows, experts),
        f"router and logits must have {n} columns and shape {(rows, experts)}.",
    )
    require(residual_out.data_ptr() != residual.data_ptr(), "residual_out must be other memory.")
    for each in (bias, post_weight, weight, router_weight, expert_weight):
        require(each is None or tuple(each.shape) == (n,), f"Each norm must have {n} elements.")
    unused = residual  # stands for tensors that this variant of the kernel does not read
    block = next_power_of_2(n)
    norms_and_router_kernel[(rows, -(-experts // EXPERTS_PER_PROGRAM))](
        y, unused if bias is None else bias, residual, residual_out,
        unused if post_weight is None else post_weight, weight, x, router_weight, expert_weight,
        expert_x, router, unused if router_bias is None else router_bias, logits, eps,
        N=n, BLOCK=block, EXPERTS=experts, EACH=EXPERTS_PER_PROGRAM, HAS_BIAS=bias is not None,
        HAS_POST=post_weight is not None, BRANCH=branch is not None,
        HAS_ROUTER_BIAS=router_bias is not None, num_warps=8 if block > 2048 else 4,
        **pdl_options(pdl),
    )  # fmt: skip


def norms_and_router_reference(
    y: torch.Tensor,
    residual: torch.Tensor,
    post_weight: torch.Tensor | None,
    weight: torch.Tensor,
    router: torch.Tensor,
    *,
    bias: torch.Tensor | None = None,
    router_bias: torch.Tensor | None = None,
    branch: tuple[torch.Tensor, torch.Tensor] | None = None,
    eps: float = 1e-6,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Compute what ``norms_and_router`` computes, in float64.

    Returns:
        The residual, x, the experts' input (x without a branch), and the logits.
    """
    total, x = add_rms_norm_reference(y, residual, post_weight, weight, bias=bias, eps=eps)
    assert x is not None
    routed = expert_x = x
    if branch is not None:
        routed, expert_x = (divide_by_rms(total, eps) * each.double() for each in branch)
    logits = routed @ router.double().T
    return total, x, expert_x, logits if router_bias is None else logits + router_bias.double()


@triton.jit(do_not_specialize=["rows"])
def join_branches_kernel(
    dense, experts, residual, dense_weight, expert_weight, post_weight, next_weight, out, rows,
    scale, eps, N: tl.constexpr, BLOCK: tl.constexpr, PARTS: tl.constexpr, PDL: tl.constexpr,
):  # fmt: skip
    pdl_launch_dependents(PDL)
    d = tl.arange(0, BLOCK)
    live = d < N
    of_dense = tl.load(dense_weight + d, mask=live, other=0.0).to(tl.float32)
    of_experts = tl.load(expert_weight + d, mask=live, other=0.0).to(tl.float32)
    post = tl.load(post_weight + d, mask=live, other=0.0).to(tl.float32)
    weight = tl.load(next_weight + d, mask=live, other=0.0).to(tl.float32)
    pdl_wait(PDL)
    row = tl.program_id(0).to(tl.int64)
    a = tl.load(dense + row * N + d, mask=live, other=0.0).to(tl.float32)
    b = tl.load(experts + row * N + d, mask=live, other=0.0).to(tl.float32)
    for part in tl.static_range(1, PARTS):
        b += tl.load(experts + (part * rows + row) * N + d, mask=live, other=0.0)
    added = a * _rms_factor(a, N, eps) * of_dense + b * _rms_factor(b, N, eps) * of_experts
    added = added * _rms_factor(added, N, eps) * post
    total = (tl.load(residual + row * N + d, mask=live, other=0.0).to(tl.float32) + added) * scale
    rounded = total.to(residual.dtype.element_ty)
    tl.store(residual + row * N + d, rounded, mask=live)
    total = rounded.to(tl.float32)
    normed = total * _rms_factor(total, N, eps) * weight
    tl.store(out + row * N + d, normed.to(out.dtype.element_ty), mask=live)


def join_branches(
    dense: torch.Tensor,
    experts: torch.Tensor,
    residual: torch.Tensor,
    norms: tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor],
    out: torch.Tensor,
    *,
    scale: float = 1.0,
    eps: float = 1e-6,
    pdl: bool = False,
) -> None:
    """Add a dense block and the experts beside it to the residual, and normalize that.

    Computes ``residual = (residual + rms(rms(dense) * a + rms(experts) * b) * c) * scale`` and
    ``out = rms(residual) * d``, where ``rms(v)`` is v over its root mean square.

    Args:
        dense: [rows, N].
        experts: [rows, N], or float32 [parts, rows, N], whose sum over the parts counts.
        residual: [rows, N], updated in place.
        norms: the weights a, b, c and d, [N] each.
        out: [rows, N].
        scale: factor of the residual.
        eps: added to the mean squares.
        pdl: launch with programmatic dependent launch.

    Raises:
        ValueError: a shape or dtype does not fit.
    """
    rows, n = residual.shape
    for name, tensor in (("dense", dense), ("residual", residual), ("out", out)):
        require_tensor(name, tensor, FLOAT_DTYPES, 2)
        require(tuple(tensor.shape) == (rows, n), f"{name} must have shape {(rows, n)}.")
    parts = experts.shape[0] if experts.dim() == 3 else 1
    dtypes = torch.float32 if experts.dim() == 3 else FLOAT_DTYPES
    require_tensor("experts", experts, dtypes, experts.dim())
    require(tuple(experts.shape[-2:]) == (rows, n), f"experts must end in shape {(rows, n)}.")
    for weight in norms:
        require(tuple(weight.shape) == (n,), f"Each norm must have {n} elements.")
    join_branches_kernel[(rows,)](
        dense, experts, residual, *norms, out, rows, scale, eps, N=n, BLOCK=next_power_of_2(n),
        PARTS=parts, num_warps=16 if n > 2048 else 8, **pdl_options(pdl),
    )  # fmt: skip


def join_branches_reference(
    dense: torch.Tensor,
    experts: torch.Tensor,
    residual: torch.Tensor,
    norms: tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor],
    *,
    scale: float = 1.0,
    eps: float = 1e-6,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Compute what ``join_branches`` computes, in float64; return the residual and ``out``."""
    summed = experts.double().sum(0) if experts.dim() == 3 else experts.double()
    of_dense, of_experts, post, following = (norm.double() for norm in norms)
    added = divide_by_rms(dense.double(), eps) * of_dense + divide_by_rms(summed, eps) * of_experts
    return add_rms_norm_reference(added, residual, post, following, scale=scale, eps=eps)
