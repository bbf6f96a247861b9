"""Compiles the kernels of a model while its weights load, by running every kind of step once."""

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from functools import partial

import torch
from transformers import PreTrainedModel

from eightfold.common.error_text import first_line

from ..engine_config import EngineConfig
from ..execution.runner_limits import RunnerLimits
from ..inspection.architecture import Architecture
from ..worker_thread import WorkerThread
from .dummy_step import SHORT_STEP_TOKENS, dummy_step
from .runner_factory import GPU_PAGE_SIZE, make_gpu_runner

logger = logging.getLogger(__name__)

# Largest sequence and chunk, in tokens, that the warmup is made for. Larger ones run the same
# kernels; only experts have others for larger chunks.
MAX_CONTEXT, MAX_CHUNK = 1024, 1024
# Bytes that must be free for the warmup: in all, and for each decode row.
MIN_FREE_BYTES, BYTES_PER_ROW = 1 << 30, 4 << 20


@contextmanager
def kernel_warmup(
    model: PreTrainedModel, architecture: Architecture, config: EngineConfig, fused: bool
) -> Iterator[None]:
    """Compile the kernels on a thread while the body reads the weights.

    Each kind of step is launched once, without graphs. The launches read the parameters, whatever
    they hold by then, and write to memory of their own alone. Since they are in the default stream,
    none of them runs beside a launch of another engine. A failure is logged, not raised. At the end
    of the body the thread is waited for; if the body raises, the thread stops after the step that
    it is in.

    Args:
        model: has all its parameters on their device, uninitialized.
        fused: True if the fused layers will run, else only attention and sampling are warmed up.
    """
    stopped = threading.Event()
    arguments = (model, architecture, config, fused, stopped)
    thread = WorkerThread(target=_run, args=arguments, name="kernel-warmup")
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
    needed = MIN_FREE_BYTES + BYTES_PER_ROW * config.max_running
    try:
        with torch.cuda.device(device) if on_gpu else nullcontext():
            if on_gpu and torch.cuda.mem_get_info(device)[0] < needed:
                logger.info("no kernels are compiled beside the load: too little memory is free")
                return
            for step in _steps(model, architecture, config, fused):
                if stopped.is_set():
                    return
                step()
            if on_gpu:
                torch.cuda.current_stream(device).synchronize()
    except Exception as error:  # the start meets the same error again, or does without the step
        logger.warning(
            "the kernels are compiled after the load, not beside it: %s: %s",
            type(error).__name__,
            first_line(error),
        )
        return
    logger.info("kernels compiled in %.1f s beside the load", time.monotonic() - began)


def _steps(
    model: PreTrainedModel, architecture: Architecture, config: EngineConfig, fused: bool
) -> Iterator[Callable[[], object]]:
    """Launches of the kinds of steps that the start runs and captures, in memory of their own."""
    from ..execution.gpu_batch import decode_layouts
    from ..models.fused.fused_decoder import FusedDecoder

    tokens = config.max_step_tokens
    if not any(".experts." in name for name, _ in model.named_parameters()):
        tokens = min(tokens, config.max_running + MAX_CHUNK)
    limits = RunnerLimits(
        config.max_running,
        tokens,
        max(MAX_CONTEXT, tokens + 1),
        config.step_drafts,
    )
    runner = make_gpu_runner(
        model, architecture, limits, config.page_size or GPU_PAGE_SIZE, fused=fused, for_warmup=True
    )
    running = limits.max_running
    sizes = [(running, tokens)]
    # One row before a chunk takes the chunk's pointers off the alignment that kernels specialize
    # on.
    sizes.append((min(2, running), 48))
    sizes += [(1, short) for short in SHORT_STEP_TOKENS]
    if isinstance(runner.decoder, FusedDecoder) and runner.decoder.experts is not None:
        sizes += [(1, count) for count in runner.decoder.experts.step_tokens]
    for sequences, most in sizes:
        yield partial(runner.launch, dummy_step(runner, sequences, min(most, tokens)))
    for layout in decode_layouts(limits):
        yield partial(runner.compile, layout)
