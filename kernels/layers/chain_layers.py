"""The layers of a chain (``linear_chain``), and what a chain computes."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from .linear_few_rows import linear_few_rows_reference
from .rms_norm import add_rms_norm_reference


@dataclass(frozen=True, slots=True)
class ChainNorms:
    """The norms between y and the linear layer that follows; each weight is bfloat16 [width].

    ``residual = (residual + norm(y + bias)) * scale``, and the layer's input is its norm.

    Attributes:
        post: weight of y's norm; ``None`` adds y without a norm.
        next: weight of the residual's norm; ``None`` takes the residual itself.
        bias: bias of the linear layer that computed y; ``None`` for none.
        scale: factor of the residual.
    """

    post: torch.Tensor | None
    next: torch.Tensor | None
    bias: torch.Tensor | None = None
    scale: float = 1.0

    @property
    def tensors(self) -> list[torch.Tensor]:
        """The weights and the bias that are given."""
        return [each for each in (self.post, self.next, self.bias) if each is not None]


@dataclass(frozen=True, slots=True)
class ChainLinear:
    """A linear layer of the chain.

    Attributes:
        weight: bfloat16 [out, in], or [2 * out, in] if gated, gate rows first. ``None``, in
            the last one only, ends the chain with its norms.
        norms: what makes its input from the output of the layer before; ``None`` to take that
            output itself.
        bias: bfloat16 [out]; not if gated.
        gated: True for ``activation(gate) * up``.
    """

    weight: torch.Tensor | None
    norms: ChainNorms | None = None
    bias: torch.Tensor | None = None
    gated: bool = False


def linear_chain_reference(
    x: torch.Tensor,
    residual: torch.Tensor,
    linears: Sequence[ChainLinear],
    *,
    activation: str = "gelu_tanh",
    norm_offset: float = 0.0,
    eps: float = 1e-6,
) -> tuple[torch.Tensor, torch.Tensor | None, torch.Tensor | None]:
    """Compute what ``linear_chain`` computes, in float64.

    Returns:
        The residual, the result of the last norms (``None`` if there are none), and the output
        (``None`` if the chain ends with norms).
    """
    residual, normed, out = residual.double(), None, x
    for linear in linears:
        if linear.norms is not None:
            weights = [
                None if each is None else each.double() + norm_offset
                for each in (linear.norms.post, linear.norms.next)
            ]
            residual, normed = add_rms_norm_reference(
                out, residual, *weights, bias=linear.norms.bias, scale=linear.norms.scale, eps=eps
            )
            normed = residual if normed is None else normed
            out = normed
        if linear.weight is None:
            return residual, normed, None
        out = linear_few_rows_reference(out, linear.weight, linear.gated, activation)
        if linear.bias is not None:
            out = out + linear.bias.double()
    return residual, normed, out
