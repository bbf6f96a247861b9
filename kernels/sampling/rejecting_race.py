"""Top-p and min-p without sorting the vocabulary: draw from all, and again if a filter drops it.

A draw by the Gumbel-max trick is the token with the largest score. Among the tokens that the
filters keep, that is the first one kept in order of descending scores, so that a token that is not
kept is passed over. So is every token that is no more likely than one passed over: the number of
rounds grows with the logarithm of the mass that the filters drop. Most rows need one or two rounds,
each of which reads the row a few times, where a sort of 262,144 logits takes 20 ms.
"""

import torch

from .philox_noise import vocabulary_noise

ELEMENTS = 1 << 21
"""Logits of the rows that are drawn together; a few tensors of this size exist at a time."""


def race(
    scaled: torch.Tensor,
    seeds: torch.Tensor,
    positions: torch.Tensor,
    top_p: torch.Tensor,
    min_p: torch.Tensor,
) -> torch.Tensor:
    """Draw a token for each row from those that top-p and min-p keep.

    The tokens are those that sorting would give, up to the rounding of the sums that are compared
    with ``top_p``. It waits for the device in each round, so it suits a CPU.

    Args:
        scaled: float32 [R, V], logits divided by the temperature.
        seeds: int64 [R].
        positions: int64 [R].
        top_p: float32 [R], above 0; 1 keeps all tokens.
        min_p: float32 [R]; 0 keeps all tokens.

    Returns:
        int64 [R].
    """
    rows = max(1, ELEMENTS // scaled.shape[1])
    parts = [slice(first, first + rows) for first in range(0, len(scaled), rows)]
    return torch.cat(
        [_race_few(*(x[part] for x in (scaled, seeds, positions, top_p, min_p))) for part in parts]
    )


def _race_few(
    scaled: torch.Tensor,
    seeds: torch.Tensor,
    positions: torch.Tensor,
    top_p: torch.Tensor,
    min_p: torch.Tensor,
) -> torch.Tensor:
    scores = scaled.clone()
    for first, noise in vocabulary_noise(seeds, positions, scaled.shape[1]):
        scores[:, first : first + noise.shape[1]].sub_(noise.log_())
    probabilities = scaled.softmax(dim=-1)
    largest, likeliest = probabilities.max(dim=-1)
    least = min_p * largest
    index = torch.arange(scaled.shape[1], device=scaled.device)[None, :]
    drawn, rows = likeliest.clone(), torch.arange(len(scaled), device=scaled.device)
    while True:
        score, winner = scores.max(dim=-1)
        column = winner[:, None]
        value = scaled.gather(1, column)
        ahead = (scaled > value) | ((scaled == value) & (index < column))
        before = torch.where(ahead, probabilities, 0.0).sum(dim=-1)
        found = score > float("-inf")  # infinite noise may leave none; then the likeliest stays
        drawn[rows] = torch.where(found, winner, drawn[rows])
        out = (before >= top_p) & (top_p < 1)
        out |= probabilities.gather(1, column)[:, 0] < least
        again = (out & found).nonzero()[:, 0]
        if not len(again):
            return drawn
        scores = scores[again].masked_fill_(~ahead[again], float("-inf"))
        drawn[rows[again]] = likeliest[rows[again]]
        rows, scaled, probabilities = rows[again], scaled[again], probabilities[again]
        top_p, least = top_p[again], least[again]
