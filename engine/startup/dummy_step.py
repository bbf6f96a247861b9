"""Dummy steps: what the start runs to compile kernels and to measure memory."""

from typing import TYPE_CHECKING

import torch

from ..sampling_params import SamplingParams
from ..scheduling.scheduled_step import ScheduledTokens, StepPlan
from ..scheduling.sequence import Sequence

if TYPE_CHECKING:
    from ..execution.cpu_runner import CpuRunner
    from ..execution.gpu_runner import GpuRunner

    Runner = CpuRunner | GpuRunner

# Tokens of the steps that have kernels of their own, beside the largest step and those of single
# tokens: as many rows as a tool's short answer makes, and more rows than the kernels for few rows
# take but fewer than fill the tiles of those for many.
SHORT_STEP_TOKENS = (16, 32, 48, 128)


def dummy_step(
    runner: "Runner", running: int, tokens: int, context: int = 0, max_context: int = 1 << 30
) -> StepPlan:
    """Make a plan on the null page: single tokens, and as few chunks as the other tokens need.

    Args:
        running: sequences; one fewer if there would be no chunk otherwise.
        tokens: tokens of all sequences together.
        context: least length of each sequence, for steps whose memory grows with it.
        max_context: most tokens that a sequence can hold, at least 2.
    """
    params = SamplingParams(top_p=0.5, entropy=True)  # takes plain PyTorch the most memory
    running = max(1, min(running, tokens - 1))
    counts, left = [1] * running, max(1, tokens - running)
    for index in reversed(range(running)):
        more = min(left, max_context - 1)
        counts[index] += more
        left -= more
    scheduled = []
    for index, count in enumerate(counts):
        start = max(min(1, max_context - count), context - count)
        seq = Sequence(-1 - index, [0] * (start + count), 1, params, frozenset())
        pages = -(-(start + count) // runner.cache.page_size)
        seq.tables = [[0] * pages for _ in runner.cache.windows]
        entry = ScheduledTokens(seq, start=start, count=count, samples=True, carried=False, epoch=0)
        scheduled.append(entry)
    return StepPlan(scheduled)


def measure_step(runner: "Runner", *sizes: int, **limits: int) -> int:
    """Run a :func:`dummy_step`, and return the bytes that it allocates at its peak.

    Returns 0 on a CPU.
    """
    plan = dummy_step(runner, *sizes, **limits)
    device = runner.device
    if device.type != "cuda":
        runner.launch(plan).wait()
        return 0
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    runner.launch(plan).wait()
    torch.cuda.synchronize(device)
    return torch.cuda.max_memory_allocated(device) - before
