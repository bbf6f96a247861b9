"""Models on the meta device, and the allocation of the parameters that weights are read into."""

import copy
from collections.abc import Callable, Iterator

import torch
from accelerate import init_empty_weights
from torch import nn
from transformers import AutoModelForCausalLM, PretrainedConfig, PreTrainedModel
from transformers.initialization import no_init_weights

Allocate = Callable[[PreTrainedModel, torch.device, torch.dtype], None]
"""Replaces every parameter of a model on the meta device by an uninitialized tensor.

Called as ``allocate(model, device, dtype)``. A parameter keeps the shape and dtype of its meta
tensor (``dtype`` is the model's). The new tensor is contiguous, and may be a view of a larger one.
"""


def build_meta_model(config: PretrainedConfig, dtype: torch.dtype) -> PreTrainedModel:
    """Build a model with its parameters on the meta device; tied parameters are one.

    Buffers are real, and those that no checkpoint holds, such as rotary frequencies, have their
    values.
    """
    with init_empty_weights(include_buffers=False), no_init_weights():
        model = AutoModelForCausalLM.from_config(copy.deepcopy(config), dtype=dtype)
    # Within the context each parameter that is assigned becomes a new one, which unties it.
    model.tie_weights()
    return model


def named_tensors(model: nn.Module) -> dict[str, torch.Tensor]:
    """Return parameters and persistent buffers by every name that they have."""
    found: dict[str, torch.Tensor] = dict(model.named_parameters(remove_duplicate=False))
    for prefix, module in model.named_modules():
        for name, buffer in module._buffers.items():
            if buffer is not None and name not in module._non_persistent_buffers_set:
                found[f"{prefix}.{name}" if prefix else name] = buffer
    return found


def materialize(
    model: PreTrainedModel,
    device: torch.device,
    dtype: torch.dtype,
    allocate: Allocate | None = None,
) -> None:
    """Move a model from the meta device to ``device``, with uninitialized parameters.

    Args:
        allocate: by default :func:`allocate_parameters`.
    """
    wanted = {
        name: (parameter.shape, parameter.dtype, id(parameter))
        for name, parameter in model.named_parameters(remove_duplicate=False)
    }
    (allocate or allocate_parameters)(model, device, dtype)
    for module in model.modules():
        for name, buffer in module._buffers.items():
            if buffer is not None:
                module._buffers[name] = buffer.to(device)
    _check_parameters(model, device, wanted)


def allocate_parameters(model: PreTrainedModel, device: torch.device, dtype: torch.dtype) -> None:
    """Allocate a tensor for each parameter (see :data:`Allocate`)."""
    replace_meta_parameters(
        model, lambda meta: torch.empty(meta.shape, dtype=meta.dtype, device=device)
    )


def replace_meta_parameters(model: nn.Module, make: Callable[[nn.Parameter], torch.Tensor]) -> None:
    """Replace every parameter on the meta device by what ``make`` returns; tied ones stay tied."""
    made: dict[int, nn.Parameter] = {}
    for module, name, meta in _meta_parameters(model):
        if id(meta) not in made:
            made[id(meta)] = nn.Parameter(make(meta), requires_grad=meta.requires_grad)
        module._parameters[name] = made[id(meta)]


def _meta_parameters(model: nn.Module) -> Iterator[tuple[nn.Module, str, nn.Parameter]]:
    # A list, so that all are found before one is replaced, and no id is used a second time.
    return iter(
        [
            (module, name, parameter)
            for module in model.modules()
            for name, parameter in module._parameters.items()
            if parameter is not None and parameter.is_meta
        ]
    )


def _check_parameters(
    model: nn.Module,
    device: torch.device,
    wanted: dict[str, tuple[torch.Size, torch.dtype, int]],
) -> None:
    """Assert that every parameter is on the device, and that tied ones are still tied.

    Args:
        wanted: shape, dtype and id that each parameter had on the meta device.
    """
    address_of: dict[int, int] = {}
    for name, place in model.named_parameters(remove_duplicate=False):
        shape, dtype, identity = wanted[name]
        assert place.device.type == device.type, f"{name} is on {place.device}"
        assert place.shape == shape, f"{name} has shape {tuple(place.shape)}"
        assert place.dtype == dtype, f"{name} is {place.dtype}"
        assert place.is_contiguous(), f"{name} is not contiguous"
        address = address_of.setdefault(identity, place.data_ptr())
        assert address == place.data_ptr(), f"{name} is not tied"
