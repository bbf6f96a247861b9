"""Tiny random drafters in Gemma 4's assistant architecture, and their drafts by transformers."""

from pathlib import Path
from typing import Any

import torch
import transformers

from .tiny_models import COMMON, VOCABULARY, WINDOW, randomize


def save_assistant(folder: Path, ordered: bool = False, **changes: Any) -> Any:
    """Save a random drafter for the tiny Gemma 4 and return it."""
    torch.manual_seed(5)
    text = {
        **COMMON,
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 2,
        "head_dim": 8,
        "global_head_dim": 16,
        "num_global_key_value_heads": 1,
        "attention_k_eq_v": True,
        "sliding_window": WINDOW,
        "hidden_size_per_layer_input": 0,
        "vocab_size_per_layer_input": 0,
        "layer_types": ["sliding_attention", "full_attention"],
        **changes.pop("text", {}),
    }
    settings = {"backbone_hidden_size": 32, "use_ordered_embeddings": ordered, **changes}
    config = transformers.Gemma4AssistantConfig(
        text_config=transformers.Gemma4TextConfig(**text),
        num_centroids=16,
        centroid_intermediate_top_k=4,
        **settings,
    )
    model = randomize(transformers.Gemma4AssistantForCausalLM(config))
    if ordered:
        model.masked_embedding.token_ordering.copy_(torch.randperm(VOCABULARY))
    model.save_pretrained(folder)
    return model


@torch.inference_mode()
def reference_drafts(assistant: Any, target: Any, tokens: list[int], count: int) -> list[int]:
    """Return greedy drafts of transformers' module over the dense keys and values of its model."""
    end = len(tokens) - 1
    output = target.model(torch.tensor([tokens[:end]]), use_cache=True)
    hidden = output.last_hidden_state[:, -1:]
    shared = {}
    for index, kind in enumerate(target.config.layer_types):
        layer = output.past_key_values.layers[index]
        shared[kind] = (layer.keys, layer.values)
    shared["sliding_attention"] = tuple(
        part[:, :, -(target.config.sliding_window - 1) :] for part in shared["sliding_attention"]
    )
    newest, found = tokens[-1], []
    for _ in range(count):
        embedded = target.get_input_embeddings()(torch.tensor([[newest]]))
        step = assistant(
            inputs_embeds=torch.cat([embedded, hidden], dim=-1),
            position_ids=torch.tensor([[end - 1]]),
            shared_kv_states=shared,
        )
        hidden, newest = step.last_hidden_state, int(step.logits[0, -1].argmax())
        found.append(newest)
    return found
