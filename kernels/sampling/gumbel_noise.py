"""The exponential race of the samplers: logits as they are drawn from, and each token's time."""

import triton
import triton.language as tl


@triton.jit
def scaled_logits(logits, row, at, V, softcap, temperature):
    """Logits after softcap and temperature, -inf beyond the vocabulary; greedy rows at 1."""
    z = tl.load(logits + row.to(tl.int64) * V + at, mask=at < V, other=float("-inf"))
    z = z.to(tl.float32)
    if softcap > 0:
        # tanh(u) = 1 - 2 / (exp(2u) + 1) does not overflow to NaN at either end.
        capped = softcap * (1.0 - 2.0 / (tl.exp(2.0 * z / softcap) + 1.0))
        z = tl.where(at < V, capped, float("-inf"))
    return z / tl.where(temperature == 0, 1.0, temperature)


@triton.jit
def add_gumbel_noise(z, token, seed, position, SIZE: tl.constexpr):
    """``z`` less the log of exponential noise of (seed, position, token): the largest is drawn.

    z, token: [SIZE]. The noise is that of ``philox.exponential``, four tokens to a counter.
    """
    zero = tl.zeros([SIZE], tl.int32)
    a, b, c, e = tl.philox(seed, token >> 2, zero + position, zero, zero)
    word = token & 3
    bits = tl.where(word < 2, tl.where(word == 0, a, b), tl.where(word == 2, c, e))
    u = (bits.to(tl.uint32, bitcast=True).to(tl.float32) + 0.5) * (2.0**-32)
    # -log1p(-u) by Kahan's correction of log(1 - u), as exact as log itself.
    rest = 1.0 - u
    ratio = tl.where(rest == 1.0, 1.0, tl.log(rest) / tl.where(rest == 1.0, 1.0, rest - 1.0))
    return z - tl.log(u * ratio)
