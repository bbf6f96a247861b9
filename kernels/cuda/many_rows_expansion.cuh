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
    // A scale as `scaled` takes it: a float's bits, or a bfloat16 twice.
    __device__ __forceinline__ u32 word(u32 at) const {
        return FLOAT_SCALES ? __float_as_uint(__ldg((const float*)scales + at))
                            : __ldg((const bf16*)scales + at) * 0x10001u;
    }
};

// A piece is 16 bytes of a row's codes. Thread t has piece t % PIECES_OF_ROW of the rows
// t / PIECES_OF_ROW + i * LINES: these differ in no bit that places are swizzled by.
constexpr int EXPANDERS = 96;  // threads
constexpr int PIECES_OF_ROW = FP8 ? 4 : 2, EIGHTS = FP8 ? 2 : 4;  // times eight columns in a piece
constexpr int LINES = EXPANDERS / PIECES_OF_ROW, OWN = (TILE + LINES - 1) / LINES;
constexpr u32 CODES_AT = SHARED - 128 - STAGES * CODES;
static_assert(LINES % 8 == 0, "the same swizzle");

// Two weights times their scale, rounded once: of two bfloat16 the product is exact before.
__device__ __forceinline__ u32 scaled(u32 pair, u32 scale) {
    if (GROUPS_OF_ROW == 1) return pair;
    if (!FLOAT_SCALES) return fma2(pair, scale, MINUS_ZERO);
    const float factor = __uint_as_float(scale);
    return pack_bf16(bf16_low(pair) * factor, bf16_high(pair) * factor);
}

// Expands a piece to the slot's weights, of which `to` is the place of the first eight columns.
__device__ __forceinline__ void expand_piece(const uint4& codes, u32 to, u32 scale, u32 offset) {
    const u32 word[4] = {codes.x, codes.y, codes.z, codes.w};
#pragma unroll
    for (int i = 0; i < EIGHTS; ++i) {
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
        store_shared(to ^ (i * 16),
                     make_uint4(scaled(pair[0], scale), scaled(pair[1], scale),
                                scaled(pair[2], scale), scaled(pair[3], scale)));
    }
}

// Row of the weights in line `line` of a tile.
__device__ __forceinline__ int weight_row(int column, int line) {
    const int in_tile = GATED ? line / 16 * 8 + line % 8 : line;
    return min(column + in_tile, ROWS_OF_WEIGHTS - 1) +
           (GATED ? line / 8 % 2 * ROWS_OF_WEIGHTS : 0);
}

// Expands the codes of a slot, `from` on, to its weights, `to` on: this thread's pieces.
__device__ __forceinline__ void expand_slot(u32 from, u32 to, u32 line, const u32 (&scale)[OWN],
                                            const u32 (&offset)[OWN]) {
    // Loads that come first, because none is moved before a store.
    constexpr int BATCH = GROUPS_OF_ROW == 1 ? 4 : 2;  // as registers allow
#pragma unroll
    for (int first = 0; first < OWN; first += BATCH) {
        uint4 codes[BATCH];
#pragma unroll
        for (int i = first; i < first + BATCH && i < OWN; ++i)
            if ((i + 1) * LINES <= TILE || line + i * LINES < TILE)
                codes[i - first] = load_shared(from + i * (EXPANDERS * 16));
#pragma unroll
        for (int i = first; i < first + BATCH && i < OWN; ++i)
            if ((i + 1) * LINES <= TILE || line + i * LINES < TILE)
                expand_piece(codes[i - first], to + i * (LINES * 128), scale[i], offset[i]);
    }
}

// Brings the codes of all tiles, and expands them into the ring. Called by EXPANDERS threads.
__device__ __forceinline__ void expand_weights(const Schedule& schedule, Ring& ring, u32 base,
                                               const TensorMap& map, const Scales& scales,
                                               u32 thread) {
    const u32 part = thread % PIECES_OF_ROW, line = thread / PIECES_OF_ROW;
    const u32 from = base + CODES_AT + thread * 16;
    const u32 to = base + X_BYTES + line * 128 + (part * EIGHTS ^ line % 8) * 16;
    auto bring = [&](u32 number, int tile, int step) {
        if (step >= schedule.steps) tile += schedule.stride, step -= schedule.steps;
        if (tile >= schedule.tiles) return;
        u64& staged = ring.staged[number % STAGES];
        barrier_expect_bytes(staged, CODES);
        tma_load_4d(base + CODES_AT + number % STAGES * CODES, map, step * (FP8 ? 32 : 16), 0, 0,
                    schedule.column(tile) / 8, staged);
    };
    if (thread == 0)
        for (int n = 0; n < STAGES; ++n) bring(n, schedule.first, n);
    u32 number = 0;
    for (int tile = schedule.first; tile < schedule.tiles; tile += schedule.stride) {
#pragma unroll 1
        for (int step = 0; step < schedule.steps; ++step, ++number) {
            u32 scale[OWN], offset[OWN];
            const u32 group = (step * 64 + part * (FP8 ? 16 : 32)) / GROUP;
#pragma unroll
            for (int i = 0; i < OWN; ++i) {
                const u32 row = weight_row(schedule.column(tile), line + i * LINES);
                scale[i] = GROUPS_OF_ROW > 1
                               ? scales.word(row / SHARED_ROWS * GROUPS_OF_ROW + group) : 0;
                offset[i] =
                    int4_offset(ZEROS ? __ldg(scales.zeros + row * GROUPS_OF_ROW + group) : MIDDLE);
            }
            const u32 slot = number % SLOTS, stage = number % STAGES;
            barrier_wait(ring.staged[stage], number / STAGES & 1);
            barrier_wait(ring.empty[slot], (number / SLOTS & 1) ^ 1);
            expand_slot(from + stage * CODES, to + slot * SLOT, line, scale, offset);
            fence_async_proxy();
            asm volatile("bar.sync 3, 96;" ::: "memory");
            if (thread == 0) {
                barrier_arrive(ring.full[slot]);
                bring(number + STAGES, tile, step + STAGES);
            }
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
