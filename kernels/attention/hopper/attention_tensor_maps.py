"""Arguments that the attention kernels for Hopper take: descriptors of queries and pages."""

import ctypes

import torch

from ...cuda.cuda_driver import TensorMap, tensor_map
from ..attention_shapes import PagedShape
from ..fp8_pages import KVPages

# Dimensions are cut into blocks, which form an axis of their own, so that a copy places one block
# after another in shared memory.
BLOCK = 64
# One copy of a cache takes this many keys, and this many blocks of one head.
TILE, BLOCKS = 64, 4


def query_map(q: torch.Tensor, shape: PagedShape, tokens: int) -> TensorMap:
    """Describe queries [rows, heads, head_dim]; a copy takes one KV head's heads of ``tokens``."""
    blocks = shape.head_dim // BLOCK
    return tensor_map(
        q.data_ptr(),
        sizes=(BLOCK, shape.heads, shape.rows, blocks),
        strides=(shape.head_dim * 2, shape.heads * shape.head_dim * 2, BLOCK * 2),
        box=(BLOCK, shape.group, tokens, blocks),
    )


def page_map(
    cache: KVPages, shape: PagedShape, keys: int = TILE, blocks: int = BLOCKS
) -> TensorMap:
    """Describe a cache [pages, page_size, kv_heads, head_dim].

    A copy takes this many keys, and this many blocks of a head. By default these are the blocks of
    half a head of 512 dimensions, or of one of 256. There are no kernels for pages in FP8.
    """
    assert isinstance(cache, torch.Tensor)
    row, slots = shape.kv_heads * shape.head_dim, cache.shape[0] * shape.page_size
    return tensor_map(
        cache.data_ptr(),
        sizes=(BLOCK, slots, row // BLOCK),
        strides=(row * 2, BLOCK * 2),
        box=(BLOCK, keys, blocks),
    )


def pointer(tensor: torch.Tensor | None) -> ctypes.c_void_p:
    """Return a tensor's address; a null pointer for ``None``."""
    return ctypes.c_void_p(0 if tensor is None else tensor.data_ptr())
