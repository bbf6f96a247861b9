"""A model without weights, and the places that its weights are read into."""

import copy
from collections.abc import Callable, Iterator

import torch
from accelerate import init_empty_weights
from torch import nn
from transformers import AutoModelForCausalLM, PretrainedConfig, PreTrainedModel
from transformers.initialization import no_init_weights

Allocate = Callable[[PreTrainedModel, torch.device, torch.dtype], None]
"""Gives every parameter of a model, which is on the meta device, its uninitialised final place.

Called as ``allocate(model, device, dtype)``. A parameter's own shape and dtype stand on its meta
tensor (``dtype`` is the model's); its place is contiguous, and may be a view of a larger tensor.
"""


def build(config: PretrainedConfig, dtype: torch.dtype) -> PreTrainedModel:
    """The model with its parameters on the meta device, tied ones being one, and real buffers.

    Buffers that no checkpoint holds, such as rotary frequencies, have their values.
    """
    with init_empty_weights(include_buffers=False), no_init_weights():
        model = AutoModelForCausalLM.from_config(copy.deepcopy(config), dtype=dtype)
    # In there, each parameter that is set becomes a new one, so that nothing could be tied.
    model.tie_weights()
    return model


def places(model: nn.Module) -> dict[str, torch.Tensor]:
    """Parameters and persistent buffers by every name they have."""
    found: dict[str, torch.Tensor] = dict(model.named_parameters(remove_duplicate=False))
    for prefix, module in model.named_modules():
        for name, buffer in module._buffers.items():
            if buffer is not None and name not in module._non_persistent_buffers_set:
                found[f"{prefix}.{name}" if prefix else name] = buffer
    return found


def materialise(
    model: PreTrainedModel,
    device: torch.device,
    dtype: torch.dtype,
    allocate: Allocate | None = None,
) -> None:
    """Put the model on its device, its parameters uninitialised."""
    wanted = {
        name: (parameter.shape, parameter.dtype, id(parameter))
        for name, parameter in model.named_parameters(remove_duplicate=False)
    }
    (allocate or allocate_plain)(model, device, dtype)
    for module in model.modules():
        for name, buffer in module._buffers.items():
            if buffer is not None:
                module._buffers[name] = buffer.to(device)
    check(model, device, wanted)


def allocate_plain(model: PreTrainedModel, device: torch.device, dtype: torch.dtype) -> None:
    """A tensor for each parameter (see :data:`Allocate`)."""
    fill_parameters(model, lambda meta: torch.empty(meta.shape, dtype=meta.dtype, device=device))


def fill_parameters(model: nn.Module, make: Callable[[nn.Parameter], torch.Tensor]) -> None:
    """Replace every parameter on the meta device by what is made of it; tied ones stay one."""
    made: dict[int, nn.Parameter] = {}
    for module, name, meta in _meta_parameters(model):
        if id(meta) not in made:
            made[id(meta)] = nn.Parameter(make(meta), requires_grad=meta.requires_grad)
        module._parameters[name] = made[id(meta)]


def _meta_parameters(model: nn.Module) -> Iterator[tuple[nn.Module, str, nn.Parameter]]:
    # All are found before one is replaced, so that no id is used again meanwhile.
    return iter(
        [
            (module, name, parameter)
            for module in model.modules()
            for name, parameter in module._parameters.items()
            if parameter is not None and parameter.is_meta
        ]
    )


def check(
    model: nn.Module,
    device: torch.device,
    wanted: dict[str, tuple[torch.Size, torch.dtype, int]],
) -> None:
    """Assert that every parameter has a place of its shape and type, tied ones still being one."""
    at: dict[int, int] = {}
    for name, place in model.named_parameters(remove_duplicate=False):
        shape, dtype, identity = wanted[name]
        assert place.device.type == device.type, f"{name} is on {place.device}"
        assert place.shape == shape, f"{name} has shape {tuple(place.shape)}"
        assert place.dtype == dtype, f"{name} is {place.dtype}"
        assert place.is_contiguous(), f"{name} is not contiguous"
        assert at.setdefault(identity, place.data_ptr()) == place.data_ptr(), f"{name} is not tied"
