"""Small linear layers of few rows on Hopper, by ``linear_prefetched.cu``.

Their weights are in shared memory when the input arrives. The input may be the norm of a sum.
"""

import ctypes

import torch

from ...argument_checks import require
from ...cuda.cuda_driver import CudaKernel
from ...cuda.nvrtc import is_hopper, load_kernel
from ...triton_launch import multiprocessor_count

MAX_ROWS = 8
FALLBACK = "another kernel computes these linear layers"
GROUP = 8  # weight rows
CONSUMERS = 8  # warps that multiply
LARGEST_STAGE = 34 << 10
MOST_BYTES = 400 << 10  # of the weights, for each multiprocessor; beyond, chains are faster
SHARED_BYTES = 232448
OTHER_BYTES = 10240  # of shared memory, besides the ring and x
NORM_TYPES = {torch.bfloat16: "bf16", torch.float32: "float"}


def _column_parts(columns: int) -> int:
    """Return how many parts rows are cut into, so that 8 fit into a stage; 0 if none do."""
    for parts in (1, 2, 4, 8):
        if columns % (16 * parts) == 0 and _stage_bytes(columns, parts) <= LARGEST_STAGE:
            return parts
    return 0


def _stage_bytes(columns: int, parts: int) -> int:
    return GROUP * (columns // parts * 2 + 16)


def _sizes(columns: int) -> tuple[int, int]:
    """Return the number of stages that fit, and the bytes of shared memory."""
    x = MAX_ROWS * (columns * 2 + 16)
    stage = _stage_bytes(columns, _column_parts(columns))
    stages = (SHARED_BYTES - x - OTHER_BYTES) // stage
    return stages, stages * stage + x + OTHER_BYTES


def kernel_defines(columns: int, parts: int, norm: torch.dtype) -> tuple[tuple[str, object], ...]:
    """Return the kernel's macros."""
    return (
        ("COLUMNS", columns),
        ("STAGES", _sizes(columns)[0]),
        ("COLUMN_PARTS", _column_parts(columns)),
        ("CONSUMERS", CONSUMERS),
        ("PARTS", parts),
        ("NORM", NORM_TYPES[norm]),
    )


def _kernel(device: torch.device, columns: int, parts: int, norm: torch.dtype) -> CudaKernel | None:
    defines = kernel_defines(columns, parts, norm)
    shared = _sizes(columns)[1]
    return load_kernel(device, "linear_prefetched", defines, shared, FALLBACK)


def linear_prefetched_fits(
    rows: int, weight: torch.Tensor, parts: int = 0, norm: torch.dtype = torch.bfloat16
) -> bool:
    """Return whether ``linear_prefetched`` supports a weight and this many rows, and suits them.

    Compiles the kernel.

    Args:
        rows: rows of the input.
        weight: [outputs, columns].
        parts: summands of the input; 0 if it is no sum.
        norm: dtype of the norm's weight.
    """
    if not is_hopper(weight.device) or weight.dtype != torch.bfloat16 or weight.dim() != 2:
        return False
    outputs, columns = weight.shape
    return (
        1 <= rows <= MAX_ROWS
        and weight.is_contiguous()
        and weight.data_ptr() % 16 == 0
        and outputs % GROUP == 0
        and weight.numel() * 2 <= MOST_BYTES * multiprocessor_count(weight.device)
        and norm in NORM_TYPES
        and _column_parts(columns) > 0
        and _sizes(columns)[0] >= 3
        and _kernel(weight.device, columns, parts, norm) is not None
    )


def linear_prefetched(
    x: torch.Tensor, weight: torch.Tensor, out: torch.Tensor, *, pdl: bool = False
) -> None:
    """Compute ``out = x @ weight.T``: ``linear_prefetched_fits`` accepts the weight.

    Args:
        x: bfloat16 [rows, columns].
        weight: bfloat16 [outputs, columns].
        out: bfloat16 [rows, outputs].
        pdl: launch with programmatic dependent launch. The launch before must not write weights.
    """
    _launch(x, weight, out, None, None, None, None, 0.0, pdl)


def sum_norm_linear(
    parts: torch.Tensor,
    residual: torch.Tensor,
    norm: torch.Tensor,
    x: torch.Tensor,
    weight: torch.Tensor,
    out: torch.Tensor,
    counter: torch.Tensor,
    *,
    eps: float,
    pdl: bool = False,
) -> None:
    """Compute ``residual += parts.sum(0)``, ``x = rms(residual) * norm``, ``out = x @ weight.T``.

    ``rms(v)`` is v over its root mean square. ``linear_prefetched_fits`` accepts the weight.

    Args:
        parts: float32 [parts, rows, columns].
        residual: bfloat16 [rows, columns], overwritten.
        norm: [columns].
        x: bfloat16 [rows, columns], written.
        weight: bfloat16 [outputs, columns].
        out: bfloat16 [rows, outputs].
        counter: int32 [1]; a launch before has set it to 0.
        eps: added to the mean squares.
        pdl: launch with programmatic dependent launch.
    """
    _launch(x, weight, out, parts, residual, norm, counter, eps, pdl)


def _launch(
    x: torch.Tensor,
    weight: torch.Tensor,
    out: torch.Tensor,
    parts: torch.Tensor | None,
    residual: torch.Tensor | None,
    norm: torch.Tensor | None,
    counter: torch.Tensor | None,
    eps: float,
    pdl: bool,
) -> None:
    rows, columns = x.shape
    require(
        tuple(out.shape) == (rows, weight.shape[0]) and weight.shape[1] == columns,
        f"x {tuple(x.shape)}, weight {tuple(weight.shape)} and out {tuple(out.shape)} do not fit.",
    )
    tensors = (x, weight, out, parts, residual, norm, counter)
    require(rows <= MAX_ROWS, f"x has {rows} rows; the kernel takes at most {MAX_ROWS}.")
    for tensor in tensors:
        require(tensor is None or tensor.is_contiguous(), "Every tensor must be contiguous.")
    count = 0 if parts is None else parts.shape[0]
    dtype = torch.bfloat16 if norm is None else norm.dtype
    kernel = _kernel(x.device, columns, count, dtype)
    require(kernel is not None, "The layer does not fit; see linear_prefetched_fits.")
    assert kernel is not None
    pointers = [ctypes.c_void_p(None if t is None else t.data_ptr()) for t in tensors]
    sizes = (ctypes.c_float(eps), ctypes.c_int(rows), ctypes.c_int(weight.shape[0]))
    threads = 32 * (CONSUMERS + 2)  # one adds, one copies
    kernel.launch(multiprocessor_count(x.device), threads, [*pointers, *sizes], pdl)


def linear_prefetched_reference(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Compute what ``linear_prefetched`` computes, in float64."""
    return x.double() @ weight.double().T


def sum_norm_reference(
    parts: torch.Tensor, residual: torch.Tensor, norm: torch.Tensor, eps: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the new residual and x as ``sum_norm_linear`` computes them, in float64."""
    total = (parts.sum(0) + residual.float()).bfloat16().double()
    return total, total * (total.square().mean(1, keepdim=True) + eps).rsqrt() * norm.double()
