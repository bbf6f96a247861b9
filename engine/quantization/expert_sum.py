"""The sum of experts, one expert after the other, in plain PyTorch."""

from collections.abc import Callable

import torch


def sum_of_experts(
    x: torch.Tensor,
    ids: torch.Tensor,
    weights: torch.Tensor,
    compute: Callable[[int, torch.Tensor], torch.Tensor],
) -> torch.Tensor:
    """Return the weighted sum of each token's experts.

    Args:
        x: [T, hidden].
        ids: [T, experts of a token], none of them twice.
        weights: [T, experts of a token].
        compute: returns what an expert, given by number, makes of rows [n, hidden].

    Returns:
        [T, hidden].
    """
    out = torch.zeros_like(x)
    for expert in ids.unique().tolist():
        tokens, places = torch.where(ids == expert)
        weighted = compute(expert, x[tokens]) * weights[tokens, places, None]
        out.index_add_(0, tokens, weighted.to(out.dtype))
    return out
