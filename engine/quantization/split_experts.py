"""Experts as linear layers of their own, as checkpoints store them, in place of stacked tensors."""

from collections.abc import Collection, Iterable
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from eightfold.kernels.experts.expert_weights import Activation, ExpertWeights
from eightfold.kernels.experts.stored.expert_stack import StoredStack, stack_matrices

from ..model_errors import UnsupportedModelError
from .expert_sum import sum_of_experts
from .stored_linear import StoredLinear

GATE_UP, DOWN = "gate_up_proj", "down_proj"
STACKED = {GATE_UP, DOWN}  # the tensors of a module of experts that can be divided
NAMES = ("gate_proj", "up_proj", "down_proj")
SHORT_NAMES = ("w1", "w3", "w2")
SHORT_NAMED = frozenset({"lfm2_moe", "minimax", "minimax_m2", "mixtral", "phimoe"})
"""Model types in whose checkpoints an expert's layers have :data:`SHORT_NAMES`."""


class SplitExperts(nn.Module):
    """Computes what transformers' stacked experts do, with the layers of each as modules.

    The children are named by the experts' numbers.

    Attributes:
        act_fn: the activation.
        names: names of an expert's layers: gate, up and down.
        weights: what our kernels multiply with; ``None`` at first, for plain PyTorch.

    Args:
        experts: the module of transformers that this one replaces, on the meta device;
            ``is_divisible``.
        names: see above.
    """

    def __init__(self, experts: nn.Module, names: tuple[str, str, str] = NAMES) -> None:
        super().__init__()
        source: Any = experts
        self.act_fn, self.names = source.act_fn, names
        self.weights: ExpertWeights | None = None
        gate_up = source.get_parameter(GATE_UP)
        self.num_experts, rows, hidden = gate_up.shape
        shapes = dict(zip(names, ((hidden, rows // 2),) * 2 + ((rows // 2, hidden),), strict=True))
        for number in range(self.num_experts):
            layers = {name: _linear(*shape, gate_up.dtype) for name, shape in shapes.items()}
            self.add_module(str(number), nn.ModuleDict(layers))

    def layers(self, expert: int) -> tuple[Any, Any, Any]:
        """Return an expert's layers: gate, up and down."""
        child = self.get_submodule(str(expert))
        gate, up, down = (child.get_submodule(name) for name in self.names)
        return gate, up, down

    def stacked(self, activation: Activation) -> ExpertWeights:
        """Return the weights of all experts; layers that are stored quantized lose theirs.

        Args:
            activation: the kernels' name of ``act_fn``.

        Raises:
            UnsupportedModelError: if experts are stored in different ways.
        """
        weights = ExpertWeights(activation, gate_up=self._stack(0, 1), down=self._stack(2))
        weights.check()
        return weights

    def _stack(self, *places: int) -> torch.Tensor | StoredStack:
        layers = [self.layers(i)[place] for i in range(self.num_experts) for place in places]
        stored = [layer for layer in layers if isinstance(layer, StoredLinear)]
        if not stored:
            weights = torch.stack([layer.weight.data for layer in layers])
            for layer, weight in zip(layers, weights, strict=True):
                layer.weight.data = weight
            return weights.view(self.num_experts, -1, weights.shape[-1])
        try:
            if len(stored) < len(layers):
                raise ValueError("Some of the experts are not quantized.")
            found = stack_matrices([layer.matrix for layer in stored], len(places))
        except ValueError as error:
            raise UnsupportedModelError(
                "Our kernels need experts that are stored in the same way; set kernels to False."
            ) from error
        for layer in stored:
            del layer.matrix
        if found.codes.is_cuda:  # else the next layer's would take parts of the freed blocks
            torch.cuda.empty_cache()
        return found

    def forward(
        self, hidden_states: torch.Tensor, top_k_index: torch.Tensor, top_k_weights: torch.Tensor
    ) -> torch.Tensor:
        """Return the weighted sum of each token's experts.

        Args:
            hidden_states: [T, hidden].
            top_k_index: [T, experts of a token], none of them twice.
            top_k_weights: [T, experts of a token].

        Returns:
            [T, hidden].
        """
        if self.weights is not None:
            return self._multiply(self.weights, hidden_states, top_k_index, top_k_weights)
        return sum_of_experts(hidden_states, top_k_index, top_k_weights, self._expert)

    def _expert(self, expert: int, x: torch.Tensor) -> torch.Tensor:
        gate, up, down = self.layers(expert)
        rows: torch.Tensor = down(self.act_fn(gate(x)) * up(x))
        return rows

    def _multiply(
        self, experts: ExpertWeights, x: torch.Tensor, ids: torch.Tensor, weights: torch.Tensor
    ) -> torch.Tensor:
        from eightfold.kernels.experts.experts_forward import (
            experts_forward,
            experts_workspace_size,
        )

        x, (rows, top_k) = x.contiguous(), ids.shape
        size = experts_workspace_size(rows, top_k, experts, x.dtype)
        workspace = torch.empty(size, device=x.device)
        ids, weights = ids.int().contiguous(), weights.float().contiguous()
        return experts_forward(x, ids, weights, experts, torch.empty_like(x), workspace)


def _linear(inputs: int, outputs: int, dtype: torch.dtype) -> nn.Linear:
    """Return a linear layer on the meta device, without the initialization, which takes longer."""
    layer = nn.Linear.__new__(nn.Linear)
    nn.Module.__init__(layer)
    layer.in_features, layer.out_features = inputs, outputs
    layer.weight = nn.Parameter(torch.empty(outputs, inputs, dtype=dtype, device="meta"))
    layer.register_parameter("bias", None)
    return layer


def is_divisible(module: nn.Module) -> bool:
    """Return whether a module holds stacked experts that :class:`SplitExperts` can replace.

    They have gate and up rows one after the other, no biases, and nothing between the layers but
    the activation.
    """
    tensors = dict(module.named_parameters(recurse=False))
    if tensors.keys() != STACKED or any(each.dim() != 3 for each in tensors.values()):
        return False
    (experts, rows, hidden), down = tensors[GATE_UP].shape, tensors[DOWN].shape
    apply = getattr(type(module), "_apply_gate", None)
    return (
        tuple(down) == (experts, hidden, rows // 2)
        and hasattr(module, "act_fn")
        and getattr(apply, "__name__", "") == "_default_apply_gate"
        and not getattr(module, "is_transposed", False)
    )


def layer_names(model_type: str, stored: Collection[str]) -> tuple[str, str, str]:
    """Return the names of an expert's layers in a checkpoint: gate, up and down.

    Args:
        model_type: its model's, which decides if no expert is stored by itself.
        stored: names of its tensors. llm-compressor names the layers of all models alike.
    """
    for names in (NAMES, SHORT_NAMES):
        if any(f".experts.0.{names[0]}." in name for name in stored):
            return names
    return SHORT_NAMES if model_type in SHORT_NAMED else NAMES


def split_experts(
    model: PreTrainedModel, names: Iterable[str], layers: tuple[str, str, str]
) -> list[str]:
    """Divide stacked experts of a model on the meta device into linear layers of their own.

    Args:
        names: names of modules; those that are not divisible stay as they are.
        layers: names of an expert's layers, as `layer_names` returns them.

    Returns:
        The names of the divided ones.
    """
    found = []
    for name in names:
        experts = model.get_submodule(name)
        if is_divisible(experts):
            parent, _, child = name.rpartition(".")
            setattr(model.get_submodule(parent), child, SplitExperts(experts, layers))
            found.append(name)
    return found
