// A layer's experts in MXFP4 for few rows, both products in one launch, on Hopper.
//
// One program runs on each multiprocessor and takes a contiguous part of all touched experts'
// weight rows, so that it reads memory as one stream: first of gate and up, then, after all programs
// have finished those, of down, whose first weights have arrived by then. One warp copies
// weights into a ring, ahead of the computation, in slices of 64 weight rows by 8 blocks. Three
// groups of four warps take turns at the slices and multiply them by up to 4 * TILES_N rows of x.
// Two more warps add the groups' parts, always in the same order, and finish the results, while the
// next rows are multiplied.
//
// What limits this is instructions, not memory. Therefore codes become 8-bit floats (e4m3), exactly
// and in 7 instructions for 8 of them, which the matrix unit takes from registers (m64nNk32). One of
// its products is a block of 32 codes, whose scale multiplies the float32 result. A row of x is a sum
// of two 8-bit floats, which has all 8 bits of a bfloat16: columns take turns at them.
//
// Macros: HAS_BIAS (0 or 1); HIDDEN and INNER, columns; EXPERTS; TOP_K; ROUTED; STAGES of
// the ring, for each group; TILES_N groups of 4 pairs, 1 or 2.
constexpr int GROUPS = 3, FINISHERS = 2, WARPS = 4 * GROUPS + FINISHERS + 1, PAIRS = 4 * TILES_N;
#include "expert_stream.cuh"

constexpr int THREADS = WARPS * 32, CONSUMERS = 4 * GROUPS, ROWS_AT_ONCE = 64;
constexpr int SLICE = ROWS_AT_ONCE * 128, SCALE_STAGES = 3;
constexpr u64 EVICT_FIRST = 0x12F0000000000000;  // createpolicy.fractional.L2::evict_first

// One of the two products: gate and up, whose rows take turns, or down.
template <bool IS_GATED> struct Product {
    static constexpr bool GATED = IS_GATED;
    static constexpr int INPUTS = GATED ? HIDDEN : INNER, OUTPUTS = GATED ? INNER : HIDDEN;
    static constexpr int ROWS = GATED ? 2 * INNER : HIDDEN;  // weight rows of an expert
    static constexpr int ITEMS = (ROWS + ROWS_AT_ONCE - 1) / ROWS_AT_ONCE;  // of a tile
    static constexpr int BLOCKS = INPUTS / 32;  // of 16 bytes in a weight row
    static constexpr int SLICES = (BLOCKS + 7) / 8, TURNS = (SLICES + GROUPS - 1) / GROUPS;
    static_assert(ROWS % 16 == 0 && INPUTS % 32 == 0, "whole copies");
};
typedef Product<true> GateUp;
typedef Product<false> Down;
constexpr int MOST_BLOCKS = larger(GateUp::SLICES, Down::SLICES) * 8;
constexpr int SCALE_BYTES = (ROWS_AT_ONCE * larger(GateUp::BLOCKS, Down::BLOCKS) + 127) / 128 * 128;
// e4m3 holds 2^-6 of a code's value, and the second float of x is multiplied by 16.
constexpr float CODE_UNIT = 64.0f, SECOND = 0.0625f;

struct Shared {
    u8 x[MOST_BLOCKS][TILES_N][2][8][16];  // of a block: 8 floats of a pair, by halves of columns
    u8 scales[SCALE_STAGES][SCALE_BYTES + 16];  // of the last row, up to 7 more are read
    float parts[2][CONSUMERS][4 * TILES_N][32];
    // Of the parts: factors of their results, for what x and codes were multiplied by, and items.
    float factors[2][PAIRS];
    int items[2];
    float tile_factors[PAIRS];  // of the tile that x is of
    int largest[2][PAIRS];  // bits of the largest value of each row of x; of two tiles, in turns
    int queue[SCALE_STAGES];  // items, with their scales; -1 ends a product
    u64 full[GROUPS][STAGES], empty[GROUPS][STAGES], scales_full[SCALE_STAGES], scales_empty[SCALE_STAGES];
    u64 parts_full[2], parts_empty[2];
    Tiles tiles;
};
// OTHER_BYTES of mxfp4_stream.py: what it counts as shared memory beside x, scales and parts.
static_assert(sizeof(Shared) <= sizeof(Shared::x) + SCALE_STAGES * SCALE_BYTES +
                                    sizeof(Shared::parts) + 12288, "too many experts");
// What a warp has been through, of both products: entries of the queue, tiles, and slices, of each
// group for the warp that copies, else of its own.
struct Position { int entries, tiles, slices[GROUPS]; };

__device__ __forceinline__ void load_slice(u32 to, const TensorMap& map, int column, int row, u64& bar) {
    asm volatile(
        "cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes"
        ".L2::cache_hint [%0], [%1, {%2, %3}], [%4], %5;" ::"r"(to), "l"((u64)&map), "r"(column),
        "r"(row), "r"(shared_address(&bar)), "l"(EVICT_FIRST) : "memory");
}
// Descriptor of columns of 32 floats: groups of 8 columns by 16 bytes. Its lower half is the address.
constexpr u32 UPPER_HALF = 256 >> 4, LEADING = (u32)(128 >> 4) << 16;
__device__ __forceinline__ u64 descriptor(u32 lower) { return (u64)UPPER_HALF << 32 | lower; }

// d = a * b for 64 rows, of which this warp's 16 are in its registers, and 8 columns, or 16.
__device__ __forceinline__ void multiply(float (&d)[4], const u32 (&a)[4], u64 b) {
    asm volatile(
        "{.reg .pred p; setp.ne.b32 p, 0, 0;"
        "wgmma.mma_async.sync.aligned.m64n8k32.f32.e4m3.e4m3 {%0, %1, %2, %3}, {%4, %5, %6, %7}, "
        "%8, p, 1, 1;}" : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b));
}
__device__ __forceinline__ void multiply(float (&d)[8], const u32 (&a)[4], u64 b) {
    asm volatile(
        "{.reg .pred p; setp.ne.b32 p, 0, 0;"
        "wgmma.mma_async.sync.aligned.m64n16k32.f32.e4m3.e4m3 {%0, %1, %2, %3, %4, %5, %6, %7}, "
        "{%8, %9, %10, %11}, %12, p, 1, 1;}" : F4(d, 0), F4(d, 4)
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b));
}
// Keeps the compiler from moving uses of a matrix product in front of the wait for it.
__device__ __forceinline__ void use_from_here(float& value) { asm volatile("" : "+f"(value)); }

// Codes of a word as 8-bit floats of 2^-6 of their values: those with even numbers, and odd ones.
__device__ __forceinline__ u32 expand_even(u32 word) {
    return ((word << 4) & 0x80808080u) | ((word << 2) & 0x1C1C1C1Cu);
}
__device__ __forceinline__ u32 expand_odd(u32 word) {
    return (word & 0x80808080u) | ((word >> 2) & 0x1C1C1C1Cu);
}
__device__ __forceinline__ void sync_consumers() {
    asm volatile("bar.sync 1, %0;" ::"n"(CONSUMERS * 32) : "memory");
}

// Tells the compiler that a value is the same in all lanes; else matrix products wait for each other.
__device__ __forceinline__ int uniform(int value) { return __shfl_sync(~0u, value, 0); }

// Copies weights and scales. Called by one thread. A group has stages of its own: the barriers of a
// stage that groups took in turns could be a phase behind.
template <class P>
__device__ __forceinline__ void produce(Shared& shared, u8* ring, Position& position, u32* counter,
                                        const TensorMap& w, const u8* scales) {
    Items<P> items;
    items.start(shared.tiles, counter);
    for (int item = 0; item >= 0; position.entries++) {
        item = items.next();
        const int side = position.entries % SCALE_STAGES, turn = position.entries / SCALE_STAGES;
        if (turn > 0) barrier_wait(shared.scales_empty[side], (turn - 1) & 1);
        shared.queue[side] = item;
        if (item < 0) {
            barrier_arrive(shared.scales_full[side]);
            continue;
        }
        const int begin = item % P::ITEMS * ROWS_AT_ONCE;
        const int row = shared.tiles.expert[item / P::ITEMS] * P::ROWS + begin;
        const int bytes = min(ROWS_AT_ONCE, P::ROWS - begin) * P::BLOCKS;
        barrier_expect_bytes(shared.scales_full[side], bytes);
        copy_bulk(shared.scales[side], scales + (u64)row * P::BLOCKS, bytes, shared.scales_full[side]);
        for (int first = 0; first < P::SLICES; first += GROUPS)
#pragma unroll
            for (int group = 0; group < GROUPS; group++) {
                if (P::SLICES % GROUPS != 0 && first + group >= P::SLICES) break;
                const int number = position.slices[group]++, stage = number % STAGES;
                u64& full = shared.full[group][stage];
                if (number >= STAGES)
                    barrier_wait(shared.empty[group][stage], (number / STAGES - 1) & 1);
                barrier_expect_bytes(full, SLICE);
                load_slice(shared_address(ring + (group * STAGES + stage) * SLICE), w,
                           (first + group) * 64, row, full);
            }
    }
}

// A row of x is read past L1: another multiprocessor wrote it.
__device__ __forceinline__ uint4 load_x(const bf16* from) {
    uint4 v;
    asm volatile("ld.global.cg.v4.u32 {%0, %1, %2, %3}, [%4];"
                 : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w) : "l"((u64)from) : "memory");
    return v;
}
// Two floats, rounded to e4m3, in the lower 16 bits.
__device__ __forceinline__ u32 round_to_e4m3(float low, float high) {
    u32 result;
    asm("{.reg .b16 v; cvt.rn.satfinite.e4m3x2.f32 v, %1, %2; cvt.u32.u16 %0, v;}"
        : "=r"(result) : "f"(high), "f"(low));
    return result;
}
// Two e4m3 floats as two float16.
__device__ __forceinline__ u32 to_halves(u32 pair) {
    u32 result;
    asm("{.reg .b16 v; cvt.u16.u32 v, %1; cvt.rn.f16x2.e4m3x2 %0, v;}" : "=r"(result) : "r"(pair));
    return result;
}
__device__ __forceinline__ float half_to_float(u32 halves, int high) {
    float result;
    asm("{.reg .b16 l, h; mov.b32 {l, h}, %1; cvt.f32.f16 %0, l;}"
        : "=f"(result) : "r"(high ? halves >> 16 : halves));
    return result;
}

// Converts four rows of x of a tile, or fewer, to group n. All consumers take part; a thread takes 8
// columns at a time.
template <class P>
__device__ __forceinline__ void convert_group(Shared& shared, const bf16* x, int tile, int turn, int n) {
    constexpr int EACH_PIECES = (P::SLICES * 32 + CONSUMERS * 32 - 1) / (CONSUMERS * 32);
    const int rows = shared.tiles.rows(tile) - n * 4;
    int* largest = shared.largest[turn % 2] + n * 4;
    uint4 pieces[4][EACH_PIECES];
#pragma unroll
    for (int r = 0; r < 4; r++) {
        if (r >= rows) break;
        const int pair = shared.tiles.pair(tile, n * 4 + r);
        const bf16* row = x + (u64)(P::GATED ? pair / TOP_K : pair) * P::INPUTS;
#pragma unroll
        for (int i = 0; i < EACH_PIECES; i++) {
            const int piece = threadIdx.x + i * CONSUMERS * 32;
            pieces[r][i] = {0, 0, 0, 0};
            if (piece < P::INPUTS / 8) pieces[r][i] = load_x(row + piece * 8);
        }
    }
#pragma unroll
    for (int r = 0; r < 4; r++) {
        if (r >= rows) break;
        u32 most = 0;
#pragma unroll
        for (int i = 0; i < EACH_PIECES; i++) {
            const u32 words[4] = {pieces[r][i].x, pieces[r][i].y, pieces[r][i].z, pieces[r][i].w};
#pragma unroll
            for (int j = 0; j < 4; j++)
                most = max(most, max(words[j] & 0x7FFF, words[j] >> 16 & 0x7FFF));
        }
        most = __reduce_max_sync(~0u, most);
        if (threadIdx.x % 32 == 0) atomicMax(&largest[r], (int)most);
    }
    sync_consumers();  // the tile before is no longer read, too
#pragma unroll
    for (int r = 0; r < 4; r++) {
        if (r >= rows) break;
        // The largest becomes 2^7 to 2^8. Beside infinity or NaN, the whole row becomes NaN.
        const int most = largest[r], exponent = max(most >> 7, 8);
        const float factor = __uint_as_float((u32)(127 + 7 + 127 - exponent) << 23);
        const float inverse = __uint_as_float((u32)(exponent - 7) << 23);
        if (threadIdx.x == 0)
            shared.tile_factors[n * 4 + r] =
                most >= 0x7F80 ? __uint_as_float(0x7FC00000u) : inverse * CODE_UNIT;
#pragma unroll
        for (int i = 0; i < EACH_PIECES; i++) {
            const int piece = threadIdx.x + i * CONSUMERS * 32, block = piece / 4, q = piece % 4;
            if (block >= P::SLICES * 8) break;
            const u32 words[4] = {pieces[r][i].x, pieces[r][i].y, pieces[r][i].z, pieces[r][i].w};
#pragma unroll
            for (int odd = 0; odd < 2; odd++) {  // even columns, and odd ones
                float v[4];
#pragma unroll
                for (int j = 0; j < 4; j++)
                    v[j] = (odd ? bf16_high(words[j]) : bf16_low(words[j])) * factor;
                const u32 low = round_to_e4m3(v[0], v[1]), high = round_to_e4m3(v[2], v[3]);
                const u32 halves[2] = {to_halves(low), to_halves(high)};
#pragma unroll
                for (int j = 0; j < 4; j++)
                    v[j] = (v[j] - half_to_float(halves[j / 2], j % 2)) * (1.0f / SECOND);
                u8(&to)[8][16] = shared.x[block][n][odd];
                *(u32*)&to[r * 2][q * 4] = low | high << 16;
                *(u32*)&to[r * 2 + 1][q * 4] =
                    round_to_e4m3(v[0], v[1]) | round_to_e4m3(v[2], v[3]) << 16;
            }
        }
    }
}

// Converts the rows of x of a tile.
template <class P>
__device__ __forceinline__ void convert_rows(Shared& shared, const bf16* x, int tile, int turn) {
#pragma unroll
    for (int n = 0; n < TILES_N; n++) convert_group<P>(shared, x, tile, turn, n);
    if (threadIdx.x < PAIRS) shared.largest[(turn + 1) % 2][threadIdx.x] = 0;
    fence_async_proxy();
    sync_consumers();
}

// Four blocks of this warp's 16 weight rows: of the first 8 rows, and of the others.
struct Half { u32 codes[4][2]; };

__device__ __forceinline__ void load_half(Half& half, u32 slice, int first) {
    const int lane = threadIdx.x % 32, row = threadIdx.x / 32 % 4 * 16 + lane % 16;
#pragma unroll
    for (int i = 0; i < 4; i += 2) {
        const u32 at = slice + row * 128 + ((first + i + lane / 16) ^ row % 8) * 16;
        u32 words[4];
        load_matrices(words, at);
        half.codes[i][0] = words[0], half.codes[i][1] = words[1];
        half.codes[i + 1][0] = words[2], half.codes[i + 1][1] = words[3];
    }
}

// Scale of block i of a row, from the scales of a first block on.
template <int BLOCKS> __device__ __forceinline__ float load_scale(const u8* from, int i) {
    if (BLOCKS % 2 != 0) return __uint_as_float((u32)from[i] << 23);
    const u32 pair = *(const unsigned short*)(from + i / 2 * 2);
    return __uint_as_float((i % 2 ? pair << 15 : pair << 23) & 0x7F800000u);
}

typedef float Sums[4 * TILES_N];
constexpr u32 X_BLOCK = 256 * TILES_N / 16;  // of a block of x, in units of 16 bytes

// Adds the products of a half's four blocks.
template <class P>
__device__ __forceinline__ void multiply_half(Sums& sums, const Half& half, u32 x, const u8* scales) {
    constexpr int N = 4;
    float d[N][4 * TILES_N];
    u32 a[N][4];
#pragma unroll
    for (int i = 0; i < N; i++) {
        a[i][0] = expand_even(half.codes[i][0]), a[i][1] = expand_even(half.codes[i][1]);
        a[i][2] = expand_odd(half.codes[i][0]), a[i][3] = expand_odd(half.codes[i][1]);
        if (i % 2 == 0) continue;
        wgmma_fence();
        multiply(d[i - 1], a[i - 1], descriptor(x + (i - 1) * X_BLOCK));
        multiply(d[i], a[i], descriptor(x + i * X_BLOCK));
        wgmma_commit();
    }
    const u8* other = scales + 8 * P::BLOCKS;
#pragma unroll
    for (int i = 0; i < N; i++) {
        if (i == 0) wgmma_wait<1>();
        if (i == 2) wgmma_wait<0>();
#pragma unroll
        for (int n = 0; n < 4 * TILES_N; n++) use_from_here(d[i][n]);
        const float top = load_scale<P::BLOCKS>(scales, i), bottom = load_scale<P::BLOCKS>(other, i);
#pragma unroll
        for (int n = 0; n < TILES_N; n++) {
            sums[n * 4] += d[i][n * 4] * top;
            sums[n * 4 + 1] += d[i][n * 4 + 1] * top;
            sums[n * 4 + 2] += d[i][n * 4 + 2] * bottom;
            sums[n * 4 + 3] += d[i][n * 4 + 3] * bottom;
        }
    }
}

// Multiplies this group's slices of every item.
template <class P>
__device__ __forceinline__ void consume(Shared& shared, u8* ring, const bf16* x, Position& position,
                                        const u32* counters, u32 generation) {
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, group = uniform(warp / 4);
    const bool has_slices = P::SLICES % GROUPS == 0 || group < P::SLICES;
    int last = -1;
    Half halves[2];
    int& number = position.slices[0];  // of the group's slice
    auto address_of = [&](int n) {
        return shared_address(ring) + (group * STAGES + n % STAGES) * SLICE;
    };
    auto load_first = [&](int n) {
        barrier_wait(shared.full[group][n % STAGES], n / STAGES & 1);
        load_half(halves[0], address_of(n), 0);
    };
    auto item_of = [&](int entry) {
        const int side = entry % SCALE_STAGES;
        barrier_wait(shared.scales_full[side], entry / SCALE_STAGES & 1);
        return uniform(shared.queue[side]);
    };
    int item = item_of(position.entries);
    if (item >= 0 && has_slices) load_first(number);
    while (true) {
        const int scale_stage = position.entries % SCALE_STAGES, side = position.entries % 2;
        Sums sums = {};
        int next = -1;
        if (item >= 0) {
            const int tile = item / P::ITEMS;
            if (tile != last) {
                if (!P::GATED && last < 0) wait_for_all(counters, generation);
                convert_rows<P>(shared, x, tile, position.tiles++);
                last = tile;
            }
            const u8* scales = shared.scales[scale_stage] + (warp % 4 * 16 + lane / 4) * P::BLOCKS;
            for (int turn = 0; turn < P::TURNS; turn++) {
                const int slice = turn * GROUPS + group;
                if (P::SLICES % GROUPS != 0 && slice >= P::SLICES) break;
                const u32 x_at = shared_address(shared.x[slice * 8]) >> 4 | LEADING;
                load_half(halves[1], address_of(number), 4);
                barrier_arrive_warp(shared.empty[group][number % STAGES]);
                number++;
                multiply_half<P>(sums, halves[0], x_at, scales + slice * 8);
                const bool another = slice + GROUPS < P::SLICES;
                if (!another) next = item_of(position.entries + 1);
                if (another || next >= 0) load_first(number);
                multiply_half<P>(sums, halves[1], x_at + 4 * X_BLOCK, scales + slice * 8 + 4);
            }
            if (!has_slices) next = item_of(position.entries + 1);
        }
        barrier_arrive_warp(shared.scales_empty[scale_stage]);
        if (position.entries >= 2)
            barrier_wait(shared.parts_empty[side], (position.entries / 2 - 1) & 1);
#pragma unroll
        for (int i = 0; i < 4 * TILES_N; i++) shared.parts[side][warp][i][lane] = sums[i];
        if (threadIdx.x == 0) shared.items[side] = item;
        if (threadIdx.x < PAIRS) shared.factors[side][threadIdx.x] = shared.tile_factors[threadIdx.x];
        barrier_arrive_warp(shared.parts_full[side]);
        position.entries++;
        if (item < 0) return;
        item = next;
    }
}

// Adds the parts of 32 weight rows of every item and writes the results.
template <class P>
__device__ __forceinline__ void finish(Shared& shared, Position& position,
                                       const float* weights, const bf16* bias, void* out, int rows) {
    const int half = threadIdx.x / 32 - CONSUMERS, lane = threadIdx.x % 32;
    const int q = lane % 4, couple = lane / 4;
    while (true) {
        const int side = position.entries % 2;
        barrier_wait(shared.parts_full[side], position.entries++ / 2 & 1);
        const int item = shared.items[side], tile = item / P::ITEMS;
        if (item < 0) {
            barrier_arrive_warp(shared.parts_empty[side]);
            return;
        }
        float factors[TILES_N];
#pragma unroll
        for (int n = 0; n < TILES_N; n++) factors[n] = shared.factors[side][n * 4 + q];
        // This lane's weight rows are two neighbors, `row` and `row` + 1, of each of two groups of
        // 16. Registers 0 and 1 of the parts hold the first 8 rows, 2 and 3 the others.
        const int begin = item % P::ITEMS * ROWS_AT_ONCE + half * 32 + couple * 2;
        const int from = couple % 4 * 8 + q, part_of = couple / 4 * 2;
        float added[2][2] = {};
        if (HAS_BIAS)
            for (int m = 0; m < 2; m++)
                for (int odd = 0; odd < 2; odd++)
                    if (begin + m * 16 < P::ROWS)
                        added[m][odd] = to_float(bias[
                            (u64)shared.tiles.expert[tile] * P::ROWS + begin + m * 16 + odd]);
        float sum[2][TILES_N][2] = {};
#pragma unroll
        for (int group = 0; group < GROUPS; group++)
#pragma unroll
            for (int m = 0; m < 2; m++)
#pragma unroll
                for (int n = 0; n < TILES_N; n++)
#pragma unroll
                    for (int odd = 0; odd < 2; odd++) {
                        const float(&part)[4 * TILES_N][32] =
                            shared.parts[side][group * 4 + half * 2 + m];
                        sum[m][n][odd] += part[n * 4 + part_of][from + odd * 4] +
                                          part[n * 4 + part_of + 1][from + odd * 4] * SECOND;
                    }
        barrier_arrive_warp(shared.parts_empty[side]);
#pragma unroll
        for (int m = 0; m < 2; m++)
#pragma unroll
            for (int n = 0; n < TILES_N; n++) {
                const int place = n * 4 + q, row = begin + m * 16;
                if (place >= shared.tiles.rows(tile) || row >= P::ROWS) continue;
                const int pair = shared.tiles.pair(tile, place);
                const float factor = factors[n];
                const float low = sum[m][n][0] * factor + added[m][0];
                const float high = sum[m][n][1] * factor + added[m][1];
                if (P::GATED) {
                    ((bf16*)out)[(u64)pair * P::OUTPUTS + row / 2] = to_bf16(clamped_swiglu(low, high));
                } else {
                    const float weight = ROUTED ? shared.tiles.weights[pair] : weights[pair];
                    float* to = (float*)out + ((u64)(pair % TOP_K) * rows + pair / TOP_K) * P::OUTPUTS;
                    *(float2*)(to + row) = {low * weight, high * weight};
                }
            }
    }
}

struct __align__(64) Weights { TensorMap gate_up, down; };

// x [rows, HIDDEN], h [pairs, INNER], out float32 [TOP_K, rows, HIDDEN]. `weights` are the pairs',
// [rows * TOP_K]. See `Counter` for counters.
extern "C" __global__ void __launch_bounds__(THREADS, 1)
experts_mxfp4_stream(const __grid_constant__ Weights w, const bf16* x, int* ids,
                     float* weights, const float* logits, const float* expert_scale,
                     const u8* gate_up_scales, const bf16* gate_up_bias,
                     const u8* down_scales, const bf16* down_bias, bf16* h, float* out,
                     u32* counters, int rows) {
    extern __shared__ __align__(1024) u8 ring[];
    Shared& shared = *(Shared*)(ring + GROUPS * STAGES * SLICE);
    const int warp = threadIdx.x / 32;
    if (threadIdx.x == 0) {
        for (int i = 0; i < GROUPS * STAGES; i++) {
            barrier_init(shared.full[0][i], 1);
            barrier_init(shared.empty[0][i], 4);
        }
        for (int i = 0; i < SCALE_STAGES; i++) {
            barrier_init(shared.scales_full[i], 1);
            barrier_init(shared.scales_empty[i], CONSUMERS);
        }
        for (int i = 0; i < 2; i++) {
            barrier_init(shared.parts_full[i], CONSUMERS);
            barrier_init(shared.parts_empty[i], FINISHERS);
        }
        fence_async_proxy();
    }
    // Scales beyond the last block are read, and multiply zeros: they must be finite.
    for (int i = threadIdx.x; i < (int)sizeof(shared.scales) / 4; i += THREADS)
        ((u32*)shared.scales)[i] = 0;
    fence_async_proxy();
    if (threadIdx.x < 2 * PAIRS) shared.largest[threadIdx.x / PAIRS][threadIdx.x % PAIRS] = 0;
    pdl_wait();  // the launch before writes x, ids and weights
    pdl_launch_dependents();
    const u32 generation = load_counter(counters + GENERATION);
    if (blockIdx.x == 0 && threadIdx.x == 0) counters[LEFT_AT_0] = 0;
    list_tiles(shared.tiles, {ids, weights, logits, expert_scale}, rows);
    Position position = {};
    if (warp < CONSUMERS) {
        consume<GateUp>(shared, ring, x, position, counters, generation);
        consume<Down>(shared, ring, h, position, counters, generation);
    } else if (warp < CONSUMERS + FINISHERS) {
        finish<GateUp>(shared, position, weights, gate_up_bias, h, rows);
        count_finished(counters, generation, FINISHERS);
        finish<Down>(shared, position, weights, down_bias, out, rows);
    } else if (threadIdx.x % 32 == 0) {
        const u32 odd = generation % 2;
        produce<GateUp>(shared, ring, position, counters + GATE_UP_ITEMS + odd, w.gate_up, gate_up_scales);
        produce<Down>(shared, ring, position, counters + DOWN_ITEMS + odd, w.down, down_scales);
    }
}
