"""Choose, by measurement, the attention layers whose prefill chunks flash-attn computes faster."""

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
    uses_flash4,
)

ERROR_LIMIT = 1e-2  # relative Frobenius norm; two right results in bfloat16 differ by about 3e-3
WARM_CALLS, TIMED_CALLS = 2, 7
SLEEP_CYCLES = 2_000_000  # about a millisecond
logger = logging.getLogger(__name__)


def autotune_prefill(
    specs: Iterable[AttentionSpec], limits: PrefillLimits
) -> frozenset[AttentionSpec]:
    """Return the kinds of layers whose prefill chunks flash-attn computes faster on this device.

    Both ways run on random data in the layers' shapes. If the outputs differ by more than
    ``ERROR_LIMIT``, flash-attn is not used. Nothing is measured if it is not installed.

    Args:
        specs: kinds of attention layers; repeated ones are measured once.
        limits: size of the largest prefill step, which is the one measured.
    """
    flash4 = uses_flash4(limits.device)
    if not flash4 and not (device_supported(limits.device) and is_installed()):
        return frozenset()
    with torch.inference_mode():
        return frozenset(spec for spec in dict.fromkeys(specs) if _flash_is_faster(spec, limits))


def _flash_is_faster(spec: AttentionSpec, limits: PrefillLimits) -> bool:
    reason = unsupported_reason(spec, limits)
    if reason is not None:
        logger.info("Attention of %s uses the built-in kernel: %s.", spec, reason)
        return False
    inputs = benchmark_inputs(spec, limits)
    wanted, found = (torch.full_like(inputs["q"], float("nan")) for _ in range(2))
    paged_prefill(**inputs, out=wanted)
    try:
        flash_prefill(**inputs, out=found)
        error = (found.float() - wanted.float()).norm() / wanted.float().norm()
        agrees = bool(error < ERROR_LIMIT)  # False for NaN, too
    except Exception as failure:  # a build for another GPU or version can raise anything
        logger.warning(
            "flash-attn is not used for attention of %s, because it failed: %s", spec, failure
        )
        return False
    if not agrees:
        logger.warning(
            "flash-attn is not used for attention of %s, because its result differs by %.2g.",
            spec,
            float(error),
        )
        return False
    own = median_device_ms(lambda: paged_prefill(**inputs, out=wanted))
    flash = median_device_ms(lambda: flash_prefill(**inputs, out=found))
    logger.info(
        "Attention of %s takes %.3f ms with the built-in kernel and %.3f ms with flash-attn "
        "(%d rows).",
        spec,
        own,
        flash,
        limits.max_rows,
    )
    return flash < own


def benchmark_inputs(spec: AttentionSpec, limits: PrefillLimits) -> dict[str, Any]:
    """Return random arguments of ``paged_prefill`` for one chunk of ``limits.max_rows`` tokens.

    The chunk follows as many tokens as its window reaches back, or, without a window, as many as
    it has itself. The page table has ``limits.max_sequences`` rows, like those of the engine; all
    but the first are empty.
    """
    rows, size, device = limits.max_rows, limits.page_size, limits.device
    length = rows + (spec.window - 1 if spec.window else rows)
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
        "q": random(rows, spec.heads, spec.head_dim),
        "key_cache": random(pages + 1, size, spec.kv_heads, spec.head_dim),
        "value_cache": random(pages + 1, size, spec.kv_heads, spec.head_dim),
        "page_table": page_table,
        "query_starts": query_starts,
        "seq_lens": seq_lens,
        "first_pos": torch.zeros_like(seq_lens),
        "window": spec.window,
        "scale": spec.head_dim**-0.5,
        "sinks": random(spec.heads) if spec.sinks else None,
    }


def median_device_ms(call: Callable[[], object]) -> float:
    """Return the median time in milliseconds that a call takes on the device.

    The time that the host needs to launch it does not count.
    """
    for _ in range(WARM_CALLS):
        call()
    times = []
    for _ in range(TIMED_CALLS):
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        # In a step the host is ahead of the device. Here it gets ahead while the device sleeps.
        torch.cuda._sleep(SLEEP_CYCLES)
        begin.record()
        call()
        end.record()
        end.synchronize()
        times.append(begin.elapsed_time(end))
    return statistics.median(times)
