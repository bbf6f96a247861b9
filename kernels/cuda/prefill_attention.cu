// Attention of prompt chunks to paged keys and values on Hopper: head_dim 256, bf16, causal, with a
// window or without.
//
// A program takes items of 128 query rows (the heads of one KV head times tokens), two warp groups
// of 64 rows. One more warp feeds them: tiles of 64 keys and of 64 values, 32 KB each, go through
// one ring of SLOTS tiles in the order in which they are needed,
//   K0, K1 V0, K2 V1, ..., V(n-1), and on with the next item's.
// A group issues the scores of tile i + 1 and the sums of tile i together and computes the weights
// of tile i + 1 while the sums are under way. Weights go from registers into the products.
// A tile lies in shared memory in blocks of 64 dimensions, [block][64 keys][128 bytes], swizzled by
// 128 bytes: keys are K-major for the scores, values MN-major for the sums.
//
// Defined at compile time: HQ, HK (heads), PS (page size, a power of two >= 64).
// Preceded by hopper.cuh and online_softmax.cuh.

constexpr int G = HQ / HK, D = 256, TILE = 64, ROWS = 128, TOKENS = ROWS / G, MAX_SEQUENCES = 64;
constexpr int OWN = TOKENS / 2;  // tokens of a group
constexpr int BLOCK = 8192, TILE_BYTES = 4 * BLOCK;  // 64 rows of 64 dimensions; of all dimensions
constexpr int SLOTS = 5;  // tiles of the ring
constexpr int QUERY = 0, QUERY_BYTES = ROWS * D * 2, RING = QUERY_BYTES;
constexpr int REST = RING + SLOTS * TILE_BYTES;

struct Rest {
    // What completes a phase stands beside each barrier.
    u64 full[SLOTS], empty[SLOTS];  // tile loaded (bytes); read (8 warps)
    u64 query, unused;              // queries loaded (bytes); read (8 warps)
    u64 landed;                     // values that need cleaning loaded (bytes)
    int end[MAX_SEQUENCES], length[MAX_SEQUENCES], begin[MAX_SEQUENCES], count[MAX_SEQUENCES];
    int first[MAX_SEQUENCES];
};
static_assert(sizeof(Rest) <= 3072, "shared memory");

struct Work {
    const int* table;
    bf16* out;
    int table_stride, window, units;
    float scale;
};

struct Item {
    int sequence, head, length;
    int begin, live, position;  // first row of q, tokens that exist, position of the first
    int low, k_begin, tiles;    // first key any row of the sequence may see; first tile; tiles
};

// The item of a round, or one past the end. Every second round goes backwards: items become shorter
// from first to last, and so each program's sum stays even.
__device__ __forceinline__ int unit_of(int round) {
    const int programs = gridDim.x, program = blockIdx.x;
    return round * programs + (round % 2 ? programs - 1 - program : program);
}

__device__ __forceinline__ Item item_of(const Rest& rest, const Work& work, int unit) {
    Item item;
    int s = 0;
    while (rest.end[s] * HK <= unit) ++s;
    const int before = s ? rest.end[s - 1] : 0, at = unit - before * HK;
    // The last tokens see the most keys: they go first, so that the launch ends evenly.
    const int token = (rest.end[s] - before - 1 - at / HK) * TOKENS;
    item.sequence = s;
    item.head = at % HK;
    item.length = rest.length[s];
    item.begin = rest.begin[s] + token;
    item.live = min(TOKENS, rest.count[s] - token);
    item.position = item.length - rest.count[s] + token;
    item.low = max(rest.first[s], item.position - token - work.window + 1);
    item.k_begin = max(item.low, item.position - work.window + 1) / TILE * TILE;
    item.tiles = (item.position + item.live - item.k_begin + TILE - 1) / TILE;
    return item;
}

// Where the next tile of the ring lies, and in which phase its barriers are.
struct Place {
    int slot = 0, parity = 0;
    __device__ __forceinline__ void step() {
        if (++slot == SLOTS) slot = 0, parity ^= 1;
    }
    __device__ __forceinline__ u32 bytes(u32 base) const { return base + RING + slot * TILE_BYTES; }
};

// Values that no row may see become 0: nobody may have written them, and 0 * NaN is NaN.
__device__ __forceinline__ void clean(u32 tile, int k0, int low, int length) {
    const int lane = threadIdx.x % 32;
    for (int row = 0; row < TILE; ++row)
        if (k0 + row < low || k0 + row >= length)
            store_shared(tile + lane / 8 * BLOCK + row * 128 + lane % 8 * 16,
                         make_uint4(0, 0, 0, 0));
    fence_async();
}

// One warp: everything the groups read.
__device__ __forceinline__ void feed(Rest& rest, const Work& work, const TensorMap& queries,
                                     const TensorMap& keys, const TensorMap& values, u32 base) {
    const bool leads = threadIdx.x % 32 == 0;
    Place place;
    int cleaned = 0, unit;
    for (int round = 0; (unit = unit_of(round)) < work.units; ++round) {
        const Item item = item_of(rest, work, unit);
        const int* table = work.table + (u64)item.sequence * work.table_stride;
        const int first = rest.first[item.sequence];
        int k0 = item.k_begin, slot_before = 0;
        for (int tile = 0; tile <= item.tiles; ++tile, k0 += TILE) {
            __syncwarp();  // a lane that fell a whole round behind would misread the barriers
            int slot = 0;
            if (tile < item.tiles) {
                slot = table[(k0 - first) / PS] * PS + k0 % PS;
                wait(rest.empty[place.slot], place.parity ^ 1);
                if (leads) {
                    u64& full = rest.full[place.slot];
                    expect(full, TILE_BYTES);
                    load_3d(place.bytes(base), keys, 0, slot, item.head * 4, full);
                }
                place.step();
            }
            if (tile == 0) {
                wait(rest.unused, (round & 1) ^ 1);
                if (leads) {
                    expect(rest.query, QUERY_BYTES);
                    load_4d(base + QUERY, queries, 0, item.head * G, item.begin, 0, rest.query);
                }
            } else {
                const int v0 = k0 - TILE;
                const bool dirty = v0 < item.low || v0 + TILE > item.length;
                u64& full = rest.full[place.slot];
                u64& loaded = dirty ? rest.landed : full;
                wait(rest.empty[place.slot], place.parity ^ 1);
                if (leads) {
                    expect(loaded, TILE_BYTES);
                    load_3d(place.bytes(base), values, 0, slot_before, item.head * 4, loaded);
                }
                if (dirty) {
                    wait(rest.landed, cleaned++ & 1);
                    clean(place.bytes(base), v0, item.low, item.length);
                    arrive_warp(full);
                }
                place.step();
            }
            slot_before = slot;
        }
    }
}

// s = queries * keys^T of one tile.
__device__ __forceinline__ void score(float (&s)[32], u64 query, u64 keys) {
#pragma unroll
    for (int k = 0; k < 16; ++k)
        mma_n64(s, query + k / 4 * (2 * BLOCK / 16) + k % 4 * 2,
                keys + k / 4 * (BLOCK / 16) + k % 4 * 2, k > 0);
    mma_commit();
}

// acc = (add ? acc : 0) + weights * values of one tile.
__device__ __forceinline__ void sum_up(float (&acc)[128], const u32 (&weights)[4][4], u64 values,
                                       bool add) {
#pragma unroll
    for (int k = 0; k < 4; ++k) mma_n256_t(acc, weights[k], values + k * 128, add || k > 0);
    mma_commit();
}

// A product's 64 x 64 results as the left operand of the next.
__device__ __forceinline__ void pack_weights(u32 (&weights)[4][4], const float (&s)[32]) {
#pragma unroll
    for (int i = 0; i < 16; ++i) weights[i / 4][i % 4] = pack(s[2 * i], s[2 * i + 1]);
}

// Of four lanes that hold x[0..3] each, lane i gets x[i] of all four, in their order.
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

// A thread's two rows, 16 bytes at a time.
__device__ __forceinline__ void store_rows(const Work& work, const Item& item, int row,
                                           const float (&acc)[128], const float (&sum)[2]) {
    const int pair = threadIdx.x % 4;
#pragma unroll
    for (int r = 0; r < 2; ++r) {
        const int at = row + r * 8;
        const float factor = 1.0f / sum[r];
        bf16* to = work.out + ((u64)(item.begin + at / G) * HQ + item.head * G + at % G) * D;
#pragma unroll
        for (int j = 0; j < 8; ++j) {
            u32 x[4];
#pragma unroll
            for (int n = 0; n < 4; ++n) {
                const int i = (4 * j + n) * 4 + r * 2;
                x[n] = pack(acc[i] * factor, acc[i + 1] * factor);
            }
            transpose(x, pair);
            if (at < item.live * G)
                *(uint4*)(to + (4 * j + pair) * 8) = make_uint4(x[0], x[1], x[2], x[3]);
        }
    }
}

// Tiles of the ring that this group does not need.
__device__ __forceinline__ void pass(Rest& rest, Place& place, int count) {
#pragma unroll 1
    for (; count > 0; --count, place.step()) {
        wait(rest.full[place.slot], place.parity);
        arrive_warp(rest.empty[place.slot]);
    }
}

// A warp group: 64 rows of each item.
__device__ __forceinline__ void attend(Rest& rest, const Work& work, u32 base, int group) {
    const int lane = threadIdx.x % 32, row = threadIdx.x / 32 % 4 * 16 + lane / 4;
    const float infinity = __int_as_float(0x7F800000);
    const u64 query = describe(base + QUERY + group * BLOCK, 16);
    float acc[128], s[32];
    u32 weights[4][4];
    Place place;
    int unit;
    for (int round = 0; (unit = unit_of(round)) < work.units; ++round) {
        const Item item = item_of(rest, work, unit);
        // Tiles [from, to) hold keys that rows of this group see.
        const int earliest = item.position + group * OWN, latest = earliest + OWN - 1;
        const bool idle = group * OWN >= item.live;
        int from = (max(earliest - work.window + 1, item.low) - item.k_begin) / TILE;
        int to = (min(latest, item.position + item.live - 1) - item.k_begin) / TILE + 1;
        if (idle) from = to = item.tiles;
        wait(rest.query, round & 1);
        if (idle) {
            arrive_warp(rest.unused);
            pass(rest, place, 2 * item.tiles);
            continue;
        }
        float top[2] = {-infinity, -infinity}, sum[2] = {0.0f, 0.0f}, decay[2];
        const int seen0 = item.position + (group * 64 + row) / G - lane % 4 * 2;
        const int seen1 = item.position + (group * 64 + row + 8) / G - lane % 4 * 2;
        int k0 = item.k_begin + from * TILE;
        auto mask = [&]() {
            if (k0 + TILE - 1 <= earliest && k0 > latest - work.window) return;
#pragma unroll
            for (int i = 0; i < 32; ++i) {
                const int behind = (i % 4 < 2 ? seen0 : seen1) - k0 - (i / 4 * 8 + i % 2);
                if ((u32)behind >= (u32)work.window) s[i] = -infinity;
            }
        };

        pass(rest, place, 2 * from - 1);
        wait(rest.full[place.slot], place.parity);
        mma_fence();
        score(s, query, describe(place.bytes(base), 16));
        mma_wait<0>();
        settle(s);
        arrive_warp(rest.empty[place.slot]);
        if (to - from == 1) arrive_warp(rest.unused);
        place.step();
        mask();
        weigh(s, top, sum, decay, work.scale);
        pack_weights(weights, s);
        if (from) pass(rest, place, 1);

        for (int tile = from + 1; tile < to; ++tile) {
            k0 += TILE;
            const int slot = place.slot;
            wait(rest.full[slot], place.parity);
            mma_fence();
            score(s, query, describe(place.bytes(base), 16));
            place.step();
            wait(rest.full[place.slot], place.parity);
            mma_fence();
            sum_up(acc, weights, describe(place.bytes(base), BLOCK), tile > from + 1);
            mma_wait<1>();
            settle(s);
            arrive_warp(rest.empty[slot]);
            if (tile == to - 1) arrive_warp(rest.unused);
            mask();
            weigh(s, top, sum, decay, work.scale);
            // The ring's next tile, keys or values, is waited for here already: the assembler
            // moves a wait for products ahead of the weights, but not across this wait's loop.
            Place next = place;
            next.step();
            wait(rest.full[next.slot], next.parity);
            mma_wait<0>();
            settle(acc);
            if (__any_sync(~0u, decay[0] != 1.0f || decay[1] != 1.0f)) {
#pragma unroll
                for (int i = 0; i < 128; ++i) acc[i] *= i % 4 < 2 ? decay[0] : decay[1];
            }
            settle(s);
            settle(acc);
            arrive_warp(rest.empty[place.slot]);
            place.step();
            pack_weights(weights, s);
        }

        if (to < item.tiles) pass(rest, place, 1);
        wait(rest.full[place.slot], place.parity);
        mma_fence();
        sum_up(acc, weights, describe(place.bytes(base), BLOCK), to - from > 1);
#pragma unroll
        for (int r = 0; r < 2; ++r) {
            sum[r] += __shfl_xor_sync(~0u, sum[r], 1);
            sum[r] += __shfl_xor_sync(~0u, sum[r], 2);
        }
        mma_wait<0>();
        settle(acc);
        arrive_warp(rest.empty[place.slot]);
        place.step();
        pass(rest, place, 2 * (item.tiles - to) - 1);
        store_rows(work, item, group * 64 + row, acc, sum);
    }
}

extern "C" __global__ void __launch_bounds__(384, 1)
prefill_attention(const __grid_constant__ TensorMap queries, const __grid_constant__ TensorMap keys,
                 const __grid_constant__ TensorMap values, const int* table, int table_stride,
                 const int* lens, const int* starts, const int* first_pos, bf16* out, float scale,
                 int sequences, int window) {
    extern __shared__ __align__(1024) unsigned char memory[];
    Rest& rest = *(Rest*)(memory + REST);
    const u32 base = shared_address(memory);
    const int t = threadIdx.x;
    if (base % 1024) asm volatile("trap;");
    if (t == 0) {
        for (int i = 0; i < SLOTS; ++i) init(rest.full[i], 1), init(rest.empty[i], 8);
        init(rest.query, 1), init(rest.unused, 8), init(rest.landed, 1);
        asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
        fence_async();
    }
    if (t < sequences) {
        rest.length[t] = lens[t];
        rest.begin[t] = starts[t];
        rest.count[t] = starts[t + 1] - starts[t];
        rest.first[t] = first_pos ? first_pos[t] : 0;
    }
    __syncthreads();
    if (t < sequences) {
        int end = 0;
        for (int s = 0; s <= t; ++s) end += (rest.count[s] + TOKENS - 1) / TOKENS;
        rest.end[t] = end;
    }
    __syncthreads();
    const Work work{table, out, table_stride, window, rest.end[sequences - 1] * HK,
                    scale * 1.4426950408889634f};
    const int group = __shfl_sync(~0u, t / 128, 0);
    if (group == 2) {
        asm volatile("setmaxnreg.dec.sync.aligned.u32 24;");
        if (t < 2 * 128 + 32) feed(rest, work, queries, keys, values, base);
    } else {
        asm volatile("setmaxnreg.inc.sync.aligned.u32 240;");
        attend(rest, work, base, group);
    }
}
