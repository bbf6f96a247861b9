// Work items of decode attention, and the state that its warps share.
#pragma once
#include "hopper.cuh"

constexpr int MAX_SEQUENCES = 512;
static_assert(SLOTS % STREAMS == 0, "a slot belongs to one stream");
constexpr int GROUP = HEADS / KV_HEADS, ROWS = Q_LEN * GROUP, WARPS = STREAMS * ROW_BLOCKS;
constexpr int COLUMNS = (ROWS + 8 * ROW_BLOCKS - 1) / (8 * ROW_BLOCKS);  // of 8 rows, of a warp
constexpr int PART = TILE < PAGE_SIZE ? TILE : PAGE_SIZE, PARTS = TILE / PART;  // keys; number
constexpr int BLOCKS = HEAD_DIM / 64, STEPS = HEAD_DIM / 16, KEY_STEPS = TILE / 16;
constexpr int TILE_BYTES = TILE * HEAD_DIM * 2, PART_BYTES = PART * HEAD_DIM * 2;
constexpr int ROW_FLOATS = HEAD_DIM + 4;  // padded, so that a warp's stores meet no bank conflict
// Offsets in shared memory, in bytes. A slot holds keys, then values.
constexpr int MERGE = SLOTS * 2 * TILE_BYTES, MERGE_BYTES = STREAMS * ROWS * ROW_FLOATS * 4;
constexpr int STATE = MERGE + MERGE_BYTES;

struct SharedState {
    // Barriers; in parentheses, what completes a phase.
    u64 full[SLOTS], empty[SLOTS];  // tile loaded (bytes); tile read (ROW_BLOCKS warps)
    // Each row's largest score and sum of weights, of every second item: a warp may still read those
    // of an item when another one writes those of the next.
    float stats[2][STREAMS][ROW_BLOCKS * COLUMNS * 8][2];
    // Per sequence: items per KV head up to and including its own; keys; position of its table's
    // first entry.
    int end[MAX_SEQUENCES], length[MAX_SEQUENCES], first[MAX_SEQUENCES];
};
static_assert(sizeof(SharedState) <= 16384, "shared memory");

struct Params {
    const int* table;
    int table_stride, sequences, window, split, short_split, longest_short;
};

struct WorkItem {
    int sequence, head, length;
    int low, begin, end, tiles;  // first visible key; first key of the first tile; end of the keys
};

// Tokens of a split, and the number of splits. The first one holds the first visible key.
__device__ __forceinline__ int split_size(const Params& params, int length) {
    return params.short_split && length <= params.longest_short ? params.short_split : params.split;
}
__device__ __forceinline__ int first_visible(const Params& params, int length) {
    return max(length - Q_LEN - params.window + 1, 0);
}
__device__ __forceinline__ int split_count(const Params& params, int length) {
    if (params.split == 0) return 1;
    const int size = split_size(params, length);
    return (length + size - 1) / size - first_visible(params, length) / size;
}

__device__ __forceinline__ WorkItem work_item(const SharedState& shared, const Params& params,
                                              int index) {
    WorkItem item;
    item.head = index % KV_HEADS;
    const int at = index / KV_HEADS;
    int s = 0;
    for (int step = MAX_SEQUENCES / 2; step > 0; step /= 2)
        if (s + step <= params.sequences - 1 && shared.end[s + step - 1] <= at) s += step;
    item.sequence = s;
    item.length = shared.length[s];
    item.low = first_visible(params, item.length);
    item.begin = item.low / TILE * TILE;
    item.end = item.length;
    if (params.split) {
        const int size = split_size(params, item.length);
        const int split = at - (s ? shared.end[s - 1] : 0) + item.low / size;
        item.begin = max(item.begin, split * size);
        item.end = min(item.end, (split + 1) * size);
    }
    item.tiles = (item.end - item.begin + TILE - 1) / TILE;
    return item;
}
