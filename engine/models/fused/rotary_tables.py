"""Rotary tables, computed from the model's own rotary embedding so that no formula is repeated."""

from dataclasses import dataclass

import torch
from torch import nn


@dataclass(frozen=True, slots=True)
class RotaryTable:
    """Rotations of one kind of layer.

    Attributes:
        cos: float32 [positions, pairs].
        sin: float32 [positions, pairs].
        layout: which elements of a head are a pair (see ``norm_rope_and_cache``).
    """

    cos: torch.Tensor
    sin: torch.Tensor
    layout: str


def make_rotary_table(
    rotary: nn.Module, kind: str, positions: int, head_dim: int, neighbors: bool
) -> RotaryTable:
    """Compute the table of one kind of layer.

    Args:
        rotary: transformers' module; it has frequencies for each kind of layer or for all.
        kind: kind of the layer in ``layer_types``.
        positions: number of positions.
        head_dim: width of a head. Frequencies for fewer pairs rotate its first elements.
        neighbors: True if elements 2i and 2i + 1 are a pair.
    """
    prefix = f"{kind}_" if hasattr(rotary, f"{kind}_inv_freq") else ""
    frequencies = getattr(rotary, f"{prefix}inv_freq").float()
    scaling = float(getattr(rotary, f"{prefix}attention_scaling", 1.0))
    whole = len(frequencies) * 2 == head_dim
    if scaling == 1.0:  # pairs that do not turn come last, and are left alone
        frequencies = frequencies[: int((frequencies != 0).sum())]
    at = torch.arange(positions, device=frequencies.device, dtype=torch.float32)
    angles = at[:, None] * frequencies[None, :]
    layout = "neighbors" if neighbors else "halves" if whole else "partial"
    return RotaryTable(angles.cos() * scaling, angles.sin() * scaling, layout)
