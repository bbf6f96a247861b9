"""Decode attention for Hopper in CUDA C++ (``decode_attention.cu``), for heads of 64 to 256.

The Triton kernel passes every tile of keys through barriers of all its warps, and drains its
pipeline at the end of each work item. Here tiles flow through one ring for all items of a program,
and each warp takes whole tiles (docs/notebook/kernels_attention.md). The Triton kernel runs if this
kernel does not support a call.
"""

import ctypes
from dataclasses import dataclass

import torch

from ...cuda.cuda_driver import CudaKernel
from ...cuda.nvrtc import is_hopper, load_kernel
from ...triton_launch import multiprocessor_count
from ..attention_shapes import PagedInputs, PagedShape
from ..triton_kernels.split_combine_kernel import MAX_SHORT_SPLITS
from .attention_tensor_maps import page_map, pointer

HEAD_DIMS, TILE_ELEMENTS = (64, 128, 256), 4096  # keys of a tile times their dimensions
MAX_SEQUENCES, MIN_PAGE_SIZE = 512, 16
MAX_SHARED_BYTES, STATE_BYTES = 232448, 16384
LAYOUTS = ((1, 4), (2, 3), (4, 2))  # row blocks and streams
# More slots leave no room beside them for the launch that combines the splits (4 of its programs,
# 3 KB each), which then starts late: 16 instead of 10 us in a layer of Qwen3-32B at 8k.
MAX_SLOTS, MIN_SLOTS = 8, 6
MAX_ROWS = {64: 16, 128: 16, 256: 8}  # for which a warp has registers, by head dimension
NO_WINDOW = 1 << 30  # tokens; more than any context


@dataclass(frozen=True, slots=True)
class WarpLayout:
    """How the warps share an item.

    Attributes:
        streams: warps that take tiles in turn.
        row_blocks: warps that share a tile, each with a part of the rows.
        slots: tiles in the ring, a multiple of the streams.
    """

    streams: int
    row_blocks: int
    slots: int

    @property
    def threads(self) -> int:
        """Threads of a program; one more warp loads."""
        return self.streams * self.row_blocks * 32 + 32


def merge_bytes(rows: int, head_dim: int, streams: int) -> int:
    """Return the shared memory through which the warps merge their sums."""
    return streams * rows * (head_dim + 4) * 4


def slot_bytes() -> int:
    """Return the shared memory of a tile of keys and their values."""
    return 4 * TILE_ELEMENTS


def warp_layout(rows: int, head_dim: int) -> WarpLayout | None:
    """Return the layout for ``rows`` rows of a KV head; ``None`` if there are too many."""
    for row_blocks, streams in LAYOUTS:
        room = MAX_SHARED_BYTES - STATE_BYTES - merge_bytes(rows, head_dim, streams)
        slots = min(MAX_SLOTS, room // slot_bytes()) // streams * streams
        if rows <= row_blocks * MAX_ROWS[head_dim] and slots >= MIN_SLOTS:
            return WarpLayout(streams, row_blocks, slots)
    return None


def fits(
    shape: PagedShape,
    inputs: PagedInputs,
    *,
    q_len: int,
    split_tokens: int,
    short_split_tokens: int,
) -> bool:
    """Return whether the kernel supports a call, on a device that can run it."""
    if shape.head_dim not in HEAD_DIMS:
        return False
    tile = TILE_ELEMENTS // shape.head_dim
    return (
        inputs.one_copy is None
        and not inputs.softcap
        and inputs.tree is None
        and inputs.q.dtype == torch.bfloat16
        and (split_tokens > 0 or inputs.sinks is None or inputs.sinks.dtype == torch.bfloat16)
        and inputs.scale > 0
        and shape.page_size >= MIN_PAGE_SIZE
        and 0 < shape.sequences <= MAX_SEQUENCES
        and warp_layout(q_len * shape.group, shape.head_dim) is not None
        and split_tokens % tile == 0
        and short_split_tokens % tile == 0
    )


def kernel_defines(shape: PagedShape, q_len: int) -> tuple[tuple[str, int], ...]:
    """Return the macros with which the kernel is compiled for calls of this shape."""
    layout = _layout(shape, q_len)
    return (
        ("HEADS", shape.heads),
        ("KV_HEADS", shape.kv_heads),
        ("HEAD_DIM", shape.head_dim),
        ("PAGE_SIZE", shape.page_size),
        ("Q_LEN", q_len),
        ("TILE", TILE_ELEMENTS // shape.head_dim),
        ("SLOTS", layout.slots),
        ("STREAMS", layout.streams),
        ("ROW_BLOCKS", layout.row_blocks),
    )


def _layout(shape: PagedShape, q_len: int) -> WarpLayout:
    layout = warp_layout(q_len * shape.group, shape.head_dim)
    assert layout is not None
    return layout


def _kernel(shape: PagedShape, q_len: int, device: torch.device) -> CudaKernel | None:
    if not is_hopper(device):
        return None
    layout = _layout(shape, q_len)
    merged = merge_bytes(q_len * shape.group, shape.head_dim, layout.streams)
    shared = layout.slots * slot_bytes() + merged + STATE_BYTES
    fallback = "Triton computes decode attention"
    return load_kernel(device, "decode_attention", kernel_defines(shape, q_len), shared, fallback)


def launch_decode(
    shape: PagedShape,
    inputs: PagedInputs,
    out: torch.Tensor,
    sums: torch.Tensor | None,
    stats: torch.Tensor | None,
    *,
    q_len: int,
    split_tokens: int,
    short_split_tokens: int,
    pdl: bool,
) -> bool:
    """Launch decode, which writes ``out``, or ``sums`` and ``stats`` if it splits the keys.

    Returns:
        False, without a launch, if the kernel does not support the call or the device.
    """
    splits = {"split_tokens": split_tokens, "short_split_tokens": short_split_tokens}
    if inputs.value_cache is None or not fits(shape, inputs, q_len=q_len, **splits):
        return False
    kernel = _kernel(shape, q_len, inputs.q.device)
    if kernel is None:
        return False
    integer, table, blocks = ctypes.c_int, inputs.page_table, shape.head_dim // 64
    part = min(TILE_ELEMENTS // shape.head_dim, shape.page_size)
    programs = multiprocessor_count(inputs.q.device)
    if not split_tokens:
        programs = min(programs, shape.sequences * shape.kv_heads)
    kernel.launch(
        programs,
        _layout(shape, q_len).threads,
        (
            page_map(inputs.key_cache, shape, part, blocks),
            page_map(inputs.value_cache, shape, part, blocks), pointer(inputs.q), pointer(table),
            integer(table.stride(0)), pointer(inputs.seq_lens), pointer(inputs.first_pos),
            pointer(inputs.sinks), pointer(out), pointer(sums), pointer(stats),
            ctypes.c_float(inputs.scale), integer(shape.sequences),
            integer(inputs.window or NO_WINDOW), integer(split_tokens),
            integer(MAX_SHORT_SPLITS.value * short_split_tokens), integer(short_split_tokens),
        ),
        pdl,
    )  # fmt: skip
    return True
