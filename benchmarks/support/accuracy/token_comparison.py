"""Compares attempts of the engine with those of the reference loop, token for token."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import PreTrainedModel


@dataclass(frozen=True)
class Divergence:
    """The position at which two runs of an attempt sample different tokens.

    Attributes:
        position: index of the first different token in the conversation.
        gap: logit of the reference's token less that of the engine's, as the reference computes
            them; 0 or less if the reference itself finds the engine's token no less likely.
        step: distance between neighboring bfloat16 numbers at the larger logit.
    """

    position: int
    gap: float
    step: float

    @property
    def tie(self) -> bool:
        """True if rounding alone can have decided: the logits differ by at most two steps."""
        return self.gap <= 2 * self.step


def conversation(prompt: Sequence[int], attempt: dict[str, Any]) -> list[int]:
    """Return the tokens of a recorded attempt as they stood in the context, its prompt included."""
    tokens = list(prompt)
    for turn in attempt["turns"]:
        tokens += turn["tokens"][: len(turn["tokens"]) - turn["replaced"]] + turn["appended"]
    return tokens


def first_difference(one: Sequence[int], other: Sequence[int]) -> int | None:
    """Return the index of the first different token, or None if one begins with the other."""
    return next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), None)


@torch.inference_mode()
def find_divergence(
    model: PreTrainedModel, engine: Sequence[int], reference: Sequence[int]
) -> Divergence | None:
    """Return where two conversations diverge, or None if they are equal."""
    position = first_difference(engine, reference)
    if position is None:
        return None
    ids = torch.tensor([list(reference[:position])], device=model.device)
    logits = model(input_ids=ids, logits_to_keep=1).logits[0, -1].float()
    gap = float(logits[reference[position]] - logits[engine[position]])
    top = max(abs(float(logits[reference[position]])), abs(float(logits[engine[position]])))
    _, exponent = torch.frexp(torch.tensor(top))
    return Divergence(position, gap, 2.0 ** (int(exponent) - 8))
