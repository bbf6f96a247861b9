"""Gemma 4's dense text layers through fused kernels, over the weights of transformers' modules.

A layer is eight launches: q/k/v as one product; norms, rotary and cache write; attention; output
product; residual and norms; gate and up as one product with their activation; down product;
residual and norms. On Hopper, for few rows, all from the output product to the next layer's q/k/v
are one (see `layer_tail`). Full-attention layers with ``attention_k_eq_v`` keep
one copy of K and V: the cache holds the normalised vector alone (see
`one_copy`).
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from eightfold.kernels.attention.attention_dispatch import PagedBatch, attend
from eightfold.kernels.attention.paged_decode import OneCopy, chunk_width, fold_key_weight
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

from ..execution.decoder import Limits
from ..execution.kv_cache import KVCache
from ..inspection.architecture import Architecture, LayerSpec
from ..inspection.meta_model import allocate_plain
from .activation_buffers import Buffers, view
from .linear_dispatch import Products


def one_copy_architecture(architecture: Architecture) -> Architecture | None:
    """The architecture as the fused decoder keeps its cache; ``None`` where it cannot run it."""
    config = architecture.config
    plain = (
        config.model_type == "gemma4_text"
        and config.hidden_activation == "gelu_pytorch_tanh"
        and not config.attention_bias
        and not config.hidden_size_per_layer_input
        and not config.enable_moe_block
        and all(layer.source == layer.index for layer in architecture.layers)
    )
    if not plain:
        return None
    layers = []
    for layer in architecture.layers:
        one_copy = bool(config.attention_k_eq_v) and layer.window is None
        if one_copy:
            factor = config.rope_parameters["full_attention"].get("partial_rotary_factor", 1.0)
            try:
                chunk_width(layer.head_dim, int(factor * layer.head_dim // 2))
            except ValueError:
                return None
        layers.append(replace(layer, one_copy=one_copy))
    return replace(architecture, layers=tuple(layers))


@dataclass(frozen=True, slots=True)
class Rotation:
    """cos, sin: float32 [positions, pairs] of one kind of layer."""

    cos: torch.Tensor
    sin: torch.Tensor


@dataclass(frozen=True, slots=True)
class Layer:
    """One layer's weights. qkv: [(heads + kv_heads (+ kv_heads)) * head_dim, hidden]; gate_up:
    [2 * intermediate, hidden]; q_norm with one copy is folded with k_norm."""

    spec: LayerSpec
    qkv: torch.Tensor
    out: torch.Tensor
    gate_up: torch.Tensor
    down: torch.Tensor
    q_norm: torch.Tensor
    k_norm: torch.Tensor
    input_norm: torch.Tensor
    post_attention_norm: torch.Tensor
    pre_feedforward_norm: torch.Tensor
    post_feedforward_norm: torch.Tensor
    scalar: float
    rotation: Rotation

    @property
    def one_copy(self) -> OneCopy | None:
        if not self.spec.one_copy:
            return None
        return OneCopy(self.k_norm, self.rotation.cos, self.rotation.sin)


class Gemma4Decoder:
    """The text model over the paged cache.

    Args:
        model: a ``Gemma4ForCausalLM`` for which ``one_copy_architecture`` gave ``architecture``.
            Its projections become views of joint tensors.
        limits: what buffers and tables are made for.
    """

    capturable = True

    def __init__(
        self,
        model: PreTrainedModel,
        architecture: Architecture,
        limits: Limits,
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
        rotations = {
            kind: _rotation(text.rotary_emb, kind, limits.context)
            for kind in set(config.layer_types)
        }
        self.layers = [
            _layer(module, spec, rotations[kind])
            for module, spec, kind in zip(
                text.layers, architecture.layers, config.layer_types, strict=True
            )
        ]
        self._products = Products(self.layers)
        self.buffers = Buffers(self.layers, limits.rows, self._products.apart, self._embedding)
        room = max(
            limits.workspace(spec, layer.out.shape[1] // spec.head_dim, page_size)
            for spec, layer in zip(architecture.layers, self.layers, strict=True)
        )
        self._workspace = torch.empty(room, device=self._embedding.device)
        vocabulary = self._head.shape[0]
        self._logits = torch.empty(limits.decode_rows, vocabulary, device=self._embedding.device)
        self._counters = torch.zeros(
            len(self.layers), COUNTERS, dtype=torch.int32, device=self._embedding.device
        )
        self._chains = self._chain_weights()

    def _chain_weights(self) -> list[LayerTailWeights]:
        """Each layer's with the first of the next; none where some layer has no such kernel."""
        following = [(layer.input_norm, layer.qkv) for layer in self.layers[1:]]
        chains = [
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
        return chains if all(layer_tail_fits(chain) for chain in chains) else []

    @property
    def nbytes(self) -> int:
        """Bytes of buffers, workspace and rotations: all but weights and cache."""
        seen = {id(layer.rotation): layer.rotation for layer in self.layers}.values()
        tables = sum(each.cos.nbytes + each.sin.nbytes for each in seen)
        return self.buffers.nbytes + self._workspace.nbytes + self._logits.nbytes + tables

    def logits(
        self,
        tokens: torch.Tensor,
        positions: torch.Tensor,
        batches: dict[int | None, PagedBatch],
        cache: KVCache,
        rows: torch.Tensor | None,
    ) -> torch.Tensor:
        """float32 logits before the softcap (see `Decoder`).

        They are in a buffer that the next step overwrites.
        """
        count = tokens.shape[0]
        residual, x = self.buffers.residual[:count], self.buffers.x[:count]
        embed_rms_norm(
            tokens, self._embedding, self._scale, residual, self.layers[0].input_norm, x,
            zero=self._counters, eps=self.eps, pdl=True,
        )  # fmt: skip
        if self._chains and count <= MAX_ROWS:
            whole = rows is None and count <= self._logits.shape[0]
            out = self._logits[:count] if whole else None
            self._by_chains(positions, batches, cache, out)
            if out is not None:
                return out
        else:
            self._by_layers(x, positions, batches, cache, wanted=rows is None or len(rows) > 0)
        hidden = x if rows is None else x[rows]
        out = self._logits[: hidden.shape[0]]
        for begin in range(0, hidden.shape[0], MAX_ROWS):
            end = begin + MAX_ROWS
            linear_few_rows(hidden[begin:end], self._head, out[begin:end], pdl=True)
        return out

    def _by_layers(
        self,
        x: torch.Tensor,
        positions: torch.Tensor,
        batches: dict[int | None, PagedBatch],
        cache: KVCache,
        wanted: bool,
    ) -> None:
        """Every layer, launch by launch; x holds the first input, and the last norm afterwards.

        wanted: whether that norm is; else the last layer only fills its cache.
        """
        count = x.shape[0]
        residual, y = self.buffers.residual[:count], self.buffers.y[:count]
        norms = [layer.input_norm for layer in self.layers[1:]] + [self._final_norm]
        for layer, following in zip(self.layers, norms, strict=True):
            self._products.linear(x, layer.qkv, self._joint(layer, count))
            if not wanted and layer is self.layers[-1]:
                self._write(layer, positions, batches[layer.spec.window], cache)
                return
            attended = self._attention(layer, positions, batches[layer.spec.window], cache)
            self._products.linear(attended, layer.out, y)
            self._add_norm(y, residual, layer.post_attention_norm, layer.pre_feedforward_norm, x)
            self._feedforward(layer, x, y)
            self._add_norm(
                y, residual, layer.post_feedforward_norm, following, x, scale=layer.scalar
            )

    def _by_chains(
        self,
        positions: torch.Tensor,
        batches: dict[int | None, PagedBatch],
        cache: KVCache,
        out: torch.Tensor | None,
    ) -> None:
        """The same for few rows, three launches a layer; the last one gives logits where wanted."""
        count, buffers = positions.shape[0], self.buffers
        x, hidden = buffers.x[:count], buffers.hidden[:count]
        self._products.linear(x, self.layers[0].qkv, self._joint(self.layers[0], count))
        for i, (layer, chain) in enumerate(zip(self.layers, self._chains, strict=True)):
            attended = self._attention(layer, positions, batches[layer.spec.window], cache)
            last = i + 1 == len(self.layers)
            following = out if last else self._joint(self.layers[i + 1], count)
            layer_tail(
                attended,
                buffers.residual[:count],
                replace(chain, following=None) if following is None else chain,
                (buffers.y[:count], x, hidden),
                following,
                self._counters[i],
                eps=self.eps,
                pdl=True,
            )

    def _add_norm(self, *tensors: torch.Tensor | None, scale: float = 1.0) -> None:
        y, residual, post, following, out = tensors
        assert residual is not None
        add_rms_norm(y, residual, post, following, out, scale=scale, eps=self.eps, pdl=True)

    def _joint(self, layer: Layer, rows: int) -> torch.Tensor:
        """Where queries, keys and values of a layer go."""
        return view(self.buffers.qkv, rows, layer.qkv.shape[0])

    def _attention(
        self, layer: Layer, positions: torch.Tensor, batch: PagedBatch, cache: KVCache
    ) -> torch.Tensor:
        """Norms, rotation, cache write and attention to [rows, heads * head_dim]."""
        query, spec = self._write(layer, positions, batch, cache), layer.spec
        attended = view(self.buffers.attended, len(query), layer.out.shape[1])
        keys, values = cache.layers[spec.index]
        attend(
            query, keys, values, batch, attended.view(query.shape), window=spec.window,
            one_copy=layer.one_copy, workspace=self._workspace,
        )  # fmt: skip
        return attended

    def _write(
        self, layer: Layer, positions: torch.Tensor, batch: PagedBatch, cache: KVCache
    ) -> torch.Tensor:
        """Norms, rotation and cache write; queries [rows, heads, head_dim]."""
        rows, spec = positions.shape[0], layer.spec
        query = view(self.buffers.query, rows, layer.out.shape[1]).view(rows, -1, spec.head_dim)
        keys, values = cache.layers[spec.index]
        norm_rope_and_cache(
            self._joint(layer, rows),
            layer.q_norm,
            None if spec.one_copy else layer.k_norm,
            layer.rotation.cos,
            layer.rotation.sin,
            positions,
            batch.slots,
            query,
            keys,
            values,
            eps=self.eps,
            pdl=True,
        )
        return query

    def _feedforward(self, layer: Layer, x: torch.Tensor, y: torch.Tensor) -> None:
        rows, products, buffers = x.shape[0], self._products, self.buffers
        hidden = buffers.hidden[:rows]
        gate_up = buffers.gate_up(rows) if products.apart(rows) else None
        products.gated(x, layer.gate_up, hidden, gate_up)
        products.linear(hidden, layer.down, y)


def _rotation(rotary: nn.Module, kind: str, positions: int) -> Rotation:
    """Angles of the pairs that rotate; proportional embeddings leave the later ones alone."""
    frequencies = getattr(rotary, f"{kind}_inv_freq").float()
    pairs = int((frequencies != 0).sum())
    scaling = float(getattr(rotary, f"{kind}_attention_scaling"))
    at = torch.arange(positions, device=frequencies.device, dtype=torch.float32)
    angles = at[:, None] * frequencies[None, :pairs]
    return Rotation(angles.cos() * scaling, angles.sin() * scaling)


def joint_projections(layer: nn.Module) -> Iterator[list[nn.Linear]]:
    """The projections of one layer that are computed as one product."""
    attention: Any = layer.self_attn
    values = [] if attention.v_proj is None else [attention.v_proj]
    yield [attention.q_proj, attention.k_proj, *values]
    mlp: Any = layer.mlp
    yield [mlp.gate_proj, mlp.up_proj]


def allocate_joint(model: PreTrainedModel, device: torch.device, dtype: torch.dtype) -> None:
    """Places in which the projections computed as one product lie behind one another."""
    text: Any = model.model
    for layer in text.layers:
        for projections in joint_projections(layer):
            sizes = [projection.out_features for projection in projections]
            joint = torch.empty(sum(sizes), projections[0].in_features, dtype=dtype, device=device)
            for projection, part in zip(projections, joint.split(sizes), strict=True):
                projection.weight = nn.Parameter(part, requires_grad=False)
    allocate_plain(model, device, dtype)


def _join(projections: list[nn.Linear]) -> torch.Tensor:
    """One tensor of which the projections' weights become views; no copy where they are so."""
    weights = [projection.weight for projection in projections]
    base, rows = weights[0].data, sum(weight.shape[0] for weight in weights)
    at = base.data_ptr()
    for weight in weights:
        if weight.data_ptr() != at or weight.untyped_storage().data_ptr() != (
            base.untyped_storage().data_ptr()
        ):
            break
        at += weight.nbytes
    else:
        return base.as_strided((rows, base.shape[1]), (base.shape[1], 1))
    joint = torch.cat([weight.data for weight in weights])
    begin = 0
    for projection in projections:
        end = begin + projection.weight.shape[0]
        projection.weight.data = joint[begin:end]
        begin = end
    if joint.is_cuda:
        # Else the next layer's joint tensor would take a part of what was freed, and pin the rest.
        del weights, base
        torch.cuda.empty_cache()
    return joint


def _layer(module: nn.Module, spec: LayerSpec, rotation: Rotation) -> Layer:
    layer: Any = module
    qkv, gate_up = (_join(projections) for projections in joint_projections(layer))
    attention = layer.self_attn
    q_norm = attention.q_norm.weight.data
    if spec.one_copy:
        q_norm = fold_key_weight(q_norm, attention.k_norm.weight.data, rotation.cos.shape[1])
    return Layer(
        spec=spec,
        qkv=qkv,
        out=attention.o_proj.weight.data,
        gate_up=gate_up,
        down=layer.mlp.down_proj.weight.data,
        q_norm=q_norm,
        k_norm=attention.k_norm.weight.data,
        input_norm=layer.input_layernorm.weight.data,
        post_attention_norm=layer.post_attention_layernorm.weight.data,
        pre_feedforward_norm=layer.pre_feedforward_layernorm.weight.data,
        post_feedforward_norm=layer.post_feedforward_layernorm.weight.data,
        scalar=float(layer.layer_scalar),
        rotation=rotation,
    )
