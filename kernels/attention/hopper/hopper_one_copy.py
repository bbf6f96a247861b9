"""One-copy attention for Hopper in CUDA C++ (``one_copy_attention.cu``): decode and prefill.

Triton keeps the rotated part of a tile in registers and lets every warp group compute a strip of
the scores. On Hopper that costs two thirds of the matrix units and a third of the bandwidth
(docs/notebook/kernels_attention.md). The Triton kernels run if this kernel does not support a call.
"""

import ctypes

import torch

from ...cuda.cuda_driver import CudaKernel
from ...cuda.nvrtc import is_hopper, load_kernel
from ...triton_launch import multiprocessor_count
from ..attention_shapes import PagedInputs, PagedShape
from ..split_kv import MAX_SHORT_SPLITS, max_splits
from .attention_tensor_maps import TILE, page_map, pointer, query_map

HEAD_DIM, PAIRS, ROWS = 512, 64, 64
SHARED_BYTES, THREADS, MAX_SEQUENCES = 232448, 512, 64


def fits(
    shape: PagedShape,
    inputs: PagedInputs,
    *,
    q_len: int = 1,
    split_tokens: int = 0,
    short_split_tokens: int = 0,
) -> bool:
    """Return whether the kernel supports a call, on a device that can run it.

    Args:
        shape: sizes of the call.
        inputs: inputs of the call.
        q_len: query rows of each sequence, for decode.
        split_tokens: as in ``DecodeConfig``; 0 for prefill, which does not split keys.
        short_split_tokens: as in ``DecodeConfig``.
    """
    one_copy = inputs.one_copy
    return (
        one_copy is not None
        and not inputs.window
        and not inputs.softcap
        and inputs.sinks is None
        and inputs.scale > 0
        and inputs.q.dtype == torch.bfloat16
        and shape.head_dim == HEAD_DIM
        and one_copy.cos.shape[1] == PAIRS
        and one_copy.cos.shape[0] > TILE
        and one_copy.key_weight.dtype in (torch.bfloat16, torch.float32)
        and 16 % shape.group == 0
        and q_len * shape.group <= ROWS
        and shape.page_size >= TILE
        and 0 < shape.sequences <= MAX_SEQUENCES
        and split_tokens % TILE == 0
        and short_split_tokens % TILE == 0
    )


def _kernel(shape: PagedShape, inputs: PagedInputs) -> CudaKernel | None:
    one_copy, device = inputs.one_copy, inputs.q.device
    if one_copy is None or not is_hopper(device):
        return None
    defines: tuple[tuple[str, int | str], ...] = (
        ("HEADS", shape.heads),
        ("KV_HEADS", shape.kv_heads),
        ("PAGE_SIZE", shape.page_size),
        ("KEY_WEIGHT", "float" if one_copy.key_weight.dtype == torch.float32 else "bf16"),
    )
    if inputs.tree is not None:
        defines = (*defines, ("TREE", "1"))
    fallback = "Triton computes one-copy attention"
    return load_kernel(device, "one_copy_attention", defines, SHARED_BYTES, fallback)


def launch_decode(
    shape: PagedShape,
    inputs: PagedInputs,
    sums: torch.Tensor,
    stats: torch.Tensor,
    *,
    q_len: int,
    split_tokens: int,
    short_split_tokens: int,
    pdl: bool,
) -> bool:
    """Launch decode with split keys, which writes ``sums`` and ``stats`` (see `split_kv`).

    Returns:
        False, without a launch, if the kernel does not support the call or the device.
    """
    splits = {"split_tokens": split_tokens, "short_split_tokens": short_split_tokens}
    if not fits(shape, inputs, q_len=q_len, **splits):
        return False
    kernel = _kernel(shape, inputs)
    if kernel is None:
        return False
    capacity = inputs.page_table.shape[1] * shape.page_size
    items = shape.sequences * max_splits(capacity, split_tokens, short_split_tokens)
    outputs = (pointer(None), pointer(None), pointer(sums), pointer(stats))
    _launch(kernel, shape, inputs, items, outputs, (q_len, split_tokens, short_split_tokens), pdl)
    return True


def launch_prefill(
    shape: PagedShape, inputs: PagedInputs, query_starts: torch.Tensor, out: torch.Tensor
) -> bool:
    """Launch attention of prompt chunks, which writes ``out``.

    Returns:
        False, without a launch, if the kernel does not support the call or the device.
    """
    kernel = _kernel(shape, inputs) if fits(shape, inputs) else None
    if kernel is None:
        return False
    items = -(-shape.rows // (ROWS // shape.group)) + shape.sequences
    outputs = (pointer(query_starts), pointer(out), pointer(None), pointer(None))
    _launch(kernel, shape, inputs, items, outputs, (1, 0, 0), pdl=False)
    return True


def _launch(
    kernel: CudaKernel,
    shape: PagedShape,
    inputs: PagedInputs,
    items: int,
    outputs: tuple[ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p],
    lengths: tuple[int, int, int],
    pdl: bool,
) -> None:
    """Launch the kernel for up to ``items`` work items per KV head.

    ``outputs`` are the arguments query_starts, out, sums and stats, and ``lengths`` are q_len,
    split_tokens and short_split_tokens.
    """
    one_copy, integer = inputs.one_copy, ctypes.c_int
    assert one_copy is not None
    starts, *results = outputs
    q_len, split_tokens, short_split_tokens = lengths
    tree = [] if inputs.tree is None else [pointer(inputs.tree)]
    kernel.launch(
        min(multiprocessor_count(inputs.q.device), items * shape.kv_heads),
        THREADS,
        (
            page_map(inputs.key_cache, shape), query_map(inputs.q, shape, ROWS // shape.group),
            pointer(inputs.page_table), integer(inputs.page_table.stride(0)),
            pointer(inputs.seq_lens), starts, pointer(one_copy.cos), pointer(one_copy.sin),
            integer(one_copy.cos.shape[0]), pointer(one_copy.key_weight), *results,
            ctypes.c_float(inputs.scale), integer(shape.sequences), integer(q_len),
            integer(split_tokens), integer(MAX_SHORT_SPLITS.value * short_split_tokens),
            integer(short_split_tokens), *tree,
        ),
        pdl,
    )  # fmt: skip
