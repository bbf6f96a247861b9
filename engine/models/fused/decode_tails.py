"""Dense layers of few rows on Hopper: everything between two attentions in chains of linears.

A layer takes one chain, from its output projection to the next layer's q/k/v. The activation of a
layer's own input of the token comes between two chains. Layers with experts have none: their linear
layers are so small that separate launches are faster.
"""

from dataclasses import dataclass, replace

import torch

from eightfold.kernels.layers.chain_layers import ChainLinear, ChainNorms
from eightfold.kernels.layers.linear_chain import (
    COUNTERS,
    linear_chain,
    linear_chain_fits,
    squares_size,
)
from eightfold.kernels.quantized.stored_matrix import StoredMatrix, Weight

from .activation_buffers import ActivationBuffers, narrow
from .layer_weights import FusedLayer
from .per_layer_inputs import PerLayerInputs

CHAINS = 2  # of a layer, at most


@dataclass(frozen=True, slots=True)
class LayerTail:
    """The chains of one layer: ``first`` from its attention on, ``second`` behind its own input."""

    first: tuple[ChainLinear, ...]
    second: tuple[ChainLinear, ...]


class DecodeTails:
    """The tails of all layers.

    Attributes:
        fits: True if there is a kernel for all of them.

    Args:
        head: the language model's head, [vocabulary, hidden].
        final_norm: [hidden], the norm before it.
        norm_offset: what the norms' weights of ``layers`` include and the kernel adds by itself.
        activation: of gated layers.
    """

    def __init__(
        self,
        layers: list[FusedLayer],
        final_norm: torch.Tensor,
        head: torch.Tensor,
        buffers: ActivationBuffers,
        inputs: PerLayerInputs | None,
        *,
        norm_offset: float,
        activation: str,
        eps: float,
    ) -> None:
        self._layers, self._buffers, self._inputs = layers, buffers, inputs
        self._norm_offset, self._activation, self._eps = norm_offset, activation, eps
        self.counters = torch.zeros(
            len(layers), CHAINS, COUNTERS, dtype=torch.int32, device=head.device
        )
        self._squares = torch.empty(squares_size(head.shape[1], head.device), device=head.device)
        self._tails: list[LayerTail] = []
        self.fits = False
        weights = [w for each in layers for w in (each.qkv, each.out, each.gate_up, each.down)]
        stored = any(isinstance(weight, StoredMatrix) for weight in weights)
        if stored or any(layer.experts is not None for layer in layers):
            return
        following = [(layer.input_norm, layer.qkv) for layer in layers[1:]]
        self._tails = [
            self._tail(layer, norm, weight)
            for layer, (norm, weight) in zip(layers, [*following, (final_norm, head)], strict=True)
        ]
        chains = [chain for tail in self._tails for chain in (tail.first, tail.second) if chain]
        width = head.shape[1]
        self.fits = all(linear_chain_fits(chain, width, activation) for chain in chains)

    def _tail(
        self, layer: FusedLayer, next_norm: torch.Tensor | None, following: Weight
    ) -> LayerTail:
        """Divide what follows a layer's attention into chains."""
        stored, own = self._stored, layer.per_layer_input
        before = ChainNorms(
            stored(layer.post_attention_norm), stored(layer.pre_feedforward_norm),
            layer.out_bias,
        )  # fmt: skip
        after = ChainNorms(
            stored(layer.post_feedforward_norm), stored(next_norm), scale=layer.scalar
        )
        first = [
            ChainLinear(_plain(layer.out)),
            ChainLinear(_plain(layer.gate_up), before, gated=True),
            ChainLinear(_plain(layer.down)),
        ]
        if own is not None:
            first.append(ChainLinear(own.gate, replace(after, next=None, scale=1.0)))
            after = ChainNorms(stored(own.norm), stored(next_norm), scale=layer.scalar)
            second = (ChainLinear(own.projection), ChainLinear(_plain(following), after))
            return LayerTail(tuple(first), second)
        return LayerTail((*first, ChainLinear(_plain(following), after)), ())

    def _stored(self, norm: torch.Tensor | None) -> torch.Tensor | None:
        """A norm's weight as the kernel takes it: in bfloat16, without the offset."""
        if norm is None or norm.dtype == torch.bfloat16:
            return norm
        return (norm.float() - self._norm_offset).bfloat16()

    def run(self, index: int, attended: torch.Tensor, out: torch.Tensor | None) -> None:
        """Run what follows the attention of layer ``index``.

        Args:
            attended: [rows, heads * head_dim].
            out: of the following linear layer, [rows, n]; ``None`` to end with the norm before it,
                in the buffer x.
        """
        layer, tail, counters = self._layers[index], self._tails[index], self.counters[index]
        rows, buffers = len(attended), self._buffers
        y = buffers.y[:rows]
        assert layer.down is not None
        outs = [y, narrow(buffers.hidden, rows, layer.down.shape[1]), y]
        if self._inputs is None or not tail.second:
            self._chain(attended, tail.first, [*outs, out], counters[0])
            return
        self._chain(attended, tail.first, [*outs, self._inputs.gated(rows)], counters[0])
        self._chain(self._inputs.activate(index, rows), tail.second, [y, out], counters[1])

    def _chain(
        self,
        x: torch.Tensor,
        linears: tuple[ChainLinear, ...],
        outs: list[torch.Tensor | None],
        counters: torch.Tensor,
    ) -> None:
        rows = x.shape[-2]
        if outs[-1] is None:
            linears = (*linears[:-1], replace(linears[-1], weight=None))
        linear_chain(
            x, self._buffers.residual[:rows], linears, self._buffers.x[:rows], outs, counters,
            squares=self._squares, activation=self._activation, norm_offset=self._norm_offset,
            eps=self._eps, pdl=True,
        )  # fmt: skip


def _plain(weight: Weight | None) -> torch.Tensor | None:
    """Return a weight of which the caller knows that it is not quantized."""
    assert not isinstance(weight, StoredMatrix)
    return weight
