"""What a model asks of its attention layers, found by a forward pass without weights."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers import AttentionInterface, PreTrainedModel

_NAME = "eightfold-dry-run"
_TOKENS = 5
# What the engine's attention takes beside queries, keys and values.
_TAKEN = {"scaling", "sliding_window", "softcap", "s_aux"}
# Arguments that models pass along and that change nothing here: positions are in the page tables.
_HARMLESS = {"position_ids", "is_causal", "use_cache", "cache_position"}


@dataclass(frozen=True, slots=True)
class Ask:
    """One call of the attention function.

    Args:
        module: the attention module that called.
        heads, kv_heads, head_dim, value_dim: of queries, keys and values.
        window: the sliding window it names, ``None`` where it names none.
        softcap: whether scores are to be capped.
        unmet: what it asks for that the engine does not do.
    """

    module: nn.Module
    heads: int
    kv_heads: int
    head_dim: int
    value_dim: int
    window: int | None
    softcap: bool
    unmet: tuple[str, ...]


def unmet(mask: torch.Tensor | None, dropout: float, options: dict[str, Any]) -> tuple[str, ...]:
    """What a call asks for that the engine's attention does not do, in words."""
    # False and None ask for nothing.
    asked = {name for name, given in options.items() if given is not None and given is not False}
    names = sorted(asked - _TAKEN - _HARMLESS)
    if mask is not None:
        names.append("a mask of its own")
    if dropout:
        names.append("dropout")
    return tuple(names)


def attention_asks(model: PreTrainedModel) -> list[Ask] | None:
    """The calls of one forward pass of a model on the meta device, in order.

    ``None`` where the model looks at values on its way, which there are none of.
    """
    asks: list[Ask] = []
    AttentionInterface.register(_NAME, _recorder(asks))
    # No mask function under this name: transformers makes no masks then.
    model.set_attn_implementation(_NAME)
    # Experts are gathered then; a loop over those that have tokens would look at values.
    model.set_experts_implementation("batched_mm")
    try:
        with torch.inference_mode(), torch.device("meta"):
            model(input_ids=torch.zeros(1, _TOKENS, dtype=torch.long), use_cache=False)
    except (RuntimeError, NotImplementedError) as error:
        if "meta" not in str(error):
            raise
        return None
    return asks


def _recorder(asks: list[Ask]) -> Callable[..., tuple[torch.Tensor, None]]:
    def record(
        module: nn.Module,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        attention_mask: torch.Tensor | None,
        dropout: float = 0.0,
        **options: Any,
    ) -> tuple[torch.Tensor, None]:
        asks.append(
            Ask(
                module=module,
                heads=query.shape[1],
                kv_heads=key.shape[1],
                head_dim=key.shape[3],
                value_dim=value.shape[3],
                window=options.get("sliding_window"),
                softcap=options.get("softcap") is not None,
                unmet=unmet(attention_mask, dropout, options),
            )
        )
        return query.new_empty(1, query.shape[2], query.shape[1], value.shape[3]), None

    return record
