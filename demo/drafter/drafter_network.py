"""The drafter as a module of Transformers, and what it reads of the model that it drafts for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

import torch
import transformers
from torch import Tensor, nn

from ..control_tokens import PAD
from ..train import dense_attention
from ..training_network import Network, NetworkConfig
from ..training_rows import POSITIONS, SEGMENTS, TOKENS

KINDS = {True: "sliding_attention", False: "full_attention"}
"""Kind of a layer in config.json, by whether it attends to a window only."""

WIDTH, INNER, HEADS = 160, 480, 4
"""Width of the drafter, of its feed-forward layers, and its query heads."""


class TargetStates(NamedTuple):
    """The part of the model's results for rows of B x T tokens that the drafter reads.

    Attributes:
        hidden: (B, T, hidden), after the last norm.
        logits: (B, T, V) in float32, of the token that follows each.
        shared: by kind of layer, keys and values (B, heads, T, D) of the last layer of that kind.
    """

    hidden: Tensor
    logits: Tensor
    shared: dict[str, tuple[Tensor, Tensor]]


def read_network_config(folder: Path) -> NetworkConfig:
    """Return the sizes of the model in `folder`, as `training_network` has them."""
    table: dict[str, Any] = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    named = {name: table[name] for name in NetworkConfig.__dataclass_fields__ if name in table}
    rope = table["rope_parameters"]
    return NetworkConfig(
        **named,
        pattern=table["layer_types"].index(KINDS[False]) + 1,
        partial_rotary_factor=rope[KINDS[False]]["partial_rotary_factor"],
        sliding_theta=rope[KINDS[True]]["rope_theta"],
        global_theta=rope[KINDS[False]]["rope_theta"],
    )


def drafter_config(target: dict[str, Any]) -> transformers.Gemma4AssistantConfig:
    """Return the drafter's configuration: one sliding and one global layer.

    Args:
        target: config.json of the model.
    """
    same = (
        "vocab_size", "head_dim", "global_head_dim", "num_key_value_heads",
        "num_global_key_value_heads", "attention_k_eq_v", "sliding_window", "rope_parameters",
        "max_position_embeddings", "rms_norm_eps", "hidden_activation", "bos_token_id",
        "eos_token_id",
    )  # fmt: skip
    text = transformers.Gemma4TextConfig(
        **{name: target[name] for name in same},
        hidden_size=WIDTH,
        intermediate_size=INNER,
        num_hidden_layers=2,
        num_attention_heads=HEADS,
        layer_types=[KINDS[True], KINDS[False]],
        hidden_size_per_layer_input=0,
        vocab_size_per_layer_input=0,
        pad_token_id=PAD,
        use_bidirectional_attention=None,
        final_logit_softcapping=target["final_logit_softcapping"],
    )
    return transformers.Gemma4AssistantConfig(
        text_config=text,
        backbone_hidden_size=target["hidden_size"],
        use_ordered_embeddings=False,
        dtype="bfloat16",
    )


def new_drafter(target: dict[str, Any]) -> transformers.PreTrainedModel:
    """Return a drafter with initial weights in float32.

    Args:
        target: config.json of the model.
    """
    model = transformers.Gemma4AssistantForCausalLM(drafter_config(target)).float()
    # All its keys and values are the model's: it has no projections for them.
    for name, parameter in model.named_parameters():
        if parameter.dim() == 2:
            deviation = 0.02 if "embed" in name else parameter.shape[1] ** -0.5
            nn.init.normal_(parameter, std=deviation)
        elif name.endswith("q_norm.weight"):  # scores have no factor 1/sqrt(D)
            nn.init.constant_(parameter, 2.0 / parameter.shape[0] ** 0.5)
    return model


@torch.no_grad()
def target_states(network: Network, row: Tensor) -> TargetStates:
    """Run the model over rows (B, 4, T) of `training_rows`."""
    segments, positions = row[:, SEGMENTS], row[:, POSITIONS]
    attention = dense_attention(segments, positions, network.config.sliding_window)
    shared: dict[str, tuple[Tensor, Tensor]] = {}

    def attend(q: Tensor, k: Tensor, v: Tensor, sliding: bool) -> Tensor:
        shared[KINDS[sliding]] = (k, v)
        return attention(q, k, v, sliding)

    hidden = network.hidden(row[:, TOKENS], positions, attend)
    logits = hidden @ network.model.embed_tokens.weight.T
    cap = network.config.final_logit_softcapping
    return TargetStates(hidden, cap * torch.tanh(logits.float() / cap), shared)
