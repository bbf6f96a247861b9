"""A decoder that stands in for transformers' modules while kernels compile."""

import torch
from torch import nn
from transformers import PreTrainedModel

from eightfold.kernels.attention.attention_dispatch import PagedBatch, attend
from eightfold.kernels.attention.triton_kernels.fp8_page_write import CacheTarget
from eightfold.kernels.layers.gated_activation import gated_activation
from eightfold.kernels.layers.linear_few_rows import ACTIVATIONS, linear_few_rows
from eightfold.kernels.module_ops.rotate_and_write import RotaryLayout, rotate_and_write
from eightfold.kernels.module_ops.strided_rms_norm import strided_rms_norm

from ..execution.decoder_protocol import decode_workspace
from ..execution.kv_cache import KVCache
from ..execution.runner_limits import RunnerLimits
from ..inspection.architecture import Architecture, attention_modules
from .transformers_modules.linear_modules import few_rows, linear


class AttentionOnlyDecoder:
    """A ``Decoder`` for a model whose weights are not there yet.

    It launches the kernels that ``HFDecoder`` will launch: attention in each kind of layer, and
    what replaces modules (see ``fuse_modules``), for each shape of a weight. transformers' modules
    cannot run before the load: weights of any value might break them.
    """

    softcap = 0.0
    capturable = False
    path, path_reason = "plain", "the weights are not there yet"

    def __init__(
        self,
        model: PreTrainedModel,
        architecture: Architecture,
        limits: RunnerLimits,
        page_size: int,
    ) -> None:
        self._heads = int(architecture.config.num_attention_heads)
        self._like = torch.empty(0, dtype=model.dtype, device=model.device)
        self._vocabulary = model.get_input_embeddings().num_embeddings
        self._layers = {
            (layer.window, layer.kv_heads, layer.head_dim): (layer, getattr(module, "sinks", None))
            for layer, module in zip(architecture.layers, attention_modules(model), strict=True)
        }
        self._workspace = decode_workspace(architecture, limits, page_size, model.device)
        self._linear = {
            (tuple(module.weight.shape), module.bias is None, "gate" in name): module
            for name, module in model.named_modules()
            if type(module) is nn.Linear
        }
        self._norms = {
            len(parameter) for name, parameter in model.named_parameters()
            if parameter.dim() == 1 and name.endswith("norm.weight")
        }  # fmt: skip

    def logits(
        self,
        tokens: torch.Tensor,
        positions: torch.Tensor,
        batches: dict[int | None, PagedBatch],
        cache: KVCache,
        rows: torch.Tensor | None,
    ) -> torch.Tensor:
        """Attend in one layer of each kind, and return zeros (see ``Decoder``)."""
        for layer, sinks in self._layers.values():
            keys, values = cache.layers[layer.index]
            query = self._like.new_zeros(len(tokens), self._heads, layer.head_dim)
            angles = self._like.new_zeros(len(tokens), layer.head_dim)
            target = CacheTarget(
                keys, keys if values is None else values, batches[layer.window].slot_mapping,
                query.dtype,
            )  # fmt: skip
            assert target.keys is not None
            assert target.values is not None
            rotate_and_write(
                query, query[:, : layer.kv_heads], query[:, : layer.kv_heads], (angles, angles),
                RotaryLayout(layer.head_dim // 2, False, 1), target.slots, target.keys,
                target.values, pdl=True,
            )  # fmt: skip
            target.finish()
            attend(
                query, keys, values, batches[layer.window], torch.zeros_like(query),
                window=layer.window, scale=layer.head_dim**-0.5, sinks=sinks,
                workspace=self._workspace,
            )  # fmt: skip
        self._run_modules(len(tokens), self._like)
        count = len(tokens) if rows is None else len(rows)
        return self._like.new_zeros(count, self._vocabulary)

    def _run_modules(self, rows: int, like: torch.Tensor) -> None:
        """Launch what replaces modules, on zeros."""
        for size in self._norms:
            factor = torch.zeros(size, device=like.device)
            strided_rms_norm(like.new_zeros(rows, size), factor, eps=1e-6, pdl=True)
        for (_, _, gated), module in self._linear.items():
            x = like.new_zeros(rows, module.in_features)
            linear(x, module.weight, module.bias)
            pairs = module.out_features // 2
            if not gated or pairs % 64:
                continue
            out = like.new_empty(rows, pairs)
            for activation in ACTIVATIONS:
                if few_rows(rows, x):  # the weight stands for gate and up
                    linear_few_rows(
                        x, module.weight, out, gated=True, activation=activation, pdl=True
                    )
                else:
                    gated_activation(out, out, out, activation)
