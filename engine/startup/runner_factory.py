"""Chooses what runs a model's layers, and makes its runner."""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from transformers import PreTrainedModel

from ..engine_config import EngineConfig
from ..execution.cpu_runner import CpuRunner
from ..execution.hf_attention import attach
from ..execution.kv_cache import KVCache
from ..execution.runner_limits import RunnerLimits
from ..inspection.architecture import Architecture
from ..inspection.families import unfused_reason
from ..inspection.kv_geometry import one_copy_layers
from ..inspection.meta_model import Allocate
from ..model_errors import UnsupportedModelError
from ..models.cpu_linear import use_onednn_linear
from ..quantization.meta_modules import stored_linears
from ..quantization.quantization_config import MXFP4, Quantization
from ..scheduling.pages.page_pool import PageGroup
from .device_selection import kernels_experience, missing_kernels_reason

if TYPE_CHECKING:
    from ..execution.decoder_protocol import Decoder
    from ..execution.gpu_runner import GpuRunner

GPU_PAGE_SIZE, CPU_PAGE_SIZE = 64, 16
PLACEHOLDER_PAGES = 2  # of each group, until the cache is sized: the null page and another one


@dataclass(frozen=True, slots=True)
class FusedChoice:
    """Whether the fused decoder runs a model.

    Attributes:
        architecture: the architecture with the fused decoder's cache; ``None`` if it does not.
        reason: in words, why.
    """

    architecture: Architecture | None
    reason: str


def choose_fused(architecture: Architecture, config: EngineConfig, kernels: bool) -> FusedChoice:
    """Decide whether the fused decoder or transformers' modules run a model.

    Args:
        kernels: True if the GPU kernels will run.

    Raises:
        UnsupportedModelError: if ``config.fused`` is set, but the fused decoder cannot run the
            model.
    """
    if config.fused is False:
        return FusedChoice(None, "fused is set to False")
    if config.fused is None and not kernels:
        return FusedChoice(None, "the GPU kernels do not run")
    model_type = architecture.config.model_type
    reason = unfused_reason(architecture.config.to_dict())
    layers = one_copy_layers(architecture.config.to_dict(), architecture.layers)
    stored = architecture.quantization
    if reason is None and stored is not None and stored.method != MXFP4:
        reason = _stored_reason(architecture, stored)
    if reason is None and architecture.softcap:
        reason = "it caps its attention scores"
    if reason is None and layers is None:
        reason = "its layers with one copy of keys and values are not of a shape that kernels have"
    if reason is None:
        from ..models.fused.uncovered_tensors import uncovered_tensor

        reason = uncovered_tensor(architecture)
    if reason is None and layers is not None:
        return FusedChoice(replace(architecture, layers=layers), f"a row of {model_type}")
    if config.fused:
        raise UnsupportedModelError(
            f"There are no fused kernels for this {model_type} model: {reason}; leave fused at "
            "None."
        )
    return FusedChoice(None, str(reason))


def _stored_reason(architecture: Architecture, stored: Quantization) -> str | None:
    """Return why the fused decoder cannot run quantized linear layers; ``None`` if it can."""
    if architecture.config.to_dict().get("hidden_size_per_layer_input"):
        return f"its linear layers are stored in {stored}, and it has inputs for each layer"
    return None


def execution_path(
    runner: "CpuRunner | GpuRunner",
    choice: FusedChoice,
    architecture: Architecture,
    config: EngineConfig,
) -> str:
    """Say which path a model's steps take, and why, for the start-up table.

    The paths are the fused decoder, transformers' modules in captured graphs or launch by launch,
    and transformers' modules in plain PyTorch.
    """
    if isinstance(runner, CpuRunner):
        why = missing_kernels_reason(runner.device, architecture)
        if why is None and config.kernels is False:
            why = "kernels is set to False"
        return f"plain, PyTorch's own kernels, because {why}"
    decoder = runner.decoder
    chosen = f"{decoder.path}, {decoder.path_reason}"
    if runner.device.type == "cuda":
        chosen = f"{chosen}; {kernels_experience(runner.device)}"
    return chosen if choice.architecture else f"{chosen}; not fused, because {choice.reason}"


def parameter_allocator(fused: Architecture | None) -> Allocate | None:
    """Return what allocates a model's parameters as its runner needs them; ``None`` for any way."""
    if fused is None:
        return None
    from ..models.fused.projections import allocate_joined

    return allocate_joined


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
            alone stands in for transformers' modules and for quantized layers.
    """
    from ..execution.gpu_runner import GpuRunner

    cache = _placeholder_cache(model, architecture, page_size)
    decoder: Decoder
    # Quantized weights are only joined once they are there.
    if fused and not (for_warmup and any(stored_linears(model))):
        from ..models.fused.fused_decoder import FusedDecoder

        decoder = FusedDecoder(model, architecture, limits, page_size, for_warmup=for_warmup)
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
