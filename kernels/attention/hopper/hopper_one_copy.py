"""One-copy attention on Hopper in CUDA C++ (``one_copy_attention.cu``):
decode, verification, prefill.

Triton keeps the rotated part of a tile in registers and lets every warp group compute a strip of
the scores; on Hopper that costs two thirds of the matrix units and a third of the bandwidth
(docs/log-kernels.md). Where this kernel does not fit, the Triton kernels run.
"""

import ctypes
from typing import Any

import torch

from ...cuda.nvrtc import CudaKernel, is_hopper, load_kernel
from ...triton_launch import multiprocessor_count
from ..attention_shapes import PagedShape
from ..one_copy_keys import OneCopy
from ..split_kv import MAX_SHORT_SPLITS, max_splits
from .attention_tensor_maps import TILE, page_map, pointer, query_map

HEAD_DIM, PAIRS, ROWS = 512, 64, 64
SOURCES = (
    *("hopper.cuh", "online_softmax.cuh"),
    *("one_copy_work_items.cuh", "one_copy_loads.cuh", "one_copy_attention.cu"),
)
SHARED, THREADS, MAX_SEQUENCES = 232448, 512, 64


def _kernel(
    device: torch.device, heads: int, kv_heads: int, page_size: int, weight: torch.dtype
) -> CudaKernel | None:
    defines = (
        ("HQ", heads), ("HK", kv_heads), ("PS", page_size),
        ("KEY_WEIGHT", "float" if weight == torch.float32 else "bf16"),
    )  # fmt: skip
    otherwise = "Triton attends to one copy"
    return load_kernel(device, SOURCES, "one_copy_attention", defines, SHARED, otherwise)


def fits(
    shape: PagedShape, dtype: torch.dtype, one_copy: OneCopy, *, window: int,
    sinks: torch.Tensor | None, scale: float, q_len: int = 1, split: int = 0, short: int = 0,
) -> bool:  # fmt: skip
    """Whether the kernel computes such calls, on a device that has it."""
    return (
        not window
        and sinks is None
        and scale > 0
        and dtype == torch.bfloat16
        and shape.head_dim == HEAD_DIM
        and one_copy.cos.shape[1] == PAIRS
        and one_copy.cos.shape[0] > TILE
        and one_copy.key_weight.dtype in (torch.bfloat16, torch.float32)
        and 16 % shape.group == 0
        and q_len * shape.group <= ROWS
        and shape.page_size >= TILE
        and 0 < shape.sequences <= MAX_SEQUENCES
        and split % TILE == 0
        and short % TILE == 0
    )


def kernel_for(
    shape: PagedShape, q: torch.Tensor, one_copy: OneCopy | None, **call: Any
) -> CudaKernel | None:
    """The kernel, or ``None`` where the call (see ``fits``) or the device does not suit it."""
    if one_copy is None or not fits(shape, q.dtype, one_copy, **call) or not is_hopper(q.device):
        return None
    weight = one_copy.key_weight.dtype
    return _kernel(q.device, shape.heads, shape.kv_heads, shape.page_size, weight)


def launch(
    kernel: CudaKernel, shape: PagedShape, q: torch.Tensor, cache: torch.Tensor,
    table: torch.Tensor, lens: torch.Tensor, one_copy: OneCopy, *, scale: float, pdl: bool,
    starts: torch.Tensor | None = None, out: torch.Tensor | None = None,
    part: torch.Tensor | None = None, stats: torch.Tensor | None = None,
    q_len: int = 1, split: int = 0, short: int = 0,
) -> None:  # fmt: skip
    """Chunks (``starts``, ``out``), or decode in splits (``part``, ``stats``: see ``splits``)."""
    tokens = ROWS // shape.group
    if split:
        units = shape.sequences * max_splits(table.shape[1] * shape.page_size, split, short)
    else:
        units = -(-shape.rows // tokens) + shape.sequences
    integer = ctypes.c_int
    kernel.launch(
        min(multiprocessor_count(q.device), units * shape.kv_heads),
        THREADS,
        (
            page_map(cache, shape), query_map(q, shape, tokens), pointer(table),
            integer(table.stride(0)), pointer(lens), pointer(starts), pointer(one_copy.cos),
            pointer(one_copy.sin), integer(one_copy.cos.shape[0]), pointer(one_copy.key_weight),
            pointer(out), pointer(part), pointer(stats), ctypes.c_float(scale),
            integer(shape.sequences), integer(q_len), integer(split),
            integer(MAX_SHORT_SPLITS.value * short), integer(short),
        ),
        pdl,
    )  # fmt: skip
