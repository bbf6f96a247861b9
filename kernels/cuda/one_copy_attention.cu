// Attention to a one-copy cache on Hopper: head_dim 512, 64 rotating pairs, bf16.
//
// A program computes 64 query rows (the heads of one KV head times consecutive tokens) against
// tiles of 64 keys. Its four warp groups form a pipeline through shared memory:
//   0     rotates the queries once and, for each tile, the 128 rotating dimensions of the keys into
//         a buffer of their own (one_copy_rotation.cuh);
//   1     computes scores = queries * keys^T and their softmax, and leaves the weights and the
//         decay of older sums in shared memory;
//   2, 3  compute sums += weights * values for the first and the last 256 dimensions. Each group
//         loads its own half of the tiles: when it is done with a half, no other group needs it.
// A tile in shared memory serves as keys (384 dimensions as they are, 128 from the rotated buffer)
// and as values, so that a vector is read from memory once. It lies in blocks of 64 dimensions,
// [block][64 keys][128 bytes], with a swizzle of 128 bytes: K-major for the scores, MN-major for
// the sums. Two tiles are in shared memory or on their way to it.
//
// Defined at compile time: HEADS, KV_HEADS, PAGE_SIZE (a power of two, at least 64), KEY_WEIGHT
// (the element type of the key weight, float or bf16); TREE for decode whose rows are trees of drafts
// (see paged_decode). For instance
//   nvcc -arch=sm_90a -cubin -DHEADS=32 -DKV_HEADS=4 -DPAGE_SIZE=64 -DKEY_WEIGHT=float
//       one_copy_attention.cu

#include "hopper.cuh"
#include "one_copy_rotation.cuh"
#include "one_copy_work_items.cuh"
#include "online_softmax.cuh"

// s = queries * keys^T for one tile: first the 384 dimensions that are used as they are, then the
// rotated ones.
__device__ __forceinline__ void score_tile(float (&s)[32], SharedState& shared, u32 base, int slot,
                                           int parity, int number) {
    const u64 query = matrix_descriptor(base + QUERY, 16);
    const u64 keys = matrix_descriptor(base + KEYS + slot * TILE_BYTES, 16);
    const u64 rotated = matrix_descriptor(base + ROTATED, 16);
    wgmma_fence();
#pragma unroll
    for (int half = 0; half < 2; ++half) {
        barrier_wait(shared.full[slot][half], parity);
#pragma unroll
        for (int b = half * 4 + 1; b < half * 4 + 4; ++b)
#pragma unroll
            for (int k = 0; k < 4; ++k)
                wgmma_n64(s, query + b * (BLOCK / 16) + k * 2, keys + b * (BLOCK / 16) + k * 2,
                          b > 1 || k > 0);
    }
    barrier_wait(shared.keys_rotated, number & 1);
#pragma unroll
    for (int b = 0; b < 2; ++b)
#pragma unroll
        for (int k = 0; k < 4; ++k)
            wgmma_n64(s, query + b * (BLOCK / 4) + k * 2, rotated + b * (BLOCK / 16) + k * 2, 1);
    wgmma_commit();
    wgmma_wait<0>();
}

// Scores and softmax of all items. Called by warp group 1.
__device__ __forceinline__ void compute_weights(SharedState& shared, const Params& params,
                                                u32 base) {
    const int lane = threadIdx.x % 32, row = threadIdx.x / 32 % 4 * 16 + lane / 4, pair = lane % 4;
    const float infinity = __int_as_float(0x7F800000);
    float s[32];
    int number = 0, fresh = 0;
    for (int index = params.first; index < params.last; index += params.step) {
        const WorkItem item = work_item(shared, params, index);
        float top[2] = {-infinity, -infinity}, sum[2] = {0.0f, 0.0f}, decay[2];
#ifdef TREE
        int sees[2];
        for (int r = 0; r < 2; ++r)
            sees[r] = params.tree[item.begin + min((row + r * 8) / GROUP, item.live - 1)].y;
#endif
        if (item.fresh) barrier_wait(shared.query_rotated, fresh++ & 1);
        for (int tile = 0; tile < item.tiles; ++tile, ++number) {
            const int k0 = item.k_begin + tile * TILE, slot = number % 2, parity = number / 2 & 1;
            const bool last = tile == item.tiles - 1;
            score_tile(s, shared, base, slot, parity, number);
            barrier_arrive_warp(shared.rotated_free);
            if (last && item.final) barrier_arrive_warp(shared.query_free);
#ifdef TREE
            if (k0 + TILE > item.position) {
#pragma unroll
                for (int i = 0; i < 32; ++i) {
                    const int own = k0 + i / 4 * 8 + pair * 2 + i % 2 - item.position;
                    if (own > 31 || (own >= 0 && !(sees[i % 4 / 2] >> own & 1))) s[i] = -infinity;
                }
            }
#else
            if (k0 + TILE - 1 > item.position) {
#pragma unroll
                for (int i = 0; i < 32; ++i) {
                    const int key = k0 + i / 4 * 8 + pair * 2 + i % 2;
                    if (key > item.position + (row + i % 4 / 2 * 8) / GROUP) s[i] = -infinity;
                }
            }
#endif
            softmax_tile(s, top, sum, decay, params.scale);
            barrier_wait(shared.weights_free[slot], parity ^ 1);
            const u32 to = base + WEIGHTS + slot * BLOCK + row * 128 + pair * 4;
#pragma unroll
            for (int i = 0; i < 8; ++i) {
                const u32 at = to + ((i ^ (row & 7)) << 4);
                store_shared(at, pack_bf16(s[4 * i], s[4 * i + 1]));
                store_shared(at + 8 * 128, pack_bf16(s[4 * i + 2], s[4 * i + 3]));
            }
#pragma unroll
            for (int r = 0; r < 2; ++r) {
                const int at = row + r * 8;
                if (pair == 0) shared.decay[slot][at] = decay[r];
                if (!last) continue;
                sum[r] += __shfl_xor_sync(~0u, sum[r], 1);
                sum[r] += __shfl_xor_sync(~0u, sum[r], 2);
                if (pair == 0) shared.total[slot][at] = sum[r];
                if (pair == 0 && params.split && at < item.live * GROUP) {
                    float* stats = params.stats + ((u64)item.id * (item.live * GROUP) + at) * 2;
                    stats[0] = top[r];
                    stats[1] = sum[r];
                }
            }
            fence_async_proxy();
            barrier_arrive(shared.weights_ready[slot]);
        }
    }
}

// Writes a thread's two rows: unscaled float32 sums of a split, or results.
__device__ __forceinline__ void store_rows(const Params& params, const WorkItem& item, int half,
                                           const float (&acc)[2][64], const float (&factor)[2]) {
    const int lane = threadIdx.x % 32;
#pragma unroll
    for (int r = 0; r < 2; ++r) {
        const int row = threadIdx.x / 32 % 4 * 16 + lane / 4 + r * 8;
        if (row >= item.live * GROUP) continue;
        const int column = half * 256 + lane % 4 * 2;
        if (params.split) {
            float* to =
                params.part + ((u64)item.id * (item.live * GROUP) + row) * HEAD_DIM + column;
#pragma unroll
            for (int i = 0; i < 32; ++i)
                *(float2*)(to + i * 8) = make_float2(acc[i / 16][i % 16 * 4 + r * 2],
                                                     acc[i / 16][i % 16 * 4 + r * 2 + 1]);
        } else {
            bf16* to = params.out + column +
                       ((u64)(item.begin + row / GROUP) * HEADS + item.head * GROUP + row % GROUP) *
                           HEAD_DIM;
#pragma unroll
            for (int i = 0; i < 32; ++i)
                *(u32*)(to + i * 8) = pack_bf16(acc[i / 16][i % 16 * 4 + r * 2] * factor[r],
                                                acc[i / 16][i % 16 * 4 + r * 2 + 1] * factor[r]);
        }
    }
}

// The next half tile to load: its item and tile; `entry` is the item's first key, `slot` the tile's
// first slot in the cache.
struct NextLoad {
    int index, tile, tiles, head, entry, slot;
    const int* table;
};

__device__ __forceinline__ void find_next(NextLoad& next, const SharedState& shared,
                                          const Params& params) {
    if (next.tile == next.tiles) {
        next.index += params.step;
        if (next.index >= params.last) return;
        const WorkItem item = work_item(shared, params, next.index);
        next.tile = 0;
        next.tiles = item.tiles;
        next.head = item.head;
        next.entry = item.k_begin;
        next.table = params.table + (u64)item.sequence * params.table_stride;
    }
    const int at = next.entry + next.tile * TILE;
    next.slot = next.table[at / PAGE_SIZE] * PAGE_SIZE + at % PAGE_SIZE;
}

__device__ __forceinline__ void load_next(NextLoad& next, SharedState& shared, const Params& params,
                                          const TensorMap& cache, u32 base, int half, int slot) {
    if (next.index >= params.last) return;
    u64& full = shared.full[slot][half];
    barrier_expect_bytes(full, TILE_BYTES / 2);
    tma_load_3d(base + KEYS + slot * TILE_BYTES + half * (TILE_BYTES / 2), cache, 0, next.slot,
                next.head * 8 + half * 4, full);
    ++next.tile;
    find_next(next, shared, params);
}

// Weighted sums of all items over 256 dimensions. Called by warp groups 2 and 3.
__device__ __forceinline__ void accumulate_values(SharedState& shared, const Params& params,
                                                  const TensorMap& cache, u32 base, int half) {
    const int row = threadIdx.x / 32 % 4 * 16 + threadIdx.x % 32 / 4;
    const bool loads = threadIdx.x % 128 == 0;
    NextLoad next{params.first - params.step, 0, 0};
    if (loads) {
        find_next(next, shared, params);
        load_next(next, shared, params, cache, base, half, 0);
        load_next(next, shared, params, cache, base, half, 1);
    }
    float acc[2][64];
    int number = 0;
    for (int index = params.first; index < params.last; index += params.step) {
        const WorkItem item = work_item(shared, params, index);
        float factor[2];
        for (int tile = 0; tile < item.tiles; ++tile, ++number) {
            const int slot = number % 2, parity = number / 2 & 1;
            const u64 weights = matrix_descriptor(base + WEIGHTS + slot * BLOCK, 16);
            const u64 values =
                matrix_descriptor(base + KEYS + slot * TILE_BYTES + half * (TILE_BYTES / 2), BLOCK);
            barrier_wait(shared.weights_ready[slot], parity);
            const float d0 = shared.decay[slot][row], d1 = shared.decay[slot][row + 8];
            if (tile && __any_sync(~0u, d0 != 1.0f || d1 != 1.0f)) {
#pragma unroll
                for (int i = 0; i < 128; ++i) acc[i / 64][i % 64] *= i % 4 < 2 ? d0 : d1;
            }
            barrier_wait(shared.full[slot][half], parity);
            wgmma_fence();
#pragma unroll
            for (int k = 0; k < 4; ++k) {
                wgmma_n128_t(acc[0], weights + k * 2, values + k * 128, tile > 0 || k > 0);
                wgmma_n128_t(acc[1], weights + k * 2, values + 2 * (BLOCK / 16) + k * 128,
                             tile > 0 || k > 0);
            }
            wgmma_commit();
            if (tile == item.tiles - 1) {
                factor[0] = 1.0f / shared.total[slot][row];
                factor[1] = 1.0f / shared.total[slot][row + 8];
            }
            wgmma_wait<0>();
            // Constant numbers: one in a register would reserve all 16 hardware barriers of the
            // multiprocessor.
            if (half)
                sync_warp_group(2);
            else
                sync_warp_group(1);
            if (loads) {
                load_next(next, shared, params, cache, base, half, slot);
                barrier_arrive(shared.weights_free[slot]);
            }
        }
        store_rows(params, item, half, acc, factor);
    }
}

extern "C" __global__ void __launch_bounds__(512, 1)
one_copy_attention(const __grid_constant__ TensorMap cache,
                   const __grid_constant__ TensorMap queries, const int* table, int table_stride,
                   const int* lens, const int* starts, const float* cos, const float* sin,
                   int positions, const KEY_WEIGHT* key_weight, bf16* out, float* part,
                   float* stats, float scale, int sequences, int q_len, int split,
                   int short_limit, int short_split
#ifdef TREE
                   , const int2* tree
#endif
) {
    extern __shared__ __align__(1024) unsigned char memory[];
    SharedState& shared = *(SharedState*)(memory + STATE);
    const u32 base = shared_address(memory);
    const int t = threadIdx.x;
    pdl_launch_dependents();
    if (base % 1024) asm volatile("trap;");
    if (t == 0) {
        for (int i = 0; i < 4; ++i) barrier_init(shared.full[i / 2][i % 2], 1);
        barrier_init(shared.keys_rotated, 128), barrier_init(shared.rotated_free, 4);
        barrier_init(shared.query_loaded, 1), barrier_init(shared.query_rotated, 128);
        barrier_init(shared.query_free, 4);
        for (int i = 0; i < 2; ++i)
            barrier_init(shared.weights_ready[i], 128), barrier_init(shared.weights_free[i], 2);
        asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
        fence_async_proxy();
    }
    if (t < 16) {  // these are constants; earlier launches may still be writing the other inputs
        prefetch_l2(key_weight + t % 2 * (HEAD_DIM / 2) + t / 2 * 8);
        prefetch_l2((t % 2 ? cos : sin) + 16 * PAIRS + t / 2 * 8);
        prefetch_l2((t % 2 ? cos : sin) + 16 / GROUP * PAIRS + t / 2 * 8);
    }
    pdl_wait();
    if (t < sequences) {
        shared.length[t] = lens[t];
        shared.begin[t] = split ? 0 : starts[t];
        shared.count[t] = split ? q_len : starts[t + 1] - starts[t];
        shared.split[t] = short_split && shared.length[t] <= short_limit ? short_split : split;
    }
    __syncthreads();
    if (t < sequences) {
        int end = 0;
        for (int s = 0; s <= t; ++s)
            end += split ? (shared.length[s] + shared.split[s] - 1) / shared.split[s]
                         : (shared.count[s] + TOKENS - 1) / TOKENS;
        shared.end[t] = end;
    }
    __syncthreads();
    const int item_count = shared.end[sequences - 1] * KV_HEADS;
    const int programs = gridDim.x, program = blockIdx.x;
    Params params{table, table_stride, q_len, split, program, item_count, programs,
                  scale * 1.4426950408889634f, cos, sin, positions, key_weight, out, part, stats};
#ifdef TREE
    params.tree = tree;
#endif
    if (split) {
        params.first = (u64)item_count * program / programs;
        params.last = (u64)item_count * (program + 1) / programs;
        params.step = 1;
    }
    const int group = t / 128;
    if (group == 0) {
        asm volatile("setmaxnreg.dec.sync.aligned.u32 120;");
        rotate_queries_and_keys(shared, params, queries, base);
    } else if (group == 1) {
        asm volatile("setmaxnreg.dec.sync.aligned.u32 72;");
        compute_weights(shared, params, base);
    } else {
        asm volatile("setmaxnreg.inc.sync.aligned.u32 160;");
        accumulate_values(shared, params, cache, base, group - 2);
    }
}
