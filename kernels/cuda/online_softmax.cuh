// Online softmax of attention over tiles of 2 * N keys, for 64 rows in a warp group's registers.
#pragma once
#include "hopper.cuh"

// The maximum in use rises only if a score exceeds it by more than this many powers of two, so few
// tiles require rescaling of older sums.
constexpr float SLACK = 8.0f;

// Turns a tile's scores into weights, in place. A thread holds parts of two rows; s[i] belongs to
// the row i % 4 / 2 of them. `top` is each row's maximum in use, times `scale`; `sum` is this
// thread's part of the sum of weights; `decay` returns the factor of sums over earlier tiles.
// `scale` includes log2(e).
template <int N>
__device__ __forceinline__ void softmax_tile(float (&s)[N], float (&top)[2], float (&sum)[2],
                                             float (&decay)[2], float scale) {
    const float infinity = __int_as_float(0x7F800000);
    float most[2][2] = {{-infinity, -infinity}, {-infinity, -infinity}};
    float added[2][2] = {}, shift[2];
#pragma unroll
    for (int i = 0; i < N; ++i) most[i % 4 / 2][i % 2] = fmaxf(most[i % 4 / 2][i % 2], s[i]);
#pragma unroll
    for (int r = 0; r < 2; ++r) {
        float now = fmaxf(most[r][0], most[r][1]);
        now = fmaxf(now, __shfl_xor_sync(~0u, now, 1));
        now = fmaxf(now, __shfl_xor_sync(~0u, now, 2)) * scale;
        decay[r] = 1.0f;
        if (now > top[r] + SLACK) {
            decay[r] = exp2_fast(top[r] - now);
            top[r] = now;
        }
        // A row that has seen no key yet has top = -inf. It is shifted by 0 instead.
        shift[r] = top[r] == -infinity ? 0.0f : top[r];
    }
#pragma unroll
    for (int i = 0; i < N; ++i) {
        s[i] = exp2_fast(s[i] * scale - shift[i % 4 / 2]);
        added[i % 4 / 2][i % 2] += s[i];
    }
    sum[0] = sum[0] * decay[0] + (added[0][0] + added[0][1]);
    sum[1] = sum[1] * decay[1] + (added[1][0] + added[1][1]);
}
