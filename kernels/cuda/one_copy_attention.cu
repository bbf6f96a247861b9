// Attention to a one-copy cache on Hopper: head_dim 512, 64 rotating pairs, bf16.
//
// A program computes 64 query rows (the heads of one KV head times tokens) against tiles of 64
// keys. Its four warp groups form a pipeline through shared memory:
//   0     rotates the queries once and, per tile, the 128 rotating dimensions of the keys into a
//         buffer of their own;
//   1     scores = queries * keys^T and the softmax; leaves weights and the decay of older sums;
//   2, 3  sums += weights * values for the first and the last 256 dimensions. Each loads its own
//         half of the tiles: when it is done with one, nobody else needs that half.
// A tile in shared memory is key (384 dimensions as they are, 128 from the rotated buffer) and
// value at once, so a vector is read from memory once. It lies in blocks of 64 dimensions,
// [block][64 keys][128 bytes], swizzled by 128 bytes: K-major for the scores, MN-major for the
// sums. Two tiles are in shared memory, or on their way.
//
// Preceded by hopper.cuh, online_softmax.cuh, one_copy_work_items.cuh and one_copy_loads.cuh (group 0).

// s = queries * keys^T of one tile: 384 dimensions as they are, then the rotated ones.
__device__ __forceinline__ void multiply(float (&s)[32], Rest& rest, u32 base, int slot, int parity,
                                         int number) {
    const u64 query = describe(base + QUERY, 16);
    const u64 keys = describe(base + KEYS + slot * TILE_BYTES, 16);
    const u64 rotated = describe(base + ROTATED, 16);
    mma_fence();
#pragma unroll
    for (int half = 0; half < 2; ++half) {
        wait(rest.full[slot][half], parity);
#pragma unroll
        for (int b = half * 4 + 1; b < half * 4 + 4; ++b)
#pragma unroll
            for (int k = 0; k < 4; ++k)
                mma_n64(s, query + b * (BLOCK / 16) + k * 2, keys + b * (BLOCK / 16) + k * 2,
                        b > 1 || k > 0);
    }
    wait(rest.rotated, number & 1);
#pragma unroll
    for (int b = 0; b < 2; ++b)
#pragma unroll
        for (int k = 0; k < 4; ++k)
            mma_n64(s, query + b * (BLOCK / 4) + k * 2, rotated + b * (BLOCK / 16) + k * 2, 1);
    mma_commit();
    mma_wait<0>();
}

__device__ __forceinline__ void score(Rest& rest, const Work& work, u32 base) {
    const int lane = threadIdx.x % 32, row = threadIdx.x / 32 % 4 * 16 + lane / 4, pair = lane % 4;
    const float infinity = __int_as_float(0x7F800000);
    float s[32];
    int number = 0, fresh = 0;
    for (int unit = work.first; unit < work.last; unit += work.step) {
        const Item item = item_of(rest, work, unit);
        float top[2] = {-infinity, -infinity}, sum[2] = {0.0f, 0.0f}, decay[2];
        if (item.fresh) wait(rest.turned, fresh++ & 1);
        for (int tile = 0; tile < item.tiles; ++tile, ++number) {
            const int k0 = item.k_begin + tile * TILE, slot = number % 2, parity = number / 2 & 1;
            const bool last = tile == item.tiles - 1;
            multiply(s, rest, base, slot, parity, number);
            arrive_warp(rest.unrotated);
            if (last && item.final) arrive_warp(rest.unused);
            if (k0 + TILE - 1 > item.position) {
#pragma unroll
                for (int i = 0; i < 32; ++i) {
                    const int key = k0 + i / 4 * 8 + pair * 2 + i % 2;
                    if (key > item.position + (row + i % 4 / 2 * 8) / G) s[i] = -infinity;
                }
            }
            weigh(s, top, sum, decay, work.scale);
            wait(rest.free[slot], parity ^ 1);
            const u32 to = base + WEIGHTS + slot * BLOCK + row * 128 + pair * 4;
#pragma unroll
            for (int i = 0; i < 8; ++i) {
                const u32 at = to + ((i ^ (row & 7)) << 4);
                store_shared(at, pack(s[4 * i], s[4 * i + 1]));
                store_shared(at + 8 * 128, pack(s[4 * i + 2], s[4 * i + 3]));
            }
#pragma unroll
            for (int r = 0; r < 2; ++r) {
                const int at = row + r * 8;
                if (pair == 0) rest.decay[slot][at] = decay[r];
                if (!last) continue;
                sum[r] += __shfl_xor_sync(~0u, sum[r], 1);
                sum[r] += __shfl_xor_sync(~0u, sum[r], 2);
                if (pair == 0) rest.total[slot][at] = sum[r];
                if (pair == 0 && work.split && at < item.live * G) {
                    float* stats = work.stats + ((u64)item.id * (item.live * G) + at) * 2;
                    stats[0] = top[r];
                    stats[1] = sum[r];
                }
            }
            fence_async();
            arrive(rest.weights[slot]);
        }
    }
}

__device__ __forceinline__ void store_rows(const Work& work, const Item& item, int half,
                                           const float (&acc)[2][64], const float (&factor)[2]) {
    const int lane = threadIdx.x % 32;
#pragma unroll
    for (int r = 0; r < 2; ++r) {
        const int row = threadIdx.x / 32 % 4 * 16 + lane / 4 + r * 8;
        if (row >= item.live * G) continue;
        const int column = half * 256 + lane % 4 * 2;
        if (work.split) {
            float* to = work.part + ((u64)item.id * (item.live * G) + row) * D + column;
#pragma unroll
            for (int i = 0; i < 32; ++i)
                *(float2*)(to + i * 8) = make_float2(acc[i / 16][i % 16 * 4 + r * 2],
                                                     acc[i / 16][i % 16 * 4 + r * 2 + 1]);
        } else {
            bf16* to = work.out + column +
                       ((u64)(item.begin + row / G) * HQ + item.head * G + row % G) * D;
#pragma unroll
            for (int i = 0; i < 32; ++i)
                *(u32*)(to + i * 8) =
                    pack(acc[i / 16][i % 16 * 4 + r * 2] * factor[r],
                         acc[i / 16][i % 16 * 4 + r * 2 + 1] * factor[r]);
        }
    }
}

// The next half tile to load, and where it lies.
struct Ahead {
    int unit, tile, tiles, head, entry, slot;
    const int* table;
};

__device__ __forceinline__ void look(Ahead& ahead, const Rest& rest, const Work& work) {
    if (ahead.tile == ahead.tiles) {
        ahead.unit += work.step;
        if (ahead.unit >= work.last) return;
        const Item item = item_of(rest, work, ahead.unit);
        ahead.tile = 0;
        ahead.tiles = item.tiles;
        ahead.head = item.head;
        ahead.entry = item.k_begin;
        ahead.table = work.table + (u64)item.sequence * work.table_stride;
    }
    const int at = ahead.entry + ahead.tile * TILE;
    ahead.slot = ahead.table[at / PS] * PS + at % PS;
}

__device__ __forceinline__ void load(Ahead& ahead, Rest& rest, const Work& work,
                                     const TensorMap& cache, u32 base, int half, int slot) {
    if (ahead.unit >= work.last) return;
    u64& full = rest.full[slot][half];
    expect(full, TILE_BYTES / 2);
    load_3d(base + KEYS + slot * TILE_BYTES + half * (TILE_BYTES / 2), cache, 0, ahead.slot,
            ahead.head * 8 + half * 4, full);
    ++ahead.tile;
    look(ahead, rest, work);
}

__device__ __forceinline__ void add_up(Rest& rest, const Work& work, const TensorMap& cache,
                                       u32 base, int half) {
    const int row = threadIdx.x / 32 % 4 * 16 + threadIdx.x % 32 / 4;
    const bool loads = threadIdx.x % 128 == 0;
    Ahead ahead{work.first - work.step, 0, 0};
    if (loads) {
        look(ahead, rest, work);
        load(ahead, rest, work, cache, base, half, 0);
        load(ahead, rest, work, cache, base, half, 1);
    }
    float acc[2][64];
    int number = 0;
    for (int unit = work.first; unit < work.last; unit += work.step) {
        const Item item = item_of(rest, work, unit);
        float factor[2];
        for (int tile = 0; tile < item.tiles; ++tile, ++number) {
            const int slot = number % 2, parity = number / 2 & 1;
            const u64 weights = describe(base + WEIGHTS + slot * BLOCK, 16);
            const u64 values =
                describe(base + KEYS + slot * TILE_BYTES + half * (TILE_BYTES / 2), BLOCK);
            wait(rest.weights[slot], parity);
            const float d0 = rest.decay[slot][row], d1 = rest.decay[slot][row + 8];
            if (tile && __any_sync(~0u, d0 != 1.0f || d1 != 1.0f)) {
#pragma unroll
                for (int i = 0; i < 128; ++i) acc[i / 64][i % 64] *= i % 4 < 2 ? d0 : d1;
            }
            wait(rest.full[slot][half], parity);
            mma_fence();
#pragma unroll
            for (int k = 0; k < 4; ++k) {
                mma_n128_t(acc[0], weights + k * 2, values + k * 128, tile > 0 || k > 0);
                mma_n128_t(acc[1], weights + k * 2, values + 2 * (BLOCK / 16) + k * 128,
                           tile > 0 || k > 0);
            }
            mma_commit();
            if (tile == item.tiles - 1) {
                factor[0] = 1.0f / rest.total[slot][row];
                factor[1] = 1.0f / rest.total[slot][row + 8];
            }
            mma_wait<0>();
            // Constants: a number in a register takes all 16 barriers of the multiprocessor.
            if (half) sync_group(2); else sync_group(1);
            if (loads) {
                load(ahead, rest, work, cache, base, half, slot);
                arrive(rest.free[slot]);
            }
        }
        store_rows(work, item, half, acc, factor);
    }
}

extern "C" __global__ void __launch_bounds__(512, 1)
one_copy_attention(const __grid_constant__ TensorMap cache,
                   const __grid_constant__ TensorMap queries, const int* table, int table_stride,
                   const int* lens, const int* starts, const float* cos, const float* sin,
                   int positions, const KEY_WEIGHT* key_weight, bf16* out, float* part,
                   float* stats, float scale, int sequences, int q_len, int split, int few, int short_split) {
    extern __shared__ __align__(1024) unsigned char memory[];
    Rest& rest = *(Rest*)(memory + REST);
    const u32 base = shared_address(memory);
    const int t = threadIdx.x;
    asm volatile("griddepcontrol.launch_dependents;");
    if (base % 1024) asm volatile("trap;");
    if (t == 0) {
        for (int i = 0; i < 4; ++i) init(rest.full[i / 2][i % 2], 1);
        init(rest.rotated, 128), init(rest.unrotated, 4);
        init(rest.query, 1), init(rest.turned, 128), init(rest.unused, 4);
        for (int i = 0; i < 2; ++i) init(rest.weights[i], 128), init(rest.free[i], 2);
        asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
        fence_async();
    }
    if (t < 16) {  // constants; the rest may still be on its way from earlier kernels
        fetch_l2(key_weight + t % 2 * (D / 2) + t / 2 * 8);
        fetch_l2((t % 2 ? cos : sin) + 16 * PAIRS + t / 2 * 8);
        fetch_l2((t % 2 ? cos : sin) + 16 / G * PAIRS + t / 2 * 8);
    }
    wait_for_launches();
    if (t < sequences) {
        rest.length[t] = lens[t];
        rest.begin[t] = split ? 0 : starts[t];
        rest.count[t] = split ? q_len : starts[t + 1] - starts[t];
        rest.split[t] = short_split && rest.length[t] <= few ? short_split : split;
    }
    __syncthreads();
    if (t < sequences) {
        int end = 0;
        for (int s = 0; s <= t; ++s)
            end += split ? (rest.length[s] + rest.split[s] - 1) / rest.split[s]
                         : (rest.count[s] + TOKENS - 1) / TOKENS;
        rest.end[t] = end;
    }
    __syncthreads();
    const int units = rest.end[sequences - 1] * HK, programs = gridDim.x, program = blockIdx.x;
    Work work{table, table_stride, q_len, split, program, units, programs,
              scale * 1.4426950408889634f, cos, sin, positions, key_weight, out, part, stats};
    if (split) {
        work.first = (u64)units * program / programs;
        work.last = (u64)units * (program + 1) / programs;
        work.step = 1;
    }
    const int group = t / 128;
    if (group == 0) {
        asm volatile("setmaxnreg.dec.sync.aligned.u32 120;");
        feed(rest, work, queries, base);
    } else if (group == 1) {
        asm volatile("setmaxnreg.dec.sync.aligned.u32 72;");
        score(rest, work, base);
    } else {
        asm volatile("setmaxnreg.inc.sync.aligned.u32 160;");
        add_up(rest, work, cache, base, group - 2);
    }
}
