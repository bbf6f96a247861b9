"""Refuses quantized weights whose values show that a file is damaged or is not what it says."""

from pathlib import Path

import torch
from torch import nn

from ...model_errors import CheckpointError
from ...quantization.mxfp4_experts import Mxfp4Experts
from ...quantization.stored_linear import StoredLinear

MXFP4_LARGEST = 252  # 6 * 2 ** (252 - 127) is a number in bfloat16 and float32; 255 says "none"
# The zero points of a symmetric checkpoint, 8, read as those of the other version of GPTQ.
OTHER_VERSION = {"gptq": 9, "gptq_v2": 7}


def check_stored_values(folder: Path, model: nn.Module) -> None:
    """Check the scales and zero points of a model's quantized linear layers and experts.

    Args:
        folder: the model folder, for the message.
        model: the model with its weights.

    Raises:
        CheckpointError: if a scale is infinite or not a number, or if all zero points of a GPTQ
            checkpoint are those of its other version.
    """
    layers = {
        name: module for name, module in model.named_modules() if isinstance(module, StoredLinear)
    }
    fine = {name: each.matrix.scales.isfinite().all() for name, each in layers.items()}
    for name, module in model.named_modules():
        if isinstance(module, Mxfp4Experts):
            scales = (module.gate_up_proj_scales, module.down_proj_scales)
            fine[name] = torch.stack([(each <= MXFP4_LARGEST).all() for each in scales]).all()
    if not fine:
        return
    # One wait for the device, not one for each layer.
    finite = torch.stack(list(fine.values())).tolist()
    broken = [name for name, whole in zip(fine, finite, strict=True) if not whole]
    if broken:
        more = f" and {len(broken) - 1} more" if broken[1:] else ""
        raise CheckpointError(
            f"{folder} has scales of quantized weights that are infinite or not a number: those "
            f"of {broken[0]}{more}; copy the checkpoint again, or use another one."
        )
    mistaken = [
        (each.matrix.zeros == OTHER_VERSION[each.stored.packing]).all()
        for each in layers.values()
        if each.stored.packing in OTHER_VERSION and each.matrix.zeros is not None
    ]
    if mistaken and bool(torch.stack(mistaken).all()):
        raise CheckpointError(
            f"{folder} has the zero points of GPTQ's other version than config.json says; set "
            'checkpoint_format in its quantization_config to "gptq" or "gptq_v2", whichever it is '
            "not now."
        )
