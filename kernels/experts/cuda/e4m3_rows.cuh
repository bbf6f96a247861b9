// Rows of x as sums of two 8-bit floats (e4m3), for mxfp4_stream.cu.
#pragma once
#include "mxfp4_stream_state.cuh"

__device__ __forceinline__ void sync_consumers() {
    asm volatile("bar.sync 1, %0;" ::"n"(CONSUMERS * 32) : "memory");
}

// A row of x is read past L1: another multiprocessor wrote it.
__device__ __forceinline__ uint4 load_x(const bf16* from) {
    uint4 v;
    asm volatile("ld.global.cg.v4.u32 {%0, %1, %2, %3}, [%4];"
                 : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w) : "l"((u64)from) : "memory");
    return v;
}
// Two floats, rounded to e4m3, in the lower 16 bits.
__device__ __forceinline__ u32 round_to_e4m3(float low, float high) {
    u32 result;
    asm("{.reg .b16 v; cvt.rn.satfinite.e4m3x2.f32 v, %1, %2; cvt.u32.u16 %0, v;}"
        : "=r"(result) : "f"(high), "f"(low));
    return result;
}
// Two e4m3 floats as two float16.
__device__ __forceinline__ u32 to_halves(u32 pair) {
    u32 result;
    asm("{.reg .b16 v; cvt.u16.u32 v, %1; cvt.rn.f16x2.e4m3x2 %0, v;}" : "=r"(result) : "r"(pair));
    return result;
}
__device__ __forceinline__ float half_to_float(u32 halves, int high) {
    float result;
    asm("{.reg .b16 l, h; mov.b32 {l, h}, %1; cvt.f32.f16 %0, l;}"
        : "=f"(result) : "r"(high ? halves >> 16 : halves));
    return result;
}

// Converts up to four rows of x of a tile to group n. All consumers take part; a thread takes 8
// columns at a time.
template <class P>
__device__ __forceinline__ void convert_group(Shared& shared, const bf16* x, int tile, int turn, int n) {
    constexpr int EACH_PIECES = (P::SLICES * 32 + CONSUMERS * 32 - 1) / (CONSUMERS * 32);
    const int rows = shared.tiles.rows(tile) - n * 4;
    int* largest = shared.largest[turn % 2] + n * 4;
    uint4 pieces[4][EACH_PIECES];
#pragma unroll
    for (int r = 0; r < 4; r++) {
        if (r >= rows) break;
        const int pair = shared.tiles.pair(tile, n * 4 + r);
        const bf16* row = x + (u64)(P::GATED ? pair / TOP_K : pair) * P::INPUTS;
#pragma unroll
        for (int i = 0; i < EACH_PIECES; i++) {
            const int piece = threadIdx.x + i * CONSUMERS * 32;
            pieces[r][i] = {0, 0, 0, 0};
            if (piece < P::INPUTS / 8) pieces[r][i] = load_x(row + piece * 8);
        }
    }
#pragma unroll
    for (int r = 0; r < 4; r++) {
        if (r >= rows) break;
        u32 most = 0;
#pragma unroll
        for (int i = 0; i < EACH_PIECES; i++) {
            const u32 words[4] = {pieces[r][i].x, pieces[r][i].y, pieces[r][i].z, pieces[r][i].w};
#pragma unroll
            for (int j = 0; j < 4; j++)
                most = max(most, max(words[j] & 0x7FFF, words[j] >> 16 & 0x7FFF));
        }
        most = __reduce_max_sync(~0u, most);
        if (threadIdx.x % 32 == 0) atomicMax(&largest[r], (int)most);
    }
    sync_consumers();  // this also ends all reads of the tile before
#pragma unroll
    for (int r = 0; r < 4; r++) {
        if (r >= rows) break;
        // The largest value becomes 2^7 to 2^8. A row that holds infinity or NaN becomes NaN.
        const int most = largest[r], exponent = max(most >> 7, 8);
        const float factor = __uint_as_float((u32)(127 + 7 + 127 - exponent) << 23);
        const float inverse = __uint_as_float((u32)(exponent - 7) << 23);
        if (threadIdx.x == 0)
            shared.tile_factors[n * 4 + r] =
                most >= 0x7F80 ? __uint_as_float(0x7FC00000u) : inverse * CODE_UNIT;
#pragma unroll
        for (int i = 0; i < EACH_PIECES; i++) {
            const int piece = threadIdx.x + i * CONSUMERS * 32, block = piece / 4, q = piece % 4;
            if (block >= P::SLICES * 8) break;
            const u32 words[4] = {pieces[r][i].x, pieces[r][i].y, pieces[r][i].z, pieces[r][i].w};
#pragma unroll
            for (int odd = 0; odd < 2; odd++) {  // even columns, and odd ones
                float v[4];
#pragma unroll
                for (int j = 0; j < 4; j++)
                    v[j] = (odd ? bf16_high(words[j]) : bf16_low(words[j])) * factor;
                const u32 low = round_to_e4m3(v[0], v[1]), high = round_to_e4m3(v[2], v[3]);
                const u32 halves[2] = {to_halves(low), to_halves(high)};
#pragma unroll
                for (int j = 0; j < 4; j++)
                    v[j] = (v[j] - half_to_float(halves[j / 2], j % 2)) * (1.0f / SECOND);
                u8(&to)[8][16] = shared.x[block][n][odd];
                *(u32*)&to[r * 2][q * 4] = low | high << 16;
                *(u32*)&to[r * 2 + 1][q * 4] =
                    round_to_e4m3(v[0], v[1]) | round_to_e4m3(v[2], v[3]) << 16;
            }
        }
    }
}

// Converts the rows of x of a tile.
template <class P>
__device__ __forceinline__ void convert_rows(Shared& shared, const bf16* x, int tile, int turn) {
#pragma unroll
    for (int n = 0; n < TILES_N; n++) convert_group<P>(shared, x, tile, turn, n);
    if (threadIdx.x < PAIRS) shared.largest[(turn + 1) % 2][threadIdx.x] = 0;
    fence_async_proxy();
    sync_consumers();
}
