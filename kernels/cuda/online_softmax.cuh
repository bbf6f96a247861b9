// The softmax of attention over tiles of 64 keys, for 64 rows in a warp group's registers.
//
// Preceded by hopper.cuh.

// A new largest score counts once it is this far (in powers of two) above the one in use.
constexpr float SLACK = 8.0f;

// Scores become weights. Of a thread's 32, s[i] belongs to row i % 4 / 2 of its two rows.
__device__ __forceinline__ void weigh(float (&s)[32], float (&top)[2], float (&sum)[2],
                                      float (&decay)[2], float scale) {
    const float infinity = __int_as_float(0x7F800000);
    float most[2][2] = {{-infinity, -infinity}, {-infinity, -infinity}};
    float added[2][2] = {}, shift[2];
#pragma unroll
    for (int i = 0; i < 32; ++i) most[i % 4 / 2][i % 2] = fmaxf(most[i % 4 / 2][i % 2], s[i]);
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
        // A row that has seen no key yet has top = -inf: shift by 0 then, not by -inf.
        shift[r] = top[r] == -infinity ? 0.0f : top[r];
    }
#pragma unroll
    for (int i = 0; i < 32; ++i) {
        s[i] = exp2_fast(s[i] * scale - shift[i % 4 / 2]);
        added[i % 4 / 2][i % 2] += s[i];
    }
    sum[0] = sum[0] * decay[0] + (added[0][0] + added[0][1]);
    sum[1] = sum[1] * decay[1] + (added[1][0] + added[1][1]);
}
