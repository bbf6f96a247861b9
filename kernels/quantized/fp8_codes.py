"""FP8 (E4M3) in Triton, by whole numbers alone, so that any GPU and the interpreter have it."""

import triton
import triton.language as tl


@triton.jit
def fp8_values(codes):
    """Return the float32 values of FP8 codes in uint8, exactly; NaN is none of them."""
    # The bits of E4M3, moved to the lowest exponent bits, are its value times 2^-120. Its sign,
    # which fills the bits above, stays in the highest of them: the mask is 0x87F00000.
    bits = (codes.to(tl.int8, bitcast=True).to(tl.int32) << 20) & -0x78100000
    return bits.to(tl.float32, bitcast=True) * 1.329227995784916e36


@triton.jit
def fp8_codes(values):
    """Return the FP8 codes (uint8) of float32 values, rounded to nearest even and saturated."""
    magnitude = tl.minimum(tl.abs(values), 448.0)
    bits = magnitude.to(tl.uint32, bitcast=True)
    normal = ((bits + 0x7FFFF + ((bits >> 20) & 1)) >> 20) - (120 << 3)
    # Below 2^-6 codes are multiples of 2^-9; the sum's last bits are the rounded multiple.
    small = (magnitude * 512.0 + 12582912.0).to(tl.uint32, bitcast=True) & 0xFF
    sign = (values.to(tl.uint32, bitcast=True) >> 24) & 0x80
    return (tl.where(magnitude < 0.015625, small, normal) | sign).to(tl.uint8)
