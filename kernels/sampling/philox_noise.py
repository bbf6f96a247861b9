"""Random bits as a function of (seed, position, token) alone, by Philox4x32-10.

Source: Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011. The counter is
(token id // 4, position, 0, 0), and the key is the low and the high 32 bits of the seed. Of the
four output words, number token id % 4 is used. ``tl.philox`` with the same arguments gives a Triton
kernel the same bits.
"""

from collections.abc import Iterator

import torch

# Counters of a part. Its tensors stay in a core's cache, and no operation on its 32,768 tokens is
# large enough for PyTorch to wake other threads for it.
CHUNK_ELEMENTS = 1 << 13
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


def vocabulary_noise(
    seeds: torch.Tensor, positions: torch.Tensor, count: int
) -> Iterator[tuple[int, torch.Tensor]]:
    """Yield the exponential noise of tokens ``0..count-1`` for R rows, a part at a time.

    A counter serves four tokens, so that this is a quarter of the work of ``philox``. The parts are
    small: in tensors of the whole vocabulary each of the hundred operations would stream memory,
    and above 32 MiB the allocator would return it to the system every time.

    Args:
        seeds: int64 [R].
        positions: int64 [R].
        count: number of tokens.

    Yields:
        The first token of a part, and float32 [R, tokens of the part].
    """
    quads = -(-count // 4)
    step = max(1, CHUNK_ELEMENTS // max(1, len(seeds)))
    for first in range(0, quads, step):
        counters = torch.arange(first, min(first + step, quads), device=seeds.device)[None, :]
        words = torch.stack(_philox_words(seeds[:, None], positions[:, None], counters), dim=-1)
        yield first * 4, exponential_noise(words.flatten(1)[:, : count - first * 4])


def _philox_words(
    seeds: torch.Tensor, positions: torch.Tensor, quads: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return the four output words of counter (quad, position, 0, 0)."""
    k0, k1 = seeds & _MASK, (seeds >> 32) & _MASK
    c0, c1, _ = (tensor.clone() for tensor in torch.broadcast_tensors(quads, positions, seeds))
    c2, c3 = torch.zeros_like(c0), torch.zeros_like(c0)
    a, b = torch.empty_like(c0), torch.empty_like(c0)
    for _ in range(10):
        # int64 products wrap, which leaves all 64 bits right. Masking makes the shift unsigned.
        torch.mul(c0, _MULTIPLIERS[0], out=a)
        torch.mul(c2, _MULTIPLIERS[1], out=b)
        torch.bitwise_right_shift(b, 32, out=c0)
        c0.bitwise_and_(_MASK).bitwise_xor_(c1).bitwise_xor_(k0)
        torch.bitwise_right_shift(a, 32, out=c2)
        c2.bitwise_and_(_MASK).bitwise_xor_(c3).bitwise_xor_(k1)
        torch.bitwise_and(b, _MASK, out=c1)
        torch.bitwise_and(a, _MASK, out=c3)
        k0, k1 = (k0 + _WEYL[0]) & _MASK, (k1 + _WEYL[1]) & _MASK
    return c0, c1, c2, c3


def exponential_noise(bits: torch.Tensor) -> torch.Tensor:
    """Return standard exponential variates from 32 random bits each, in float32.

    ``-log1p(-u)`` with ``u = (bits + 0.5) / 2**32`` keeps full relative precision at the small end,
    which decides among many tokens. ``bits = 2**32 - 1`` rounds to u = 1 and gives infinity: that
    token is not drawn.
    """
    uniform = bits.to(torch.float32).add_(0.5).mul_(2.0**-32)
    return uniform.neg_().log1p_().neg_()
