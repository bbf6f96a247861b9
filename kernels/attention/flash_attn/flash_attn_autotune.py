"""Which attention layers' chunks flash-attn computes faster, by a trial on the device."""

import logging
import statistics
from collections.abc import Callable, Iterable
from typing import Any

import torch

from ..paged_prefill import paged_prefill
from .flash_attn_prefill import (
    AttentionSpec,
    PrefillLimits,
    device_supported,
    flash_prefill,
    is_installed,
    unsupported_reason,
)

ERROR_LIMIT = 1e-2  # relative Frobenius; two right results in bfloat16 differ by about 3e-3
WARM_CALLS, TIMED_CALLS = 2, 7
HEAD_START = 2_000_000  # cycles, about a millisecond
logger = logging.getLogger(__name__)


def autotune_prefill(
    kinds: Iterable[AttentionSpec], limits: PrefillLimits
) -> frozenset[AttentionSpec]:
    """The kinds of layers whose chunks flash-attn computes faster on this device, measured.

    Both ways run on random data in the layers' shapes; where the outputs differ by more than
    ``ERROR_LIMIT`` flash-attn is not used. Nothing is measured where it is not is_installed.
    """
    if not device_supported(limits.device) or not is_installed():
        return frozenset()
    with torch.inference_mode():
        return frozenset(kind for kind in dict.fromkeys(kinds) if _faster(kind, limits))


def _faster(kind: AttentionSpec, limits: PrefillLimits) -> bool:
    why = unsupported_reason(kind, limits)
    if why is not None:
        logger.info("attention of %s: by our kernel; %s", kind, why)
        return False
    case = benchmark_inputs(kind, limits)
    wanted, found = (torch.full_like(case["q"], float("nan")) for _ in range(2))
    paged_prefill(**case, out=wanted)
    try:
        flash_prefill(**case, out=found)
        error = (found.float() - wanted.float()).norm() / wanted.float().norm()
        agrees = bool(error < ERROR_LIMIT)  # not where it is NaN
    except Exception as failure:  # whatever a build for another GPU or version raises
        logger.warning("attention of %s: flash-attn is not used: %s", kind, failure)
        return False
    if not agrees:
        logger.warning(
            "attention of %s: flash-attn is not used: it differs by %.2g", kind, float(error)
        )
        return False
    own = median_device_ms(lambda: paged_prefill(**case, out=wanted))
    flash = median_device_ms(lambda: flash_prefill(**case, out=found))
    logger.info(
        "attention of %s, %d rows: our kernel %.3f ms, flash-attn %.3f ms",
        kind,
        limits.max_rows,
        own,
        flash,
    )
    return flash < own


def benchmark_inputs(kind: AttentionSpec, limits: PrefillLimits) -> dict[str, Any]:
    """Arguments of a step whose one chunk of ``rows`` tokens follows a window, or as many tokens.
    The tables have room for ``sequences``, as those of the engine have."""
    rows, size, device = limits.max_rows, limits.page_size, limits.device
    length = rows + (kind.window - 1 if kind.window else rows)
    pages = -(-length // size)
    generator = torch.Generator(device).manual_seed(0)

    def random(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator, device=device, dtype=limits.dtype)

    page_table = torch.zeros(
        limits.max_sequences, -(-pages // 16) * 16, dtype=torch.int32, device=device
    )
    page_table[0, :pages] = torch.randperm(pages, generator=generator, device=device) + 1
    seq_lens = torch.zeros(limits.max_sequences, dtype=torch.int32, device=device)
    seq_lens[0] = length
    query_starts = torch.full((limits.max_sequences + 1,), rows, dtype=torch.int32, device=device)
    query_starts[0] = 0
    return {
        "q": random(rows, kind.heads, kind.head_dim),
        "key_cache": random(pages + 1, size, kind.kv_heads, kind.head_dim),
        "value_cache": random(pages + 1, size, kind.kv_heads, kind.head_dim),
        "page_table": page_table,
        "query_starts": query_starts,
        "seq_lens": seq_lens,
        "first_pos": torch.zeros_like(seq_lens),
        "window": kind.window,
        "scale": kind.head_dim**-0.5,
    }


def median_device_ms(call: Callable[[], object]) -> float:
    """Median milliseconds that a call takes on the device, without the host's."""
    for _ in range(WARM_CALLS):
        call()
    times = []
    for _ in range(TIMED_CALLS):
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        # In a step the host is ahead of the device; here it catches up while the device waits.
        torch.cuda._sleep(HEAD_START)
        begin.record()
        call()
        end.record()
        end.synchronize()
        times.append(begin.elapsed_time(end))
    return statistics.median(times)
