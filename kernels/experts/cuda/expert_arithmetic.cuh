// Arithmetic that the experts' kernels share: activations, and MXFP4 codes as bfloat16.
#pragma once
#include "hopper.cuh"

__device__ __forceinline__ bf16 to_bf16(float x) {
    bf16 result;
    asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(result) : "f"(x));
    return result;
}

__device__ __forceinline__ float clamped_swiglu(float gate, float up) {
    gate = gate > 7.0f ? 7.0f : gate;  // a NaN stays
    up = up > 7.0f ? 7.0f : up < -7.0f ? -7.0f : up;
    return (up + 1.0f) * gate / (1.0f + __expf(-1.702f * gate));
}

// KIND: 0 SiLU, 1 GELU, 2 clamped SwiGLU.
template <int KIND> __device__ __forceinline__ float activate(float gate, float up) {
    if (KIND == 2) return clamped_swiglu(gate, up);
    if (KIND == 1) {
        float inner = 0.7978845608028654f * (gate + 0.044715f * gate * gate * gate);
        return gate * (1.0f - 1.0f / (__expf(2.0f * inner) + 1.0f)) * up;
    }
    return gate / (1.0f + __expf(-gate)) * up;
}

// Codes j and j + 4 of a word as two bfloat16, times the scale's. The bits of a code, moved to the
// lowest exponent bits, are its value times 2^-126; the factor holds 2^126 and 2^-64 of the scale.
__device__ __forceinline__ u32 expand(u32 word, int j, u32 factor) {
    u32 size = j == 0 ? word << 6 : j == 1 ? word << 2 : j == 2 ? word >> 2 : word >> 6;
    u32 bits = ((word << (12 - 4 * j)) & 0x80008000u) | (size & 0x01C001C0u), result;
    asm("fma.rn.bf16x2 %0, %1, %2, %3;"
        : "=r"(result) : "r"(bits), "r"(factor), "r"(0x80008000u));
    return result;
}
