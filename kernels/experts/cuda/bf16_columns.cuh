// The products of one warp of bf16_stream.cu, if weights are stored in bfloat16.
#pragma once
#include "bf16_stream_state.cuh"

// A lane's sums for an item: over even steps, and over odd ones.
template <class P> using Sums = float[P::GROUPS][2][4];
template <class P> __device__ __forceinline__ float total(const Sums<P>& sums, int m, int i) {
    return sums[m][0][i] + sums[m][1][i];
}

// Multiplies this warp's columns of a part of an item.
template <class P>
__device__ __forceinline__ void multiply_part(Sums<P>& sums, u32 w, u32 x, int part, u64& full,
                                              int parity, const Stored&, u64, int) {
    const int warp = threadIdx.x / 32;
    barrier_wait(full, parity);
    u32 b[4];
#pragma unroll
    for (int i = 0; i < P::EACH_STEPS; i++) {
        const int step = warp * P::EACH_STEPS + i;
        if (P::EACH_STEPS * CONSUMERS != P::STEPS && step >= P::STEPS) break;
        // Four matrices hold the columns of two steps. If the last step has no partner, two of them
        // come from beyond the row: its padding, then the next row or the state that follows x in
        // shared memory. No product uses those.
        if (i % 2 == 0) load_matrices(b, x + (part * P::STEPS + step) * 32);
#pragma unroll
        for (int m = 0; m < P::GROUPS; m++) {
            u32 a[4];
            load_matrices(a, w + m * 16 * P::PITCH + step * 32);
            multiply(sums[m][i % 2], a, b[i % 2 * 2], b[i % 2 * 2 + 1]);
        }
    }
}
