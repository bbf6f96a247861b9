"""Sizes the KV cache: how many pages fit in the memory that weights and steps leave free."""

from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from transformers import PreTrainedModel

from eightfold.common.host_memory import available_memory, total_memory

from ..engine_config import EngineConfig
from ..execution.cpu_runner import CpuRunner
from ..execution.kv_cache import KVCache
from ..execution.runner_limits import RunnerLimits
from ..inspection.architecture import Architecture
from ..inspection.kv_geometry import bytes_per_page
from ..model_errors import ModelError
from ..quantization.meta_modules import stored_linears
from ..scheduling.pages.page_pool import PageGroup
from .dummy_step import SHORT_STEP_TOKENS, measure_step
from .runner_factory import CPU_PAGE_SIZE, GPU_PAGE_SIZE, make_cpu_runner, make_gpu_runner

if TYPE_CHECKING:
    from ..execution.gpu_runner import GpuRunner

CPU_MEMORY_FRACTION = 0.25
# Of what is free after weights, buffers and the largest step. Without our kernels each step
# allocates, in pieces that need not fit together as well as when they were measured.
GPU_MEMORY_FRACTION, PLAIN_MEMORY_FRACTION = 0.99, 0.9
GRAPH_BYTES = 384 << 20  # captured graphs, and the code of kernels compiled later
STEP_FRACTION = 0.25  # of the free memory that a step without our kernels may take


@dataclass(frozen=True, slots=True)
class SizedRunner:
    """A runner with its cache allocated.

    Attributes:
        groups: page groups of the cache.
        max_context: most tokens that one sequence can hold.
        bytes_of: bytes on the device by what takes them, for the start-up table.
    """

    runner: "CpuRunner | GpuRunner"
    groups: list[PageGroup]
    page_size: int
    max_context: int
    bytes_of: dict[str, int]


def make_sized_runner(
    model: PreTrainedModel,
    architecture: Architecture,
    config: EngineConfig,
    kernels: bool,
    fused: bool,
) -> SizedRunner:
    """Make the runner of a model, and allocate as large a cache as memory allows.

    Args:
        kernels: True for the GPU kernels.
        fused: True for the fused layers.

    Raises:
        ModelError: if there is too little memory.
        ValueError: if ``config`` limits the memory of a GPU, but there is none in use.
    """
    if config.gpu_memory_bytes is not None and model.device.type != "cuda":
        raise ValueError("gpu_memory_bytes needs a GPU; leave it at None on a CPU.")
    if kernels or fused:
        return _for_kernels(model, architecture, config, fused)
    if model.device.type == "cpu":
        return _for_cpu(model, architecture, config)
    return _for_plain_gpu(model, architecture, config)


def _for_cpu(
    model: PreTrainedModel, architecture: Architecture, config: EngineConfig
) -> SizedRunner:
    page_size, itemsize = config.page_size or CPU_PAGE_SIZE, model.dtype.itemsize
    weights = _weight_bytes(model)
    runner = make_cpu_runner(model, architecture, page_size)
    budget = int(_host_memory() * (config.memory_fraction or CPU_MEMORY_FRACTION))
    groups, context = size_page_groups(architecture, config, page_size, itemsize, budget)
    runner.cache.allocate(groups)
    bytes_of = _bytes_of(model, weights, config, runner.cache, 0, 0)
    return SizedRunner(runner, groups, page_size, context, bytes_of)


def _for_plain_gpu(
    model: PreTrainedModel, architecture: Architecture, config: EngineConfig
) -> SizedRunner:
    """For transformers' modules in plain PyTorch on a GPU."""
    device, itemsize, weights = model.device, model.dtype.itemsize, _weight_bytes(model)
    page_size = config.page_size or CPU_PAGE_SIZE
    free = _free_memory(device, config)
    _, context = size_page_groups(architecture, config, page_size, itemsize, free)
    runner = make_cpu_runner(model, architecture, page_size)
    step, max_context = _measure_plain_step(runner, config, context)
    share = config.memory_fraction or PLAIN_MEMORY_FRACTION
    budget = int((_free_memory(device, config) - step) * share)
    if budget <= 0:
        raise ModelError(_no_room(config))
    groups, context = size_page_groups(architecture, config, page_size, itemsize, budget)
    runner.cache.allocate(groups)
    bytes_of = _bytes_of(model, weights, config, runner.cache, 0, step)
    return SizedRunner(runner, groups, page_size, min(context, max_context), bytes_of)


def _measure_plain_step(runner: CpuRunner, config: EngineConfig, context: int) -> tuple[int, int]:
    """Measure the largest step without our kernels: its bytes, and the context it was run with.

    The step gathers keys and values, more of them for longer sequences. The context is halved until
    the step leaves enough memory for the cache.

    Raises:
        ModelError: if no context is short enough.
    """
    while True:
        allowed = int(_free_memory(runner.device, config) * STEP_FRACTION)
        short = context <= config.max_step_tokens  # a shorter one would not make the step smaller
        with suppress(torch.OutOfMemoryError):
            step = measure_step(runner, config.max_running, config.max_step_tokens, context)
            if step <= allowed or short:
                return step, context
        if short:
            raise ModelError(_no_room(config))
        context //= 2


def _no_room(config: EngineConfig) -> str:
    return (
        f"The largest step leaves no memory for the KV cache; lower max_step_tokens "
        f"({config.max_step_tokens}), max_running ({config.max_running}) or max_context."
    )


def _for_kernels(
    model: PreTrainedModel, architecture: Architecture, config: EngineConfig, fused: bool
) -> SizedRunner:
    from eightfold.kernels.attention.flash_attn.flash_attn_autotune import autotune_prefill
    from eightfold.kernels.attention.flash_attn.flash_attn_prefill import PrefillLimits

    from ..execution.gpu_runner import flash_attn_candidates

    device, itemsize, weights = model.device, model.dtype.itemsize, _weight_bytes(model)
    page_size = config.page_size or GPU_PAGE_SIZE
    # A first sizing, of all free memory, bounds the context that tables are made for.
    free = _free_memory(device, config)
    _, context = size_page_groups(architecture, config, page_size, itemsize, free)
    limits = RunnerLimits(config.max_running, config.max_step_tokens, context, config.step_drafts)
    before = _allocated(device)
    runner = make_gpu_runner(model, architecture, limits, page_size, fused=fused)
    buffers = max(0, _allocated(device) - before - runner.cache.nbytes)
    runner.flash_attn_specs = autotune_prefill(
        flash_attn_candidates(architecture, model),
        PrefillLimits(limits.rows, limits.decode_rows, page_size, model.dtype, device),
    )
    step = measure_step(runner, limits.max_running, limits.max_step_tokens, max_context=context)
    # For short steps cuBLAS keeps memory of its own.
    for tokens in sorted({min(tokens, limits.max_step_tokens) for tokens in SHORT_STEP_TOKENS}):
        step = max(step, measure_step(runner, 1, tokens, max_context=context))
    budget = kernels_cache_budget(_free_memory(device, config), step, config)
    if budget <= 0:
        raise ModelError(_no_room(config))
    groups, context = size_page_groups(architecture, config, page_size, itemsize, budget)
    runner.cache.allocate(groups)
    runner.capture_graphs()
    bytes_of = _bytes_of(model, weights, config, runner.cache, buffers, step)
    return SizedRunner(runner, groups, page_size, min(context, limits.max_context), bytes_of)


def kernels_cache_budget(free: int, step: int, config: EngineConfig) -> int:
    """Return the bytes that the cache may take of a GPU that runs our kernels.

    Args:
        free: bytes that weights and buffers leave.
        step: bytes of the largest step.
    """
    return int((free - step - GRAPH_BYTES) * (config.memory_fraction or GPU_MEMORY_FRACTION))


def size_page_groups(
    architecture: Architecture, config: EngineConfig, page_size: int, itemsize: int, budget: int
) -> tuple[list[PageGroup], int]:
    """Divide a budget among the page groups.

    The pools of sliding windows get what ``max_running`` sequences need at most, but no more than
    half of the budget, or what full attention cannot use if that is more. The pool of full
    attention gets the rest, up to ``max_running`` full contexts.

    Args:
        itemsize: bytes of a cached element.
        budget: bytes.

    Returns:
        The groups, and the most tokens that one sequence can hold.

    Raises:
        ModelError: if not even one sequence of two pages fits.
    """
    size, windows = page_size, architecture.windows
    context = min(config.max_context or architecture.max_positions, architecture.max_positions)
    page_bytes = {
        window: bytes_per_page(architecture.layers, window, itemsize, size) for window in windows
    }
    counts: dict[int | None, int] = {}
    contexts = max(3, config.max_running * -(-context // size) + 1)
    sliding_room, left = budget, budget
    if None in windows and len(windows) > 1:
        full_bytes = page_bytes[None] * min(contexts, config.full_pages or contexts)
        sliding_room = max(budget // 2, budget - full_bytes)
    for window in sorted(windows, key=lambda window: window is None):
        wanted, needed = contexts, 0
        if window is not None:
            kept = window + config.rewind_tokens
            needed = -(-min(context, kept + config.max_step_tokens) // size) + 2
            wanted = min(max(wanted, needed + 1), _sliding_pages(config, kept, size))
        given = config.full_pages if window is None else config.sliding_pages
        room = left if window is None else sliding_room
        count = given if given is not None else min(wanted, room // page_bytes[window])
        if count < 3:
            raise ModelError(
                f"{budget / 2**30:.2f} GiB are free for the KV cache, which does not hold two "
                f"pages of {size} tokens; free memory or lower page_size."
            )
        counts[window] = count
        left -= count * page_bytes[window]
        if window is None:
            context = min(context, (count - 1) * size)
        elif needed > count - 1:
            raise ModelError(
                f"A window of {window} tokens and a step of {config.max_step_tokens} need "
                f"{needed} sliding pages, but there are {count - 1}; lower max_step_tokens."
            )
    share = config.offload_bytes / sum(counts[window] * page_bytes[window] for window in windows)
    rewind = config.rewind_tokens
    groups = [PageGroup(w, counts[w], int(counts[w] * share), rewind) for w in windows]
    return groups, context


def _sliding_pages(config: EngineConfig, kept: int, page_size: int) -> int:
    """Pages with which the last sequence is admitted while all others decode.

    ``kept`` is the number of tokens whose pages a sequence keeps: its window, and what a rewind may
    need. Each of the others keeps tokens that start anywhere in a page, and the page that it grows
    into. The scheduler keeps one more page for each sequence in reserve, and asks for the pages of
    a whole chunk.
    """
    held = -(-(kept + page_size) // page_size) + 1
    chunk = -(-(kept + config.max_step_tokens) // page_size) + 2
    return (config.max_running - 1) * held + chunk + config.max_running + 1


def _weight_bytes(model: PreTrainedModel) -> int:
    """Bytes of a model's tensors, of which runners may join some and drop the parts."""
    plain = {t.data_ptr(): t.nbytes for t in (*model.parameters(), *model.buffers())}
    return sum(plain.values()) + sum(layer.matrix.nbytes for layer in stored_linears(model))


def _bytes_of(
    model: PreTrainedModel,
    weights: int,
    config: EngineConfig,
    cache: KVCache,
    buffers: int,
    step: int,
) -> dict[str, int]:
    found = {
        "weights": weights,
        "buffers": buffers,
        "largest step": step,
        "KV cache": cache.nbytes,
    }
    if model.device.type == "cuda":
        found["left"] = _free_memory(model.device, config)
        free, total = torch.cuda.mem_get_info(model.device)
        # The context, the kernels' code and their local memory.
        found["CUDA and others"] = total - free - torch.cuda.memory_reserved(model.device)
    return found


def _allocated(device: torch.device) -> int:
    return torch.cuda.memory_allocated(device) if device.type == "cuda" else 0


def _free_memory(device: torch.device, config: EngineConfig) -> int:
    """Bytes that are free on the device; on a CPU, the share that the cache may take by default.

    Cached blocks of PyTorch's allocator are given back first.
    """
    if device.type != "cuda":
        return int(_host_memory() * CPU_MEMORY_FRACTION)
    torch.cuda.empty_cache()
    return limited_free(*torch.cuda.mem_get_info(device), config.gpu_memory_bytes)


def limited_free(free: int, total: int, limit: int | None) -> int:
    """Return the free bytes of a GPU of ``total`` bytes of which ``limit`` may be used."""
    return free if limit is None else max(0, free - max(0, total - limit))


def _host_memory() -> int:
    """Bytes that can be allocated without swapping; half of all memory if that is unknown."""
    available = available_memory()
    return total_memory() // 2 if available is None else available
