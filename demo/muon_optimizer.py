"""Muon for matrices and Adam for all other parameters, batched over tensors of the same shape.

Muon (K. Jordan et al., 2024): the update of a matrix is its momentum, made orthogonal by five
Newton-Schulz steps. Its size is scaled to that of Adam's updates (J. Liu et al., "Muon is scalable
for LLM training", 2025).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

import torch
from torch import Tensor, nn

COEFFICIENTS = (3.4445, -4.7750, 2.0315)
"""Of the polynomial in a Newton-Schulz step."""


def orthogonalize(g: Tensor, steps: int = 5) -> Tensor:
    """Return nearly orthogonal matrices (..., R, C) with the singular vectors of `g`."""
    a, b, c = COEFFICIENTS
    x = g.bfloat16() if g.is_cuda else g.float()
    tall = x.size(-2) > x.size(-1)
    if tall:
        x = x.mT
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(steps):
        square = x @ x.mT
        x = a * x + (b * square + c * square @ square) @ x
    return (x.mT if tall else x).float()


class Muon:
    """Orthogonalized momentum with decoupled weight decay, for matrices."""

    def __init__(self, parameters: Iterable[nn.Parameter], decay: float = 0.05) -> None:
        groups: dict[torch.Size, list[nn.Parameter]] = defaultdict(list)
        for p in parameters:
            groups[p.shape].append(p)
        self.groups = list(groups.values())
        self.momenta = [torch.zeros_like(torch.stack(list(g))) for g in self.groups]
        self.decay = decay

    @torch.no_grad()
    def step(self, rate: float, momentum: float = 0.95) -> None:
        """Update the parameters; `rate` is the learning rate in Adam's terms."""
        for group, m in zip(self.groups, self.momenta, strict=True):
            gradient = torch.stack([p.grad for p in group if p.grad is not None]).float()
            m.lerp_(gradient, 1 - momentum)
            update = orthogonalize(gradient.lerp(m, momentum))
            scale = 0.2 * max(update.shape[-2:]) ** 0.5
            torch._foreach_mul_(list(group), 1 - rate * self.decay)
            torch._foreach_add_(list(group), list(update.unbind(0)), alpha=-rate * scale)


class MuonWithAdam:
    """Muon for the matrices of the layers, Adam for the embedding, the output and the norms."""

    def __init__(self, network: nn.Module) -> None:
        matrices: list[nn.Parameter] = []
        others: list[nn.Parameter] = []
        for name, p in network.named_parameters():
            outer = "embed" in name or "lm_head" in name
            (matrices if p.ndim >= 2 and not outer else others).append(p)
        self.muon = Muon(matrices)
        self.adam = torch.optim.AdamW(
            others, lr=1e-3, betas=(0.9, 0.95), weight_decay=0.0, fused=others[0].is_cuda
        )

    def step(self, rate: float) -> None:
        """Update all parameters and clear their gradients.

        Args:
            rate: the learning rate of the matrices, in Adam's terms; the others get half of it.
        """
        self.muon.step(rate)
        for group in self.adam.param_groups:
            group["lr"] = rate / 2
        self.adam.step()
        self.adam.zero_grad(set_to_none=True)
        for params in self.muon.groups:
            for p in params:
                p.grad = None
