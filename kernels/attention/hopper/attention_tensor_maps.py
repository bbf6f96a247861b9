"""Arguments that both attention kernels for Hopper take: descriptors of queries and of pages."""

import ctypes

import torch

from ...cuda.nvrtc import tensor_map
from ..attention_shapes import PagedShape

BLOCK = 64  # dimensions; an axis of their own, so that a copy lays blocks one after the other
TILE, BLOCKS = 64, 4  # keys, and blocks of one head, that one copy takes


def query_map(q: torch.Tensor, shape: PagedShape, tokens: int) -> ctypes.Array[ctypes.c_char]:
    """Of [rows, heads, head_dim]: a copy takes the heads of one KV head, of so many tokens."""
    blocks = shape.head_dim // BLOCK
    return tensor_map(
        q.data_ptr(), (BLOCK, shape.heads, shape.rows, blocks),
        (shape.head_dim * 2, shape.heads * shape.head_dim * 2, BLOCK * 2),
        (BLOCK, shape.group, tokens, blocks),
    )  # fmt: skip


def page_map(cache: torch.Tensor, shape: PagedShape) -> ctypes.Array[ctypes.c_char]:
    """Of [pages, page_size, kv_heads, head_dim]: a copy takes a tile's blocks, which is half a head
    of 512 dimensions or one of 256."""
    row, slots = shape.kv_heads * shape.head_dim, cache.shape[0] * shape.page_size
    return tensor_map(
        cache.data_ptr(), (BLOCK, slots, row // BLOCK), (row * 2, BLOCK * 2), (BLOCK, TILE, BLOCKS)
    )


def pointer(tensor: torch.Tensor | None) -> ctypes.c_void_p:
    """Where a tensor lies; null for none."""
    return ctypes.c_void_p(0 if tensor is None else tensor.data_ptr())
