// Work items of prefill attention, and the state that its warp groups share.
#pragma once
#include "hopper.cuh"

constexpr int ROWS = GROUPS * 64, MAX_SEQUENCES = 64;
constexpr int GROUP = HEADS / KV_HEADS;  // query heads of one KV head
constexpr int TOKENS = ROWS / GROUP;     // of a work item
constexpr int OWN_TOKENS = TOKENS / GROUPS;  // of one warp group
// Bytes of 64 dimensions of the keys of a tile; of all rows of queries; of all dimensions of a tile.
constexpr int BLOCK = TILE * 128, QUERY_BLOCK = ROWS * 128, TILE_BYTES = BLOCK * HEAD_DIM / 64;
constexpr int COPY = TILE < PAGE_SIZE ? TILE : PAGE_SIZE;  // keys of one copy
constexpr int STEPS = TILE / 16;  // of the sum over a tile's keys
// Offsets in shared memory, in bytes.
constexpr int QUERY = 0, QUERY_BYTES = ROWS * HEAD_DIM * 2, RING = QUERY_BYTES;
constexpr int STATE = RING + SLOTS * TILE_BYTES;

struct SharedState {
    // Barriers; in parentheses, what completes a phase.
    u64 full[SLOTS], empty[SLOTS];  // tile loaded (bytes); tile read (4 * GROUPS warps)
    u64 query_loaded, query_free;  // queries loaded (bytes); queries read (all warps)
    u64 dirty_loaded;  // values loaded of which some must become 0 (bytes)
    // Per sequence: items per KV head up to and including its own; keys; first row of its chunk;
    // rows of its chunk; position of its table's first entry.
    int end[MAX_SEQUENCES], length[MAX_SEQUENCES], begin[MAX_SEQUENCES], count[MAX_SEQUENCES];
    int first[MAX_SEQUENCES];
};
static_assert(sizeof(SharedState) <= 3072, "shared memory");

struct Params {
    const int* table;
    bf16* out;
    int table_stride, window, item_count;
    float scale;
    const bf16* sinks;
};

struct WorkItem {
    int sequence, head, length;
    int begin, live, position;  // first row of q; tokens that exist; position of the first token
    // First key that any row of the chunk may see; first key of the first tile; number of tiles.
    int low, k_begin, tiles;
};

// Returns this program's item in a round, or an index past the end. Every second round runs
// backwards: items become shorter from first to last, so this evens out the programs' shares.
__device__ __forceinline__ int item_index(int round) {
    const int programs = gridDim.x, program = blockIdx.x;
    return round * programs + (round % 2 ? programs - 1 - program : program);
}

__device__ __forceinline__ WorkItem work_item(const SharedState& shared, const Params& params,
                                              int index) {
    WorkItem item;
    int s = 0;
    while (shared.end[s] * KV_HEADS <= index) ++s;
    const int before = s ? shared.end[s - 1] : 0, at = index - before * KV_HEADS;
    // The last tokens see the most keys. They go first, so that all programs end at about the same
    // time.
    const int token = (shared.end[s] - before - 1 - at / KV_HEADS) * TOKENS;
    item.sequence = s;
    item.head = at % KV_HEADS;
    item.length = shared.length[s];
    item.begin = shared.begin[s] + token;
    item.live = min(TOKENS, shared.count[s] - token);
    item.position = item.length - shared.count[s] + token;
    item.low = max(shared.first[s], item.position - token - params.window + 1);
    item.k_begin = max(item.low, item.position - params.window + 1) / TILE * TILE;
    item.tiles = (item.position + item.live - item.k_begin + TILE - 1) / TILE;
    return item;
}
