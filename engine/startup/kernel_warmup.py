"""Compiles the kernels of a model while its weights are read: every kind of step, run once."""

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from transformers import PreTrainedModel

from eightfold.common.error_text import one_line

from ..engine_config import EngineConfig, SamplingParams
from ..execution.kv_cache import KVCache
from ..inspection.architecture import Architecture, attention_modules
from ..scheduling.page_tables import PageGroup
from ..scheduling.scheduled_step import ScheduledTokens, StepPlan
from ..scheduling.sequence import Sequence
from ..worker_thread import WorkerThread

if TYPE_CHECKING:
    from eightfold.kernels.attention.attention_dispatch import PagedBatch

logger = logging.getLogger(__name__)

GPU_PAGE_SIZE = 64
# Tokens of the steps that have kernels of their own beside the largest one and those of single
# tokens: of as many rows as a tool's short answer makes, and of more rows than the kernels for few
# take but fewer than fill the tiles of those for many.
SHORT_TOKENS = (16, 32, 48, 128)
# What a rehearsal beside the load is made for, at most: tokens of a sequence and of a step's chunk.
# No kernel is another one for more.
CONTEXT, CHUNK = 1024, 1024
MAX_CANDIDATES, ROW_ROOM = 1 << 30, 4 << 20  # bytes that must be free for it: in all, and per decode row


@contextmanager
def rehearsal(
    model: PreTrainedModel, architecture: Architecture, config: EngineConfig, fused: bool
) -> Iterator[None]:
    """Compiles the kernels on a thread while the body reads the weights into their places.

    Each kind of step is launched once, without graphs. Its launches read the weights' places,
    whatever is there by then, and write to memory of their own alone; being in the default stream,
    none of them runs beside a launch of another engine. What fails is told in the log. When the
    body ends the thread is waited for; where it raises, up to the end of the step it is in.

    Args:
        model: with all its parameters on their device, uninitialised.
        fused: whether the fused layers will run; else attention and draw alone are rehearsed.
    """
    stopped = threading.Event()
    run = (model, architecture, config, fused, stopped)
    thread = WorkerThread(target=_run, args=run, name="rehearsal")
    try:
        thread.start()
        yield
        thread.join()
    finally:
        stopped.set()
        if thread.ident is not None:
            thread.join()


def _run(
    model: PreTrainedModel,
    architecture: Architecture,
    config: EngineConfig,
    fused: bool,
    stopped: threading.Event,
) -> None:
    began = time.monotonic()
    device = model.device
    on_gpu = device.type == "cuda"
    try:
        with torch.cuda.device(device) if on_gpu else nullcontext():
            if on_gpu and torch.cuda.mem_get_info(device)[0] < MAX_CANDIDATES + ROW_ROOM * config.max_running:
                logger.info("no kernels are compiled beside the load: too little memory is free")
                return
            for step in _steps(model, architecture, config, fused):
                if stopped.is_set():
                    return
                step()
            if on_gpu:
                torch.cuda.current_stream(device).synchronize()
    except Exception as error:  # whatever it is, the start itself meets it again or does without
        logger.warning(
            "the kernels are compiled after the load, not beside it: %s",
            one_line(error),
        )
        return
    logger.info("kernels compiled in %.1f s beside the load", time.monotonic() - began)


def _steps(
    model: PreTrainedModel, architecture: Architecture, config: EngineConfig, fused: bool
) -> Iterator[Callable[[], object]]:
    """Launches of the steps that the start runs and captures, in memory made for them."""
    from ..execution.decoder import Limits
    from ..execution.gpu_runner import GpuRunner

    device, page_size = model.device, config.page_size or GPU_PAGE_SIZE
    tokens = min(config.max_step_tokens, config.max_running + CHUNK)
    limits = Limits(config.max_running, tokens, max(CONTEXT, tokens + 1))
    small = [PageGroup(window, 2) for window in architecture.windows]
    cache = KVCache(architecture, small, page_size, device, model.dtype)
    decoder: Any
    if fused:
        from ..models.gemma4_decoder import Gemma4Decoder

        decoder = Gemma4Decoder(model, architecture, limits, page_size)
    else:
        decoder = _AttentionOnly(model, architecture, cache, limits.workspace)
    vocabulary = model.get_input_embeddings().num_embeddings
    runner = GpuRunner(decoder, cache, limits, vocabulary, device, graphs=False)
    # One row before a chunk puts what belongs to it off the alignment that kernels are made for.
    pair = (min(2, limits.running), 48)
    for running, most in ((limits.running, tokens), pair, *((1, most) for most in SHORT_TOKENS)):
        yield partial(runner.launch, largest_step(runner, running, min(most, tokens)))
    for size in limits.decode_sizes:
        yield partial(runner.compile, size)


class _AttentionOnly:
    """Stands in for a decoder of transformers' modules, which weights of any value might break.

    The GPU kernels under such a model are those of attention and of the draw.
    """

    softcap = 0.0
    capturable = False

    def __init__(
        self,
        model: PreTrainedModel,
        architecture: Architecture,
        cache: KVCache,
        workspace: Callable[..., int],
    ) -> None:
        self._heads = int(architecture.config.num_attention_heads)
        self._vocabulary = model.get_input_embeddings().num_embeddings
        self._layers = {
            (layer.window, layer.kv_heads, layer.head_dim): (layer, getattr(module, "sinks", None))
            for layer, module in zip(architecture.layers, attention_modules(model), strict=True)
        }
        room = [workspace(layer, self._heads, cache.page_size) for layer in architecture.layers]
        self._workspace = torch.empty(max(room), device=model.device)

    def logits(
        self,
        tokens: torch.Tensor,
        positions: torch.Tensor,
        batches: dict[int | None, "PagedBatch"],
        cache: KVCache,
        rows: torch.Tensor | None,
    ) -> torch.Tensor:
        """Zeros, after one layer of each kind has attended (see the protocol)."""
        from eightfold.kernels.attention.attention_dispatch import attend

        for layer, sinks in self._layers.values():
            keys, values = cache.layers[layer.index]
            query = keys.new_zeros(len(tokens), self._heads, layer.head_dim)
            attend(
                query, keys, values, batches[layer.window], torch.zeros_like(query),
                window=layer.window, scale=layer.head_dim**-0.5, sinks=sinks,
                workspace=self._workspace,
            )  # fmt: skip
        count = len(tokens) if rows is None else len(rows)
        return keys.new_zeros(count, self._vocabulary)


def largest_step(
    runner: Any, running: int, tokens: int, context: int = 0, longest: int = 1 << 30
) -> StepPlan:
    """A step on the null page: single tokens, and as few chunks as the other tokens take.

    Args:
        running: sequences; one less where only then there is a chunk. tokens: of all together.
        context: tokens of each sequence, where what a step takes grows with them.
        longest: most tokens that a sequence can hold, at least 2.
    """
    params = SamplingParams(top_p=0.5, entropy=True)  # what plain PyTorch needs most memory for
    running = max(1, min(running, tokens - 1))
    counts, left = [1] * running, max(1, tokens - running)
    for index in reversed(range(running)):
        more = min(left, longest - 1)
        counts[index] += more
        left -= more
    scheduled = []
    for index, count in enumerate(counts):
        start = max(min(1, longest - count), context - count)
        seq = Sequence(-1 - index, [0] * (start + count), 1, params, frozenset())
        pages = -(-(start + count) // runner.cache.page_size)
        seq.tables = [[0] * pages for _ in runner.cache.windows]
        scheduled.append(
            ScheduledTokens(seq, start=start, count=count, samples=True, carried=False, epoch=0)
        )
    return StepPlan(scheduled)
