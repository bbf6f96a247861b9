"""Makes the drafter that the settings name."""

from pathlib import Path
from typing import TYPE_CHECKING

from transformers import PreTrainedModel

from ..inspection.architecture import Architecture
from ..model_errors import UnsupportedModelError
from .drafter import Drafter
from .mtp.assistant_checkpoint import (
    DRAFTERS_RUN,
    AssistantCheckpoint,
    LoadedAssistant,
    read_assistant,
)
from .ngram.ngram_drafter import NgramDrafter

if TYPE_CHECKING:
    from ..execution.cpu_runner import CpuRunner
    from ..execution.gpu_runner import GpuRunner


OWN_FOLDER = "drafter"
"""Sub-folder of a model's folder in which ``auto`` looks for the model's drafter."""


def choose_drafter(
    speculate: str,
    model: str | Path | PreTrainedModel,
    architecture: Architecture,
    kernels: bool,
    fused: bool,
) -> Drafter | AssistantCheckpoint | None:
    """Return what ``EngineConfig.speculate`` names, before any weight is read.

    Args:
        model: the model's folder, or the model if it exists already.
        architecture: the model's, with the layers of its cache.
        kernels: True if the GPU kernels verify drafts.
        fused: True if the fused decoder runs the model.

    Returns:
        The drafter, the checkpoint of one with weights, or ``None`` for none.

    Raises:
        ValueError: if the name is neither a drafter nor a folder.
        CheckpointError: if the folder's files are missing or broken.
        UnsupportedModelError: if the folder holds no drafter, one of another model, or one that
            cannot run here.
    """
    if speculate == "off":
        return None
    own = None if isinstance(model, PreTrainedModel) else Path(model) / OWN_FOLDER
    if speculate == "auto" and DRAFTERS_RUN and own is not None and own.is_dir():
        checkpoint = read_assistant(own, architecture)
        if _obstacle(checkpoint, kernels, fused) is None:
            return checkpoint
    if speculate in ("auto", "ngram"):
        # Attention to trees has only run in Triton's interpreter so far, not on a GPU.
        return NgramDrafter(branches=not kernels)
    if not Path(speculate).is_dir():
        raise ValueError(
            f"speculate must be 'auto', 'off', 'ngram' or a drafter's folder, and {speculate!r} is "
            "not a folder."
        )
    checkpoint = read_assistant(speculate, architecture)
    obstacle = _obstacle(checkpoint, kernels, fused)
    if obstacle is not None:
        raise UnsupportedModelError(f"The drafter in {speculate} {obstacle}")
    return checkpoint


def _obstacle(checkpoint: AssistantCheckpoint, kernels: bool, fused: bool) -> str | None:
    """Return why a drafter that fits its model cannot run here, as the end of a sentence."""
    if kernels and not fused:
        return (
            "needs the fused decoder or plain PyTorch, but this model runs in transformers' "
            "modules over the GPU kernels; use 'ngram'."
        )
    if kernels and checkpoint.config.use_ordered_embeddings:
        return (
            "has a head of centroids, which runs in plain PyTorch only so far; use 'ngram', or set "
            "kernels to False."
        )
    return None


def make_drafter(
    chosen: Drafter | LoadedAssistant,
    runner: "CpuRunner | GpuRunner",
    architecture: Architecture,
    most: int,
) -> Drafter:
    """Return the drafter, over the runner's cache if it has weights.

    Args:
        architecture: as in :func:`choose_drafter`.
        most: most drafts of a sequence in a step.
    """
    if not isinstance(chosen, LoadedAssistant):
        return chosen
    from ..execution.cpu_runner import CpuRunner
    from .mtp.assistant_drafter import AssistantDrafter

    if isinstance(runner, CpuRunner):
        return AssistantDrafter(chosen, runner)
    from .mtp.kernel_assistant import KernelAssistantDrafter

    return KernelAssistantDrafter(chosen, runner, architecture, most)
