"""Puts a model on its device: the runner, and a cache of the size that memory allows."""

from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import torch
from transformers import PreTrainedModel

from eightfold.common.host_memory import available_memory, total_memory

from ..engine_config import EngineConfig
from ..execution.cpu_runner import Runner
from ..execution.hf_attention import bind
from ..execution.kv_cache import KVCache, size_groups
from ..inspection.architecture import Architecture
from ..inspection.meta_model import Allocate
from ..model_errors import ModelError, UnsupportedModelError
from ..models.cpu_linear import pack
from ..scheduling.page_tables import PageGroup
from .kernel_warmup import GPU_PAGE_SIZE, SHORT_TOKENS, largest_step

CPU_MEMORY_FRACTION = 0.25
# Of what is free once weights, buffers and the largest step are accounted for. Without our kernels
# each step allocates, in pieces that do not fit together as they did in the rehearsal.
GPU_MEMORY_FRACTION, PLAIN_MEMORY_FRACTION = 0.99, 0.9
GRAPH_BYTES = 384 << 20  # captured graphs and the code of kernels compiled later
STEP_SHARE = 0.25  # of the free memory, which a step without our kernels may take
CPU_PAGE_SIZE = 16


@dataclass(frozen=True, slots=True)
class Placement:
    """A model ready to run.

    bytes_of: what takes how much memory on the device, in bytes, for the start-up table.
    """

    runner: Any
    groups: list[PageGroup]
    page_size: int
    max_context: int
    bytes_of: dict[str, int]


def fused_architecture(
    architecture: Architecture, config: EngineConfig, kernels: bool
) -> Architecture | None:
    """The architecture for the fused kernels; ``None`` where transformers' modules will run.

    Raises:
        UnsupportedModelError: where ``config.fused`` asks for what there is not.
    """
    if config.fused is False or (config.fused is None and not kernels):
        return None
    from ..models.gemma4_decoder import one_copy_architecture

    fused = one_copy_architecture(architecture)
    if fused is None and config.fused:
        raise UnsupportedModelError(
            f"there are no fused kernels for this {architecture.config.model_type} model; "
            "leave fused at None"
        )
    return fused


def allocation(fused: Architecture | None) -> Allocate | None:
    """Where a model's parameters are to lie; ``None``: anywhere."""
    if fused is None:
        return None
    from ..models.gemma4_decoder import allocate_joint

    return allocate_joint


def place(
    model: PreTrainedModel,
    architecture: Architecture,
    config: EngineConfig,
    kernels: bool,
    fused: bool,
) -> Placement:
    """Make the runner and size the cache.

    Raises:
        ModelError: where the memory does not suffice.
    """
    if not kernels and not fused:
        return _plainly(model, architecture, config)
    return _by_kernels(model, architecture, config, fused)


def _plainly(model: PreTrainedModel, architecture: Architecture, config: EngineConfig) -> Placement:
    """transformers' modules and plain PyTorch, on a CPU or on any GPU."""
    device, width = model.device, model.dtype.itemsize
    page_size = config.page_size or CPU_PAGE_SIZE
    if device.type == "cpu":
        pack(model)
        budget = int(_host_memory() * (config.memory_fraction or CPU_MEMORY_FRACTION))
        groups, context = size_groups(architecture, config, page_size, width, budget)
        cache = KVCache(architecture, groups, page_size, device, model.dtype)
        runner = Runner(model, cache, bind(model, architecture, cache))
        return Placement(runner, groups, page_size, context, _bytes_of(model, cache, 0, 0))
    _, context = size_groups(architecture, config, page_size, width, _free(device))
    small = [PageGroup(window, 2) for window in architecture.windows]
    cache = KVCache(architecture, small, page_size, device, model.dtype)
    runner = Runner(model, cache, bind(model, architecture, cache))
    step, longest = _largest_step(runner, config, context)
    budget = int((_free(device) - step) * (config.memory_fraction or PLAIN_MEMORY_FRACTION))
    if budget <= 0:
        raise ModelError(_no_room(config))
    groups, context = size_groups(architecture, config, page_size, width, budget)
    cache.allocate(groups)
    bytes_of = _bytes_of(model, cache, 0, step)
    return Placement(runner, groups, page_size, min(context, longest), bytes_of)


def _largest_step(runner: Runner, config: EngineConfig, context: int) -> tuple[int, int]:
    """Bytes of the largest step without our kernels, and the context that it was rehearsed with.

    Keys and values are gathered for it, the more the longer the sequences are: the context is
    halved until what the step takes leaves enough for the cache.

    Raises:
        ModelError: where no context is short enough.
    """
    while True:
        allowed = int(_free(runner.device) * STEP_SHARE)
        short = context <= config.max_step_tokens  # a step takes no less for shorter ones
        with suppress(torch.OutOfMemoryError):
            step = rehearse(runner, config.max_running, config.max_step_tokens, context)
            if step <= allowed or short:
                return step, context
        if short:
            raise ModelError(_no_room(config))
        context //= 2


def _no_room(config: EngineConfig) -> str:
    return (
        f"the largest step leaves no memory for the KV cache; lower max_step_tokens "
        f"({config.max_step_tokens}), max_running ({config.max_running}) or max_context"
    )


def _by_kernels(
    model: PreTrainedModel, architecture: Architecture, config: EngineConfig, fused: bool
) -> Placement:
    from eightfold.kernels.attention.flash_attn.flash_attn_prefill import PrefillLimits
    from eightfold.kernels.attention.flash_attn.flash_attn_autotune import autotune_prefill

    from ..execution.decoder import Limits
    from ..execution.gpu_runner import GpuRunner, attention_specs

    device, width = model.device, model.dtype.itemsize
    page_size = config.page_size or GPU_PAGE_SIZE
    # A first sizing, of all that is free, bounds the context that tables are made for.
    free = _free(device)
    _, context = size_groups(architecture, config, page_size, width, free)
    limits = Limits(config.max_running, config.max_step_tokens, context)
    small = [PageGroup(window, 2) for window in architecture.windows]
    before = _allocated(device)
    cache = KVCache(architecture, small, page_size, device, model.dtype)
    decoder: Any
    if fused:
        from ..models.gemma4_decoder import Gemma4Decoder

        decoder = Gemma4Decoder(model, architecture, limits, page_size)
    else:
        from ..models.hf_decoder import ModuleDecoder

        decoder = ModuleDecoder(model, architecture, cache, limits)
    vocabulary = model.get_input_embeddings().num_embeddings
    graphs = device.type == "cuda" and decoder.capturable
    runner = GpuRunner(decoder, cache, limits, vocabulary, device, graphs)
    buffers = _allocated(device) - before - cache.nbytes
    runner.flash_attn_specs = autotune_prefill(
        attention_specs(architecture, model),
        PrefillLimits(limits.rows, limits.decode_rows, page_size, model.dtype, device),
    )
    step = rehearse(runner, limits.running, limits.step_tokens, longest=context)
    for tokens in SHORT_TOKENS:  # what cuBLAS keeps for itself counts, too
        short = rehearse(runner, 1, min(tokens, limits.step_tokens), longest=context)
        step = max(step, short)
    budget = int(
        (_free(device) - step - GRAPH_BYTES) * (config.memory_fraction or GPU_MEMORY_FRACTION)
    )
    if budget <= 0:
        raise ModelError(_no_room(config))
    groups, context = size_groups(architecture, config, page_size, width, budget)
    cache.allocate(groups)
    runner.warm_up()
    bytes_of = _bytes_of(model, cache, buffers, step)
    return Placement(runner, groups, page_size, min(context, limits.context), bytes_of)


def rehearse(runner: Any, *sizes: int, **limits: int) -> int:
    """Run a step of ``largest_step(runner, ...)``; bytes that it took beside what was there."""
    plan = largest_step(runner, *sizes, **limits)
    device = runner.device
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    before = _allocated(device)
    runner.launch(plan).wait()
    if device.type != "cuda":
        return 0
    torch.cuda.synchronize(device)
    return torch.cuda.max_memory_allocated(device) - before


def _bytes_of(model: PreTrainedModel, cache: KVCache, buffers: int, step: int) -> dict[str, int]:
    weights = {t.data_ptr(): t.nbytes for t in (*model.parameters(), *model.buffers())}
    found = {
        "weights": sum(weights.values()),
        "buffers": buffers,
        "largest step": step,
        "KV cache": cache.nbytes,
    }
    if model.device.type == "cuda":
        free = _free(model.device)
        total = torch.cuda.get_device_properties(model.device).total_memory
        # The context, the kernels' code and their local memory.
        found["CUDA and others"] = total - free - torch.cuda.memory_reserved(model.device)
        found["left"] = free
    return found


def _allocated(device: torch.device) -> int:
    return torch.cuda.memory_allocated(device) if device.type == "cuda" else 0


def _free(device: torch.device) -> int:
    """Bytes free on the device now, cached blocks of the allocator included."""
    if device.type != "cuda":
        return int(_host_memory() * CPU_MEMORY_FRACTION)
    torch.cuda.empty_cache()
    return torch.cuda.mem_get_info(device)[0]


def _host_memory() -> int:
    """Bytes that can be allocated without swapping, or half of all if that is unknown."""
    found = available_memory()
    return total_memory() // 2 if found is None else found
