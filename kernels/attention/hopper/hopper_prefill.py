"""Attention of chunks to keys and values of head_dim 256 on Hopper, in CUDA C++
(``prefill_attention.cu``).

Triton issues a tile's two products one after the other with the softmax between them; here the
scores of the next tile are under way meanwhile (docs/log-kernels.md). Where this kernel does not
fit, the Triton kernel runs.
"""

import ctypes

import torch

from ...cuda.nvrtc import CudaKernel, is_hopper, load_kernel
from ...triton_launch import multiprocessor_count
from ..attention_shapes import PagedShape
from .attention_tensor_maps import TILE, page_map, pointer, query_map

HEAD_DIM, ROWS = 256, 128
SOURCES = ("hopper.cuh", "online_softmax.cuh", "prefill_attention.cu")
SHARED, THREADS, MAX_SEQUENCES = 232448, 384, 64
NO_WINDOW = 1 << 30  # more than any context


def fits(
    shape: PagedShape, dtype: torch.dtype, *, sinks: torch.Tensor | None, scale: float
) -> bool:
    """Whether the kernel computes such calls, on a device that has it."""
    return (
        dtype == torch.bfloat16
        and shape.head_dim == HEAD_DIM
        and sinks is None
        and scale > 0
        and ROWS // 2 % shape.group == 0
        and shape.page_size >= TILE
        and shape.rows > 0
        and 0 < shape.sequences <= MAX_SEQUENCES
    )


def kernel_for(
    shape: PagedShape, q: torch.Tensor, *, sinks: torch.Tensor | None, scale: float
) -> CudaKernel | None:
    """The kernel, or ``None`` where the call or the device does not suit it."""
    if not fits(shape, q.dtype, sinks=sinks, scale=scale) or not is_hopper(q.device):
        return None
    defines = (("HQ", shape.heads), ("HK", shape.kv_heads), ("PS", shape.page_size))
    otherwise = "Triton attends to chunks"
    return load_kernel(q.device, SOURCES, "prefill_attention", defines, SHARED, otherwise)


def launch(
    kernel: CudaKernel, shape: PagedShape, q: torch.Tensor, keys: torch.Tensor,
    values: torch.Tensor, table: torch.Tensor, starts: torch.Tensor, lens: torch.Tensor,
    first_pos: torch.Tensor | None, out: torch.Tensor, *, window: int, scale: float,
) -> None:  # fmt: skip
    """What ``paged_prefill`` computes, with its arguments."""
    tokens = ROWS // shape.group
    units = (-(-shape.rows // tokens) + shape.sequences) * shape.kv_heads
    integer = ctypes.c_int
    kernel.launch(
        min(multiprocessor_count(q.device), units),
        THREADS,
        (
            query_map(q, shape, tokens), page_map(keys, shape), page_map(values, shape),
            pointer(table), integer(table.stride(0)), pointer(lens), pointer(starts),
            pointer(first_pos), pointer(out), ctypes.c_float(scale), integer(shape.sequences),
            integer(window or NO_WINDOW),
        ),
        pdl=False,
    )  # fmt: skip
