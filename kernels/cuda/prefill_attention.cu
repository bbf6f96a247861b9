// Prefill attention on Hopper: prompt chunks attend to paged keys and values. bf16, causal, with or
// without a sliding window, with or without sinks.
//
// A program takes work items of ROWS query rows: the heads of one KV head times consecutive tokens.
// GROUPS warp groups compute 64 rows each. One more warp loads for all of them: tiles of TILE keys
// and of their values go through one ring of SLOTS tiles in the order in which they are needed,
//   K0, K1 V0, K2 V1, ..., V(n-1), then the tiles of the next item.
// A warp group issues the scores of tile i + 1 and the weighted sum of tile i together, and
// computes the softmax weights of tile i + 1 while the sum is in progress. The weights go from
// registers into the product.
// A tile lies in shared memory in blocks of 64 dimensions, [block][key][128 bytes], with a swizzle
// of 128 bytes. Keys are K-major for the scores, values MN-major for the sums.
//
// Defined at compile time: HEADS, KV_HEADS, HEAD_DIM (64, 128 or 256), PAGE_SIZE (a power of two, at
// least 64), TILE (64 or 128), GROUPS (2 or 3), SLOTS. For instance
//   nvcc -arch=sm_90a -cubin -DHEADS=32 -DKV_HEADS=16 -DHEAD_DIM=256 -DPAGE_SIZE=64 -DTILE=64
//     -DGROUPS=2 -DSLOTS=5 prefill_attention.cu

#include "online_softmax.cuh"
#include "prefill_work_items.cuh"

// Slot of the next tile in the ring, and the parity of its barriers' phase.
struct RingPosition {
    int slot = 0, parity = 0;
    __device__ __forceinline__ void step() {
        if (++slot == SLOTS) slot = 0, parity ^= 1;
    }
    __device__ __forceinline__ u32 bytes(u32 base) const { return base + RING + slot * TILE_BYTES; }
};

// Sets values that no row may see to 0: they may never have been written, and 0 * NaN is NaN.
// Called by one warp.
__device__ __forceinline__ void zero_unseen_values(u32 tile, int k0, int low, int length) {
    const int lane = threadIdx.x % 32;
    for (int row = 0; row < TILE; ++row)
        if ((k0 + row < low || k0 + row >= length) && lane < HEAD_DIM / 8)
            store_shared(tile + lane / 8 * BLOCK + row * 128 + lane % 8 * 16,
                         make_uint4(0, 0, 0, 0));
    fence_async_proxy();
}

// Keys or values of a tile from `k0` on, which lie in one or more pages. A copy beyond the table or
// the sequence takes the null page instead. Called by one thread.
__device__ __forceinline__ void load_tile(u32 to, const TensorMap& map, const int* table, int first,
                                          int k0, int length, int head, u64& loaded) {
    barrier_expect_bytes(loaded, TILE_BYTES);
#pragma unroll
    for (int part = 0; part < TILE / COPY; ++part) {
        const int key = k0 + part * COPY;
        const int page = key < first || key >= length ? 0 : table[(key - first) / PAGE_SIZE];
        const int slot = page * PAGE_SIZE + key % PAGE_SIZE;
        if (COPY == TILE) {
            tma_load_3d(to, map, 0, slot, head * (HEAD_DIM / 64), loaded);
        } else {
#pragma unroll
            for (int block = 0; block < HEAD_DIM / 64; ++block)
                tma_load_3d(to + block * BLOCK + part * COPY * 128, map, 0, slot,
                            head * (HEAD_DIM / 64) + block, loaded);
        }
    }
}

// Loads everything that the warp groups read. Called by one warp.
__device__ __forceinline__ void load_tiles(SharedState& shared, const Params& params,
                                           const TensorMap& queries, const TensorMap& keys,
                                           const TensorMap& values, u32 base) {
    const bool leads = threadIdx.x % 32 == 0;
    RingPosition place;
    int dirty_tiles = 0, index;
    for (int round = 0; (index = item_index(round)) < params.item_count; ++round) {
        const WorkItem item = work_item(shared, params, index);
        const int* table = params.table + (u64)item.sequence * params.table_stride;
        const int first = shared.first[item.sequence];
        int k0 = item.k_begin;
        for (int tile = 0; tile <= item.tiles; ++tile, k0 += TILE) {
            __syncwarp();  // a lane that is a whole round behind would misread the barriers' parity
            if (tile < item.tiles) {
                barrier_wait(shared.empty[place.slot], place.parity ^ 1);
                if (leads)
                    load_tile(place.bytes(base), keys, table, first, k0, item.length, item.head,
                              shared.full[place.slot]);
                place.step();
            }
            if (tile == 0) {
                barrier_wait(shared.query_free, (round & 1) ^ 1);
                if (leads) {
                    barrier_expect_bytes(shared.query_loaded, QUERY_BYTES);
                    tma_load_4d(base + QUERY, queries, 0, item.head * GROUP, item.begin, 0,
                                shared.query_loaded);
                }
            } else {
                const int v0 = k0 - TILE;
                const bool dirty = v0 < item.low || v0 + TILE > item.length;
                u64& full = shared.full[place.slot];
                barrier_wait(shared.empty[place.slot], place.parity ^ 1);
                if (leads)
                    load_tile(place.bytes(base), values, table, first, v0, item.length, item.head,
                              dirty ? shared.dirty_loaded : full);
                if (dirty) {
                    barrier_wait(shared.dirty_loaded, dirty_tiles++ & 1);
                    zero_unseen_values(place.bytes(base), v0, item.low, item.length);
                    barrier_arrive_warp(full);
                }
                place.step();
            }
        }
    }
}

// The products of one instruction for each size of a tile and of a head.
__device__ __forceinline__ void multiply_keys(float (&s)[32], u64 a, u64 b, int add) {
    wgmma_n64(s, a, b, add);
}
__device__ __forceinline__ void multiply_keys(float (&s)[64], u64 a, u64 b, int add) {
    wgmma_n128(s, a, b, add);
}
__device__ __forceinline__ void add_values(float (&acc)[32], const u32 (&a)[4], u64 b, int add) {
    wgmma_n64_t(acc, a, b, add);
}
__device__ __forceinline__ void add_values(float (&acc)[64], const u32 (&a)[4], u64 b, int add) {
    wgmma_n128_t(acc, a, b, add);
}
__device__ __forceinline__ void add_values(float (&acc)[128], const u32 (&a)[4], u64 b, int add) {
    wgmma_n256_t(acc, a, b, add);
}

// s = queries * keys^T for one tile.
__device__ __forceinline__ void score_tile(float (&s)[TILE / 2], u64 query, u64 keys) {
#pragma unroll
    for (int k = 0; k < HEAD_DIM / 16; ++k)
        multiply_keys(s, query + k / 4 * (QUERY_BLOCK / 16) + k % 4 * 2,
                      keys + k / 4 * (BLOCK / 16) + k % 4 * 2, k > 0);
    wgmma_commit();
}

// acc = (add ? acc : 0) + weights * values for one tile.
__device__ __forceinline__ void accumulate_values(float (&acc)[HEAD_DIM / 2],
                                                  const u32 (&weights)[STEPS][4], u64 values,
                                                  bool add) {
#pragma unroll
    for (int k = 0; k < STEPS; ++k) add_values(acc, weights[k], values + k * 128, add || k > 0);
    wgmma_commit();
}

// Converts the 64 x TILE results of one product to the left operand of the next.
__device__ __forceinline__ void pack_weights(u32 (&weights)[STEPS][4], const float (&s)[TILE / 2]) {
#pragma unroll
    for (int i = 0; i < TILE / 4; ++i) weights[i / 4][i % 4] = pack_bf16(s[2 * i], s[2 * i + 1]);
}

// Four lanes hold x[0..3] each. Afterwards lane i holds x[i] of all four, in the lanes' order.
__device__ __forceinline__ void transpose(u32 (&x)[4], int pair) {
#pragma unroll
    for (int bit = 1; bit < 4; bit *= 2) {
        const bool upper = pair & bit;
#pragma unroll
        for (int j = 0; j < 2; ++j) {
            const int a = bit == 1 ? 2 * j : j, b = a + bit;
            const u32 got = __shfl_xor_sync(~0u, upper ? x[a] : x[b], bit);
            x[a] = upper ? got : x[a];
            x[b] = upper ? x[b] : got;
        }
    }
}

// Writes a thread's two rows, 16 bytes at a time.
__device__ __forceinline__ void store_rows(const Params& params, const WorkItem& item, int row,
                                           const float (&acc)[HEAD_DIM / 2],
                                           const float (&top)[2], const float (&sum)[2]) {
    const int pair = threadIdx.x % 4;
#pragma unroll
    for (int r = 0; r < 2; ++r) {
        const int at = row + r * 8;
        float factor = 1.0f / sum[r];
        if (params.sinks) {
            const float sink =
                to_float(params.sinks[item.head * GROUP + at % GROUP]) * 1.4426950408889634f;
            const float most = fmaxf(top[r], sink), scaled = exp2_fast(top[r] - most);
            factor = scaled / (sum[r] * scaled + exp2_fast(sink - most));
        }
        bf16* to =
            params.out +
            ((u64)(item.begin + at / GROUP) * HEADS + item.head * GROUP + at % GROUP) * HEAD_DIM;
#pragma unroll
        for (int j = 0; j < HEAD_DIM / 32; ++j) {
            u32 x[4];
#pragma unroll
            for (int n = 0; n < 4; ++n) {
                const int i = (4 * j + n) * 4 + r * 2;
                x[n] = pack_bf16(acc[i] * factor, acc[i + 1] * factor);
            }
            transpose(x, pair);
            if (at < item.live * GROUP)
                *(uint4*)(to + (4 * j + pair) * 8) = make_uint4(x[0], x[1], x[2], x[3]);
        }
    }
}

// Passes over `count` tiles of the ring that this warp group does not need.
__device__ __forceinline__ void skip_tiles(SharedState& shared, RingPosition& place, int count) {
#pragma unroll 1
    for (; count > 0; --count, place.step()) {
        barrier_wait(shared.full[place.slot], place.parity);
        barrier_arrive_warp(shared.empty[place.slot]);
    }
}

// Computes 64 rows of each item. Called by one warp group.
__device__ __forceinline__ void attend(SharedState& shared, const Params& params, u32 base,
                                       int group) {
    const int lane = threadIdx.x % 32, row = threadIdx.x / 32 % 4 * 16 + lane / 4;
    const float infinity = __int_as_float(0x7F800000);
    const u64 query = matrix_descriptor(base + QUERY + group * 8192, 16);
    float acc[HEAD_DIM / 2], s[TILE / 2];
    u32 weights[STEPS][4];
    RingPosition place;
    int index;
    for (int round = 0; (index = item_index(round)) < params.item_count; ++round) {
        const WorkItem item = work_item(shared, params, index);
        // Tiles [from, to) hold the keys that rows of this warp group see.
        const int earliest = item.position + group * OWN_TOKENS, latest = earliest + OWN_TOKENS - 1;
        const bool idle = group * OWN_TOKENS >= item.live;
        int from = (max(earliest - params.window + 1, item.low) - item.k_begin) / TILE;
        int to = (min(latest, item.position + item.live - 1) - item.k_begin) / TILE + 1;
        if (idle) from = to = item.tiles;
        barrier_wait(shared.query_loaded, round & 1);
        if (idle) {
            barrier_arrive_warp(shared.query_free);
            skip_tiles(shared, place, 2 * item.tiles);
            continue;
        }
        float top[2] = {-infinity, -infinity}, sum[2] = {0.0f, 0.0f}, decay[2];
        const int seen0 = item.position + (group * 64 + row) / GROUP - lane % 4 * 2;
        const int seen1 = item.position + (group * 64 + row + 8) / GROUP - lane % 4 * 2;
        int k0 = item.k_begin + from * TILE;
        auto mask = [&]() {
            if (k0 + TILE - 1 <= earliest && k0 > latest - params.window) return;
#pragma unroll
            for (int i = 0; i < TILE / 2; ++i) {
                const int behind = (i % 4 < 2 ? seen0 : seen1) - k0 - (i / 4 * 8 + i % 2);
                if ((u32)behind >= (u32)params.window) s[i] = -infinity;
            }
        };

        skip_tiles(shared, place, 2 * from - 1);
        barrier_wait(shared.full[place.slot], place.parity);
        wgmma_fence();
        score_tile(s, query, matrix_descriptor(place.bytes(base), 16));
        wgmma_wait<0>();
        settle_registers(s);
        barrier_arrive_warp(shared.empty[place.slot]);
        if (to - from == 1) barrier_arrive_warp(shared.query_free);
        place.step();
        mask();
        softmax_tile(s, top, sum, decay, params.scale);
        pack_weights(weights, s);
        if (from) skip_tiles(shared, place, 1);

        for (int tile = from + 1; tile < to; ++tile) {
            k0 += TILE;
            const int slot = place.slot;
            barrier_wait(shared.full[slot], place.parity);
            wgmma_fence();
            score_tile(s, query, matrix_descriptor(place.bytes(base), 16));
            place.step();
            barrier_wait(shared.full[place.slot], place.parity);
            wgmma_fence();
            accumulate_values(acc, weights, matrix_descriptor(place.bytes(base), BLOCK),
                              tile > from + 1);
            wgmma_wait<1>();
            settle_registers(s);
            barrier_arrive_warp(shared.empty[slot]);
            if (tile == to - 1) barrier_arrive_warp(shared.query_free);
            mask();
            softmax_tile(s, top, sum, decay, params.scale);
            // Wait for the ring's next tile, keys or values, here already: the assembler would move
            // the wait for the products ahead of the softmax, but not across the loop of this wait.
            RingPosition next = place;
            next.step();
            barrier_wait(shared.full[next.slot], next.parity);
            wgmma_wait<0>();
            settle_registers(acc);
            if (__any_sync(~0u, decay[0] != 1.0f || decay[1] != 1.0f)) {
#pragma unroll
                for (int i = 0; i < HEAD_DIM / 2; ++i) acc[i] *= i % 4 < 2 ? decay[0] : decay[1];
            }
            settle_registers(s);
            settle_registers(acc);
            barrier_arrive_warp(shared.empty[place.slot]);
            place.step();
            pack_weights(weights, s);
        }

        if (to < item.tiles) skip_tiles(shared, place, 1);
        barrier_wait(shared.full[place.slot], place.parity);
        wgmma_fence();
        accumulate_values(acc, weights, matrix_descriptor(place.bytes(base), BLOCK), to - from > 1);
#pragma unroll
        for (int r = 0; r < 2; ++r) {
            sum[r] += __shfl_xor_sync(~0u, sum[r], 1);
            sum[r] += __shfl_xor_sync(~0u, sum[r], 2);
        }
        wgmma_wait<0>();
        settle_registers(acc);
        barrier_arrive_warp(shared.empty[place.slot]);
        place.step();
        skip_tiles(shared, place, 2 * (item.tiles - to) - 1);
        store_rows(params, item, group * 64 + row, acc, top, sum);
    }
}

extern "C" __global__ void __launch_bounds__(GROUPS * 128 + 128, 1)
prefill_attention(const __grid_constant__ TensorMap queries,
                  const __grid_constant__ TensorMap keys,
                  const __grid_constant__ TensorMap values, const int* table, int table_stride,
                  const int* lens, const int* starts, const int* first_pos,
                  const bf16* sinks, bf16* out, float scale, int sequences, int window) {
    extern __shared__ __align__(1024) unsigned char memory[];
    SharedState& shared = *(SharedState*)(memory + STATE);
    const u32 base = shared_address(memory);
    const int t = threadIdx.x;
    if (base % 1024) asm volatile("trap;");
    if (t == 0) {
        for (int i = 0; i < SLOTS; ++i)
            barrier_init(shared.full[i], 1), barrier_init(shared.empty[i], 4 * GROUPS);
        barrier_init(shared.query_loaded, 1);
        barrier_init(shared.query_free, 4 * GROUPS);
        barrier_init(shared.dirty_loaded, 1);
        asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
        fence_async_proxy();
    }
    if (t < sequences) {
        shared.length[t] = lens[t];
        shared.begin[t] = starts[t];
        shared.count[t] = starts[t + 1] - starts[t];
        shared.first[t] = first_pos ? first_pos[t] : 0;
    }
    __syncthreads();
    if (t < sequences) {
        int end = 0;
        for (int s = 0; s <= t; ++s) end += (shared.count[s] + TOKENS - 1) / TOKENS;
        shared.end[t] = end;
    }
    __syncthreads();
    const Params params{table, out, table_stride, window, shared.end[sequences - 1] * KV_HEADS,
                    scale * 1.4426950408889634f, sinks};
    const int group = __shfl_sync(~0u, t / 128, 0);
    if (group == GROUPS) {
        asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(GROUPS == 2 ? 24 : 32));
        if (t < GROUPS * 128 + 32) load_tiles(shared, params, queries, keys, values, base);
    } else {
        asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(GROUPS == 2 ? 240 : 160));
        attend(shared, params, base, group);
    }
}
