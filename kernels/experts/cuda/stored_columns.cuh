// The products of one warp of bf16_stream.cu, if weights are stored in FP8 or 4 bits.
#pragma once
#include "bf16_stream_state.cuh"

// Scale and zero of a group, for the two rows of each matrix that a lane has.
template <class P> struct GroupScales {
    float scale[P::GROUPS][2];
    u32 offset[P::GROUPS][2];
    __device__ __forceinline__ void load(const Stored& stored, u64 expert, int item, int group) {
        group = min(group, P::SCALES - 1);
#pragma unroll
        for (int m = 0; m < P::GROUPS; m++)
#pragma unroll
            for (int half = 0; half < 2; half++) {
                const int row = weight_row<P>(item, m * 16 + half * 8 + threadIdx.x % 32 / 4);
                scale[m][half] = P::SCALED ? load_scale<P>(stored, expert, group, row) : 1.0f;
                const u64 at = (expert * P::SCALES + group) * P::ROWS + row;
                offset[m][half] = int4_offset(ZEROS ? stored.zeros[at] : MIDDLE);
            }
    }
};
__device__ __forceinline__ void load_pair(u32 (&to)[2], u32 at) {
    asm volatile("ld.shared.v2.u32 {%0, %1}, [%2];" : "=r"(to[0]), "=r"(to[1]) : "r"(at));
}

// Multiplies half a block of stored weights, 16 bytes of each row, by the same columns of x. `low`
// and `high` are words of rows g and g + 8 that begin with column 4q (of 4 bits: with columns 4q and
// 16 + 4q).
__device__ __forceinline__ void multiply_half(float (&sums)[2][4], u32 low, u32 high, u32 x, int half,
                                              const u32 (&offset)[2]) {
    u32 b[2];
    load_pair(b, x);
    if (STORED == 1) {
        const u32 a[4] = {expand_fp8<false>(low), expand_fp8<false>(high), expand_fp8<true>(low),
                          expand_fp8<true>(high)};
        multiply(sums[half], a, b[0], b[1]);
        return;
    }
    const u32 first[4] = {expand_int4<0>(low, offset[0]), expand_int4<0>(high, offset[1]),
                          expand_int4<2>(low, offset[0]), expand_int4<2>(high, offset[1])};
    multiply(sums[0], first, permute(b[0], b[1], 0x5410), permute(b[0], b[1], 0x7632));
    load_pair(b, x + 32);
    const u32 second[4] = {expand_int4<1>(low, offset[0]), expand_int4<1>(high, offset[1]),
                           expand_int4<3>(low, offset[0]), expand_int4<3>(high, offset[1])};
    multiply(sums[1], second, permute(b[0], b[1], 0x5410), permute(b[0], b[1], 0x7632));
}

// Adds a group's sums, times their scales, to the totals.
template <class P>
__device__ __forceinline__ void add_group(float (&totals)[P::GROUPS][4],
                                          float (&sums)[P::GROUPS][2][4],
                                          const GroupScales<P>& scales) {
#pragma unroll
    for (int m = 0; m < P::GROUPS; m++)
#pragma unroll
        for (int i = 0; i < 4; i++) {
            totals[m][i] += (sums[m][0][i] + sums[m][1][i]) * scales.scale[m][i / 2];
            sums[m][0][i] = sums[m][1][i] = 0.0f;
        }
}

// A lane's sums for an item, times the scales.
template <class P> using Sums = float[P::GROUPS][4];
template <class P> __device__ __forceinline__ float total(const Sums<P>& sums, int m, int i) {
    return sums[m][i];
}

// Multiplies this warp's columns of a part of an item.
template <class P>
__device__ __forceinline__ void multiply_part(Sums<P>& totals, u32 w, u32 x, int part,
                                              u64& full, int parity, const Stored& stored,
                                              u64 expert, int item) {
    const int first = threadIdx.x / 32 * P::EACH_STEPS;
    int group = (part * P::STEPS + first) * 2 / GROUP_HALVES;
    GroupScales<P> scales, next;
    scales.load(stored, expert, item, group);
    if (P::SCALED) next.load(stored, expert, item, group + 1);
    float sums[P::GROUPS][2][4] = {};
    barrier_wait(full, parity);
#pragma unroll
    for (int i = 0; i < P::EACH_STEPS; i++) {
        const int step = first + i;
        if (P::EACH_STEPS * CONSUMERS != P::STEPS && step >= P::STEPS) break;
        u32 a[P::GROUPS][4];
#pragma unroll
        for (int m = 0; m < P::GROUPS; m++) load_matrices(a[m], w + m * 16 * P::PITCH + step * 32);
#pragma unroll
        for (int half = 0; half < 2; half++) {
            const int at = (part * P::STEPS + step) * 2 + half;
#pragma unroll
            for (int m = 0; m < P::GROUPS; m++)
                multiply_half(sums[m], a[m][half * 2], a[m][half * 2 + 1], x + at * BLOCK, half,
                              scales.offset[m]);
            if (!P::SCALED || (at + 1) % GROUP_HALVES != 0) continue;
            add_group<P>(totals, sums, scales);
            scales = next;
            next.load(stored, expert, item, ++group + 1);
        }
    }
    add_group<P>(totals, sums, scales);
}
