"""Chooses whether a drafter draws tokens with the verification's noise or takes the likeliest.

Where drafter and model agree, equal noise draws equal tokens. Where the drafter is unsure and the
model is not, its likeliest token is right more often than a drawn one. Which of the two a drafter
does better is counted: both first drafts of a step are compared with the token that came.
"""

import torch

DECAY = 0.98  # weight that a step keeps after the next one
LEAD = 0.02  # share of the drafts by which the likeliest tokens must have been right more often


class DraftChoice:
    """Counts how often either kind of draft would have been right.

    Everything is a tensor, so that a captured graph can choose.

    Attributes:
        hits: float32 [3], decayed: right drawn tokens, right likeliest tokens, and drafts.
    """

    def __init__(self, device: torch.device) -> None:
        self.hits = torch.zeros(3, device=device)

    @property
    def likeliest(self) -> torch.Tensor:
        """Bool scalar, True if the likeliest tokens have been right more often."""
        return self.hits[1] > self.hits[0] + LEAD * self.hits[2]

    def choose(self, drawn: torch.Tensor, likeliest: torch.Tensor) -> torch.Tensor:
        """Return which of two drafts [S] to take for each sequence."""
        return torch.where(self.likeliest, likeliest, drawn)

    def record(self, candidates: torch.Tensor, tokens: torch.Tensor, valid: torch.Tensor) -> None:
        """Take in what came in the place of first drafts.

        Args:
            candidates: int64 [2, S], the drawn and the likeliest draft of each sequence.
            tokens: int64 [S], what came.
            valid: bool [S], False for padding.
        """
        right = ((candidates == tokens) & valid).sum(1)
        counts = torch.cat([right, valid.sum()[None]]).to(self.hits.dtype)
        self.hits.mul_(DECAY).add_(counts)
