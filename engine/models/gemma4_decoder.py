"""Gemma 4's dense text layers as fused kernels, over the weights of transformers' modules.

A layer takes eight launches: q/k/v as one product; norms, rotary embedding and cache write;
attention; output projection; residual and norms; gate and up as one product with their activation;
down projection; residual and norms. On Hopper, for few rows, one launch does everything from the
output projection to the next layer's q/k/v (see ``layer_tail``). Full-attention layers with
``attention_k_eq_v`` keep one copy of keys and values: the cache holds the normalized vector alone
(see ``one_copy``).
"""

from dataclasses import replace
from typing import Any

import torch
from transformers import PreTrainedModel

from eightfold.kernels.attention.attention_dispatch import PagedBatch, attend
from eightfold.kernels.layers.layer_tail import (
    COUNTERS,
    LayerTailWeights,
    layer_tail,
    layer_tail_fits,
)
from eightfold.kernels.layers.linear_few_rows import MAX_ROWS, linear_few_rows
from eightfold.kernels.layers.rms_norm import add_rms_norm
from eightfold.kernels.layers.rotary_embedding import norm_rope_and_cache
from eightfold.kernels.layers.token_embedding import embed_rms_norm

from ..execution.decoder_protocol import decode_workspace
from ..execution.kv_cache import KVCache
from ..execution.runner_limits import RunnerLimits
from ..inspection.architecture import Architecture
from ..inspection.kv_geometry import one_copy_layers
from .activation_buffers import ActivationBuffers, narrow
from .fused_layer import FusedLayer, make_fused_layer, make_rotary_table
from .linear_dispatch import LinearDispatch


def one_copy_architecture(architecture: Architecture) -> Architecture | None:
    """Return the architecture with the fused decoder's cache; ``None`` if it cannot run it."""
    layers = one_copy_layers(architecture.config.to_dict(), architecture.layers)
    return None if layers is None else replace(architecture, layers=layers)


class Gemma4Decoder:
    """The text model over the paged cache; a ``Decoder``.

    Args:
        model: a ``Gemma4ForCausalLM`` for which ``one_copy_architecture`` returned
            ``architecture``. Its projections become views of fused tensors.
        limits: sizes of buffers and tables.
    """

    capturable = True

    def __init__(
        self,
        model: PreTrainedModel,
        architecture: Architecture,
        limits: RunnerLimits,
        page_size: int,
    ) -> None:
        text: Any = model.model
        config = architecture.config
        self.eps = float(config.rms_norm_eps)
        self.softcap = float(config.final_logit_softcapping or 0.0)
        self._embedding = text.embed_tokens.weight.data
        self._head = model.lm_head.weight.data
        self._scale = float(text.embed_tokens.embed_scale.to(self._embedding.dtype))
        self._final_norm = text.norm.weight.data
        tables = {
            kind: make_rotary_table(text.rotary_emb, kind, limits.max_context)
            for kind in set(config.layer_types)
        }
        self.layers = [
            make_fused_layer(module, spec, tables[kind])
            for module, spec, kind in zip(
                text.layers, architecture.layers, config.layer_types, strict=True
            )
        ]
        self._linear = LinearDispatch(self.layers)
        self.buffers = ActivationBuffers(
            self.layers, limits.rows, self._linear.writes_gate_up, self._embedding
        )
        device, vocabulary = self._embedding.device, self._head.shape[0]
        self._workspace = decode_workspace(architecture, limits, page_size, device)
        self._logits = torch.empty(limits.decode_rows, vocabulary, device=device)
        self._counters = torch.zeros(len(self.layers), COUNTERS, dtype=torch.int32, device=device)
        self._layer_tails = self._layer_tail_weights()

    def _layer_tail_weights(self) -> list[LayerTailWeights]:
        """Weights of each layer's tail; empty if some layer has no such kernel."""
        following = [(layer.input_norm, layer.qkv) for layer in self.layers[1:]]
        tails = [
            LayerTailWeights(
                output=layer.out,
                gate_up=layer.gate_up,
                down=layer.down,
                following=product,
                post_attention=layer.post_attention_norm,
                pre_feedforward=layer.pre_feedforward_norm,
                post_feedforward=layer.post_feedforward_norm,
                next_norm=norm,
                scale=layer.scalar,
            )
            for layer, (norm, product) in zip(
                self.layers, [*following, (self._final_norm, self._head)], strict=True
            )
        ]
        return tails if all(layer_tail_fits(tail) for tail in tails) else []

    def logits(
        self,
        tokens: torch.Tensor,
        positions: torch.Tensor,
        batches: dict[int | None, PagedBatch],
        cache: KVCache,
        rows: torch.Tensor | None,
    ) -> torch.Tensor:
        """Return float32 logits before the softcap (see ``Decoder``).

        They lie in a buffer that the next step overwrites.
        """
        count = tokens.shape[0]
        residual, x = self.buffers.residual[:count], self.buffers.x[:count]
        embed_rms_norm(
            tokens, self._embedding, self._scale, residual, self.layers[0].input_norm, x,
            zero=self._counters, eps=self.eps, pdl=True,
        )  # fmt: skip
        if self._layer_tails and count <= MAX_ROWS:
            whole = rows is None and count <= self._logits.shape[0]
            out = self._logits[:count] if whole else None
            self._run_layer_tails(positions, batches, cache, out)
            if out is not None:
                return out
        else:
            output_needed = rows is None or len(rows) > 0
            self._run_layers(x, positions, batches, cache, output_needed)
        hidden = x if rows is None else x[rows]
        out = self._logits[: hidden.shape[0]]
        for begin in range(0, hidden.shape[0], MAX_ROWS):
            end = begin + MAX_ROWS
            linear_few_rows(hidden[begin:end], self._head, out[begin:end], pdl=True)
        return out

    def _run_layers(
        self,
        x: torch.Tensor,
        positions: torch.Tensor,
        batches: dict[int | None, PagedBatch],
        cache: KVCache,
        output_needed: bool,
    ) -> None:
        """Run all layers, eight launches each.

        Args:
            x: input of the first layer; overwritten with the output of the final norm.
            output_needed: False if that output is not used, so that the last layer only fills its
                cache.
        """
        count = x.shape[0]
        residual, y = self.buffers.residual[:count], self.buffers.y[:count]
        norms = [layer.input_norm for layer in self.layers[1:]] + [self._final_norm]
        for layer, next_norm in zip(self.layers, norms, strict=True):
            self._linear.linear(x, layer.qkv, self._qkv(layer, count))
            if not output_needed and layer is self.layers[-1]:
                self._write_cache(layer, positions, batches[layer.spec.window], cache)
                return
            attended = self._attention(layer, positions, batches[layer.spec.window], cache)
            self._linear.linear(attended, layer.out, y)
            add_rms_norm(
                y, residual, layer.post_attention_norm, layer.pre_feedforward_norm, x,
                scale=1.0, eps=self.eps, pdl=True,
            )  # fmt: skip
            self._feedforward(layer, x, y)
            add_rms_norm(
                y, residual, layer.post_feedforward_norm, next_norm, x,
                scale=layer.scalar, eps=self.eps, pdl=True,
            )  # fmt: skip

    def _run_layer_tails(
        self,
        positions: torch.Tensor,
        batches: dict[int | None, PagedBatch],
        cache: KVCache,
        logits: torch.Tensor | None,
    ) -> None:
        """Run all layers for few rows, three launches each.

        Args:
            logits: filled by the last tail; ``None`` if it is to end with the final norm.
        """
        count, buffers = positions.shape[0], self.buffers
        x, hidden = buffers.x[:count], buffers.hidden[:count]
        self._linear.linear(x, self.layers[0].qkv, self._qkv(self.layers[0], count))
        for i, (layer, tail) in enumerate(zip(self.layers, self._layer_tails, strict=True)):
            attended = self._attention(layer, positions, batches[layer.spec.window], cache)
            last = i + 1 == len(self.layers)
            out = logits if last else self._qkv(self.layers[i + 1], count)
            layer_tail(
                attended,
                buffers.residual[:count],
                replace(tail, following=None) if out is None else tail,
                (buffers.y[:count], x, hidden),
                out,
                self._counters[i],
                eps=self.eps,
                pdl=True,
            )

    def _qkv(self, layer: FusedLayer, rows: int) -> torch.Tensor:
        """Buffer for the queries, keys and values of a layer."""
        return narrow(self.buffers.qkv, rows, layer.qkv.shape[0])

    def _attention(
        self, layer: FusedLayer, positions: torch.Tensor, batch: PagedBatch, cache: KVCache
    ) -> torch.Tensor:
        """Write the cache and attend; returns [rows, heads * head_dim]."""
        query, spec = self._write_cache(layer, positions, batch, cache), layer.spec
        attended = narrow(self.buffers.attended, len(query), layer.out.shape[1])
        keys, values = cache.layers[spec.index]
        attend(
            query, keys, values, batch, attended.view(query.shape), window=spec.window,
            one_copy=layer.one_copy, workspace=self._workspace,
        )  # fmt: skip
        return attended

    def _write_cache(
        self, layer: FusedLayer, positions: torch.Tensor, batch: PagedBatch, cache: KVCache
    ) -> torch.Tensor:
        """Normalize, rotate and write to the cache; returns queries [rows, heads, head_dim]."""
        rows, spec = positions.shape[0], layer.spec
        query = narrow(self.buffers.query, rows, layer.out.shape[1]).view(rows, -1, spec.head_dim)
        keys, values = cache.layers[spec.index]
        norm_rope_and_cache(
            self._qkv(layer, rows),
            layer.q_norm,
            None if spec.one_copy else layer.k_norm,
            layer.rotary.cos,
            layer.rotary.sin,
            positions,
            batch.slot_mapping,
            query,
            keys,
            values,
            eps=self.eps,
            pdl=True,
        )
        return query

    def _feedforward(self, layer: FusedLayer, x: torch.Tensor, y: torch.Tensor) -> None:
        """Compute gate, up, activation and down from x into y."""
        rows, linear, buffers = x.shape[0], self._linear, self.buffers
        hidden = buffers.hidden[:rows]
        gate_up = buffers.gate_up(rows) if linear.writes_gate_up(rows) else None
        linear.gated(x, layer.gate_up, hidden, gate_up)
        linear.linear(hidden, layer.down, y)
