"""The bundled model as a PyTorch module for training, with the tensor names of Gemma 4's model.

It has only what the bundled model uses: no per-layer embeddings, no experts, no layers that share
keys and values. A test checks that it equals the model of Transformers.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .control_tokens import BOS, END_TURN, EOS, PAD, TOOL_RESPONSE

AttentionFunction = Callable[[Tensor, Tensor, Tensor, bool], Tensor]
"""Attention of queries (B, H, T, D) to keys and values (B, K, T, D) with scale 1.

The flag is True for a sliding layer.
"""


@dataclass(frozen=True)
class NetworkConfig:
    """Sizes, named as in config.json if it has them; every `pattern`-th layer is global."""

    vocab_size: int = 4096
    hidden_size: int = 512
    intermediate_size: int = 1280
    num_hidden_layers: int = 10
    pattern: int = 5
    num_attention_heads: int = 8
    num_key_value_heads: int = 2
    head_dim: int = 64
    num_global_key_value_heads: int = 2
    global_head_dim: int = 128
    sliding_window: int = 256
    max_position_embeddings: int = 8192
    partial_rotary_factor: float = 0.25
    sliding_theta: float = 10_000.0
    global_theta: float = 1_000_000.0
    final_logit_softcapping: float = 30.0
    rms_norm_eps: float = 1e-6

    def is_sliding(self, layer: int) -> bool:
        """Return True if a layer attends to a sliding window only."""
        return layer % self.pattern != self.pattern - 1

    def check(self) -> None:
        """Assert what Gemma 4's configuration requires: the last layer is global."""
        assert not self.is_sliding(self.num_hidden_layers - 1)

    def to_dict(self) -> dict[str, Any]:
        """Return the content of config.json."""
        kinds = ("full_attention", "sliding_attention")
        return {
            "architectures": ["Gemma4ForCausalLM"],
            "model_type": "gemma4_text",
            "attention_bias": False,
            "attention_dropout": 0.0,
            "attention_k_eq_v": True,
            "bos_token_id": BOS,
            "dtype": "bfloat16",
            "enable_moe_block": False,
            "eos_token_id": [EOS, END_TURN],
            "final_logit_softcapping": self.final_logit_softcapping,
            "global_head_dim": self.global_head_dim,
            "head_dim": self.head_dim,
            "hidden_activation": "gelu_pytorch_tanh",
            "hidden_size": self.hidden_size,
            "hidden_size_per_layer_input": 0,
            "initializer_range": 0.02,
            "intermediate_size": self.intermediate_size,
            "layer_types": [kinds[self.is_sliding(i)] for i in range(self.num_hidden_layers)],
            "max_position_embeddings": self.max_position_embeddings,
            "num_attention_heads": self.num_attention_heads,
            "num_global_key_value_heads": self.num_global_key_value_heads,
            "num_hidden_layers": self.num_hidden_layers,
            "num_key_value_heads": self.num_key_value_heads,
            "num_kv_shared_layers": 0,
            "pad_token_id": PAD,
            "rms_norm_eps": self.rms_norm_eps,
            "rope_parameters": {
                "full_attention": {
                    "partial_rotary_factor": self.partial_rotary_factor,
                    "rope_theta": self.global_theta,
                    "rope_type": "proportional",
                },
                "sliding_attention": {"rope_theta": self.sliding_theta, "rope_type": "default"},
            },
            "sliding_window": self.sliding_window,
            "tie_word_embeddings": True,
            "use_bidirectional_attention": None,
            "use_cache": True,
            "use_double_wide_mlp": False,
            "vocab_size": self.vocab_size,
            "vocab_size_per_layer_input": self.vocab_size,
        }


GENERATION = {
    "bos_token_id": BOS,
    "do_sample": True,
    "eos_token_id": [EOS, END_TURN, TOOL_RESPONSE],
    "pad_token_id": PAD,
    "temperature": 1.0,
}
"""The content of generation_config.json."""


class RMSNorm(nn.Module):
    """Root-mean-square norm, computed in float32.

    Args:
        size: of the last dimension.
        eps: added to the mean square.
        start: initial value of the weight; None for a norm without weight.
    """

    def __init__(self, size: int, eps: float, start: float | None = 1.0) -> None:
        super().__init__()
        self.eps = eps
        self.weight = None if start is None else nn.Parameter(torch.full((size,), start))

    def forward(self, x: Tensor) -> Tensor:
        y = x.float()
        y = y * torch.rsqrt(y.pow(2).mean(-1, keepdim=True) + self.eps)
        if self.weight is not None:
            y = y * self.weight
        return y.to(x.dtype)


def apply_rotary(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Apply the rotary embedding to x (B, T, H, D); elements i and i + D/2 are a pair.

    Args:
        x: queries or keys.
        cos, sin: tables (B, T, D).
    """
    first, second = x.chunk(2, dim=-1)
    turned = torch.cat((-second, first), dim=-1)
    return (x * cos[:, :, None] + turned * sin[:, :, None]).to(x.dtype)


class Attention(nn.Module):
    """Attention of one layer.

    The values of a global layer are its keys, before the norm's weight and the rotary embedding.
    """

    def __init__(self, s: NetworkConfig, layer: int) -> None:
        super().__init__()
        self.sliding = s.is_sliding(layer)
        self.dim = s.head_dim if self.sliding else s.global_head_dim
        heads, kv = s.num_attention_heads, s.num_key_value_heads
        if not self.sliding:
            kv = s.num_global_key_value_heads
        self.q_proj = nn.Linear(s.hidden_size, heads * self.dim, bias=False)
        self.k_proj = nn.Linear(s.hidden_size, kv * self.dim, bias=False)
        self.v_proj = nn.Linear(s.hidden_size, kv * self.dim, bias=False) if self.sliding else None
        self.o_proj = nn.Linear(heads * self.dim, s.hidden_size, bias=False)
        # Scores have no factor 1/sqrt(D): a small initial weight keeps the softmax flat.
        self.q_norm = RMSNorm(self.dim, s.rms_norm_eps, 2.0 / self.dim**0.5)
        self.k_norm = RMSNorm(self.dim, s.rms_norm_eps)
        self.v_norm = RMSNorm(self.dim, s.rms_norm_eps, None)

    def forward(
        self, x: Tensor, tables: tuple[Tensor, Tensor], attend: AttentionFunction
    ) -> Tensor:
        B, T, _ = x.shape
        q = self.q_proj(x).view(B, T, -1, self.dim)
        k = self.k_proj(x).view(B, T, -1, self.dim)
        v = k if self.v_proj is None else self.v_proj(x).view(B, T, -1, self.dim)
        q = apply_rotary(self.q_norm(q), *tables).transpose(1, 2)
        k = apply_rotary(self.k_norm(k), *tables).transpose(1, 2)
        v = self.v_norm(v).transpose(1, 2)
        y = attend(q, k, v, self.sliding)
        return self.o_proj(y.transpose(1, 2).reshape(B, T, -1))


class Mlp(nn.Module):
    """Gated feed-forward layer."""

    def __init__(self, s: NetworkConfig) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(s.hidden_size, s.intermediate_size, bias=False)
        self.up_proj = nn.Linear(s.hidden_size, s.intermediate_size, bias=False)
        self.down_proj = nn.Linear(s.intermediate_size, s.hidden_size, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.down_proj(F.gelu(self.gate_proj(x), approximate="tanh") * self.up_proj(x))


class Layer(nn.Module):
    """A decoder layer."""

    def __init__(self, s: NetworkConfig, layer: int) -> None:
        super().__init__()
        self.self_attn = Attention(s, layer)
        self.mlp = Mlp(s)
        self.input_layernorm = RMSNorm(s.hidden_size, s.rms_norm_eps)
        self.pre_feedforward_layernorm = RMSNorm(s.hidden_size, s.rms_norm_eps)
        # Small, so that the noise of the first layers does not drown the embedding.
        self.post_attention_layernorm = RMSNorm(s.hidden_size, s.rms_norm_eps, 0.25)
        self.post_feedforward_layernorm = RMSNorm(s.hidden_size, s.rms_norm_eps, 0.25)
        self.register_buffer("layer_scalar", torch.ones(1))

    def forward(
        self, x: Tensor, tables: tuple[Tensor, Tensor], attend: AttentionFunction
    ) -> Tensor:
        y = self.self_attn(self.input_layernorm(x), tables, attend)
        x = x + self.post_attention_layernorm(y)
        y = self.mlp(self.pre_feedforward_layernorm(x))
        return x + self.post_feedforward_layernorm(y)


class Body(nn.Module):
    """The network without its output layer."""

    def __init__(self, s: NetworkConfig) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(s.vocab_size, s.hidden_size)
        self.layers = nn.ModuleList(Layer(s, i) for i in range(s.num_hidden_layers))
        self.norm = RMSNorm(s.hidden_size, s.rms_norm_eps)


class Network(nn.Module):
    """The whole network, to which the attention function is passed in."""

    sliding_freq: Tensor
    global_freq: Tensor

    def __init__(self, s: NetworkConfig) -> None:
        super().__init__()
        s.check()
        self.config = s
        self.model = Body(s)
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Embedding):
                nn.init.normal_(module.weight, std=0.02)
        self.register_buffer("sliding_freq", self._frequencies(True), persistent=False)
        self.register_buffer("global_freq", self._frequencies(False), persistent=False)

    def _frequencies(self, sliding: bool) -> Tensor:
        """Return the angles per position (D/2,); most pairs of the global layers do not turn."""
        s = self.config
        dim, theta = (
            (s.head_dim, s.sliding_theta) if sliding else (s.global_head_dim, s.global_theta)
        )
        frequencies = theta ** (-torch.arange(0, dim, 2, dtype=torch.float32) / dim)
        if not sliding:
            frequencies[int(s.partial_rotary_factor * dim // 2) :] = 0.0
        return frequencies

    def tables(self, positions: Tensor, sliding: bool) -> tuple[Tensor, Tensor]:
        """Return cosines and sines (B, T, D) for positions (B, T)."""
        frequencies = self.sliding_freq if sliding else self.global_freq
        angles = positions[..., None].float() * frequencies
        angles = torch.cat((angles, angles), dim=-1)
        return angles.cos(), angles.sin()

    def hidden(self, tokens: Tensor, positions: Tensor, attend: AttentionFunction) -> Tensor:
        """Return the hidden states (B, T, hidden) after the last norm; arguments as `forward`."""
        x = self.model.embed_tokens(tokens) * self.config.hidden_size**0.5
        tables = {sliding: self.tables(positions, sliding) for sliding in (True, False)}
        for index, layer in enumerate(self.model.layers):
            x = layer(x, tables[self.config.is_sliding(index)], attend)
        return self.model.norm(x)

    def forward(self, tokens: Tensor, positions: Tensor, attend: AttentionFunction) -> Tensor:
        """Return logits (B, T, V).

        Args:
            tokens, positions: (B, T).
            attend: computes attention.
        """
        logits = F.linear(self.hidden(tokens, positions, attend), self.model.embed_tokens.weight)
        cap = self.config.final_logit_softcapping
        return cap * torch.tanh(logits.float() / cap)


def save_weights(network: Network, folder: Path, limit: int = 12 * 2**20) -> None:
    """Write bfloat16 safetensors in shards of at most `limit` bytes, with their index."""
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("model-*-of-*.safetensors"):
        old.unlink()
    shards: list[dict[str, Tensor]] = [{}]
    room = limit
    for name, tensor in network.state_dict().items():
        tensor = tensor.detach().to("cpu", torch.bfloat16).contiguous()
        size = tensor.numel() * 2
        if size > room:
            shards.append({})
            room = limit
        shards[-1][name] = tensor
        room -= size
    index: dict[str, str] = {}
    for number, shard in enumerate(shards, 1):
        file = f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        save_file(shard, folder / file, metadata={"format": "pt"})
        index |= dict.fromkeys(shard, file)
    total = sum(t.numel() * 2 for shard in shards for t in shard.values())
    table = {"metadata": {"total_size": total}, "weight_map": index}
    (folder / "model.safetensors.index.json").write_text(json.dumps(table, indent=1) + "\n")


def save_configs(config: NetworkConfig, folder: Path) -> None:
    """Write config.json and generation_config.json."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, table in (("config", config.to_dict()), ("generation_config", GENERATION)):
        (folder / f"{name}.json").write_text(json.dumps(table, indent=2) + "\n", encoding="utf-8")


def load_weights(network: Network, folder: Path) -> None:
    """Read what `save_weights` wrote; every tensor must be there."""
    from safetensors.torch import load_file

    tensors: dict[str, Tensor] = {}
    for path in sorted(folder.glob("model-*-of-*.safetensors")):
        tensors |= load_file(path)
    network.load_state_dict(tensors, strict=True)
