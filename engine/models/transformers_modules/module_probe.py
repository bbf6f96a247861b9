"""Runs a model once, and keeps what its modules were given and what they returned."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers import AttentionInterface, PreTrainedModel

from eightfold.kernels.module_ops.rotate_and_write import rotate_reference

from ...execution.hf_attention import NAME, PagedAttentionLayer

PROBE = "eightfold_module_probe"
TOKENS = 5
LIMITS = {torch.float32: 1e-4, torch.float16: 4e-3, torch.bfloat16: 1e-2}
"""Largest relative difference of what a stand-in computes, by type."""


@dataclass(frozen=True, slots=True)
class RecordedCall:
    """A call of a module."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    outputs: tuple[torch.Tensor, ...]


def _attention(
    module: nn.Module, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, *_: Any,
    **__: Any,
) -> tuple[torch.Tensor, None]:  # fmt: skip
    """Mix queries, keys and values so that a difference in any of them shows."""
    layer: PagedAttentionLayer = module.eightfold_layer  # type: ignore[assignment]
    heads = query.shape[1]
    q, k, v = (x[0].transpose(0, 1) for x in (query, key, value))
    rotation = layer.take_rotation()
    if rotation is not None:
        cos, sin, layout = rotation
        q, k = (rotate_reference(x, cos, sin, layout).to(x.dtype) for x in (q, k))
    k, v = (x.repeat_interleave(heads // x.shape[1], dim=1) for x in (k, v))
    return (q + 2 * k + v).unsqueeze(0), None


class ModuleProbe:
    """Calls of a model's modules during one forward pass of a few tokens.

    Attention itself is replaced during the pass.

    Args:
        model: has paged attention attached (see ``hf_attention.attach``).
        positions: number of positions that the model will be used for.
    """

    def __init__(self, model: PreTrainedModel, positions: int) -> None:
        self._model = model
        self.positions = positions
        device, vocabulary = model.device, model.get_input_embeddings().num_embeddings
        generator = torch.Generator().manual_seed(0)
        tokens = torch.randint(vocabulary, (1, TOKENS), generator=generator)
        at = [min(position, positions - 1) for position in (1, 2, 30, 31, 100)]
        self.inputs = {
            "input_ids": tokens.to(device),
            "position_ids": torch.tensor([at], device=device),
        }
        self.calls: dict[nn.Module, list[RecordedCall]] = {}

    @contextmanager
    def attention_replaced(self) -> Iterator[None]:
        """Replace attention in the body by one that needs no cache."""
        AttentionInterface.register(PROBE, _attention)
        self._model.set_attn_implementation(PROBE)
        try:
            yield
        finally:
            self._model.set_attn_implementation(NAME)

    def run(self) -> None:
        """Run the model."""
        with torch.inference_mode(), self.attention_replaced():
            self._model(**self.inputs, use_cache=False)

    def record(self, modules: Iterable[nn.Module]) -> None:
        """Run the model, and keep the calls of these modules."""
        hooks = [module.register_forward_hook(self._keep, with_kwargs=True) for module in modules]
        try:
            self.run()
        finally:
            for hook in hooks:
                hook.remove()

    def _keep(
        self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any
    ) -> None:
        # Copies, because a model may go on working in the same memory.
        copied = tuple(arg.clone() if isinstance(arg, torch.Tensor) else arg for arg in args)
        outputs = tuple(
            each.clone()
            for each in (output if isinstance(output, tuple) else (output,))
            if isinstance(each, torch.Tensor)
        )
        self.calls.setdefault(module, []).append(RecordedCall(copied, kwargs, outputs))

    def agrees(self, module: nn.Module, stand_in: Callable[..., Any]) -> bool:
        """Return whether a stand-in gives what ``module`` gave for the same arguments."""
        calls = self.calls.get(module, [])
        with torch.inference_mode(), self.attention_replaced():
            return bool(calls) and all(_agrees(call, stand_in) for call in calls)


def _agrees(call: RecordedCall, stand_in: Callable[..., Any]) -> bool:
    try:
        found = stand_in(*call.args, **call.kwargs)
    except Exception:  # it does not take such arguments
        return False
    found = tuple(
        each
        for each in (found if isinstance(found, tuple) else (found,))
        if isinstance(each, torch.Tensor)
    )
    return len(found) == len(call.outputs) > 0 and all(
        _close(each, wanted) for each, wanted in zip(found, call.outputs, strict=True)
    )


def _close(found: torch.Tensor, wanted: torch.Tensor) -> bool:
    if found.shape != wanted.shape or found.dtype != wanted.dtype:
        return False
    error = (found.double() - wanted.double()).norm() / wanted.double().norm()
    return bool(error.nan_to_num(float("inf")) < LIMITS.get(wanted.dtype, 0.0))
