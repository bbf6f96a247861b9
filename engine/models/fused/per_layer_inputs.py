"""Inputs of a token for every layer, computed at the start of a step (Gemma 4 E2B and E4B)."""

from typing import Any

import torch
from torch import nn

from eightfold.kernels.layers.gated_activation import gated_activation
from eightfold.kernels.layers.per_layer_inputs import combine_per_layer_inputs

from .layer_weights import PerLayerInput
from .linear_dispatch import LinearDispatch


class PerLayerInputs:
    """The inputs of all layers for up to ``rows`` rows.

    Args:
        text: transformers' text model.
    """

    def __init__(self, text: nn.Module, rows: int, eps: float, activation: str) -> None:
        source: Any = text
        embedding = source.embed_tokens_per_layer
        self._embedding = embedding.weight.data
        self._embedding_scale = float(embedding.embed_scale.to(self._embedding.dtype))
        self._projection = source.per_layer_model_projection.weight.data
        self._projection_scale = float(source.per_layer_model_projection_scale)
        self._norm = source.per_layer_projection_norm.weight.data
        self._scale, self._eps, self._activation = (
            float(source.per_layer_input_scale),
            eps,
            activation,
        )
        self._width = self._norm.shape[0]
        self._projected, self._inputs = (
            self._embedding.new_zeros(rows, self._projection.shape[0]) for _ in range(2)
        )
        self._gated = self._embedding.new_zeros(rows, self._width)

    def compute(self, tokens: torch.Tensor, embedded: torch.Tensor, linear: LinearDispatch) -> None:
        """Compute the inputs of a step from its tokens and their scaled embeddings."""
        rows = len(tokens)
        projected, inputs = self._projected[:rows], self._inputs[:rows]
        linear.linear(embedded, self._projection, projected)
        combine_per_layer_inputs(
            tokens, projected, self._embedding, self._norm, inputs,
            projection_scale=self._projection_scale, embedding_scale=self._embedding_scale,
            scale=self._scale, eps=self._eps, pdl=True,
        )  # fmt: skip

    def add(
        self,
        index: int,
        weights: PerLayerInput,
        residual: torch.Tensor,
        y: torch.Tensor,
        linear: LinearDispatch,
    ) -> None:
        """Compute into y what layer ``index`` adds to the residual, before its norm."""
        rows = residual.shape[0]
        linear.linear(residual, weights.gate, self.gated(rows))
        linear.linear(self.activate(index, rows), weights.projection, y)

    def gated(self, rows: int) -> torch.Tensor:
        """Return the buffer that ``weights.gate`` writes to, [rows, width]."""
        return self._gated[:rows]

    def activate(self, index: int, rows: int) -> torch.Tensor:
        """Multiply the activation of what is in :meth:`gated` by the input of layer ``index``."""
        own = self._inputs[:rows, index * self._width : (index + 1) * self._width]
        return gated_activation(
            self._gated[:rows], own, self._gated[:rows], self._activation, pdl=True
        )
