"""Says in one sentence what is wrong with the tensors of a checkpoint, and what to do."""

import re
from pathlib import Path

from ...model_errors import CheckpointError
from ...quantization.quantization_config import Quantization
from ..weight_matching import WeightMatching

# Tensors of a multimodal checkpoint's other parts, which are not loaded.
OTHER_MODALITIES = re.compile(
    r"(model\.)?(vision_tower|vision_model|visual|embed_vision|audio_tower|embed_audio"
    r"|multi_modal_projector)\."
)
# Tensors that only quantized weights have.
QUANTIZED_PARTS = re.compile(
    r"(_blocks|_scales|weight_scale|weight_scale_inv|weight_packed|weight_zero_point|qweight"
    r"|qzeros|scales)$"
)
MAX_NAMED = 5


def check_matching(
    folder: Path, matching: WeightMatching, *, wrapped: bool, quantization: Quantization | None
) -> None:
    """Check that every tensor of a checkpoint has its place, and every place its tensor.

    Args:
        folder: the model folder, for the message.
        matching: the result of matching names, shapes and types.
        wrapped: True if the checkpoint is a multimodal model around the text model.
        quantization: how config.json says that the weights are stored.

    Raises:
        CheckpointError: for the first kind of fault that the matching found.
    """
    unexpected = [
        name for name in matching.unexpected if not (wrapped and OTHER_MODALITIES.match(name))
    ]
    for fault, names in (
        ("tensors of the wrong shape", matching.mismatched),
        ("missing tensors", matching.missing),
        ("unexpected tensors", unexpected),
        ("tensors of the wrong type", matching.inconvertible),
    ):
        if names:
            more = len(names) - MAX_NAMED
            shown = ", ".join(names[:MAX_NAMED]) + (f" and {more} more" if more > 0 else "")
            advice = _advice(matching, quantization)
            raise CheckpointError(f"{folder} has {fault}: {shown}; {advice}.")


def _advice(matching: WeightMatching, quantization: Quantization | None) -> str:
    if quantization is not None and matching.missing:
        return (
            f"config.json says that weights are stored as {quantization.method}: copy the "
            "checkpoint again, or config.json if they are not"
        )
    if quantization is None and any(map(QUANTIZED_PARTS.search, matching.unexpected)):
        return (
            "weights are quantized, but config.json has no quantization_config: copy config.json "
            "again"
        )
    return "copy the checkpoint again, or config.json if it is another model's"
