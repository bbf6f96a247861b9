// What the experts' streams share: the choice of experts, the list of tiles, which items a program
// takes, and the wait between the two products of a launch.
//
// A tile is at most PAIRS pairs of one expert, an item some weight rows of a tile.
//
// Macros: EXPERTS; TOP_K, at most 32 if ROUTED; ROUTED (0: the experts of each row are given; 1:
// they are chosen, and their weights are a softmax over the chosen; 2: over all). Constants of the
// including file: PAIRS, WARPS.
#pragma once
#include "expert_arithmetic.cuh"

constexpr int EACH = (EXPERTS + 31) / 32;  // experts that a lane counts
constexpr int MOST_PAIRS = 1024, MOST_TILES = EXPERTS + MOST_PAIRS / PAIRS;
constexpr int larger(int a, int b) { return a > b ? a : b; }

__device__ __forceinline__ float load_float(const float* from) {
    float value;
    asm volatile("ld.global.cg.f32 %0, [%1];" : "=f"(value) : "l"(from) : "memory");
    return value;
}
// Adds 1 to a counter; returns what it was.
__device__ __forceinline__ u32 add_one(u32* counter) {
    u32 old;
    asm volatile("atom.add.relaxed.gpu.global.u32 %0, [%1], 1;"
                 : "=r"(old) : "l"(counter) : "memory");
    return old;
}

struct Tiles {
    int count[EACH * 32], begin[EACH * 32];  // pairs of an expert; the first of them in `order`
    int amount;
    unsigned short expert[MOST_TILES], first[MOST_TILES];  // of a tile; its first pair in `order`
    unsigned short order[MOST_PAIRS], ids[MOST_PAIRS];  // pairs by expert; experts of pairs
    float weights[ROUTED ? MOST_PAIRS : 1];
    // Pairs of a tile, and its r-th pair.
    __device__ __forceinline__ int rows(int tile) const {
        const int e = expert[tile];
        return min(begin[e] + count[e] - first[tile], PAIRS);
    }
    __device__ __forceinline__ int pair(int tile, int r) const { return order[first[tile] + r]; }
};
__device__ __forceinline__ int tiles_of(int pairs) { return (pairs + PAIRS - 1) / PAIRS; }

// What a launch knows of the rows' experts: ids and weights of all pairs, or, if ROUTED, memory for
// them and the router's logits, float32 [rows, EXPERTS]. expert_scale: factors of weights, or none.
struct Routes {
    int* ids;
    float* weights;
    const float *logits, *expert_scale;
};

// Chooses a row's experts, the largest logit first, the lower number among equals. A NaN is chosen
// last and makes all weights NaN. Called by a warp; every program does it for itself.
__device__ __forceinline__ void route_row(Tiles& tiles, const Routes& routes, int row) {
    const int lane = threadIdx.x % 32;
    u32 keys[EACH];  // ordered as the logits are; 0 for experts that are chosen or beyond the last
    float logits[EACH];
    bool has_nan = false;
#pragma unroll
    for (int i = 0; i < EACH; i++) {
        const int expert = i * 32 + lane;
        keys[i] = 0;
        logits[i] = expert < EXPERTS ? load_float(routes.logits + (u64)row * EXPERTS + expert) : 0.0f;
        if (expert >= EXPERTS) continue;
        const bool is_nan = logits[i] != logits[i];
        const u32 bits = is_nan ? 0xFF800000u : __float_as_uint(logits[i]);
        keys[i] = bits >> 31 ? ~bits : bits | 0x80000000u;
        has_nan |= is_nan;
    }
    has_nan = __ballot_sync(~0u, has_nan) != 0;
    float largest = 0.0f, total = 0.0f, power = 0.0f;
    int chosen = 0;
#pragma unroll
    for (int k = 0; k < TOP_K; k++) {
        u32 best = 0;
        int expert = EXPERTS;
#pragma unroll
        for (int i = 0; i < EACH; i++)
            if (keys[i] > best) best = keys[i], expert = i * 32 + lane;
        const u32 key = __reduce_max_sync(~0u, best);
        expert = __reduce_min_sync(~0u, best == key ? expert : EXPERTS);
        const float value = __uint_as_float(key >> 31 ? key & 0x7FFFFFFFu : ~key);
        if (k == 0) largest = key == 0x007FFFFFu ? 0.0f : value;
        if (lane == k) power = __expf(value - largest), chosen = expert;
        total += __expf(value - largest);
#pragma unroll
        for (int i = 0; i < EACH; i++)
            if (i * 32 + lane == expert) keys[i] = 0;
    }
    if (ROUTED == 2) {
        total = 0.0f;
#pragma unroll
        for (int i = 0; i < EACH; i++)
            if (i * 32 + lane < EXPERTS) total += __expf(logits[i] - largest);
#pragma unroll
        for (int lanes = 16; lanes; lanes /= 2) total += __shfl_xor_sync(~0u, total, lanes);
    }
    if (lane >= TOP_K) return;
    float weight = has_nan ? __uint_as_float(0x7FC00000u) : power / total;
    if (routes.expert_scale) weight *= routes.expert_scale[chosen];
    const int pair = row * TOP_K + lane;
    tiles.ids[pair] = chosen, tiles.weights[pair] = weight;
    atomicAdd(&tiles.count[chosen], 1);
    if (blockIdx.x == 0) routes.ids[pair] = chosen, routes.weights[pair] = weight;
}

// Lists the tiles: experts and the pairs of each in ascending order, PAIRS of them to a tile.
__device__ __forceinline__ void list_tiles(Tiles& tiles, const Routes& routes, int rows) {
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, pairs = rows * TOP_K;
    for (int e = threadIdx.x; e < EACH * 32; e += WARPS * 32) tiles.count[e] = 0;
    __syncthreads();
    if (ROUTED) {
        for (int row = warp; row < rows; row += WARPS) route_row(tiles, routes, row);
    } else {
        for (int p = threadIdx.x; p < pairs; p += WARPS * 32) {
            int id = min(max(routes.ids[p], 0), EXPERTS - 1);
            tiles.ids[p] = id;
            atomicAdd(&tiles.count[id], 1);
        }
    }
    __syncthreads();
    if (warp == 0) {
        int own_pairs = 0, own_tiles = 0;
        for (int i = 0; i < EACH; i++) {
            own_pairs += tiles.count[lane * EACH + i];
            own_tiles += tiles_of(tiles.count[lane * EACH + i]);
        }
        int pair = own_pairs, tile = own_tiles;
        for (int step = 1; step < 32; step *= 2) {
            const int other_pair = __shfl_up_sync(~0u, pair, step);
            const int other_tile = __shfl_up_sync(~0u, tile, step);
            if (lane >= step) pair += other_pair, tile += other_tile;
        }
        if (lane == 31) tiles.amount = tile;
        pair -= own_pairs, tile -= own_tiles;
        for (int i = 0; i < EACH; i++) {
            const int e = lane * EACH + i, count = tiles.count[e];
            tiles.begin[e] = pair;
            for (int first = 0; first < count; first += PAIRS, tile++)
                tiles.expert[tile] = e, tiles.first[tile] = pair + first;
            pair += count;
        }
    }
    __syncthreads();
    for (int e = warp; e < EXPERTS; e += WARPS) {
        if (tiles.count[e] == 0) continue;
        int before = tiles.begin[e];
        for (int base = 0; base < pairs; base += 32) {
            const bool match = base + lane < pairs && tiles.ids[base + lane] == e;
            const u32 mask = __ballot_sync(~0u, match);
            if (match) tiles.order[before + __popc(mask & ((1u << lane) - 1))] = base + lane;
            before += __popc(mask);
        }
    }
    __syncthreads();
}

// Counters of a launch, all 0 before the first one: warps that have finished gate and up;
// generations, each of which ends when all warps have; one that is left at 0 for another launch;
// and items taken of gate and up and of down, in even and in odd generations.
enum Counter { FINISHED, GENERATION, LEFT_AT_0, GATE_UP_ITEMS, DOWN_ITEMS = GATE_UP_ITEMS + 2 };

// A program's items of a product: a contiguous part, the same number for each, and then at most a few
// of those that are left. P is a product, with ITEMS, the number of items of a tile.
template <class P> struct Items {
    int at, end, shared_from, all, pending;
    u32* counter;
    __device__ __forceinline__ void start(const Tiles& tiles, u32* taken) {
        counter = taken;
        all = tiles.amount * P::ITEMS;
        const int each = all / (int)gridDim.x;
        at = each * blockIdx.x, end = at + each, shared_from = each * gridDim.x;
        if (each == 0) pending = shared_from + add_one(counter);
    }
    // Returns the next item, or -1. Called by one thread.
    __device__ __forceinline__ int next() {
        if (at < end) {
            if (at == end - 1) pending = shared_from + add_one(counter);
            return at++;
        }
        const int item = pending;
        if (item >= all) return -1;
        pending = shared_from + add_one(counter);
        return item;
    }
};

// Waits until all programs have finished gate and up. Called by a warp.
__device__ __forceinline__ void wait_for_all(const u32* counters, u32 generation) {
    if (threadIdx.x % 32 == 0)
        while (load_counter(counters + GENERATION) == generation) {}
    __syncwarp();
}
// Counts a warp that has finished gate and up, of `warps` in each program.
__device__ __forceinline__ void count_finished(u32* counters, u32 generation, int warps) {
    __syncwarp();
    if (threadIdx.x % 32 != 0) return;
    if (count_up(counters + FINISHED) != gridDim.x * warps - 1) return;
    volatile u32* to = counters;
    to[FINISHED] = 0;
    to[GATE_UP_ITEMS + (generation + 1) % 2] = 0;
    to[DOWN_ITEMS + (generation + 1) % 2] = 0;
    count_up(counters + GENERATION);
}
