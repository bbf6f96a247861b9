"""One cached vector for key and value of layers with ``attention_k_eq_v``.

The cache holds the normalised vector n alone. The value is n; the key is ``rope(n * key_weight)``,
rebuilt on read. On the dimensions that do not rotate the key weight is folded into the query, so
only ``2 * pairs`` dimensions are rebuilt. Pairs are ``(i, i + head_dim / 2)`` for ``i < pairs``.
"""

from dataclasses import dataclass

import torch


@dataclass(frozen=True, slots=True)
class OneCopy:
    """What rebuilding keys takes. key_weight: [head_dim] k_norm weight. cos, sin: float32
    [positions, pairs], the rotation of each pair at each position."""

    key_weight: torch.Tensor
    cos: torch.Tensor
    sin: torch.Tensor


def fold_key_weight(
    query_weight: torch.Tensor, key_weight: torch.Tensor, pairs: int
) -> torch.Tensor:
    """q_norm's weight [head_dim] times k_norm's on the dimensions that do not rotate, float32.

    There ``q . k = (q_hat * w_q * w_k) . n``, so that n needs no weight of its own.
    """
    folded = query_weight.float() * key_weight.float()
    half = folded.shape[0] // 2
    folded[:pairs] = query_weight[:pairs].float()
    folded[half : half + pairs] = query_weight[half : half + pairs].float()
    return folded


def rebuild_keys(n: torch.Tensor, one_copy: OneCopy, positions: torch.Tensor) -> torch.Tensor:
    """Keys of cached vectors n [tokens, heads, head_dim] for a folded query, in n's dtype."""
    pairs, half = one_copy.cos.shape[1], n.shape[2] // 2
    weight = one_copy.key_weight.to(n.dtype)
    cos = one_copy.cos[positions][:, None, :].to(n.dtype)
    sin = one_copy.sin[positions][:, None, :].to(n.dtype)
    a = n[..., :pairs] * weight[:pairs]
    b = n[..., half : half + pairs] * weight[half : half + pairs]
    keys = n.clone()
    keys[..., :pairs] = a * cos - b * sin
    keys[..., half : half + pairs] = b * cos + a * sin
    return keys
