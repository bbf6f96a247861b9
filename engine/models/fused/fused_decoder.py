"""The decoder of fused kernels, over the weights of transformers' modules.

A row of ``families`` says how a model's layers are made. A dense layer takes eight launches: q/k/v
as one product; norms, rotary embedding and cache write; attention; output projection; residual and
norms; gate and up as one product with their activation; down projection; residual and norms. On
Hopper, for few rows, one launch does everything from the output projection to the next layer's
q/k/v (see ``decode_tails``). Full-attention layers of Gemma 4 with ``attention_k_eq_v`` keep one
copy of keys and values: the cache holds the normalized vector alone (see ``one_copy_keys``).
"""

from functools import partial
from typing import Any

import torch
from transformers import PreTrainedModel

from eightfold.kernels.attention.attention_dispatch import PagedBatch, attend
from eightfold.kernels.attention.triton_kernels.fp8_page_write import CacheTarget
from eightfold.kernels.layers.linear_few_rows import MAX_ROWS, linear_few_rows
from eightfold.kernels.layers.rms_norm import add_rms_norm
from eightfold.kernels.layers.rotary_embedding import norm_rope_and_cache
from eightfold.kernels.layers.token_embedding import embed_rms_norm

from ...execution.decoder_protocol import decode_workspace
from ...execution.kv_cache import KVCache
from ...execution.runner_limits import RunnerLimits
from ...inspection.architecture import Architecture
from ...inspection.families import FAMILIES, activation_of
from .activation_buffers import ActivationBuffers, narrow
from .decode_tails import DecodeTails
from .expert_runner import ExpertRunner
from .layer_weights import FusedLayer, make_fused_layer
from .linear_dispatch import LinearDispatch
from .per_layer_inputs import PerLayerInputs
from .projections import decoder_layers
from .rotary_tables import make_rotary_table


class FusedDecoder:
    """A text model over the paged cache; a ``Decoder``.

    Args:
        model: a model of one of ``FAMILIES``. Its projections become views of joined tensors.
        architecture: the model's, as ``fused_architecture`` returned it.
        limits: sizes of buffers and tables.
        page_size: tokens of a page of the cache.
        for_warmup: True if the weights are not there yet.
    """

    capturable = True
    path = "fused"

    def __init__(
        self,
        model: PreTrainedModel,
        architecture: Architecture,
        limits: RunnerLimits,
        page_size: int,
        *,
        for_warmup: bool = False,
    ) -> None:
        text: Any = getattr(model, model.base_model_prefix)
        head: Any = model.lm_head
        config, options = architecture.config, architecture.config.to_dict()
        self._family = family = FAMILIES[config.model_type]
        self.path_reason = f"a row of {config.model_type}"
        self.eps = float(config.rms_norm_eps)
        self.softcap = float(getattr(config, "final_logit_softcapping", None) or 0.0)
        self._embedding, self._head = text.embed_tokens.weight.data, head.weight.data
        scale = getattr(text.embed_tokens, "embed_scale", None)
        self._scale = 1.0 if scale is None else float(scale.to(self._embedding.dtype))
        self._final_norm = text.norm.weight.data
        if family.norm_offset:
            self._final_norm = self._final_norm.float() + family.norm_offset
        kinds = getattr(config, "layer_types", None) or ["all"] * len(architecture.layers)
        tables = {
            (kind, spec.head_dim): make_rotary_table(
                text.rotary_emb, kind, limits.max_context, spec.head_dim, family.neighbors_rotate
            )
            for kind, spec in dict(zip(kinds, architecture.layers, strict=True)).items()
        }
        self.layers = [
            make_fused_layer(
                module, spec, tables[kind, spec.head_dim], family, options, for_warmup=for_warmup
            )
            for module, spec, kind in zip(
                decoder_layers(model), architecture.layers, kinds, strict=True
            )
        ]
        activation = str(activation_of(family, options))
        has_experts = any(layer.experts is not None for layer in self.layers)
        self._linear = LinearDispatch(self.layers, activation, streams=has_experts)
        self.buffers = ActivationBuffers(
            self.layers, limits.rows, self._linear.writes_gate_up, self._embedding
        )
        self.experts = self._expert_runner(limits)
        self._per_layer_inputs: PerLayerInputs | None = None
        if self.layers[0].per_layer_input is not None:
            self._per_layer_inputs = PerLayerInputs(text, limits.rows, self.eps, activation)
        self._last_own = max(i for i, layer in enumerate(self.layers) if layer.spec.owns_kv)
        device, vocabulary = self._embedding.device, self._head.shape[0]
        self._workspace = decode_workspace(architecture, limits, page_size, device)
        self._logits = torch.empty(limits.decode_rows, vocabulary, device=device)
        self.tails = DecodeTails(
            self.layers, self._final_norm, self._head, self.buffers, self._per_layer_inputs,
            norm_offset=family.norm_offset, activation=activation, eps=self.eps,
        )  # fmt: skip

    def _expert_runner(self, limits: RunnerLimits) -> ExpertRunner | None:
        """The experts' memory; ``None`` for a dense model."""
        if all(layer.experts is None for layer in self.layers):
            return None
        return ExpertRunner(self.layers, limits.rows, limits.decode_rows, self.eps, self._embedding)

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
        count, norm = tokens.shape[0], self.layers[0].input_norm
        residual, x = self.buffers.residual[:count], self.buffers.x[:count]
        embed_rms_norm(
            tokens, self._embedding, self._scale, residual, norm, None if norm is None else x,
            zero=self.tails.counters, eps=self.eps, pdl=True,
        )  # fmt: skip
        if self._per_layer_inputs is not None:
            self._per_layer_inputs.compute(tokens, residual, self._linear)
        if self.tails.fits and count <= MAX_ROWS:
            whole = rows is None and count <= self._logits.shape[0]
            logits = self._logits[:count] if whole else None
            self._run_tails(positions, batches, cache, logits)
            if logits is not None:
                return logits
        else:
            self._run_layers(positions, batches, cache, rows is None or len(rows) > 0)
        hidden = x if rows is None else x[rows]
        out = self._logits[: hidden.shape[0]]
        if len(hidden) > MAX_ROWS and hidden.is_cuda and hidden.dtype != torch.float32:
            return torch.mm(hidden, self._head.T, out_dtype=torch.float32, out=out)
        for begin in range(0, hidden.shape[0], MAX_ROWS):
            end = begin + MAX_ROWS
            linear_few_rows(hidden[begin:end], self._head, out[begin:end], pdl=True)
        return out

    def _run_tails(
        self,
        positions: torch.Tensor,
        batches: dict[int | None, PagedBatch],
        cache: KVCache,
        logits: torch.Tensor | None,
    ) -> None:
        """Run all layers for few rows, three launches each if they are dense.

        Args:
            logits: filled by the last tail; ``None`` if it is to end with the final norm.
        """
        count, first = positions.shape[0], self.layers[0]
        normed = self.buffers.residual if first.input_norm is None else self.buffers.x
        self._linear.linear(normed[:count], first.qkv, self._qkv(first, count))
        for i, layer in enumerate(self.layers):
            attended = self._attention(layer, positions, batches[layer.spec.window], cache)
            last = i + 1 == len(self.layers)
            out = logits if last else self._qkv(self.layers[i + 1], count)
            self.tails.run(i, attended, out)

    def _run_layers(
        self,
        positions: torch.Tensor,
        batches: dict[int | None, PagedBatch],
        cache: KVCache,
        output_needed: bool,
    ) -> None:
        """Run all layers, kernel by kernel.

        Args:
            output_needed: False if the output of the final norm is not used, so that the last layer
                with keys and values of its own only fills its cache.
        """
        count = positions.shape[0]
        residual, x, y = (
            part[:count] for part in (self.buffers.residual, self.buffers.x, self.buffers.y)
        )
        other = residual if self.experts is None else self.experts.residual[:count]
        norms = [layer.input_norm for layer in self.layers[1:]] + [self._final_norm]
        pending: torch.Tensor | None = None  # outputs of experts that are not in the residual yet
        for i, (layer, next_norm) in enumerate(zip(self.layers, norms, strict=True)):
            normed, qkv = residual if layer.input_norm is None else x, self._qkv(layer, count)
            if pending is None or self.experts is None:
                self._linear.linear(normed, layer.qkv, qkv)
            else:
                self.experts.add_and_project(pending, residual, layer, x, qkv)
                pending = None
            if not output_needed and i == self._last_own:
                self._write_cache(layer, positions, batches[layer.spec.window], cache)
                return
            attended = self._attention(layer, positions, batches[layer.spec.window], cache)
            own, few = layer.per_layer_input, count <= MAX_ROWS
            if few and own is None and layer.experts is not None and self.experts is not None:
                self._linear.linear(attended, layer.out, y)
                dense = partial(self._dense, layer, x, y)
                following = self.layers[i + 1] if i + 1 < len(self.layers) else None
                pending = self.experts.few_rows(
                    layer, following, next_norm, y, (residual, other), x, dense
                )
                residual, other = other, residual
                continue
            projected = self._linear.summands(attended, layer.out, y)
            normed = self._add(
                projected, residual, layer.post_attention_norm, layer.pre_feedforward_norm,
                bias=layer.out_bias,
            )  # fmt: skip
            added = self._feedforward(layer, normed, residual, y)
            post_norm = layer.post_feedforward_norm
            if own is not None and self._per_layer_inputs is not None:
                self._add(added, residual, post_norm, None)
                self._per_layer_inputs.add(i, own, residual, y, self._linear)
                added, post_norm = y, own.norm
            self._add(added, residual, post_norm, next_norm, scale=layer.scalar)

    def _add(
        self,
        y: torch.Tensor,
        residual: torch.Tensor,
        post_norm: torch.Tensor | None,
        next_norm: torch.Tensor | None,
        *,
        bias: torch.Tensor | None = None,
        scale: float = 1.0,
    ) -> torch.Tensor:
        """Add y to the residual, and return what the next linear layer takes."""
        out = None if next_norm is None else self.buffers.x[: y.shape[-2]]
        add_rms_norm(
            y, residual, post_norm, next_norm, out, bias=bias, scale=scale, eps=self.eps, pdl=True
        )
        return residual if out is None else out

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
            scale=layer.scale, sinks=layer.sinks, one_copy=layer.one_copy,
            workspace=self._workspace,
        )  # fmt: skip
        return attended

    def _write_cache(
        self, layer: FusedLayer, positions: torch.Tensor, batch: PagedBatch, cache: KVCache
    ) -> torch.Tensor:
        """Normalize, rotate and write to the cache; returns queries [rows, heads, head_dim]."""
        rows, spec = positions.shape[0], layer.spec
        query = narrow(self.buffers.query, rows, layer.out.shape[1]).view(rows, -1, spec.head_dim)
        keys, values = cache.layers[spec.index] if spec.owns_kv else (None, None)
        target = CacheTarget(keys, values, batch.slot_mapping, query.dtype)
        norm_rope_and_cache(
            self._qkv(layer, rows),
            layer.q_norm,
            layer.k_norm if target.values is not None else None,
            layer.rotary.cos,
            layer.rotary.sin,
            positions,
            target.slots,
            query,
            target.keys,
            target.values,
            bias=layer.qkv_bias,
            value_norm=self._family.value_norm,
            layout=layer.rotary.layout,
            eps=self.eps,
            pdl=True,
        )
        target.finish()
        return query

    def _feedforward(
        self, layer: FusedLayer, x: torch.Tensor, residual: torch.Tensor, y: torch.Tensor
    ) -> torch.Tensor:
        """Compute the feed-forward block from x; returns what ``add_rms_norm`` takes as y."""
        if layer.experts is None:
            assert layer.down is not None
            return self._linear.summands(self._inner(layer, x), layer.down, y)
        self._dense(layer, x, y)
        assert self.experts is not None
        if layer.experts.branch is not None:
            return self.experts.beside_dense(layer, residual, y)
        return self.experts.forward(layer, x, self.experts.logits(x, layer.experts), y)

    def _dense(self, layer: FusedLayer, x: torch.Tensor, y: torch.Tensor) -> None:
        """Compute the dense block from x into y, if the layer has one."""
        if layer.gate_up is not None and layer.down is not None:
            self._linear.linear(self._inner(layer, x), layer.down, y)

    def _inner(self, layer: FusedLayer, x: torch.Tensor) -> torch.Tensor:
        """Compute the activations between the dense block's layers: [rows, inner]."""
        assert layer.gate_up is not None
        assert layer.down is not None
        rows, linear, inner = x.shape[0], self._linear, layer.down.shape[1]
        hidden = narrow(self.buffers.hidden, rows, inner)
        gate_up = self.buffers.gate_up(rows, inner) if linear.writes_gate_up(rows) else None
        linear.gated(x, layer.gate_up, hidden, gate_up)
        return hidden
