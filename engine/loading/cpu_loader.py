"""Gives a model on a CPU views of its files as parameters; safetensors maps the files into memory.

Nothing is copied if the stored type is the model's. Pages come from the OS page cache when they are
first touched. Copies into the process's own memory were slower (docs/loading.md), because each of
their pages must be allocated, cleared and filled.
"""

import time
from collections.abc import Sequence
from contextlib import ExitStack

import torch
from safetensors import SafetensorError, safe_open
from transformers import PreTrainedModel

from ..inspection.meta_model import named_tensors, replace_meta_parameters
from ..model_errors import CheckpointError
from .gpu_loader import LoadReport
from .safetensors_headers import StoredTensor


def map_weights(pairs: Sequence[tuple[StoredTensor, str]], model: PreTrainedModel) -> LoadReport:
    """Replace a model's parameters by views of its files, and fill its persistent buffers.

    Args:
        pairs: each stored tensor, and the model's name for it; each parameter occurs once.
        model: a model from :func:`..inspection.meta_model.build_meta_model`.

    Raises:
        CheckpointError: if a file no longer is what its header said.
    """
    began = time.monotonic()
    wanted = named_tensors(model)
    mapped: dict[int, torch.Tensor] = {}
    try:
        with ExitStack() as stack:
            files = {
                file: stack.enter_context(safe_open(file, "pt"))
                for file in dict.fromkeys(stored.file for stored, _ in pairs)
            }
            for stored, name in pairs:
                destination = wanted[name]
                tensor = files[stored.file].get_tensor(stored.name).to(destination.dtype)
                if tensor.numel() == 1:  # [1] or without axes
                    tensor = tensor.reshape(destination.shape)
                if tensor.shape != destination.shape:
                    raise CheckpointError(
                        f"{stored.file} was replaced while it was loaded; load it again."
                    )
                if destination.is_meta:
                    mapped[id(destination)] = tensor
                else:
                    destination.copy_(tensor)
    except (SafetensorError, OSError) as error:
        folder = pairs[0][0].file.parent
        raise CheckpointError(f"{folder} cannot be loaded: {error}.") from error
    replace_meta_parameters(model, lambda meta: mapped[id(meta)])
    return LoadReport.of(pairs, wanted, time.monotonic() - began)
