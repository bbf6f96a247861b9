"""MXFP4 weights in plain torch: 4-bit floats in blocks of 32 that share a power of two.

A byte holds two elements E2M1, the even one in its low nibble; a scale E8M0 is the exponent of two
plus 127, and 255 is not a number (Open Compute Project, "OCP Microscaling Formats (MX)
Specification", version 1.0, sections 5.3.3 and 5.4.1).
"""

from functools import cache

import torch

BLOCK = 32
"""Consecutive elements of a row that share a scale."""

BLOCK_BYTES = BLOCK // 2
E2M1_VALUES = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)
"""Values of the codes 0 to 7; those of 8 to 15 are the same with a minus sign."""

SCALE_BIAS, SCALE_NAN = 127, 255
DTYPES = (torch.bfloat16, torch.float32, torch.float64)
"""Types that hold every value exactly, up to their largest; float16 cannot."""

_LARGEST_EXPONENT = 2  # of an element: 6 is 1.5 times 2 squared
_MIDPOINTS = (0.25, 0.75, 1.25, 1.75, 2.5, 3.5, 5.0)


def expand_mxfp4(
    blocks: torch.Tensor, scales: torch.Tensor, dtype: torch.dtype = torch.bfloat16
) -> torch.Tensor:
    """Return the values of MXFP4 weights, exactly.

    Args:
        blocks: uint8 [..., K / 32, 16], two elements a byte.
        scales: uint8 [..., K / 32].
        dtype: one of :data:`DTYPES`.

    Returns:
        [..., K].

    Raises:
        ValueError: if shapes or types are others.
    """
    if blocks.dtype != torch.uint8 or scales.dtype != torch.uint8:
        raise ValueError(f"Blocks and scales must be uint8, not {blocks.dtype}, {scales.dtype}.")
    if blocks.shape != (*scales.shape, BLOCK_BYTES):
        raise ValueError(
            f"Blocks {tuple(blocks.shape)} must be {(*scales.shape, BLOCK_BYTES)}: {BLOCK_BYTES} "
            "bytes for each scale."
        )
    if dtype not in DTYPES:
        raise ValueError(f"MXFP4 weights expand to bfloat16, float32 or float64, not {dtype}.")
    pairs, powers = _tables(blocks.device)
    if dtype == torch.float64:
        pairs, powers = pairs.double(), powers.double()
    values = pairs[blocks.int()]  # [..., K / 32, 16, 2]
    values *= powers[scales.int()][..., None, None]
    return values.flatten(-3).to(dtype)


def round_to_mxfp4(weights: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return blocks and scales of the MXFP4 weights near given ones.

    A block's scale is that of the specification (section 6.3): the largest power of two that is at
    most its largest magnitude, divided by that of the largest element. Larger elements saturate;
    ties go to the even code.

    Args:
        weights: finite, [..., K], K a multiple of 32.

    Returns:
        Blocks and scales as :func:`expand_mxfp4` takes them.

    Raises:
        ValueError: if K is not a multiple of 32.
    """
    if weights.shape[-1] % BLOCK:
        raise ValueError(f"Rows of {weights.shape[-1]} elements are not whole blocks of {BLOCK}.")
    values = weights.double().unflatten(-1, (-1, BLOCK))
    # frexp's mantissa is from 0.5 to 1, so that its exponent is one larger than the logarithm.
    exponents = values.abs().amax(-1).frexp().exponent - 1 - _LARGEST_EXPONENT
    scales = (exponents + SCALE_BIAS).clamp(0, SCALE_NAN - 1)
    scaled = values / torch.exp2((scales - SCALE_BIAS).double())[..., None]
    edges = torch.tensor(_MIDPOINTS, dtype=torch.float64, device=weights.device)
    magnitudes = scaled.abs().contiguous()
    codes = torch.bucketize(magnitudes, edges)  # a tie gets the lower code
    upper = torch.bucketize(magnitudes, edges, right=True)
    codes = torch.where(codes % 2 == 1, upper, codes) + 8 * (scaled < 0)
    blocks = codes[..., ::2] + 16 * codes[..., 1::2]
    return blocks.to(torch.uint8), scales.to(torch.uint8)


@cache
def _tables(device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the two values of each byte, [256, 2], and the power of two of each scale, [256]."""
    values = torch.tensor([*E2M1_VALUES, *(-value for value in E2M1_VALUES)], device="cpu")
    codes = torch.arange(256, device="cpu")
    pairs = torch.stack([values[codes % 16], values[codes // 16]], dim=1)
    powers = torch.exp2((codes - SCALE_BIAS).double()).float()
    powers[SCALE_NAN] = torch.nan
    return pairs.to(device), powers.to(device)
