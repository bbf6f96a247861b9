"""Keys of one-copy layers, rebuilt from the one vector that the cache holds.

Gemma 4's full-attention layers with ``attention_k_eq_v`` project key and value with the same
weights, so that both derive from one normalized vector n. The cache holds n alone. The value is n,
and the key is ``rope(n * key_weight)``, rebuilt when it is read. On the dimensions that do not
rotate the key weight is folded into the query instead, so that only ``2 * pairs`` dimensions are
rebuilt. Pairs are the dimensions ``(i, i + head_dim / 2)`` for ``i < pairs``.
"""

from dataclasses import dataclass

import torch


@dataclass(frozen=True, slots=True)
class OneCopy:
    """Factors that turn cached vectors into keys.

    Attributes:
        key_weight: [head_dim], weight of k_norm.
        cos: float32 [positions, pairs], cosine of each pair's angle at each position.
        sin: float32 [positions, pairs], its sine.
    """

    key_weight: torch.Tensor
    cos: torch.Tensor
    sin: torch.Tensor


def fold_key_weight(
    query_weight: torch.Tensor, key_weight: torch.Tensor, pairs: int
) -> torch.Tensor:
    """Return q_norm's weight, times k_norm's on the dimensions that do not rotate, in float32.

    There ``q . k = (q_hat * w_q * w_k) . n``, so that n needs no weight of its own.

    Args:
        query_weight: [head_dim], weight of q_norm.
        key_weight: [head_dim], weight of k_norm.
        pairs: number of pairs that rotate.
    """
    folded = query_weight.float() * key_weight.float()
    half = folded.shape[0] // 2
    folded[:pairs] = query_weight[:pairs].float()
    folded[half : half + pairs] = query_weight[half : half + pairs].float()
    return folded


def rebuild_keys(n: torch.Tensor, one_copy: OneCopy, positions: torch.Tensor) -> torch.Tensor:
    """Return the keys that fit a folded query, in n's dtype (the reference of the kernels).

    Args:
        n: [tokens, heads, head_dim], cached vectors.
        one_copy: key weight and angles.
        positions: int64 [tokens].
    """
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
