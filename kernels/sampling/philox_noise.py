"""Random bits as a function of (seed, position, token) alone, by Philox4x32-10.

Source: Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011. The counter is
(token id // 4, position, 0, 0), and the key is the low and the high 32 bits of the seed. Of the
four output words, number token id % 4 is used. ``tl.philox`` with the same arguments gives a Triton
kernel the same bits.
"""

import torch

_MASK = 0xFFFFFFFF
_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_WEYL = (0x9E3779B9, 0xBB67AE85)


def philox(seeds: torch.Tensor, positions: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
    """Return 32 random bits for each token.

    Args:
        seeds: int64, the 64 bits of the seed. The three shapes must broadcast.
        positions: int64 in 0..2**32-1.
        tokens: int64 in 0..2**32-1.

    Returns:
        int64 in 0..2**32-1, of the broadcast shape.
    """
    words = torch.stack(_philox_words(seeds, positions, tokens >> 2), dim=-1)
    index = (tokens & 3).expand(words.shape[:-1])
    return words.gather(-1, index[..., None])[..., 0]


def philox_vocabulary(seeds: torch.Tensor, positions: torch.Tensor, count: int) -> torch.Tensor:
    """Return the bits of tokens ``0..count-1`` for R rows, at a quarter of the cost of ``philox``.

    Args:
        seeds: int64 [R].
        positions: int64 [R].
        count: number of tokens.

    Returns:
        int64 [R, count].
    """
    quads = torch.arange(-(-count // 4), device=seeds.device)[None, :]
    words = torch.stack(_philox_words(seeds[:, None], positions[:, None], quads), dim=-1)
    return words.flatten(1)[:, :count]


def _philox_words(
    seeds: torch.Tensor, positions: torch.Tensor, quads: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return the four output words of counter (quad, position, 0, 0)."""
    c0, c1, k0, k1 = torch.broadcast_tensors(quads, positions, seeds & _MASK, (seeds >> 32) & _MASK)
    c2 = c3 = torch.zeros_like(c0)
    for _ in range(10):
        # int64 products wrap, which leaves all 64 bits right. Masking makes the shift unsigned.
        a, b = c0 * _MULTIPLIERS[0], c2 * _MULTIPLIERS[1]
        c0, c1, c2, c3 = (
            ((b >> 32) & _MASK) ^ c1 ^ k0,
            b & _MASK,
            ((a >> 32) & _MASK) ^ c3 ^ k1,
            a & _MASK,
        )
        k0, k1 = (k0 + _WEYL[0]) & _MASK, (k1 + _WEYL[1]) & _MASK
    return c0, c1, c2, c3


def exponential_noise(bits: torch.Tensor) -> torch.Tensor:
    """Return standard exponential variates from 32 random bits each, in float32.

    ``-log1p(-u)`` with ``u = (bits + 0.5) / 2**32`` keeps full relative precision at the small end,
    which decides among many tokens. ``bits = 2**32 - 1`` rounds to u = 1 and gives infinity: that
    token is not drawn.
    """
    uniform = (bits.to(torch.float32) + 0.5) * 2.0**-32
    return -torch.log1p(-uniform)
