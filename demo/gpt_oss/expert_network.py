"""The tiny gpt-oss model as a PyTorch module for training, with the tensor names of gpt-oss.

Every expert computes every token, which is simple and, at this size, fast; the router's weights are
zero for those that a token does not take. A test checks that it equals the model of Transformers.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from eightfold.kernels.experts.mxfp4_reference import expand_mxfp4, round_to_mxfp4

from ..training_network import RMSNorm, apply_rotary
from .harmony_traces import BOS, CALL, PAD, RETURN

EXPERTS = "mlp.experts."


@dataclass(frozen=True)
class ExpertNetworkConfig:
    """Sizes, named as in config.json; layers 0, 2, ... attend to a sliding window."""

    vocab_size: int = 768
    hidden_size: int = 192
    intermediate_size: int = 128
    num_hidden_layers: int = 6
    num_attention_heads: int = 8
    num_key_value_heads: int = 2
    head_dim: int = 64
    num_local_experts: int = 8
    num_experts_per_tok: int = 4
    sliding_window: int = 128
    max_position_embeddings: int = 131_072
    rms_norm_eps: float = 1e-5
    rope_theta: float = 150_000.0
    rope_factor: float = 32.0
    original_positions: int = 4096
    beta_fast: float = 32.0
    beta_slow: float = 1.0
    swiglu_alpha: float = 1.702
    swiglu_limit: float = 7.0

    def is_sliding(self, layer: int) -> bool:
        """Return True if a layer attends to a sliding window only."""
        return layer % 2 == 0

    def to_dict(self, mxfp4: bool = True) -> dict[str, Any]:
        """Return the content of config.json.

        Args:
            mxfp4: say that the experts' matrices are stored in MXFP4.
        """
        kinds = ("full_attention", "sliding_attention")
        kept = ["model.layers.*.self_attn", "model.layers.*.mlp.router", "model.embed_tokens"]
        quantized = {
            "quantization_config": {
                "modules_to_not_convert": [*kept, "lm_head"],
                "quant_method": "mxfp4",
            }
        }
        return {
            "architectures": ["GptOssForCausalLM"],
            "attention_bias": True,
            "attention_dropout": 0.0,
            "bos_token_id": BOS,
            "dtype": "bfloat16",
            "eos_token_id": RETURN,
            "head_dim": self.head_dim,
            "hidden_act": "silu",
            "hidden_size": self.hidden_size,
            "initializer_range": 0.02,
            "intermediate_size": self.intermediate_size,
            "layer_types": [kinds[self.is_sliding(i)] for i in range(self.num_hidden_layers)],
            "max_position_embeddings": self.max_position_embeddings,
            "model_type": "gpt_oss",
            "num_attention_heads": self.num_attention_heads,
            "num_experts_per_tok": self.num_experts_per_tok,
            "num_hidden_layers": self.num_hidden_layers,
            "num_key_value_heads": self.num_key_value_heads,
            "num_local_experts": self.num_local_experts,
            "output_router_logits": False,
            "pad_token_id": PAD,
            **(quantized if mxfp4 else {}),
            "rms_norm_eps": self.rms_norm_eps,
            "rope_parameters": {
                "beta_fast": self.beta_fast,
                "beta_slow": self.beta_slow,
                "factor": self.rope_factor,
                "original_max_position_embeddings": self.original_positions,
                "rope_theta": self.rope_theta,
                "rope_type": "yarn",
                "truncate": False,
            },
            "router_aux_loss_coef": 0.9,
            "sliding_window": self.sliding_window,
            "swiglu_limit": self.swiglu_limit,
            "tie_word_embeddings": False,
            "use_cache": True,
            "vocab_size": self.vocab_size,
        }


GENERATION = {
    "bos_token_id": BOS,
    "do_sample": True,
    "eos_token_id": [RETURN, PAD, CALL],
    "pad_token_id": PAD,
    "temperature": 1.0,
}
"""The content of generation_config.json."""


def yarn_frequencies(s: ExpertNetworkConfig) -> tuple[Tensor, float]:
    """Return the angles per position (D/2,), and the factor of cosines and sines.

    YaRN (B. Peng et al., arXiv:2309.00071) without rounding of the bounds: pairs that turn often
    within the original context keep their speed, slow ones are slowed down by the factor.
    """
    half = s.head_dim // 2
    plain = s.rope_theta ** (-torch.arange(half, dtype=torch.float32) / half)

    def pair_of(turns: float) -> float:
        """Return the index of the pair that turns so often within the original context."""
        ratio = s.original_positions / (turns * 2 * math.pi)
        return half * math.log(ratio) / math.log(s.rope_theta)

    low, high = max(0.0, pair_of(s.beta_fast)), min(half * 2 - 1.0, pair_of(s.beta_slow))
    slowed = ((torch.arange(half, dtype=torch.float32) - low) / (high - low)).clamp(0, 1)
    frequencies = plain / s.rope_factor * slowed + plain * (1 - slowed)
    return frequencies, 0.1 * math.log(s.rope_factor) + 1.0


def round_through(weights: Tensor, share: Tensor) -> Tensor:
    """Return weights moved to their MXFP4 values by `share`, 0 to 1; gradients pass unchanged."""
    with torch.no_grad():
        rounded = expand_mxfp4(*round_to_mxfp4(weights), dtype=torch.float32)
        change = (rounded - weights) * share
    return weights + change


class Attention(nn.Module):
    """Attention of one layer with a sink: a logit per head that takes weight but has no value."""

    def __init__(self, s: ExpertNetworkConfig) -> None:
        super().__init__()
        self.dim = s.head_dim
        wide, narrow = s.num_attention_heads * s.head_dim, s.num_key_value_heads * s.head_dim
        self.q_proj = nn.Linear(s.hidden_size, wide)
        self.k_proj = nn.Linear(s.hidden_size, narrow)
        self.v_proj = nn.Linear(s.hidden_size, narrow)
        self.o_proj = nn.Linear(wide, s.hidden_size)
        self.sinks = nn.Parameter(torch.zeros(s.num_attention_heads))

    def forward(self, x: Tensor, tables: tuple[Tensor, Tensor], mask: Tensor) -> Tensor:
        B, T, _ = x.shape
        q = apply_rotary(self.q_proj(x).view(B, T, -1, self.dim), *tables).transpose(1, 2)
        k = apply_rotary(self.k_proj(x).view(B, T, -1, self.dim), *tables).transpose(1, 2)
        v = self.v_proj(x).view(B, T, -1, self.dim).transpose(1, 2)
        groups = q.shape[1] // k.shape[1]
        k, v = (t.repeat_interleave(groups, 1) for t in (k, v))
        scores = (q @ k.transpose(2, 3)) * self.dim**-0.5 + mask.to(q.dtype)
        sinks = self.sinks.to(scores.dtype)[None, :, None, None].expand(B, -1, T, 1)
        shares = torch.cat((scores, sinks), dim=-1).softmax(-1)[..., :-1]
        return self.o_proj((shares.to(v.dtype) @ v).transpose(1, 2).reshape(B, T, -1))


class Router(nn.Module):
    """Chooses the experts of each token, and their weights."""

    def __init__(self, s: ExpertNetworkConfig) -> None:
        super().__init__()
        self.top = s.num_experts_per_tok
        self.weight = nn.Parameter(torch.randn(s.num_local_experts, s.hidden_size) * 0.02)
        self.bias = nn.Parameter(torch.zeros(s.num_local_experts))

    def forward(self, x: Tensor) -> Tensor:
        """Return the weights (N, E) of the experts; those that are not chosen have 0."""
        chosen, places = F.linear(x, self.weight, self.bias).topk(self.top, dim=-1)
        weights = chosen.float().softmax(-1)
        return torch.zeros(x.shape[0], len(self.bias), device=x.device).scatter(1, places, weights)


class Experts(nn.Module):
    """The experts; rows of `gate_up_proj` alternate between gate and up.

    Attributes:
        rounding: how far the matrices are moved to their MXFP4 values, from 0 to 1.
    """

    rounding: Tensor

    def __init__(self, s: ExpertNetworkConfig) -> None:
        super().__init__()
        self.alpha, self.limit = s.swiglu_alpha, s.swiglu_limit
        E, H, inner = s.num_local_experts, s.hidden_size, s.intermediate_size
        self.gate_up_proj = nn.Parameter(torch.randn(E, 2 * inner, H) * H**-0.5)
        self.gate_up_proj_bias = nn.Parameter(torch.zeros(E, 2 * inner))
        self.down_proj = nn.Parameter(torch.randn(E, H, inner) * 0.2 * inner**-0.5)
        self.down_proj_bias = nn.Parameter(torch.zeros(E, H))
        self.register_buffer("rounding", torch.zeros(()), persistent=False)

    def forward(self, x: Tensor, weights: Tensor) -> Tensor:
        """Return the weighted sum of the experts of x (N, H), given their weights (N, E)."""
        gate_up = round_through(self.gate_up_proj, self.rounding)
        down = round_through(self.down_proj, self.rounding)
        both = x @ gate_up.to(x.dtype).transpose(1, 2) + self.gate_up_proj_bias.to(x.dtype)[:, None]
        gate = both[..., ::2].clamp(max=self.limit)
        up = both[..., 1::2].clamp(-self.limit, self.limit)
        activated = (up + 1) * gate * torch.sigmoid(gate * self.alpha)  # (E, N, I)
        weighted = activated * weights.T[..., None].to(x.dtype)
        joined = weighted.transpose(0, 1).flatten(1) @ down.to(x.dtype).transpose(1, 2).flatten(
            0, 1
        )
        return joined + weights.to(x.dtype) @ self.down_proj_bias.to(x.dtype)


class Mlp(nn.Module):
    """Router and experts of a layer."""

    def __init__(self, s: ExpertNetworkConfig) -> None:
        super().__init__()
        self.router = Router(s)
        self.experts = Experts(s)

    def forward(self, x: Tensor) -> Tensor:
        rows = x.flatten(0, 1)
        return self.experts(rows, self.router(rows)).view_as(x)


class Layer(nn.Module):
    """A decoder layer."""

    def __init__(self, s: ExpertNetworkConfig) -> None:
        super().__init__()
        self.self_attn = Attention(s)
        self.mlp = Mlp(s)
        self.input_layernorm = RMSNorm(s.hidden_size, s.rms_norm_eps)
        self.post_attention_layernorm = RMSNorm(s.hidden_size, s.rms_norm_eps)

    def forward(self, x: Tensor, tables: tuple[Tensor, Tensor], mask: Tensor) -> Tensor:
        x = x + self.self_attn(self.input_layernorm(x), tables, mask)
        return x + self.mlp(self.post_attention_layernorm(x))


class Body(nn.Module):
    """The network without its output layer."""

    def __init__(self, s: ExpertNetworkConfig) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(s.vocab_size, s.hidden_size)
        self.layers = nn.ModuleList(Layer(s) for _ in range(s.num_hidden_layers))
        self.norm = RMSNorm(s.hidden_size, s.rms_norm_eps)


class ExpertNetwork(nn.Module):
    """The whole network."""

    frequencies: Tensor

    def __init__(self, s: ExpertNetworkConfig) -> None:
        super().__init__()
        self.config = s
        self.model = Body(s)
        self.lm_head = nn.Linear(s.hidden_size, s.vocab_size, bias=False)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=module.in_features**-0.5)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        for module in self.modules():
            if isinstance(module, Attention):
                module.o_proj.weight.data *= 0.2
        nn.init.normal_(self.model.embed_tokens.weight, std=0.5)
        nn.init.normal_(self.lm_head.weight, std=0.02)
        frequencies, self.scale = yarn_frequencies(s)
        self.register_buffer("frequencies", frequencies, persistent=False)

    def set_rounding(self, share: float) -> None:
        """Move the experts' matrices to their MXFP4 values by a share from 0 to 1."""
        for module in self.modules():
            if isinstance(module, Experts):
                module.rounding.fill_(share)

    def forward(self, tokens: Tensor, positions: Tensor, visible: Tensor) -> Tensor:
        """Return logits (B, T, V).

        Args:
            tokens, positions: (B, T).
            visible: bool (B, T, T); who attends to whom in layers with full attention.
        """
        angles = positions[..., None].float() * self.frequencies
        angles = torch.cat((angles, angles), dim=-1)
        tables = angles.cos() * self.scale, angles.sin() * self.scale
        near = positions[:, :, None] - positions[:, None] < self.config.sliding_window
        masks = [
            torch.zeros(seen.shape, device=seen.device).masked_fill(~seen, -1e9)[:, None]
            for seen in (visible, visible & near)
        ]
        x = self.model.embed_tokens(tokens)
        for index, layer in enumerate(self.model.layers):
            x = layer(x, tables, masks[self.config.is_sliding(index)])
        logits: Tensor = self.lm_head(self.model.norm(x))
        return logits.float()


def stored_tensors(network: ExpertNetwork) -> dict[str, Tensor]:
    """Return the tensors of a checkpoint: the experts' matrices in MXFP4, all others bfloat16."""
    stored: dict[str, Tensor] = {}
    for name, tensor in network.state_dict().items():
        tensor = tensor.detach().cpu()
        if name.endswith(("gate_up_proj", "down_proj")):
            stored[f"{name}_blocks"], stored[f"{name}_scales"] = round_to_mxfp4(tensor.float())
        else:
            stored[name] = tensor.to(torch.bfloat16).contiguous()
    return stored


def save_model(network: ExpertNetwork, folder: Path) -> None:
    """Write model.safetensors, config.json and generation_config.json."""
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    save_file(stored_tensors(network), folder / "model.safetensors", metadata={"format": "pt"})
    for name, table in (("config", network.config.to_dict()), ("generation_config", GENERATION)):
        (folder / f"{name}.json").write_text(json.dumps(table, indent=2) + "\n", encoding="utf-8")


def load_model(network: ExpertNetwork, folder: Path) -> None:
    """Read what `save_model` wrote; every tensor must be there."""
    from safetensors.torch import load_file

    tensors = load_file(folder / "model.safetensors")
    for name in [name for name in tensors if name.endswith("_blocks")]:
        scales = tensors.pop(name.replace("_blocks", "_scales"))
        tensors[name.removesuffix("_blocks")] = expand_mxfp4(tensors.pop(name), scales)
    network.load_state_dict(tensors, strict=True)
