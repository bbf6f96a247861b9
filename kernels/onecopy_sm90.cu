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
// Preceded by sm90.cuh and onecopy_items.cuh.

// Rotates 8 pairs; w0, w1 multiply the two halves first.
__device__ __forceinline__ void turn(uint4& a, uint4& b, const float (&c)[8], const float (&s)[8],
                                     const float (&w0)[8], const float (&w1)[8]) {
    u32* x = &a.x;
    u32* y = &b.x;
#pragma unroll
    for (int i = 0; i < 4; ++i) {
        const float x0 = low(x[i]) * w0[2 * i], x1 = high(x[i]) * w0[2 * i + 1];
        const float y0 = low(y[i]) * w1[2 * i], y1 = high(y[i]) * w1[2 * i + 1];
        x[i] = pack(x0 * c[2 * i] - y0 * s[2 * i], x1 * c[2 * i + 1] - y1 * s[2 * i + 1]);
        y[i] = pack(y0 * c[2 * i] + x0 * s[2 * i], y1 * c[2 * i + 1] + x1 * s[2 * i + 1]);
    }
}

__device__ __forceinline__ void angles(const Work& work, int position, int unit, float (&c)[8],
                                       float (&s)[8]) {
    const u64 at = (u64)min(position, work.positions - 1) * PAIRS + unit * 8;
#pragma unroll
    for (int i = 0; i < 8; i += 4) {
        const float4 x = __ldg((const float4*)(work.cos + at + i));
        const float4 y = __ldg((const float4*)(work.sin + at + i));
        c[i] = x.x, c[i + 1] = x.y, c[i + 2] = x.z, c[i + 3] = x.w;
        s[i] = y.x, s[i + 1] = y.y, s[i + 2] = y.z, s[i + 3] = y.w;
    }
}

__device__ __forceinline__ void advance(float (&c)[8], float (&s)[8], const float (&step_c)[8],
                                        const float (&step_s)[8]) {
#pragma unroll
    for (int i = 0; i < 8; ++i) {
        const float next = c[i] * step_c[i] - s[i] * step_s[i];
        s[i] = s[i] * step_c[i] + c[i] * step_s[i];
        c[i] = next;
    }
}

// Queries of an item: loaded by warp 0 when the scores need the last ones no more, rotated by all.
__device__ __forceinline__ void feed_queries(Rest& rest, const Work& work, const Item& item,
                                             const TensorMap& queries, u32 base, int number) {
    const int lane = threadIdx.x % 32, unit = lane % 8;
    if (threadIdx.x < 32) {
        wait(rest.unused, (number & 1) ^ 1);
        if (lane == 0) {
            expect(rest.query, 64 * D * 2);
            for (int b = 0; b < 8; ++b)
                load_3d(base + QUERY + b * BLOCK, queries, b * 64, item.head * G, item.begin,
                        rest.query);
        }
    }
    const float one[8] = {1, 1, 1, 1, 1, 1, 1, 1};
    float c[8], s[8], step_c[8], step_s[8];
    int row = threadIdx.x / 8;
    angles(work, item.position + row / G, unit, c, s);
    angles(work, 16 / G, unit, step_c, step_s);
    wait(rest.query, number & 1);
    for (; row < 64; row += 16) {
        const u32 at = base + QUERY + row * 128 + ((unit ^ (row & 7)) << 4);
        uint4 a = load_shared(at), b = load_shared(at + 4 * BLOCK);
        turn(a, b, c, s, one, one);
        store_shared(at, a);
        store_shared(at + 4 * BLOCK, b);
        advance(c, s, step_c, step_s);
    }
    fence_async();
    arrive(rest.turned);
}

// Tiles between two looks at the table of angles; in between they are multiplied on.
constexpr int RESYNC = 64;

__device__ __forceinline__ void feed(Rest& rest, const Work& work, const TensorMap& queries,
                                     u32 base) {
    const int unit8 = threadIdx.x % 8, first = threadIdx.x / 8;  // rows first, first + 16, ...
    float w0[8], w1[8], step_c[8], step_s[8], c[8], s[8];
    angles(work, 16, unit8, step_c, step_s);
#pragma unroll
    for (int i = 0; i < 8; ++i) {
        w0[i] = widen(work.key_weight[unit8 * 8 + i]);
        w1[i] = widen(work.key_weight[D / 2 + unit8 * 8 + i]);
    }
    int number = 0, fresh = 0;
    for (int unit = work.first; unit < work.last; unit += work.step) {
        const Item item = item_of(rest, work, unit);
        if (item.fresh) feed_queries(rest, work, item, queries, base, fresh++);
        for (int tile = 0; tile < item.tiles; ++tile, ++number) {
            const int k0 = item.k_begin + tile * TILE, slot = number % 2;
            const u32 keys = base + KEYS + slot * TILE_BYTES;
            if (tile % RESYNC == 0) angles(work, k0 + first, unit8, c, s);
            wait(rest.full[slot][0], number / 2 & 1);
            wait(rest.full[slot][1], number / 2 & 1);
            wait(rest.unrotated, (number & 1) ^ 1);
#pragma unroll
            for (int row = 0; row < TILE; row += 16) {
                const u32 at = (first + row) * 128 + ((unit8 ^ (first & 7)) << 4);
                uint4 a = load_shared(keys + at), b = load_shared(keys + 4 * BLOCK + at);
                turn(a, b, c, s, w0, w1);
                store_shared(base + ROTATED + at, a);
                store_shared(base + ROTATED + BLOCK + at, b);
                advance(c, s, step_c, step_s);  // 16 positions on
            }
            // Beyond the last key lies what nobody wrote: as values it must be finite.
            if (k0 + TILE > item.length)
                for (int i = (item.length - k0) * 64 + threadIdx.x; i < TILE * 64; i += 128)
                    store_shared(keys + (i / 8 % 8) * BLOCK + i / 64 * 128 + i % 8 * 16,
                                 make_uint4(0, 0, 0, 0));
            fence_async();
            arrive(rest.rotated);
        }
    }
}

// A new largest score counts once it is this far (in powers of two) above the one in use.
constexpr float SLACK = 8.0f;

__device__ __forceinline__ void score(Rest& rest, const Work& work, u32 base) {
    const int lane = threadIdx.x % 32, row = threadIdx.x / 32 % 4 * 16 + lane / 4, pair = lane % 4;
    const float infinity = __int_as_float(0x7F800000);
    float s[32];
    int number = 0, fresh = 0;
    for (int unit = work.first; unit < work.last; unit += work.step) {
        const Item item = item_of(rest, work, unit);
        float top[2] = {-infinity, -infinity}, sum[2] = {0.0f, 0.0f};
        if (item.fresh) wait(rest.turned, fresh++ & 1);
        for (int tile = 0; tile < item.tiles; ++tile, ++number) {
            const int k0 = item.k_begin + tile * TILE, slot = number % 2, parity = number / 2 & 1;
            const bool last = tile == item.tiles - 1;
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
                        mma_n64(s, query + b * (BLOCK / 16) + k * 2,
                                keys + b * (BLOCK / 16) + k * 2, b > 1 || k > 0);
            }
            wait(rest.rotated, number & 1);
#pragma unroll
            for (int b = 0; b < 2; ++b)
#pragma unroll
                for (int k = 0; k < 4; ++k)
                    mma_n64(s, query + b * (BLOCK / 4) + k * 2, rotated + b * (BLOCK / 16) + k * 2,
                            1);
            mma_commit();
            mma_wait<0>();
            arrive_warp(rest.unrotated);
            if (last && item.final) arrive_warp(rest.unused);
            if (k0 + TILE - 1 > item.position) {
#pragma unroll
                for (int i = 0; i < 32; ++i) {
                    const int key = k0 + i / 4 * 8 + pair * 2 + i % 2;
                    const int at = item.position + (row + i % 4 / 2 * 8) / G;
                    if (key > at) s[i] = -infinity;
                }
            }
            float decay[2];
#pragma unroll
            for (int half = 0; half < 2; ++half) {
                float most = -infinity;
#pragma unroll
                for (int i = 0; i < 32; ++i)
                    if (i % 4 / 2 == half) most = fmaxf(most, s[i]);
                most = fmaxf(most, __shfl_xor_sync(~0u, most, 1));
                most = fmaxf(most, __shfl_xor_sync(~0u, most, 2)) * work.scale;
                decay[half] = 1.0f;
                if (most > top[half] + SLACK) {
                    decay[half] = exp2_fast(top[half] - most);
                    top[half] = most;
                }
                // A row that has seen no key yet has top = -inf: shift by 0 then, not by -inf.
                const float shift = top[half] == -infinity ? 0.0f : top[half];
                float added = 0.0f;
#pragma unroll
                for (int i = 0; i < 32; ++i)
                    if (i % 4 / 2 == half) {
                        s[i] = exp2_fast(s[i] * work.scale - shift);
                        added += s[i];
                    }
                sum[half] = sum[half] * decay[half] + added;
            }
            wait(rest.free[slot], parity ^ 1);
            const u32 to = base + WEIGHTS + slot * BLOCK + row * 128 + pair * 4;
#pragma unroll
            for (int i = 0; i < 8; ++i) {
                const u32 at = to + ((i ^ (row & 7)) << 4);
                store_shared(at, pack(s[4 * i], s[4 * i + 1]));
                store_shared(at + 8 * 128, pack(s[4 * i + 2], s[4 * i + 3]));
            }
#pragma unroll
            for (int half = 0; half < 2; ++half) {
                const int at = row + half * 8;
                if (last) {
                    sum[half] += __shfl_xor_sync(~0u, sum[half], 1);
                    sum[half] += __shfl_xor_sync(~0u, sum[half], 2);
                    if (pair == 0) rest.total[slot][at] = sum[half];
                    if (pair == 0 && work.split && at < item.live * G) {
                        float* to = work.stats + ((u64)item.id * (item.live * G) + at) * 2;
                        to[0] = top[half];
                        to[1] = sum[half];
                    }
                }
                if (pair == 0) rest.decay[slot][at] = decay[half];
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
            sync_group(1 + half);
            if (loads) {
                load(ahead, rest, work, cache, base, half, slot);
                arrive(rest.free[slot]);
            }
        }
        store_rows(work, item, half, acc, factor);
    }
}

extern "C" __global__ void __launch_bounds__(512, 1)
one_copy_attention(const __grid_constant__ TensorMap cache, const __grid_constant__ TensorMap queries,
                   const int* table, int table_stride, const int* lens, const int* starts,
                   const float* cos, const float* sin, int positions, const KEY_WEIGHT* key_weight,
                   bf16* out, float* part, float* stats, float scale, int sequences, int q_len,
                   int split) {
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
    asm volatile("griddepcontrol.wait;" ::: "memory");
    if (t < sequences) {
        rest.length[t] = lens[t];
        rest.begin[t] = split ? 0 : starts[t];
        rest.count[t] = split ? q_len : starts[t + 1] - starts[t];
    }
    __syncthreads();
    if (t < sequences) {
        int end = 0;
        for (int s = 0; s <= t; ++s)
            end += split ? (rest.length[s] + split - 1) / split : (rest.count[s] + TOKENS - 1) / TOKENS;
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
        asm volatile("setmaxnreg.dec.sync.aligned.u32 104;");
        feed(rest, work, queries, base);
    } else if (group == 1) {
        asm volatile("setmaxnreg.dec.sync.aligned.u32 72;");
        score(rest, work, base);
    } else {
        asm volatile("setmaxnreg.inc.sync.aligned.u32 168;");
        add_up(rest, work, cache, base, group - 2);
    }
}
