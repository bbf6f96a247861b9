"""Chooses what runs a model's layers, and makes its runner."""

from typing import TYPE_CHECKING

from transformers import PreTrainedModel

from ..engine_config import EngineConfig
from ..execution.cpu_runner import CpuRunner
from ..execution.hf_attention import attach
from ..execution.kv_cache import KVCache
from ..execution.runner_limits import RunnerLimits
from ..inspection.architecture import Architecture
from ..inspection.meta_model import Allocate
from ..model_errors import UnsupportedModelError
from ..models.cpu_linear import use_onednn_linear
from ..scheduling.pages.page_pool import PageGroup

if TYPE_CHECKING:
    from ..execution.decoder_protocol import Decoder
    from ..execution.gpu_runner import GpuRunner

GPU_PAGE_SIZE, CPU_PAGE_SIZE = 64, 16
PLACEHOLDER_PAGES = 2  # of each group, until the cache is sized: the null page and another one


def fused_architecture(
    architecture: Architecture, config: EngineConfig, kernels: bool
) -> Architecture | None:
    """Return the architecture for the fused layers; ``None`` if transformers' modules will run.

    Args:
        kernels: True if the GPU kernels will run.

    Raises:
        UnsupportedModelError: if ``config.fused`` is set, but the model has no fused layers.
    """
    if config.fused is False or (config.fused is None and not kernels):
        return None
    from ..models.gemma4_decoder import one_copy_architecture

    fused = one_copy_architecture(architecture)
    if fused is None and config.fused:
        raise UnsupportedModelError(
            f"There are no fused kernels for this {architecture.config.model_type} model; "
            "leave fused at None."
        )
    return fused


def parameter_allocator(fused: Architecture | None) -> Allocate | None:
    """Return what allocates a model's parameters as its runner needs them; ``None`` for any way."""
    if fused is None:
        return None
    from ..models.fused_projections import allocate_fused

    return allocate_fused


def make_cpu_runner(
    model: PreTrainedModel, architecture: Architecture, page_size: int
) -> CpuRunner:
    """Make a runner of transformers' modules in plain PyTorch, on a CPU or on any GPU.

    Its cache has placeholder pages: ``runner.cache.allocate`` gives it its size.
    """
    if model.device.type == "cpu":
        use_onednn_linear(model)
    cache = _placeholder_cache(model, architecture, page_size)
    return CpuRunner(model, cache, attach(model, architecture, cache))


def make_gpu_runner(
    model: PreTrainedModel,
    architecture: Architecture,
    limits: RunnerLimits,
    page_size: int,
    *,
    fused: bool,
    for_warmup: bool = False,
) -> "GpuRunner":
    """Make a runner of the GPU kernels.

    Its cache has placeholder pages: ``runner.cache.allocate`` gives it its size.

    Args:
        fused: True for the fused layers, else transformers' modules run over the kernels.
        for_warmup: True if the weights are not there yet: nothing is captured then, and attention
            alone stands in for transformers' modules.
    """
    from ..execution.gpu_runner import GpuRunner

    cache = _placeholder_cache(model, architecture, page_size)
    decoder: Decoder
    if fused:
        from ..models.gemma4_decoder import Gemma4Decoder

        decoder = Gemma4Decoder(model, architecture, limits, page_size)
    elif for_warmup:
        from ..models.attention_only_decoder import AttentionOnlyDecoder

        decoder = AttentionOnlyDecoder(model, architecture, limits, page_size)
    else:
        from ..models.hf_decoder import HFDecoder

        decoder = HFDecoder(model, architecture, cache, limits)
    vocabulary = model.get_input_embeddings().num_embeddings
    graphs = model.device.type == "cuda" and decoder.capturable and not for_warmup
    return GpuRunner(decoder, cache, limits, vocabulary, model.device, graphs)


def _placeholder_cache(
    model: PreTrainedModel, architecture: Architecture, page_size: int
) -> KVCache:
    groups = [PageGroup(window, PLACEHOLDER_PAGES) for window in architecture.windows]
    return KVCache(architecture, groups, page_size, model.device, model.dtype)
