// The products of one warp of mxfp4_stream.cu: MXFP4 codes, which become 8-bit floats (e4m3), by
// rows of x in that form.
#pragma once
#include "mxfp4_stream_state.cuh"

// Descriptor of columns of 32 floats: groups of 8 columns by 16 bytes. Its lower half is the
// address.
constexpr u32 UPPER_HALF = 256 >> 4, LEADING = (u32)(128 >> 4) << 16;
__device__ __forceinline__ u64 descriptor(u32 lower) { return (u64)UPPER_HALF << 32 | lower; }

// d = a * b for 64 rows, of which this warp's 16 are in its registers, and 8 columns, or 16.
__device__ __forceinline__ void multiply(float (&d)[4], const u32 (&a)[4], u64 b) {
    asm volatile(
        "{.reg .pred p; setp.ne.b32 p, 0, 0;"
        "wgmma.mma_async.sync.aligned.m64n8k32.f32.e4m3.e4m3 {%0, %1, %2, %3}, {%4, %5, %6, %7}, "
        "%8, p, 1, 1;}" : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b));
}
__device__ __forceinline__ void multiply(float (&d)[8], const u32 (&a)[4], u64 b) {
    asm volatile(
        "{.reg .pred p; setp.ne.b32 p, 0, 0;"
        "wgmma.mma_async.sync.aligned.m64n16k32.f32.e4m3.e4m3 {%0, %1, %2, %3, %4, %5, %6, %7}, "
        "{%8, %9, %10, %11}, %12, p, 1, 1;}" : F4(d, 0), F4(d, 4)
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b));
}
// Keeps the compiler from moving uses of a matrix product in front of the wait for it.
__device__ __forceinline__ void use_from_here(float& value) { asm volatile("" : "+f"(value)); }

// Codes of a word as 8-bit floats of 2^-6 of their values: those with even numbers, and odd ones.
__device__ __forceinline__ u32 expand_even(u32 word) {
    return ((word << 4) & 0x80808080u) | ((word << 2) & 0x1C1C1C1Cu);
}
__device__ __forceinline__ u32 expand_odd(u32 word) {
    return (word & 0x80808080u) | ((word >> 2) & 0x1C1C1C1Cu);
}

// Four blocks of this warp's 16 weight rows: of the first 8 rows, and of the others.
struct Half { u32 codes[4][2]; };

__device__ __forceinline__ void load_half(Half& half, u32 slice, int first) {
    const int lane = threadIdx.x % 32, row = threadIdx.x / 32 % 4 * 16 + lane % 16;
#pragma unroll
    for (int i = 0; i < 4; i += 2) {
        const u32 at = slice + row * 128 + ((first + i + lane / 16) ^ row % 8) * 16;
        u32 words[4];
        load_matrices(words, at);
        half.codes[i][0] = words[0], half.codes[i][1] = words[1];
        half.codes[i + 1][0] = words[2], half.codes[i + 1][1] = words[3];
    }
}

// Scale of block i of a row, from the scales of a first block on.
template <int BLOCKS> __device__ __forceinline__ float load_scale(const u8* from, int i) {
    if (BLOCKS % 2 != 0) return __uint_as_float((u32)from[i] << 23);
    const u32 pair = *(const unsigned short*)(from + i / 2 * 2);
    return __uint_as_float((i % 2 ? pair << 15 : pair << 23) & 0x7F800000u);
}

typedef float Sums[4 * TILES_N];
constexpr u32 X_BLOCK = 256 * TILES_N / 16;  // of a block of x, in units of 16 bytes

// Adds the products of a half's four blocks.
template <class P>
__device__ __forceinline__ void multiply_half(Sums& sums, const Half& half, u32 x, const u8* scales) {
    constexpr int N = 4;
    float d[N][4 * TILES_N];
    u32 a[N][4];
#pragma unroll
    for (int i = 0; i < N; i++) {
        a[i][0] = expand_even(half.codes[i][0]), a[i][1] = expand_even(half.codes[i][1]);
        a[i][2] = expand_odd(half.codes[i][0]), a[i][3] = expand_odd(half.codes[i][1]);
        if (i % 2 == 0) continue;
        wgmma_fence();
        multiply(d[i - 1], a[i - 1], descriptor(x + (i - 1) * X_BLOCK));
        multiply(d[i], a[i], descriptor(x + i * X_BLOCK));
        wgmma_commit();
    }
    const u8* other = scales + 8 * P::BLOCKS;
#pragma unroll
    for (int i = 0; i < N; i++) {
        if (i == 0) wgmma_wait<1>();
        if (i == 2) wgmma_wait<0>();
#pragma unroll
        for (int n = 0; n < 4 * TILES_N; n++) use_from_here(d[i][n]);
        const float top = load_scale<P::BLOCKS>(scales, i), bottom = load_scale<P::BLOCKS>(other, i);
#pragma unroll
        for (int n = 0; n < TILES_N; n++) {
            sums[n * 4] += d[i][n * 4] * top;
            sums[n * 4 + 1] += d[i][n * 4 + 1] * top;
            sums[n * 4 + 2] += d[i][n * 4 + 2] * bottom;
            sums[n * 4 + 3] += d[i][n * 4 + 3] * bottom;
        }
    }
}
