"""What a model asks of its attention layers, found by a forward pass without weights."""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel

_NAME = "eightfold-dry-run"
_TOKENS = 5
_MOST_POSITIONS = 1 << 20  # at which masks are looked at
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
        windows: what it names as sliding window, and what its mask shows: ``None`` for all tokens
            up to the query's own. Empty where it names none and has no mask.
        softcap: whether scores are to be capped.
        unmet: what it asks for that the engine does not do.
    """

    module: nn.Module
    heads: int
    kv_heads: int
    head_dim: int
    value_dim: int
    windows: frozenset[int | None]
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


def attention_asks(model: PreTrainedModel, positions: int) -> list[Ask] | None:
    """The calls of one forward pass of a model on the meta device, in order.

    ``None`` where the model looks at values on its way, which there are none of.

    Args:
        positions: most that the model was made for.
    """
    dry_run = _DryRun(positions)
    AttentionInterface.register(_NAME, dry_run.attention)
    AttentionMaskInterface.register(_NAME, dry_run.mask)
    model.set_attn_implementation(_NAME)
    # Experts are gathered then; a loop over those that have tokens would look at values.
    model.set_experts_implementation("batched_mm")
    try:
        with torch.inference_mode(), torch.device("meta"):
            tokens = torch.zeros(1, _TOKENS, dtype=torch.long)
            model(
                input_ids=tokens,
                attention_mask=torch.ones_like(tokens),
                use_cache=False,
                logits_to_keep=torch.arange(_TOKENS - 1, _TOKENS),
            )
    except (RuntimeError, NotImplementedError) as error:
        if "meta" not in str(error):
            raise
        return None
    return dry_run.asks


class _DryRun:
    """What stands in for attention and masks, and notes what it is called with."""

    def __init__(self, positions: int) -> None:
        self.asks: list[Ask] = []
        self._positions = min(positions, _MOST_POSITIONS)
        self._masks: list[tuple[torch.Tensor, int | None]] = []  # and the windows they show

    def attention(
        self,
        module: nn.Module,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        attention_mask: torch.Tensor | None,
        dropout: float = 0.0,
        **options: Any,
    ) -> tuple[torch.Tensor, None]:
        """transformers' attention signature; nothing is computed."""
        shown = [window for mask, window in self._masks if mask is attention_mask]
        lacking = unmet(None if shown else attention_mask, dropout, options)
        if query.shape[2] != _TOKENS:
            lacking += ("some of a step's tokens only",)
        named = options.get("sliding_window")
        self.asks.append(
            Ask(
                module=module,
                heads=query.shape[1],
                kv_heads=key.shape[1],
                head_dim=key.shape[3],
                value_dim=value.shape[3],
                windows=frozenset(shown if named is None else [*shown, int(named)]),
                softcap=options.get("softcap") is not None,
                unmet=lacking,
            )
        )
        return query.new_empty(1, query.shape[2], query.shape[1], value.shape[3]), None

    def mask(
        self, *, q_length: int, kv_length: int, mask_function: Callable[..., Any], **_: Any
    ) -> torch.Tensor:
        """transformers' mask signature: a mask to be recognised by, or one that no page gives."""
        mask = torch.empty(1, 1, q_length, kv_length, dtype=torch.bool)
        with suppress(ValueError):
            self._masks.append((mask, _window(mask_function, self._positions)))
        return mask


def _window(mask_function: Callable[..., Any], positions: int) -> int | None:
    """The window that a mask shows to a query, ``None`` for all tokens up to its own.

    Raises:
        ValueError: where it shows something else.
    """
    at = torch.arange(positions + 1, device="cpu")
    zero = torch.zeros((), dtype=torch.long, device="cpu")
    found = set()
    # Of two neighbours the later one sees another beginning, unless tokens lie in fixed chunks.
    for query in (positions - 1, positions - 2):
        seen = mask_function(zero, zero, torch.tensor(query, device="cpu"), at).expand(at.shape)
        count = int(seen.sum())
        if not torch.equal(seen, (at <= query) & (at > query - count)):
            raise ValueError("neither all tokens before a query nor a window of them")
        found.add(None if count == query + 1 else count)
    if len(found) != 1:
        raise ValueError("the window is not the same for all queries")
    return found.pop()
