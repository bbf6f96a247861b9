// The two products of bf16_stream.cu, the weights that they read, and the state that warps share.
//
// Macros: see there.
#pragma once

#ifndef STORED
#define STORED 0
#define ZEROS 0
#define FLOAT_SCALES 0
#define GROUP 0
#define GATE_UP_SHARED 1
#define DOWN_SHARED 1
#endif
constexpr int WARPS = CONSUMERS + 3, PAIRS = 8, QUEUE = 4;
#include "expert_stream.cuh"
#include "stored_weights.cuh"

constexpr int row_bytes(int columns) {
    return STORED == 0 ? 2 * columns : STORED == 1 ? columns : columns / 2;
}
constexpr int BLOCK = STORED == 0 ? 16 : STORED == 1 ? 32 : 64;  // columns in 32 bytes of a row
constexpr int GROUP_HALVES = GROUP > 0 ? row_bytes(GROUP) / 16 : 1;  // of blocks, in a group
constexpr int X_PAD = STORED ? 32 : 16;  // bytes, so that the lanes' loads of x do not collide
constexpr int THREADS = WARPS * 32;
// One of the two products: gate and up, whose rows take turns or follow one another, or down.
template <bool IS_GATED> struct Product {
    static constexpr bool GATED = IS_GATED;
    static constexpr int INPUTS = GATED ? HIDDEN : INNER, OUTPUTS = GATED ? INNER : HIDDEN;
    static constexpr int ROWS = GATED ? 2 * INNER : HIDDEN;  // weight rows of an expert
    static constexpr int GROUPS = GATED ? 1 : DOWN_GROUPS;
    static constexpr int ITEMS = ROWS / (16 * GROUPS);  // of a tile
    static constexpr int PARTS = GATED ? GATE_UP_PARTS : DOWN_PARTS;
    static constexpr int PART_COLUMNS = INPUTS / PARTS;
    static constexpr int STEPS = PART_COLUMNS / BLOCK;
    static constexpr int EACH_STEPS = (STEPS + CONSUMERS - 1) / CONSUMERS;
    static constexpr int ROW_BYTES = row_bytes(INPUTS), PART_BYTES = row_bytes(PART_COLUMNS);
    static constexpr int PITCH = PART_BYTES + 16;  // of a weight row in the ring
    static constexpr int X_PITCH = INPUTS * 2 + X_PAD;
    static constexpr int STAGE = 16 * GROUPS * PITCH;
    static constexpr int SHARED_ROWS = GATED ? GATE_UP_SHARED : DOWN_SHARED;
    static constexpr int SCALE_ROWS = (ROWS + SHARED_ROWS - 1) / SHARED_ROWS;
    static constexpr int SCALES = GROUP > 0 ? (INPUTS + GROUP - 1) / GROUP : 1;  // of a row
    static constexpr bool SCALED = SCALES > 1;
    static_assert(ROWS % (16 * GROUPS) == 0 && INPUTS % (BLOCK * PARTS) == 0, "no partial stages");
};
typedef Product<true> GateUp;
typedef Product<false> Down;
constexpr int STAGE = larger(GateUp::STAGE, Down::STAGE);
constexpr int X_BYTES = PAIRS * larger(GateUp::X_PITCH, Down::X_PITCH);

struct Shared {
    float parts[2][CONSUMERS][DOWN_GROUPS][4][32];
    int items[2];  // of the parts
    int queue[QUEUE];  // items; -1 ends a product
    u64 full[STAGES], empty[STAGES], x_full[2], x_empty[2], parts_full[2], parts_empty[2];
    u64 queue_full[QUEUE], queue_empty[QUEUE];
    Tiles tiles;
};
// STREAM_BYTES of pair_launch.py: what a launch asks for besides the ring, x and the parts.
static_assert(sizeof(Shared) <= sizeof(Shared::parts) + 12288, "too many experts");
// How far a warp has come, counted over both products: entries of the queue, stages, and tiles.
struct Position { int entries, stages, tiles; };

// Waits for an entry of the queue; returns the item.
__device__ __forceinline__ int item_of(Shared& shared, int entry) {
    barrier_wait(shared.queue_full[entry % QUEUE], entry / QUEUE & 1);
    return shared.queue[entry % QUEUE];
}

// The weight row of an expert that slot `slot` of an item holds. Of gate and up, 8 rows of the one
// come first and then those of the other.
template <class P> __device__ __forceinline__ int weight_row(int item, int slot) {
    if (!P::GATED) return item * 16 * P::GROUPS + slot;
    const int row = item * 8 + slot % 8, up = slot / 8;
    return INTERLEAVED ? 2 * row + up : up * P::OUTPUTS + row;
}

// Scales, [experts, SCALES, SCALE_ROWS], and zeros, [experts, SCALES, ROWS], of one product's
// weights.
struct Stored { const void* scales; const u8* zeros; };

template <class P>
__device__ __forceinline__ float load_scale(const Stored& stored, u64 expert, int group, int row) {
    const u64 at = (expert * P::SCALES + group) * P::SCALE_ROWS + row / P::SHARED_ROWS;
    return FLOAT_SCALES ? ((const float*)stored.scales)[at]
                        : to_float(((const bf16*)stored.scales)[at]);
}
