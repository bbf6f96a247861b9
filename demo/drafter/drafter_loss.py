"""How far the drafter's guesses are from what the model would draw, depth by depth."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from eightfold.engine.speculation.mtp.assistant_checkpoint import row_options

from ..training_network import Network
from ..training_rows import POSITIONS, SEGMENTS, TARGETS, TOKENS
from .drafter_network import KINDS, TargetStates

DEPTHS = 5
"""Drafts that follow one another in training."""

DECAY = 0.8
"""Weight of a depth relative to the one before it."""


class DraftLoss(NamedTuple):
    """Result of `draft_loss`.

    Attributes:
        loss: weighted mean of the divergences, a scalar.
        overlap: (DEPTHS,), mean overlap of the drafter's and the model's distribution. Maximal
            coupling would accept this share of drafts; equal noise accepts nearly as many.
    """

    loss: Tensor
    overlap: Tensor


def choose_starts(row: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Draw `count` places (B, count) of newest tokens behind which trained tokens follow."""
    trained = row[:, TARGETS] >= 0
    trained[:, 0] = False
    weights = trained.float() + 1e-9  # a row without any still gives places, of no weight
    return torch.multinomial(weights, count, replacement=True, generator=generator)


def visible_keys(row: Tensor, starts: Tensor, window: int) -> dict[str, Tensor]:
    """Return by kind of layer which keys drafts see, bool (B, 1, M, T).

    They are those before the newest token, which lies at `starts`: in a window, it counts as one.
    """
    segments, positions = row[:, SEGMENTS], row[:, POSITIONS]
    order = torch.arange(row.shape[2], device=row.device)
    own = segments.gather(1, starts)
    full = (order < starts[..., None]) & (
        (segments[:, None] == own[..., None]) | (segments[:, None] == 0)
    )
    near = full & (positions.gather(1, starts)[..., None] - positions[:, None] < window)
    return {KINDS[False]: full[:, None], KINDS[True]: near[:, None]}


class Guess(NamedTuple):
    """The drafter's guess of one depth.

    Attributes:
        logs: (B, M, V) in float32, logarithms of its probabilities.
        places: (B, M), where in its row the token before the guessed one lies.
        valid: (B, M), True if the model was trained on the guessed token and those before it.
    """

    logs: Tensor
    places: Tensor
    valid: Tensor


def guesses(
    drafter: Any, network: Network, row: Tensor, states: TargetStates, starts: Tensor
) -> Iterator[Guess]:
    """Draft `DEPTHS` tokens behind `starts`, with the row's own tokens in between.

    Args:
        drafter: `Gemma4AssistantForCausalLM`.
        network: the model.
        row: (B, 4, T).
        states: of the model, for these rows.
        starts: (B, M), places of newest tokens.
    """
    embedding, scale = network.model.embed_tokens.weight, network.config.hidden_size**0.5
    cap = network.config.final_logit_softcapping
    masks = visible_keys(row, starts, network.config.sliding_window)
    positions = row[:, POSITIONS].gather(1, starts - 1)
    batch = torch.arange(row.shape[0], device=row.device)[:, None]
    hidden = states.hidden[batch, starts - 1]
    valid = torch.ones_like(starts, dtype=torch.bool)
    for depth in range(DEPTHS):
        places = (starts + depth).clamp(max=row.shape[2] - 1)
        valid = valid & (starts + depth < row.shape[2]) & (row[batch, TARGETS, places] >= 0)
        embedded = embedding[row[batch, TOKENS, places]] * scale
        state = drafter.model(
            inputs_embeds=drafter.pre_projection(torch.cat([embedded, hidden], -1)),
            attention_mask=masks,
            position_ids=positions,
            shared_kv_states=states.shared,
            use_cache=False,
            **row_options(drafter),
        ).last_hidden_state
        hidden = drafter.post_projection(state)
        logits = cap * torch.tanh(drafter.lm_head(state).float() / cap)
        yield Guess(logits.log_softmax(-1), places, valid)


def draft_loss(
    drafter: Any, network: Network, row: Tensor, states: TargetStates, starts: Tensor
) -> DraftLoss:
    """Compare drafts with the model's distributions; arguments as `guesses`."""
    batch = torch.arange(row.shape[0], device=row.device)[:, None]
    losses, weights, overlaps = [], [], []
    for depth, guess in enumerate(guesses(drafter, network, row, states, starts)):
        with torch.no_grad():
            wanted = states.logits[batch, guess.places].softmax(-1)
            overlap = torch.minimum(guess.logs.exp(), wanted).sum(-1)
            overlaps.append((overlap * guess.valid).sum() / guess.valid.sum().clamp(min=1))
        divergence = F.kl_div(guess.logs, wanted, reduction="none").sum(-1)
        losses.append((divergence * guess.valid).sum() * DECAY**depth)
        weights.append(guess.valid.sum() * DECAY**depth)
    loss = torch.stack(losses).sum() / torch.stack(weights).sum().clamp(min=1)
    return DraftLoss(loss, torch.stack(overlaps))
