// Expansion of stored weights for linear_many_rows.cu, which includes this behind its own types.
#pragma once

struct Scales {
    const void* scales;
    const u8* zeros;
    __device__ __forceinline__ float scale(int row, int group) const {
        const u64 at = (u64)(row / SHARED_ROWS) * GROUPS_OF_ROW + group;
        return FLOAT_SCALES ? __ldg((const float*)scales + at)
                            : to_float(__ldg((const bf16*)scales + at));
    }
};

constexpr int EXPANDERS = 96;  // threads
constexpr int PIECES = CODES / 16, OWN = (PIECES + EXPANDERS - 1) / EXPANDERS;
constexpr int PIECES_OF_ROW = FP8 ? 4 : 2;
constexpr u32 CODES_AT = SHARED - 128 - STAGES * CODES;

// Two weights times their scale, rounded once.
__device__ __forceinline__ u32 scaled(u32 pair, float scale) {
    if (GROUPS_OF_ROW == 1) return pair;
    return pack_bf16(bf16_low(pair) * scale, bf16_high(pair) * scale);
}

// Expands 16 bytes of a row's codes to the slot's weights.
__device__ __forceinline__ void expand_piece(const uint4& codes, u32 weights, int piece,
                                             float scale, u32 offset) {
    const int row = piece / PIECES_OF_ROW, part = piece % PIECES_OF_ROW;
    const u32 word[4] = {codes.x, codes.y, codes.z, codes.w};
    const u32 line = weights + row * 128;
#pragma unroll
    for (int i = 0; i < (FP8 ? 2 : 4); ++i) {  // eight columns
        u32 pair[4];
        if (FP8) {
            pair[0] = expand_fp8<false>(word[2 * i % 4]), pair[1] = expand_fp8<true>(word[2 * i % 4]);
            pair[2] = expand_fp8<false>(word[(2 * i + 1) % 4]);
            pair[3] = expand_fp8<true>(word[(2 * i + 1) % 4]);
        } else {  // columns j and j + 4 come together
            const u32 a = expand_int4<0>(word[i], offset), b = expand_int4<1>(word[i], offset);
            const u32 c = expand_int4<2>(word[i], offset), d = expand_int4<3>(word[i], offset);
            pair[0] = permute(a, b, 0x5410), pair[1] = permute(c, d, 0x5410);
            pair[2] = permute(a, b, 0x7632), pair[3] = permute(c, d, 0x7632);
        }
        const int chunk = part * (FP8 ? 2 : 4) + i;
        store_shared(line + ((chunk ^ row % 8) * 16),
                     make_uint4(scaled(pair[0], scale), scaled(pair[1], scale),
                                scaled(pair[2], scale), scaled(pair[3], scale)));
    }
}

// Brings the codes of all tiles, and expands them into the ring. Called by EXPANDERS threads.
__device__ __forceinline__ void expand_weights(const Schedule& schedule, Ring& ring, u32 base,
                                               const TensorMap& map, const Scales& scales,
                                               int thread) {
    const int tiles = (schedule.tiles - schedule.first + schedule.stride - 1) / schedule.stride;
    const int total = schedule.first < schedule.tiles ? tiles * schedule.steps : 0;
    auto tile_of = [&](int n) { return schedule.first + n / schedule.steps * schedule.stride; };
    auto bring = [&](int n) {
        u64& staged = ring.staged[n % STAGES];
        barrier_expect_bytes(staged, CODES);
        tma_load_4d(base + CODES_AT + n % STAGES * CODES, map, n % schedule.steps * (FP8 ? 32 : 16),
                    0, 0, schedule.column(tile_of(n)) / 8, staged);
    };
    if (thread == 0)
        for (int n = 0; n < min(STAGES, total); ++n) bring(n);
#pragma unroll 1
    for (int n = 0; n < total; ++n) {
        const int column = schedule.column(tile_of(n)), first = n % schedule.steps * 64;
        float scale[OWN];
        u32 offset[OWN];
#pragma unroll
        for (int i = 0; i < OWN; ++i) {
            const int piece = thread + i * EXPANDERS, line = piece / PIECES_OF_ROW;
            const int in_tile = GATED ? line / 16 * 8 + line % 8 : line;
            const int row = min(column + in_tile, ROWS_OF_WEIGHTS - 1) +
                            (GATED ? line / 8 % 2 * ROWS_OF_WEIGHTS : 0);
            const int group = (first + piece % PIECES_OF_ROW * (FP8 ? 16 : 32)) / GROUP;
            scale[i] = GROUPS_OF_ROW > 1 ? scales.scale(row, group) : 1.0f;
            offset[i] = int4_offset(
                ZEROS ? __ldg(scales.zeros + (u64)row * GROUPS_OF_ROW + group) : MIDDLE);
        }
        const u32 slot = n % SLOTS;
        barrier_wait(ring.staged[n % STAGES], n / STAGES & 1);
        barrier_wait(ring.empty[slot], (n / SLOTS & 1) ^ 1);
        // Loads that come first, because none is moved before a store; as registers allow.
        constexpr int BATCH = GROUPS_OF_ROW == 1 ? 3 : 1;
#pragma unroll
        for (int first = 0; first < OWN; first += BATCH) {
            uint4 codes[BATCH];
#pragma unroll
            for (int i = 0; i < BATCH; ++i)
                codes[i] = load_shared(base + CODES_AT + n % STAGES * CODES +
                                       min(thread + (first + i) * EXPANDERS, PIECES - 1) * 16);
#pragma unroll
            for (int i = 0; i < BATCH; ++i)
                if (first + i < OWN && thread + (first + i) * EXPANDERS < PIECES)
                    expand_piece(codes[i], base + slot * SLOT + X_BYTES,
                                 thread + (first + i) * EXPANDERS, scale[(first + i) % OWN],
                                 offset[(first + i) % OWN]);
        }
        fence_async_proxy();
        asm volatile("bar.sync 3, 96;" ::: "memory");
        if (thread == 0) {
            barrier_arrive(ring.full[slot]);
            if (n + STAGES < total) bring(n + STAGES);
        }
    }
}

// Multiplies the results of a block of 64 rows by the scales of their columns.
__device__ __forceinline__ void scale_results(float (&d)[TILE / 2], const Scales& scales,
                                              int column) {
#pragma unroll
    for (int j = 0; j < TILE / 8; ++j) {
        const int block = GATED ? j / 2 : j, first = column + block * 8 + threadIdx.x % 4 * 2;
        const int row = min(first, ROWS_OF_WEIGHTS - 2) + (GATED ? j % 2 * ROWS_OF_WEIGHTS : 0);
        const float low = scales.scale(row, 0), high = scales.scale(row + 1, 0);
        d[j * 4] *= low, d[j * 4 + 1] *= high, d[j * 4 + 2] *= low, d[j * 4 + 3] *= high;
    }
}
