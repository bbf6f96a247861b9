"""Finds out what a model requires of attention, by a forward pass on the meta device."""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel

_NAME = "eightfold-probe"
_TOKENS = 5
_MAX_POSITIONS = 1 << 20  # largest at which masks are evaluated
# Options that the engine's attention takes, beside queries, keys and values.
_SUPPORTED = {"scaling", "sliding_window", "softcap", "s_aux"}
# Options that change nothing here: positions are in the page tables.
_IGNORED = {"position_ids", "is_causal", "use_cache", "cache_position"}


@dataclass(frozen=True, slots=True)
class AttentionRequirements:
    """Requirements of one call of the attention function.

    Attributes:
        module: attention module that made the call.
        kv_heads: number of heads of keys and values.
        head_dim: width of queries and keys.
        value_dim: width of values.
        windows: the sliding window that the call names and the one that its mask shows; ``None``
            for all tokens up to the query's own. Empty if it names none and has no mask.
        softcap: True if scores are to be capped.
        unsupported: what the engine's attention does not do, in words.
    """

    module: nn.Module
    kv_heads: int
    head_dim: int
    value_dim: int
    windows: frozenset[int | None]
    softcap: bool
    unsupported: tuple[str, ...]


def unsupported_options(
    mask: torch.Tensor | None, dropout: float, options: dict[str, Any]
) -> tuple[str, ...]:
    """Return in words what a call asks for that the engine's attention does not do.

    An option that is None or False asks for nothing.
    """
    given = {name for name, value in options.items() if value is not None and value is not False}
    found = sorted(given - _SUPPORTED - _IGNORED)
    if mask is not None:
        found.append("a mask of its own")
    if dropout:
        found.append("dropout")
    return tuple(found)


def probe_attention(model: PreTrainedModel, positions: int) -> list[AttentionRequirements] | None:
    """Run a model on the meta device, and return what each call of attention requires, in order.

    Args:
        model: its attention, its masks and its kind of rotary embedding stay replaced.
        positions: number of positions that the model was made for.

    Returns:
        ``None`` if the model reads values of tensors on its way: there are none on the meta device.
    """
    recorder = _Recorder(positions)
    AttentionInterface.register(_NAME, recorder.attention)
    AttentionMaskInterface.register(_NAME, recorder.mask)
    model.set_attn_implementation(_NAME)
    _hold_rotary_embeddings(model)
    # Batched experts are gathered. A loop over the experts that have tokens would read values.
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
    return recorder.calls


def _hold_rotary_embeddings(model: PreTrainedModel) -> None:
    """Keep rotary embeddings from choosing frequencies by the values of positions."""
    for module in model.modules():
        kind = getattr(module, "rope_type", None)
        if isinstance(kind, dict):  # of each kind of layers
            module.rope_type = dict.fromkeys(kind, "default")
        elif kind is not None:
            module.rope_type = "default"


class _Recorder:
    """Stands in for attention and masks, and records the calls."""

    def __init__(self, positions: int) -> None:
        self.calls: list[AttentionRequirements] = []
        self._positions = min(positions, _MAX_POSITIONS)
        self._masks: list[tuple[torch.Tensor, int | None]] = []  # with the windows that they show

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
        """Record a call and compute nothing; transformers' signature of attention."""
        shown = [window for mask, window in self._masks if mask is attention_mask]
        unsupported = unsupported_options(None if shown else attention_mask, dropout, options)
        if query.shape[2] != _TOKENS:
            unsupported += ("some of a step's tokens only",)
        named = options.get("sliding_window")
        self.calls.append(
            AttentionRequirements(
                module=module,
                kv_heads=key.shape[1],
                head_dim=key.shape[3],
                value_dim=value.shape[3],
                windows=frozenset(shown if named is None else [*shown, int(named)]),
                softcap=options.get("softcap") is not None,
                unsupported=unsupported,
            )
        )
        return query.new_empty(1, query.shape[2], query.shape[1], value.shape[3]), None

    def mask(
        self, *, q_length: int, kv_length: int, mask_function: Callable[..., Any], **_: Any
    ) -> torch.Tensor:
        """Make an empty mask, and note its window; transformers' signature of masks.

        Masks that page tables cannot express are not noted, so that they count as unsupported.
        """
        mask = torch.empty(1, 1, q_length, kv_length, dtype=torch.bool)
        with suppress(ValueError):
            self._masks.append((mask, _window(mask_function, self._positions)))
        return mask


def _window(mask_function: Callable[..., Any], positions: int) -> int | None:
    """Return the window that a mask shows to a query; ``None`` for all tokens up to its own.

    Raises:
        ValueError: if the mask shows something else.
    """
    at = torch.arange(positions + 1, device="cpu")
    zero = torch.zeros((), dtype=torch.long, device="cpu")
    found = set()
    # Windows begin one later for the second of two neighbors. Fixed chunks of tokens do not.
    for query in (positions - 1, positions - 2):
        seen = mask_function(zero, zero, torch.tensor(query, device="cpu"), at).expand(at.shape)
        count = int(seen.sum())
        if not torch.equal(seen, (at <= query) & (at > query - count)):
            raise ValueError("neither all tokens before a query nor a window of them")
        found.add(None if count == query + 1 else count)
    if len(found) != 1:
        raise ValueError("the window is not the same for all queries")
    return found.pop()
