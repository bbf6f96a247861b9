// Work items of one-copy attention, and the state that its warp groups share.
#pragma once
#include "hopper.cuh"

constexpr int HEAD_DIM = 512, PAIRS = 64, TILE = 64, MAX_SEQUENCES = 64;
constexpr int GROUP = HEADS / KV_HEADS;  // query heads of one KV head
constexpr int TOKENS = 64 / GROUP;  // of a work item
constexpr int BLOCK = 8192, TILE_BYTES = 8 * BLOCK;  // 64 rows of 64 dimensions; of all dimensions
// Offsets in shared memory, in bytes.
constexpr int QUERY = 0, KEYS = 65536, ROTATED = 196608, WEIGHTS = 212992, STATE = 229376;

struct SharedState {
    // Barriers; in parentheses, what completes a phase.
    u64 full[2][2];  // half tile loaded (bytes)
    u64 keys_rotated, rotated_free;  // rotated keys written (128 threads); read (4 warps)
    u64 query_loaded, query_rotated;  // queries loaded (bytes); rotated in place (128 threads)
    u64 query_free;  // queries read (4 warps)
    u64 weights_ready[2], weights_free[2];  // weights written (128 threads); read (2 groups)
    // Per slot and row: factor of older sums; sum of weights, written with an item's last tile.
    float decay[2][64], total[2][64];
    // Per sequence: items per KV head up to and including its own; keys; first row of its chunk;
    // rows of its chunk; tokens per split.
    int end[MAX_SEQUENCES], length[MAX_SEQUENCES], begin[MAX_SEQUENCES], count[MAX_SEQUENCES];
    int split[MAX_SEQUENCES];
};
static_assert(sizeof(SharedState) <= 3072, "shared memory");

struct WorkItem {
    int id, sequence, head, length;  // `id`: where the results of a split go
    int begin, live, position;  // first row of q; tokens that exist; position of the first token
    int k_begin, tiles;  // first key; number of tiles
    bool fresh, final;  // first and last of consecutive items with the same queries
};

struct Params {
    const int* table;
    int table_stride, q_len, split;  // `split` is 0 for chunks, which are not split
    int first, last, step;  // this program's items are first, first + step, ..., below last
    float scale;
    const float *cos, *sin;
    int positions;
    const KEY_WEIGHT* key_weight;
    bf16* out;
    float *part, *stats;
#ifdef TREE
    const int2* tree;  // of each query row: its position, and as bits the rows that it sees
#endif
};

// Returns the rows and keys of the work item with this index.
//
// The splits of one sequence and KV head have consecutive indices, and a program takes consecutive
// items, so it keeps their queries. `id` numbers the results as split_kv.py reads them.
__device__ __forceinline__ WorkItem work_item(const SharedState& shared, const Params& params,
                                              int index) {
    WorkItem item;
    int s = 0;
    while (shared.end[s] * KV_HEADS <= index) ++s;
    const int before = s ? shared.end[s - 1] : 0, count = shared.end[s] - before;
    const int at = index - before * KV_HEADS;
    item.sequence = s;
    item.length = shared.length[s];
    int k_end;
    if (params.split) {
        const int split = at % count;
        item.head = at / count;
        item.id = (before + split) * KV_HEADS + item.head;
        item.begin = s * params.q_len;
        item.live = params.q_len;
        item.position = item.length - params.q_len;
        item.k_begin = split * shared.split[s];
        item.fresh = split == 0 || index == params.first;
        item.final = split == count - 1 || index == params.last - 1;
        k_end = min(item.length, item.k_begin + shared.split[s]);
    } else {
        // The last tokens see the most keys. They go first, so that all programs end at about the
        // same time.
        const int token = (count - 1 - at / KV_HEADS) * TOKENS;
        item.head = at % KV_HEADS;
        item.id = index;
        item.begin = shared.begin[s] + token;
        item.live = min(TOKENS, shared.count[s] - token);
        item.position = item.length - shared.count[s] + token;
        item.k_begin = 0;
        item.fresh = item.final = true;
        k_end = min(item.length, item.position + TOKENS);
    }
    item.tiles = (k_end - item.k_begin + TILE - 1) / TILE;
    return item;
}
