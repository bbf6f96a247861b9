"""Gives a model on the meta device the modules whose weights its checkpoint stores quantized."""

from torch import nn
from transformers import PreTrainedModel

from eightfold.kernels.experts.mxfp4_reference import DTYPES

from ..model_errors import UnsupportedModelError
from .mxfp4_experts import Mxfp4Experts
from .quantization_config import Quantization

MXFP4_EXPERTS_CLASS = "GptOssExperts"  # of transformers


def use_stored_weights(model: PreTrainedModel, quantization: Quantization) -> int:
    """Replace the modules of a model on the meta device that hold quantized weights.

    Returns:
        The number of modules replaced.

    Raises:
        UnsupportedModelError: if a module's shape or the model's type does not allow it.
    """
    if model.dtype not in DTYPES:
        raise UnsupportedModelError(
            f"Weights in MXFP4 do not fit {str(model.dtype).removeprefix('torch.')}; set dtype to "
            "bfloat16 or float32."
        )
    chosen = [
        (parent, child_name, child)
        for name, parent in model.named_modules()
        for child_name, child in parent.named_children()
        if type(child).__name__ == MXFP4_EXPERTS_CLASS
        and quantization.converts(f"{name}.{child_name}")
    ]
    for parent, name, child in chosen:
        setattr(parent, name, Mxfp4Experts(child))
    return len(chosen)


def has_stored_weights(model: nn.Module) -> bool:
    """Return whether a model has modules of :func:`use_stored_weights`."""
    return any(isinstance(module, Mxfp4Experts) for module in model.modules())
