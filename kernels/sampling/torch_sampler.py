"""Drawing one token per row from filtered logits, reproducibly.

A token is drawn by an exponential_noise race: the winner minimises ``noise / probability``, which samples
exactly from the distribution (the Gumbel-max trick in other words). The noise of each token depends
on (seed, position, token) alone, so a draw does not depend on the rows beside it.
"""

from dataclasses import dataclass

import torch

from .philox import exponential_noise, philox, philox_vocabulary


@dataclass(frozen=True, slots=True)
class SamplingBatch:
    """Settings of R rows, as tensors on the logits' device.

    temperature, top_p, min_p: float32 [R]. top_k: int64 [R], 0 keeps all. seeds, positions: int64
    [R]; the position is that of the token to be drawn. ``max_top_k``: the largest top_k if every
    row that samples has one, else 0. ``greedy``, ``filtered``: whether all rows are greedy, and
    whether any row filters; both known on the host, so that no step waits for the device.
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
    """Draw a token per row.

    Args:
        logits: [R, V], any float type.

    Returns:
        int64 [R].
    """
    logits = logits.float()
    if batch.all_greedy:
        return logits.argmax(dim=-1)
    greedy = batch.temperature == 0
    scaled = logits / torch.where(greedy, 1.0, batch.temperature)[:, None]
    tokens: torch.Tensor | None
    if batch.any_filtered:
        values, tokens = _descending(scaled, batch.max_top_k)
        values = _filter(values, batch)
    else:
        values = scaled
        tokens = None
    noise = exponential_noise(_bits(batch, tokens, logits.shape[1]))
    winner = (values - noise.log()).argmax(dim=-1, keepdim=True)
    drawn = winner if tokens is None else tokens.gather(1, winner)
    return torch.where(greedy, logits.argmax(dim=-1), drawn[:, 0])


def _bits(batch: SamplingBatch, tokens: torch.Tensor | None, vocabulary: int) -> torch.Tensor:
    """Random bits of the candidates [R, K], or of the whole vocabulary."""
    if tokens is not None and tokens.shape[1] * 4 < vocabulary:
        return philox(batch.seeds[:, None], batch.positions[:, None], tokens)
    bits = philox_vocabulary(batch.seeds, batch.positions, vocabulary)
    return bits if tokens is None else bits.gather(1, tokens)


def _descending(scaled: torch.Tensor, max_top_k: int) -> tuple[torch.Tensor, torch.Tensor]:
    if 0 < max_top_k < scaled.shape[1]:
        return torch.topk(scaled, max_top_k, dim=-1)
    return torch.sort(scaled, dim=-1, descending=True)


def _filter(values: torch.Tensor, batch: SamplingBatch) -> torch.Tensor:
    """Set what top-k, top-p and min-p drop to -inf; ``values`` [R, K] descend along each row.

    As in transformers: each filter sees the renormalised survivors of those before it, and the
    most likely token always stays.
    """
    drop = float("-inf")
    rank = torch.arange(values.shape[1], device=values.device)[None, :]
    top_k = torch.where(batch.top_k == 0, values.shape[1], batch.top_k)[:, None]
    values = values.masked_fill(rank >= top_k, drop)
    probabilities = values.softmax(dim=-1)
    # A token stays while what comes before it has not reached top_p.
    before = probabilities.cumsum(dim=-1) - probabilities
    outside = (before >= batch.top_p[:, None]) & (batch.top_p[:, None] < 1) & (rank > 0)
    values = values.masked_fill(outside, drop)
    # Ratios to the largest probability do not change when the survivors are renormalised.
    unlikely = probabilities < batch.min_p[:, None] * probabilities[:, :1]
    return values.masked_fill(unlikely, drop)


def entropy(logits: torch.Tensor) -> torch.Tensor:
    """Shannon entropy of softmax(logits) per row, in nats: [R, V] -> float32 [R].

    NaN where a logit is NaN or infinity; minus infinity forbids a token and adds nothing.
    """
    logits = logits.float()
    log_probabilities = logits - logits.logsumexp(dim=-1, keepdim=True)
    parts = log_probabilities.exp() * log_probabilities
    return -parts.masked_fill(log_probabilities == float("-inf"), 0.0).sum(dim=-1)
