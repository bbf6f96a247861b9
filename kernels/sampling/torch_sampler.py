"""Sampling in plain PyTorch: one token per row from filtered logits, reproducibly.

A token is drawn by the Gumbel-max trick: the token with the largest ``logit + g``, g independent
standard Gumbel noise, is distributed exactly as the softmax of the logits (Gumbel, "Statistical
theory of extreme values and some practical applications", 1954; Maddison, Tarlow and Minka,
"A* sampling", NeurIPS 2014). Gumbel noise is ``-log(e)`` with e standard exponential. Hence the
drawn token is also the one with the smallest ``e / probability``: the trick is an exponential race.

The noise of a token depends on (seed, position, token) alone, so that a draw does not depend on
other rows.
"""

from dataclasses import dataclass, replace

import torch

from .philox_noise import exponential_noise, philox, vocabulary_noise
from .rejecting_race import race


@dataclass(frozen=True, slots=True)
class SamplingBatch:
    """Sampling settings of R rows, as tensors on the device of the logits.

    The last three fields are known on the host, so that no step waits for the device.

    Attributes:
        temperature: float32 [R]; 0 for greedy rows, to which the filters do not apply.
        top_k: int64 [R]; 0 keeps all tokens.
        top_p: float32 [R]; 1 keeps all tokens.
        min_p: float32 [R]; 0 keeps all tokens.
        seeds: int64 [R], the 64 bits of the seed.
        positions: int64 [R], positions of the tokens to be drawn.
        max_top_k: the largest top_k if every row that is not greedy has one, otherwise 0.
        all_greedy: True if all rows are greedy.
        any_filtered: True if any row that is not greedy filters.
    """

    temperature: torch.Tensor
    top_k: torch.Tensor
    top_p: torch.Tensor
    min_p: torch.Tensor
    seeds: torch.Tensor
    positions: torch.Tensor
    max_top_k: int
    all_greedy: bool
    any_filtered: bool


def sample(logits: torch.Tensor, batch: SamplingBatch) -> torch.Tensor:
    """Draw a token for each row.

    Args:
        logits: [R, V], any float type.
        batch: settings of the rows.

    Returns:
        int64 [R].
    """
    logits = logits.float()
    if batch.all_greedy:
        return logits.argmax(dim=-1)
    greedy = batch.temperature == 0
    temperature = torch.where(greedy, 1.0, batch.temperature)[:, None]
    if not batch.any_filtered:
        drawn = _draw_from_all(logits, temperature, batch)
    elif batch.max_top_k or logits.device.type != "cpu":
        drawn = _draw_sorted(logits / temperature, batch)
    else:
        drawn = _draw_unsorted(logits / temperature, batch)
    return torch.where(greedy, logits.argmax(dim=-1), drawn)


def _draw_sorted(scaled: torch.Tensor, batch: SamplingBatch) -> torch.Tensor:
    """Draw from the tokens in descending order; does not wait for the device."""
    values, tokens = _sort_descending(scaled, batch.max_top_k)
    noise = _noise_of(batch, tokens, scaled.shape[1])
    winner = (_filter(values, batch) - noise.log()).argmax(dim=-1, keepdim=True)
    return tokens.gather(1, winner)[:, 0]


def _draw_unsorted(scaled: torch.Tensor, batch: SamplingBatch) -> torch.Tensor:
    """Draw as ``_draw_sorted``, but sort no more of a row than its top-k asks for."""
    drawn = torch.zeros(len(scaled), dtype=torch.long)
    limited = batch.top_k > 0
    if limited.any():
        at = limited.nonzero()[:, 0]
        drawn[at] = _draw_sorted(scaled[at], _with_top_k(batch, at))
    if not limited.all():
        at = (~limited).nonzero()[:, 0]
        options = (batch.seeds, batch.positions, batch.top_p, batch.min_p)
        drawn[at] = race(scaled[at], *(option[at] for option in options))
    return drawn


def _with_top_k(batch: SamplingBatch, rows: torch.Tensor) -> SamplingBatch:
    """Return the settings of some rows, all of which have a top-k."""
    names = ("temperature", "top_k", "top_p", "min_p", "seeds", "positions")
    chosen = {name: getattr(batch, name)[rows] for name in names}
    return replace(batch, **chosen, max_top_k=int(chosen["top_k"].max()))


def _draw_from_all(
    logits: torch.Tensor, temperature: torch.Tensor, batch: SamplingBatch
) -> torch.Tensor:
    """Draw from the whole vocabulary, a part at a time."""
    drawn = torch.zeros(len(logits), dtype=torch.long, device=logits.device)
    most = torch.full((len(logits),), float("-inf"), device=logits.device)
    for first, noise in vocabulary_noise(batch.seeds, batch.positions, logits.shape[1]):
        part = logits[:, first : first + noise.shape[1]] / temperature
        value, winner = part.sub_(noise.log_()).max(dim=-1)
        drawn = torch.where(value > most, winner + first, drawn)
        most = torch.maximum(most, value)
    return drawn


def _noise_of(batch: SamplingBatch, tokens: torch.Tensor, vocab_size: int) -> torch.Tensor:
    """Return the exponential noise of the given tokens, [R, K]."""
    if tokens.shape[1] * 4 < vocab_size:
        bits = philox(batch.seeds[:, None], batch.positions[:, None], tokens)
        return exponential_noise(bits)
    noise = torch.empty(len(tokens), vocab_size, device=tokens.device)
    for first, part in vocabulary_noise(batch.seeds, batch.positions, vocab_size):
        noise[:, first : first + part.shape[1]] = part
    return noise.gather(1, tokens)


def _sort_descending(scaled: torch.Tensor, max_top_k: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return values in descending order and their tokens, no more than top-k can keep."""
    if 0 < max_top_k < scaled.shape[1]:
        return torch.topk(scaled, max_top_k, dim=-1)
    return torch.sort(scaled, dim=-1, descending=True)


def _filter(values: torch.Tensor, batch: SamplingBatch) -> torch.Tensor:
    """Set what top-k, top-p and min-p drop to -inf; ``values`` [R, K] descend along each row.

    As in transformers, each filter sees the renormalized survivors of those before it, and the
    most likely token always stays.
    """
    drop = float("-inf")
    rank = torch.arange(values.shape[1], device=values.device)[None, :]
    top_k = torch.where(batch.top_k == 0, values.shape[1], batch.top_k)[:, None]
    values = values.masked_fill(rank >= top_k, drop)
    probabilities = values.softmax(dim=-1)
    # A token stays if the tokens before it have not reached top_p.
    before = probabilities.cumsum(dim=-1) - probabilities
    outside = (before >= batch.top_p[:, None]) & (batch.top_p[:, None] < 1) & (rank > 0)
    values = values.masked_fill(outside, drop)
    # Ratios to the largest probability do not change when the survivors are renormalized.
    unlikely = probabilities < batch.min_p[:, None] * probabilities[:, :1]
    return values.masked_fill(unlikely, drop)


def entropy(logits: torch.Tensor) -> torch.Tensor:
    """Return the Shannon entropy of softmax(logits) for each row, in nats: [R, V] -> float32 [R].

    It is NaN if a logit is NaN or infinity. Minus infinity forbids a token and adds nothing.
    """
    logits = logits.float()
    log_probabilities = logits - logits.logsumexp(dim=-1, keepdim=True)
    parts = log_probabilities.exp() * log_probabilities
    return -parts.masked_fill(log_probabilities == float("-inf"), 0.0).sum(dim=-1)
