"""Prefill attention through flash-attn 4, a package over NVIDIA's CuTe DSL (``flash-attn-4``).

It reads pages of any size, windows and sinks. Its version 4.0.0b36 was run on an H200 with the
arguments below: results as close to float32 as those of our kernels, and faster than they are at
heads of 64 without a window (docs/notebook/kernels_attention.md). Kernels are compiled at their
first call, in 3 to 7 seconds each. Decode steps stay with ``paged_decode``: on Hopper flash-attn 4
does not split the keys of long sequences.
"""

import functools
import logging

import torch

from ..attention_shapes import PagedInputs

MAX_HEAD_DIM = 256
CAPABILITIES = (9, 10, 11)
"""Major compute capabilities on which flash-attn 4 reads pages."""

logger = logging.getLogger(__name__)


@functools.cache
def flash4_installed() -> bool:
    """Return whether flash-attn 4 can be imported; log a warning if it is installed but broken."""
    try:
        from flash_attn.cute.interface import flash_attn_varlen_func  # noqa: F401
    except ModuleNotFoundError as error:
        if not str(error.name).startswith("flash_attn"):
            logger.warning("flash-attn 4 is not used because it cannot be imported: %s", error)
        return False
    except Exception as error:  # the compiler behind it may raise anything
        logger.warning("flash-attn 4 is not used because it cannot be imported: %s", error)
        return False
    return True


def flash4_supports(device: torch.device) -> bool:
    """Return whether flash-attn 4 has kernels for a GPU's pages."""
    return device.type == "cuda" and torch.cuda.get_device_capability(device)[0] in CAPABILITIES


def flash4_prefill(
    inputs: PagedInputs, query_starts: torch.Tensor, out: torch.Tensor
) -> torch.Tensor:
    """Compute what ``paged_prefill`` computes; rows of ``out`` after the last chunk become 0.

    It also reads the keys before a window in the window's first page; these must be finite.

    Args:
        inputs: queries [tokens, heads, head_dim] and the caches, of two copies.
        query_starts: int32 [sequences + 1], first row of each chunk and the end of the last.
        out: [tokens, heads, head_dim].

    Raises:
        ValueError: a shape or dtype does not fit.
    """
    from flash_attn.cute.interface import flash_attn_varlen_func

    shape, lengths = inputs.check(out), inputs.seq_lens
    attended = flash_attn_varlen_func(
        inputs.q, inputs.key_cache, inputs.value_cache, cu_seqlens_q=query_starts,
        # Upper bounds, because the exact values are on the device.
        max_seqlen_q=max(2, shape.rows),
        max_seqlen_k=inputs.page_table.shape[1] * shape.page_size,
        seqused_k=lengths if inputs.first_pos is None else lengths - inputs.first_pos,
        page_table=inputs.page_table, softmax_scale=inputs.scale, causal=True,
        window_size=(inputs.window - 1, 0) if inputs.window else (None, None),
        learnable_sink=None if inputs.sinks is None else inputs.sinks.to(inputs.q.dtype),
        num_splits=1,
    )  # fmt: skip
    if isinstance(attended, tuple):  # with the logarithms of the sums
        attended = attended[0]
    mine = torch.arange(shape.rows, device=inputs.q.device) < query_starts[-1]
    return torch.where(mine[:, None, None], attended, attended.new_zeros(()), out=out)
