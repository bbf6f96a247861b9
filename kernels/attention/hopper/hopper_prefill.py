"""Prefill attention of head_dim 256 for Hopper in CUDA C++ (``prefill_attention.cu``).

Triton issues a tile's two products one after the other with the softmax between them. Here the
scores of the next tile are in progress meanwhile (docs/notebook/kernels_attention.md). The Triton
kernel runs if this kernel does not support a call.
"""

import ctypes

import torch

from ...cuda.cuda_driver import CudaKernel
from ...cuda.nvrtc import is_hopper, load_kernel
from ...triton_launch import multiprocessor_count
from ..attention_shapes import PagedInputs, PagedShape
from .attention_tensor_maps import TILE, page_map, pointer, query_map

HEAD_DIM, ROWS = 256, 128
SHARED_BYTES, THREADS, MAX_SEQUENCES = 232448, 384, 64
NO_WINDOW = 1 << 30  # tokens; more than any context


def fits(shape: PagedShape, inputs: PagedInputs) -> bool:
    """Return whether the kernel supports a call, on a device that can run it."""
    return (
        inputs.one_copy is None
        and inputs.sinks is None
        and inputs.scale > 0
        and inputs.q.dtype == torch.bfloat16
        and shape.head_dim == HEAD_DIM
        and ROWS // 2 % shape.group == 0
        and shape.page_size >= TILE
        and shape.rows > 0
        and 0 < shape.sequences <= MAX_SEQUENCES
    )


def _kernel(shape: PagedShape, device: torch.device) -> CudaKernel | None:
    if not is_hopper(device):
        return None
    defines = (
        ("HEADS", shape.heads),
        ("KV_HEADS", shape.kv_heads),
        ("PAGE_SIZE", shape.page_size),
    )
    fallback = "Triton computes prefill attention"
    return load_kernel(device, "prefill_attention", defines, SHARED_BYTES, fallback)


def launch_prefill(
    shape: PagedShape, inputs: PagedInputs, query_starts: torch.Tensor, out: torch.Tensor
) -> bool:
    """Launch attention of prompt chunks, which writes ``out``.

    Returns:
        False, without a launch, if the kernel does not support the call or the device.
    """
    kernel = _kernel(shape, inputs.q.device) if fits(shape, inputs) else None
    if kernel is None or inputs.value_cache is None:
        return False
    q, table, integer = inputs.q, inputs.page_table, ctypes.c_int
    tokens = ROWS // shape.group
    items = (-(-shape.rows // tokens) + shape.sequences) * shape.kv_heads
    kernel.launch(
        min(multiprocessor_count(q.device), items),
        THREADS,
        (
            query_map(q, shape, tokens), page_map(inputs.key_cache, shape),
            page_map(inputs.value_cache, shape), pointer(table), integer(table.stride(0)),
            pointer(inputs.seq_lens), pointer(query_starts), pointer(inputs.first_pos),
            pointer(out), ctypes.c_float(inputs.scale), integer(shape.sequences),
            integer(inputs.window or NO_WINDOW),
        ),
        pdl=False,
    )  # fmt: skip
    return True
