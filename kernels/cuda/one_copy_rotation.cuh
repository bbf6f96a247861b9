// Rotation of queries and keys, the task of one-copy attention's first warp group.
//
// A thread takes 8 of the 64 pairs (an octet) of every sixteenth row. It reads cosines and sines
// from the table at the start of an item and every RESYNC tiles, and advances them by 16 positions
// at a time in between; those of drafts that are trees it always reads from the table.
#pragma once
#include "one_copy_work_items.cuh"

// Tiles between two reads of the table.
constexpr int RESYNC = 64;

// Rotates 8 pairs, after multiplying their first halves by w0 and their second halves by w1.
__device__ __forceinline__ void rotate(uint4& a, uint4& b, const float (&c)[8], const float (&s)[8],
                                       const float (&w0)[8], const float (&w1)[8]) {
    u32* x = &a.x;
    u32* y = &b.x;
#pragma unroll
    for (int i = 0; i < 4; ++i) {
        const float x0 = bf16_low(x[i]) * w0[2 * i], x1 = bf16_high(x[i]) * w0[2 * i + 1];
        const float y0 = bf16_low(y[i]) * w1[2 * i], y1 = bf16_high(y[i]) * w1[2 * i + 1];
        x[i] = pack_bf16(x0 * c[2 * i] - y0 * s[2 * i], x1 * c[2 * i + 1] - y1 * s[2 * i + 1]);
        y[i] = pack_bf16(y0 * c[2 * i] + x0 * s[2 * i], y1 * c[2 * i + 1] + x1 * s[2 * i + 1]);
    }
}

__device__ __forceinline__ void load_angles(const Params& params, int position, int octet,
                                            float (&c)[8], float (&s)[8]) {
    const u64 at = (u64)min(position, params.positions - 1) * PAIRS + octet * 8;
#pragma unroll
    for (int i = 0; i < 8; i += 4) {
        const float4 x = __ldg((const float4*)(params.cos + at + i));
        const float4 y = __ldg((const float4*)(params.sin + at + i));
        c[i] = x.x, c[i + 1] = x.y, c[i + 2] = x.z, c[i + 3] = x.w;
        s[i] = y.x, s[i + 1] = y.y, s[i + 2] = y.z, s[i + 3] = y.w;
    }
}

// Brings what load_angles will read into L2.
__device__ __forceinline__ void prefetch_angles(const Params& params, int position, int octet) {
    const u64 at = (u64)min(position, params.positions - 1) * PAIRS + octet * 8;
    prefetch_l2(params.cos + at);
    prefetch_l2(params.sin + at);
}

__device__ __forceinline__ void advance_angles(float (&c)[8], float (&s)[8],
                                               const float (&step_c)[8], const float (&step_s)[8]) {
#pragma unroll
    for (int i = 0; i < 8; ++i) {
        const float next = c[i] * step_c[i] - s[i] * step_s[i];
        s[i] = s[i] * step_c[i] + c[i] * step_s[i];
        c[i] = next;
    }
}

// Prepares the queries of an item: warp 0 loads them as soon as the scores no longer need those
// before, and all warps rotate them in place.
__device__ __forceinline__ void rotate_queries(SharedState& shared, const Params& params,
                                               const WorkItem& item, const TensorMap& queries,
                                               u32 base, int number) {
    const int octet = threadIdx.x % 8;
    if (threadIdx.x < 32) {
        barrier_wait(shared.query_free, (number & 1) ^ 1);
        if (threadIdx.x == 0) {
            barrier_expect_bytes(shared.query_loaded, 64 * HEAD_DIM * 2);
            tma_load_4d(base + QUERY, queries, 0, item.head * GROUP, item.begin, 0,
                        shared.query_loaded);
        }
    }
    const float one[8] = {1, 1, 1, 1, 1, 1, 1, 1};
    float c[8], s[8], step_c[8], step_s[8];
    int row = threadIdx.x / 8;
    load_angles(params, item.position + row / GROUP, octet, c, s);
    load_angles(params, 16 / GROUP, octet, step_c, step_s);
    barrier_wait(shared.query_loaded, number & 1);
    for (; row < 64; row += 16) {
#ifdef TREE
        load_angles(params, params.tree[item.begin + min(row / GROUP, item.live - 1)].x, octet, c,
                    s);
#endif
        const u32 at = base + QUERY + row * 128 + ((octet ^ (row & 7)) << 4);
        uint4 a = load_shared(at), b = load_shared(at + 4 * BLOCK);
        rotate(a, b, c, s, one, one);
        store_shared(at, a);
        store_shared(at + 4 * BLOCK, b);
        advance_angles(c, s, step_c, step_s);
    }
    fence_async_proxy();
    barrier_arrive(shared.query_rotated);
}

__device__ __forceinline__ void rotate_queries_and_keys(SharedState& shared, const Params& params,
                                                        const TensorMap& queries, u32 base) {
    const int octet = threadIdx.x % 8, first = threadIdx.x / 8;  // rows first, first + 16, ...
    float w0[8], w1[8], step_c[8], step_s[8], c[8], s[8];
    if (params.first < params.last) {
        const WorkItem item = work_item(shared, params, params.first);
        prefetch_angles(params, item.k_begin + first, octet);
        prefetch_angles(params, item.position + first / GROUP, octet);
    }
    load_angles(params, 16, octet, step_c, step_s);
#pragma unroll
    for (int i = 0; i < 8; ++i) {
        w0[i] = to_float(params.key_weight[octet * 8 + i]);
        w1[i] = to_float(params.key_weight[HEAD_DIM / 2 + octet * 8 + i]);
    }
    int number = 0, fresh = 0;
    for (int index = params.first; index < params.last; index += params.step) {
        const WorkItem item = work_item(shared, params, index);
        if (item.fresh) rotate_queries(shared, params, item, queries, base, fresh++);
        for (int tile = 0; tile < item.tiles; ++tile, ++number) {
            const int k0 = item.k_begin + tile * TILE, slot = number % 2;
            const u32 keys = base + KEYS + slot * TILE_BYTES;
            if (tile % RESYNC == 0) load_angles(params, k0 + first, octet, c, s);
            if (tile == 0 && params.split)
                prefetch_angles(params, k0 + shared.split[item.sequence] + first, octet);
            barrier_wait(shared.full[slot][0], number / 2 & 1);
            barrier_wait(shared.full[slot][1], number / 2 & 1);
            const u32 at = first * 128 + ((octet ^ (first & 7)) << 4);
            uint4 a[4], b[4];
#pragma unroll
            for (int r = 0; r < 4; ++r) {
                a[r] = load_shared(keys + at + r * 2048);
                b[r] = load_shared(keys + 4 * BLOCK + at + r * 2048);
            }
#pragma unroll
            for (int r = 0; r < 4; ++r) {
#ifdef TREE
                // Keys of drafts belong to other positions than their places.
                if (k0 + TILE > item.position) {
                    const int key = k0 + first + r * 16, own = key - item.position;
                    const bool drafted = own >= 0 && own < item.live;
                    load_angles(params, drafted ? params.tree[item.begin + own].x : key, octet, c,
                                s);
                }
#endif
                rotate(a[r], b[r], c, s, w0, w1);
                advance_angles(c, s, step_c, step_s);  // 16 positions on
            }
            // Not earlier, since the scores of the tile before may still read the rotated keys.
            barrier_wait(shared.rotated_free, (number & 1) ^ 1);
#pragma unroll
            for (int r = 0; r < 4; ++r) {
                store_shared(base + ROTATED + at + r * 2048, a[r]);
                store_shared(base + ROTATED + BLOCK + at + r * 2048, b[r]);
            }
            // Rows beyond the last key may never have been written. Zero them: as values they must
            // be finite.
            if (k0 + TILE > item.length) {
                sync_warp_group(3);  // every thread has read its rows
                for (int i = (item.length - k0) * 64 + threadIdx.x; i < TILE * 64; i += 128)
                    store_shared(keys + (i / 8 % 8) * BLOCK + i / 64 * 128 + i % 8 * 16,
                                 make_uint4(0, 0, 0, 0));
            }
            fence_async_proxy();
            barrier_arrive(shared.keys_rotated);
        }
    }
}
