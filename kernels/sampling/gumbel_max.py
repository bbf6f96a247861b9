"""Triton code that the samplers share: scaled logits, and the Gumbel noise that is added to them.

``torch_sampler`` explains the Gumbel-max trick.
"""

import triton
import triton.language as tl


@triton.jit
def scaled_logits(logits, row, token, vocab_size, softcap, temperature):
    """Return logits after softcap and temperature, -inf beyond the vocabulary.

    Greedy rows, whose temperature is 0, are scaled by 1.
    """
    z = tl.load(
        logits + row.to(tl.int64) * vocab_size + token, mask=token < vocab_size, other=float("-inf")
    )
    z = z.to(tl.float32)
    if softcap > 0:
        # tanh(u) = 1 - 2 / (exp(2u) + 1) does not overflow to NaN at either end.
        capped = softcap * (1.0 - 2.0 / (tl.exp(2.0 * z / softcap) + 1.0))
        z = tl.where(token < vocab_size, capped, float("-inf"))
    return z / tl.where(temperature == 0, 1.0, temperature)


@triton.jit
def add_gumbel_noise(z, token, seed, position, SIZE: tl.constexpr):
    """Return scaled logits plus the noise of (seed, position, token); the largest is drawn.

    z and token are [SIZE]. The noise is ``-log(e)`` with e from ``philox.exponential_noise``; four
    tokens share a counter.
    """
    zero = tl.zeros([SIZE], tl.int32)
    a, b, c, d = tl.philox(seed, token >> 2, zero + position, zero, zero)
    word = token & 3
    bits = tl.where(word < 2, tl.where(word == 0, a, b), tl.where(word == 2, c, d))
    u = (bits.to(tl.uint32, bitcast=True).to(tl.float32) + 0.5) * (2.0**-32)
    # -log1p(-u) by Kahan's correction of log(1 - u), which is as exact as log itself (Goldberg,
    # "What every computer scientist should know about floating-point arithmetic", 1991, theorem 4).
    rest = 1.0 - u
    ratio = tl.where(rest == 1.0, 1.0, tl.log(rest) / tl.where(rest == 1.0, 1.0, rest - 1.0))
    return z - tl.log(u * ratio)
