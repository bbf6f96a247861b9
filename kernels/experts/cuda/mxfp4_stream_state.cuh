// The two products of mxfp4_stream.cu, and the state that its warps share.
//
// Macros: see there.
#pragma once

constexpr int GROUPS = 3, FINISHERS = 2, WARPS = 4 * GROUPS + FINISHERS + 1, PAIRS = 4 * TILES_N;
#include "expert_stream.cuh"

constexpr int THREADS = WARPS * 32, CONSUMERS = 4 * GROUPS, ROWS_AT_ONCE = 64;
constexpr int SLICE = ROWS_AT_ONCE * 128, SCALE_STAGES = 3;
constexpr u64 EVICT_FIRST = 0x12F0000000000000;  // createpolicy.fractional.L2::evict_first

// One of the two products: gate and up, whose rows take turns, or down.
template <bool IS_GATED> struct Product {
    static constexpr bool GATED = IS_GATED;
    static constexpr int INPUTS = GATED ? HIDDEN : INNER, OUTPUTS = GATED ? INNER : HIDDEN;
    static constexpr int ROWS = GATED ? 2 * INNER : HIDDEN;  // weight rows of an expert
    static constexpr int ITEMS = (ROWS + ROWS_AT_ONCE - 1) / ROWS_AT_ONCE;  // of a tile
    static constexpr int BLOCKS = INPUTS / 32;  // of 16 bytes in a weight row
    static constexpr int SLICES = (BLOCKS + 7) / 8, TURNS = (SLICES + GROUPS - 1) / GROUPS;
    static_assert(ROWS % 16 == 0 && INPUTS % 32 == 0, "whole copies");
};
typedef Product<true> GateUp;
typedef Product<false> Down;
constexpr int MOST_BLOCKS = larger(GateUp::SLICES, Down::SLICES) * 8;
constexpr int SCALE_BYTES = (ROWS_AT_ONCE * larger(GateUp::BLOCKS, Down::BLOCKS) + 127) / 128 * 128;
// e4m3 holds 2^-6 of a code's value, and the second float of x is multiplied by 16.
constexpr float CODE_UNIT = 64.0f, SECOND = 0.0625f;

struct Shared {
    u8 x[MOST_BLOCKS][TILES_N][2][8][16];  // of a block: 8 floats of a pair, by halves of columns
    u8 scales[SCALE_STAGES][SCALE_BYTES + 16];  // up to 7 beyond the last row's are read
    float parts[2][CONSUMERS][4 * TILES_N][32];
    // Of the parts: factors that undo what x and codes were multiplied by, and their items.
    float factors[2][PAIRS];
    int items[2];
    float tile_factors[PAIRS];  // of the tile that `x` holds
    int largest[2][PAIRS];  // bits of the largest value of each row of x; of two tiles, in turns
    int queue[SCALE_STAGES];  // items, with their scales; -1 ends a product
    u64 full[GROUPS][STAGES], empty[GROUPS][STAGES], scales_full[SCALE_STAGES], scales_empty[SCALE_STAGES];
    u64 parts_full[2], parts_empty[2];
    Tiles tiles;
};
// STREAM_BYTES of pair_launch.py: what a launch asks for besides the ring, x, scales and parts.
static_assert(sizeof(Shared) <= sizeof(Shared::x) + SCALE_STAGES * SCALE_BYTES +
                                    sizeof(Shared::parts) + 12288, "too many experts");
// How far a warp has come, counted over both products: entries of the queue, tiles, and slices (of
// each group for the warp that copies, of its own group for others).
struct Position { int entries, tiles, slices[GROUPS]; };
