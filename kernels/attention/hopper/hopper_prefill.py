"""Prefill attention for Hopper in CUDA C++ (``prefill_attention.cu``), for heads of 64 to 256.

Triton issues a tile's two products one after the other with the softmax between them. Here the
scores of the next tile are in progress meanwhile (docs/notebook/kernels_attention.md). The Triton
kernel runs if this kernel does not support a call.
"""

import ctypes
from dataclasses import dataclass

import torch

from ...cuda.cuda_driver import CudaKernel
from ...cuda.nvrtc import is_hopper, load_kernel
from ...triton_launch import multiprocessor_count
from ..attention_shapes import PagedInputs, PagedShape
from .attention_tensor_maps import BLOCK, page_map, pointer, query_map

STATE_BYTES, MAX_SEQUENCES = 3072, 64
NO_WINDOW = 1 << 30  # tokens; more than any context


@dataclass(frozen=True, slots=True)
class TileLayout:
    """Tiles of a program.

    Attributes:
        tile: keys of a tile.
        groups: warp groups, each of which computes 64 query rows.
        slots: tiles in the ring.
    """

    tile: int
    groups: int
    slots: int

    @property
    def rows(self) -> int:
        """Query rows of a program."""
        return self.groups * 64

    def shared_bytes(self, head_dim: int) -> int:
        """Return the shared memory of a program."""
        return 2 * head_dim * (self.rows + self.slots * self.tile) + STATE_BYTES


LAYOUTS = {64: TileLayout(128, 2, 8), 128: TileLayout(128, 2, 6), 256: TileLayout(64, 2, 5)}
"""Layout of each head dimension that the kernel supports."""


def fits(shape: PagedShape, inputs: PagedInputs) -> bool:
    """Return whether the kernel supports a call, on a device that can run it."""
    return (
        inputs.one_copy is None
        and not inputs.softcap
        and (inputs.sinks is None or inputs.sinks.dtype == torch.bfloat16)
        and inputs.scale > 0
        and inputs.q.dtype == torch.bfloat16
        and shape.head_dim in LAYOUTS
        and 64 % shape.group == 0
        and shape.page_size >= 64
        and shape.rows > 0
        and 0 < shape.sequences <= MAX_SEQUENCES
    )


def kernel_defines(shape: PagedShape) -> tuple[tuple[str, int], ...]:
    """Return the macros with which the kernel is compiled for calls of this shape."""
    layout = LAYOUTS[shape.head_dim]
    return (
        ("HEADS", shape.heads),
        ("KV_HEADS", shape.kv_heads),
        ("HEAD_DIM", shape.head_dim),
        ("PAGE_SIZE", shape.page_size),
        ("TILE", layout.tile),
        ("GROUPS", layout.groups),
        ("SLOTS", layout.slots),
    )


def _kernel(shape: PagedShape, device: torch.device) -> CudaKernel | None:
    if not is_hopper(device):
        return None
    shared = LAYOUTS[shape.head_dim].shared_bytes(shape.head_dim)
    fallback = "Triton computes prefill attention"
    return load_kernel(device, "prefill_attention", kernel_defines(shape), shared, fallback)


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
    layout = LAYOUTS[shape.head_dim]
    tokens, copied = layout.rows // shape.group, min(layout.tile, shape.page_size)
    blocks = shape.head_dim // BLOCK if copied == layout.tile else 1
    items = (-(-shape.rows // tokens) + shape.sequences) * shape.kv_heads
    kernel.launch(
        min(multiprocessor_count(q.device), items),
        layout.groups * 128 + 128,
        (
            query_map(q, shape, tokens), page_map(inputs.key_cache, shape, copied, blocks),
            page_map(inputs.value_cache, shape, copied, blocks), pointer(table),
            integer(table.stride(0)), pointer(inputs.seq_lens), pointer(query_starts),
            pointer(inputs.first_pos), pointer(inputs.sinks), pointer(out),
            ctypes.c_float(inputs.scale), integer(shape.sequences),
            integer(inputs.window or NO_WINDOW),
        ),
        pdl=False,
    )  # fmt: skip
    return True
