"""Parameters of a model on a CPU: views of its files, which safetensors maps into memory.

Nothing is copied where the stored type is the model's; pages come from the page cache when they are
first touched. Copies into memory of the process' own were slower (docs/coldstart.md): each of
their pages must be made, cleared and filled.
"""

import time
from collections.abc import Sequence
from contextlib import ExitStack

import torch
from safetensors import SafetensorError, safe_open
from transformers import PreTrainedModel

from ..inspection.meta_model import fill_parameters, places
from ..model_errors import CheckpointError
from .gpu_loader import LoadReport
from .safetensors_headers import StoredTensor


def load_mapped(pairs: Sequence[tuple[StoredTensor, str]], model: PreTrainedModel) -> LoadReport:
    """Give a model from :func:`.skeleton.build` its parameters and persistent buffers.

    Args:
        pairs: what is stored, and the model's name for it; each parameter once.

    Raises:
        CheckpointError: where a file is no longer what its header said.
    """
    began = time.monotonic()
    wanted = places(model)
    made: dict[int, torch.Tensor] = {}
    try:
        with ExitStack() as stack:
            files = {
                file: stack.enter_context(safe_open(file, "pt"))
                for file in dict.fromkeys(stored.file for stored, _ in pairs)
            }
            for stored, name in pairs:
                place = wanted[name]
                tensor = files[stored.file].get_tensor(stored.name).to(place.dtype)
                if tensor.shape != place.shape:
                    raise CheckpointError(f"{stored.file} was replaced while it was loaded")
                if place.is_meta:
                    made[id(place)] = tensor
                else:
                    place.copy_(tensor)
    except (SafetensorError, OSError) as error:
        folder = pairs[0][0].file.parent
        raise CheckpointError(f"{folder} cannot be loaded: {error}") from error
    fill_parameters(model, lambda meta: made[id(meta)])
    return LoadReport.of(pairs, wanted, time.monotonic() - began)
