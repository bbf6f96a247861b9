"""Gated feed-forward modules: gate and up as one product with their activation, then down."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from eightfold.kernels.layers.gated_activation import gated_activation
from eightfold.kernels.layers.linear_few_rows import ACTIVATIONS, linear_few_rows

from .linear_modules import few_rows, join_weights, joinable, linear


class FusedGatedMLP(nn.Module):
    """``down(activation(gate(x)) * up(x))``.

    Args:
        gate_up: weight [2 * inner, hidden], gate rows first.
        down: weight [hidden, inner].
        activation: a key of ``ACTIVATIONS``.
    """

    def __init__(self, gate_up: torch.Tensor, down: nn.Linear, activation: str) -> None:
        super().__init__()
        self.down_proj, self._activation = down, activation
        self.gate_up = nn.Parameter(gate_up, requires_grad=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[..., hidden] -> [..., hidden]."""
        rows, inner = x.numel() // x.shape[-1], self.gate_up.shape[0] // 2
        flat = x.reshape(rows, -1).contiguous()
        hidden = torch.empty(rows, inner, dtype=x.dtype, device=x.device)
        if few_rows(rows, x):
            linear_few_rows(
                flat, self.gate_up, hidden, gated=True, activation=self._activation, pdl=True
            )
        elif rows:
            gate, up = F.linear(flat, self.gate_up).chunk(2, dim=1)
            gated_activation(gate, up, hidden, self._activation)
        return linear(hidden, self.down_proj.weight, self.down_proj.bias).view(x.shape)


def mlp_candidates(module: nn.Module) -> list[FusedGatedMLP]:
    """Return stand-ins of which one may compute what a module computes; to be probed."""
    mlp: Any = module
    down = getattr(mlp, "down_proj", None)
    projections: list[Any] = [getattr(mlp, name, None) for name in ("gate_proj", "up_proj")]
    joint = getattr(mlp, "gate_up_proj", None)
    linears = [child for child in module.modules() if isinstance(child, nn.Linear)]
    if type(down) is not nn.Linear:
        return []
    if joinable(projections) and projections[0].bias is None and len(linears) == 3:
        weight = join_weights(projections)
    elif type(joint) is nn.Linear and joint.bias is None and len(linears) == 2:
        weight = joint.weight.data
    else:
        return []
    if down.in_features * 2 != weight.shape[0]:
        return []
    return [FusedGatedMLP(weight, down, activation) for activation in ACTIVATIONS]
