// Weights that are stored in FP8 (E4M3) or 4 bits, as bfloat16.
#pragma once
#include "hopper.cuh"

// Bytes of a (0 to 3) and b (4 to 7); 8 more in the selector's digit is eight times the byte's sign.
__device__ __forceinline__ u32 permute(u32 a, u32 b, u32 selector) {
    u32 result;
    asm("prmt.b32 %0, %1, %2, %3;" : "=r"(result) : "r"(a), "r"(b), "r"(selector));
    return result;
}
// Two bfloat16: a * b + c.
__device__ __forceinline__ u32 fma2(u32 a, u32 b, u32 c) {
    u32 result;
    asm("fma.rn.bf16x2 %0, %1, %2, %3;" : "=r"(result) : "r"(a), "r"(b), "r"(c));
    return result;
}
// (a & mask) | bits, in one instruction; of two constants, C++'s operators make two.
__device__ __forceinline__ u32 and_or(u32 a, u32 mask, u32 bits) {
    u32 result;
    asm("lop3.b32 %0, %1, %2, %3, 0xEA;" : "=r"(result) : "r"(a), "r"(mask), "r"(bits));
    return result;
}
constexpr u32 MINUS_ZERO = 0x80008000u;

// Two bytes of a word (the first two, or the last two if HIGH) from FP8 to bfloat16, exactly. The
// bits of E4M3, moved to the lowest exponent bits, are its value times 2^-120. Each byte comes with
// eight copies of its sign, of which the highest stays.
template <bool HIGH>
__device__ __forceinline__ u32 expand_fp8(u32 word) {
    const u32 apart = permute(word, 0, HIGH ? 0xB3A2 : 0x9180);
    return fma2((apart << 4) & 0x87F087F0u, 0x7B807B80u, MINUS_ZERO);
}
// Codes J and J + 4 of a word, minus their zero: a code in the lowest bits of 128 is 128 + code, and
// `offset` is -128 - zero, twice.
template <int J>
__device__ __forceinline__ u32 expand_int4(u32 word, u32 offset) {
    return fma2(and_or(word >> (4 * J), 0x000F000Fu, 0x43004300u), 0x3F803F80u, offset);
}
__device__ __forceinline__ u32 int4_offset(u32 zero) { return (0xC300u + zero) * 0x10001u; }
// The same of byte `i` of four zeros.
__device__ __forceinline__ u32 int4_offset(u32 zeros, u32 i) {
    return permute(zeros, 0xC3, 0x4040 + i * 0x0101);
}
constexpr u32 MIDDLE = 8;  // the zero of codes without zeros of their own
