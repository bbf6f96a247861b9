// One product of a layer's experts in MXFP4 for few rows, on Hopper.
//
// One program runs on each multiprocessor and takes a contiguous part of all touched experts'
// weight rows, so that it reads memory as one stream. One warp copies weight rows in bulk into a
// ring, ahead of the computation. CONSUMERS warps divide the columns among themselves and multiply
// 32 weight rows by 8 rows of x, or 16. Two more warps add the parts in the order of the warps and
// finish the results, while the next rows are multiplied.
//
// What limits this is instructions, not memory. Therefore codes become 8-bit floats (e4m3), which
// takes 7 instructions for 8 of them and is exact, and then float16 by the instruction that there
// is for that. Two products of the matrix unit (m16n8k16) are one block of 32 codes, whose scale
// multiplies their float32 result. A row of x becomes float16 times a power of two that makes its
// largest value 2^14 to 2^15. Of values from 2^-29 of the largest on, this is exact.
//
// Macros: GATED (gate and up rows take turns), HAS_BIAS (0 or 1); INPUTS and OUTPUTS, columns of
// both sides; EXPERTS; TOP_K; STAGES of the ring; CONSUMERS; TILES_N groups of 8 pairs.
#include "hopper.cuh"

typedef unsigned char u8;
constexpr int FINISHERS = 2, WARPS = CONSUMERS + FINISHERS + 1;
constexpr int THREADS = WARPS * 32, ROWS_AT_ONCE = 32, PAIRS = 8 * TILES_N;
constexpr int ROWS = GATED ? 2 * OUTPUTS : OUTPUTS;  // weight rows of an expert
constexpr int ITEMS = ROWS / ROWS_AT_ONCE;  // of a tile
constexpr int PIECES = INPUTS / 32;  // of 16 bytes in a weight row
constexpr int CHUNKS = (PIECES + 3) / 4, EACH_CHUNKS = (CHUNKS + CONSUMERS - 1) / CONSUMERS;
constexpr int WEIGHT_BYTES = ROWS_AT_ONCE * PIECES * 16, SCALE_BYTES = ROWS_AT_ONCE * PIECES;
constexpr int STAGE = WEIGHT_BYTES + SCALE_BYTES;
// Bytes of a row of float16, which zeros fill to whole chunks. An odd multiple of 64 avoids bank
// conflicts.
constexpr int HALF_PITCH = CHUNKS * 256 + 64;
constexpr int EACH = (EXPERTS + 31) / 32;  // experts that a lane counts
constexpr int MOST_IDS = 2048, MOST_TILES = 16;
static_assert(ROWS % ROWS_AT_ONCE == 0 && INPUTS % 32 == 0, "no partial stages");

struct Shared {
    float parts[2][CONSUMERS][2][TILES_N][4][32];
    float factors[MOST_TILES][PAIRS];  // of the results, for what x and codes were multiplied by
    int largest[2][PAIRS];  // bits of the largest value of each row of x; of two tiles, in turns
    u64 full[STAGES], empty[STAGES], parts_full[2], parts_empty[2];
    int count[EACH * 32];
    int pairs[MOST_TILES][PAIRS], expert[MOST_TILES], rows[MOST_TILES];
    int tiles;  // of all programs
    unsigned short ids[MOST_IDS];
};
// The program's items: 32 weight rows of a tile, which is at most 8 pairs of one expert.
struct Range { int begin, end; };

__device__ __forceinline__ void copy_bulk(u8* to, const void* from, int bytes, u64& bar) {
    asm volatile(
        "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];"
        ::"r"(shared_address(to)), "l"((u64)from), "r"(bytes), "r"(shared_address(&bar))
        : "memory");
}
__device__ __forceinline__ void multiply(float (&c)[4], u32 a0, u32 a1, u32 a2, u32 a3, u32 b0,
                                         u32 b1) {
    asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7},"
        " {%8,%9}, {%0,%1,%2,%3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
}
// Codes of a word as 8-bit floats of 2^-6 of their values: those with even numbers, and odd ones.
__device__ __forceinline__ u32 expand_even(u32 word) {
    return ((word << 4) & 0x80808080u) | ((word << 2) & 0x1C1C1C1Cu);
}
__device__ __forceinline__ u32 expand_odd(u32 word) {
    return (word & 0x80808080u) | ((word >> 2) & 0x1C1C1C1Cu);
}
// The low or the high two of four 8-bit floats as float16.
__device__ __forceinline__ u32 low_halves(u32 bytes) {
    u32 result;
    asm("{.reg .b16 l, h; mov.b32 {l, h}, %1; cvt.rn.f16x2.e4m3x2 %0, l;}" : "=r"(result) : "r"(bytes));
    return result;
}
__device__ __forceinline__ u32 high_halves(u32 bytes) {
    u32 result;
    asm("{.reg .b16 l, h; mov.b32 {l, h}, %1; cvt.rn.f16x2.e4m3x2 %0, h;}" : "=r"(result) : "r"(bytes));
    return result;
}
__device__ __forceinline__ u32 round_to_halves(float low, float high) {
    u32 result;
    asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(result) : "f"(high), "f"(low));
    return result;
}
__device__ __forceinline__ void sync_consumers() {
    asm volatile("bar.sync 1, %0;" ::"n"(CONSUMERS * 32) : "memory");
}
__device__ __forceinline__ bf16 to_bf16(float x) {
    bf16 result;
    asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(result) : "f"(x));
    return result;
}
__device__ __forceinline__ float activate(float gate, float up) {
    gate = gate > 7.0f ? 7.0f : gate;  // a NaN stays
    up = up > 7.0f ? 7.0f : up < -7.0f ? -7.0f : up;
    return (up + 1.0f) * gate / (1.0f + __expf(-1.702f * gate));
}

__device__ __forceinline__ int tiles_of(int pairs) { return (pairs + PAIRS - 1) / PAIRS; }

// Counts every expert's pairs and finds the tiles of this program. Experts are in ascending order,
// and so are their pairs, PAIRS to a tile.
__device__ __forceinline__ Range find_tiles(Shared& shared, const int* ids, int amount) {
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    for (int e = threadIdx.x; e < EACH * 32; e += THREADS) shared.count[e] = 0;
    __syncthreads();
    for (int p = threadIdx.x; p < amount; p += THREADS) {
        int id = min(max(ids[p], 0), EXPERTS - 1);
        shared.ids[p] = id;
        atomicAdd(&shared.count[id], 1);
    }
    __syncthreads();
    int mine = 0;
    for (int i = 0; i < EACH; i++) mine += tiles_of(shared.count[lane * EACH + i]);
    int end = mine;
    for (int step = 1; step < 32; step *= 2) {
        int other = __shfl_up_sync(~0u, end, step);
        if (lane >= step) end += other;
    }
    if (threadIdx.x == 31) shared.tiles = end;
    __syncthreads();
    const long long items = (long long)shared.tiles * ITEMS;
    const Range range = {(int)(items * blockIdx.x / gridDim.x),
                         (int)(items * (blockIdx.x + 1) / gridDim.x)};
    const int first = range.begin / ITEMS;
    for (int tile = first + warp; tile * ITEMS < range.end; tile += WARPS) {
        int begin = end - mine, found = -1, number = 0;
        for (int i = 0; i < EACH; i++) {
            int tiles = tiles_of(shared.count[lane * EACH + i]);
            if (begin <= tile && tile < begin + tiles) {
                found = lane * EACH + i;
                number = tile - begin;
            }
            begin += tiles;
        }
        const u32 owner = __ffs(__ballot_sync(~0u, found >= 0)) - 1;
        const int expert = __shfl_sync(~0u, found, owner);
        const int skipped = __shfl_sync(~0u, number, owner) * PAIRS;
        int before = 0;
        for (int base = 0; base < amount; base += 32) {
            bool match = base + lane < amount && shared.ids[base + lane] == expert;
            u32 mask = __ballot_sync(~0u, match);
            int rank = before + __popc(mask & ((1u << lane) - 1)) - skipped;
            if (match && rank >= 0 && rank < PAIRS) shared.pairs[tile - first][rank] = base + lane;
            before += __popc(mask);
        }
        if (lane == 0) {
            shared.expert[tile - first] = expert;
            shared.rows[tile - first] = min(before - skipped, PAIRS);
        }
    }
    __syncthreads();
    return range;
}

// Copies weights and scales. Called by one thread.
__device__ __forceinline__ void produce(Shared& shared, u8* ring, Range range, const u8* w,
                                        const u8* scales) {
    const int first = range.begin / ITEMS;
    for (int item = range.begin, number = 0; item < range.end; item++, number++) {
        const int tile = item / ITEMS - first, stage = number % STAGES;
        const u64 row = (u64)shared.expert[tile] * ROWS + item % ITEMS * ROWS_AT_ONCE;
        u8* to = ring + stage * STAGE;
        if (number >= STAGES) barrier_wait(shared.empty[stage], (number / STAGES - 1) & 1);
        barrier_expect_bytes(shared.full[stage], STAGE);
        copy_bulk(to, w + row * (PIECES * 16), WEIGHT_BYTES, shared.full[stage]);
        copy_bulk(to + WEIGHT_BYTES, scales + row * PIECES, SCALE_BYTES, shared.full[stage]);
    }
}

// A row of x is read past L1: another multiprocessor wrote it.
__device__ __forceinline__ uint4 load_x(const bf16* from) {
    uint4 v;
    asm volatile("ld.global.cg.v4.u32 {%0, %1, %2, %3}, [%4];"
                 : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w) : "l"((u64)from) : "memory");
    return v;
}
__device__ __forceinline__ const bf16* row_of(const Shared& shared, const bf16* x, int tile, int r) {
    const int pair = shared.pairs[tile][r];
    return x + (u64)(GATED ? pair / TOP_K : pair) * INPUTS;
}

// Converts the rows of x of a tile to float16. All consumers take part; `turn` counts tiles.
__device__ __forceinline__ void convert_rows(Shared& shared, u8* halves, const bf16* x, int tile,
                                             int turn) {
    const int rows = shared.rows[tile];
    int* largest = shared.largest[turn % 2];
    for (int r = 0; r < rows; r++) {
        const bf16* row = row_of(shared, x, tile, r);
        u32 most = 0;
        for (int i = threadIdx.x; i < INPUTS / 8; i += CONSUMERS * 32) {
            const uint4 v = load_x(row + i * 8);
            const u32 words[4] = {v.x, v.y, v.z, v.w};
#pragma unroll
            for (int j = 0; j < 4; j++)
                most = max(most, max(words[j] & 0x7FFF, words[j] >> 16 & 0x7FFF));
        }
        most = __reduce_max_sync(~0u, most);
        if (threadIdx.x % 32 == 0) atomicMax(&largest[r], (int)most);
    }
    sync_consumers();
    for (int r = 0; r < rows; r++) {
        const bf16* row = row_of(shared, x, tile, r);
        const int most = largest[r];
        // The largest becomes 2^14 to 2^15. Beside infinity or NaN, the whole row becomes NaN.
        const int exponent = max(most >> 7, 32);
        const float factor = __uint_as_float((u32)(127 + 14 + 127 - exponent) << 23);
        const float inverse = __uint_as_float((u32)(exponent - 14) << 23);
        if (threadIdx.x == 0)
            shared.factors[tile][r] = most >= 0x7F80 ? __uint_as_float(0x7FC00000u) : inverse * 64;
        for (int i = threadIdx.x; i < CHUNKS * 16; i += CONSUMERS * 32) {
            uint4 v = {0, 0, 0, 0};
            if (i < INPUTS / 8) v = load_x(row + i * 8);
            const u32 words[4] = {v.x, v.y, v.z, v.w};
            float even[4], odd[4];
#pragma unroll
            for (int j = 0; j < 4; j++) {
                even[j] = bf16_low(words[j]) * factor;
                odd[j] = bf16_high(words[j]) * factor;
            }
            // Even columns first, then odd ones, as the codes of a word are expanded.
            *(uint4*)(halves + r * HALF_PITCH + i * 16) = {
                round_to_halves(even[0], even[1]), round_to_halves(even[2], even[3]),
                round_to_halves(odd[0], odd[1]), round_to_halves(odd[2], odd[3])};
        }
    }
    if (threadIdx.x < PAIRS) shared.largest[(turn + 1) % 2][threadIdx.x] = 0;
    sync_consumers();
}

// Scales of four blocks of a row, one in each byte.
__device__ __forceinline__ u32 load_scales(const u8* from) {
    if (PIECES % 4 == 0) return *(const u32*)from;
    if (PIECES % 2 == 0) {
        const unsigned short* pair = (const unsigned short*)from;
        return pair[0] | (u32)pair[1] << 16;
    }
    return from[0] | (u32)from[1] << 8 | (u32)from[2] << 16 | (u32)from[3] << 24;
}
// Scale i of four, as a float.
__device__ __forceinline__ float scale_of(u32 scales, int i) {
    const u32 moved = i == 0 ? scales << 23 : i == 1 ? scales << 15 : i == 2 ? scales << 7 : scales >> 1;
    return __uint_as_float(moved & 0x7F800000u);
}

// Adds the products of a chunk.
__device__ __forceinline__ void multiply_chunk(float (&sums)[2][TILES_N][4],
                                               const u32 (&codes)[2][2][4],
                                               const u32 (&scales)[2][2], const u8* halves) {
    const u8* x = halves + threadIdx.x % 32 / 4 * HALF_PITCH + threadIdx.x % 4 * 16;
#pragma unroll
    for (int i = 0; i < 4; i++) {
        uint4 columns[TILES_N];
#pragma unroll
        for (int n = 0; n < TILES_N; n++)
            columns[n] = *(const uint4*)(x + n * 8 * HALF_PITCH + i * 64);
#pragma unroll
        for (int m = 0; m < 2; m++) {
            const float top_scale = scale_of(scales[m][0], i);
            const float bottom_scale = scale_of(scales[m][1], i);
            const u32 top = codes[m][0][i], bottom = codes[m][1][i];
            const u32 even[2] = {expand_even(top), expand_even(bottom)};
            const u32 odd[2] = {expand_odd(top), expand_odd(bottom)};
            const u32 a[8] = {low_halves(even[0]),  low_halves(even[1]), high_halves(even[0]),
                              high_halves(even[1]), low_halves(odd[0]),  low_halves(odd[1]),
                              high_halves(odd[0]),  high_halves(odd[1])};
#pragma unroll
            for (int n = 0; n < TILES_N; n++) {
                float d[4] = {};
                multiply(d, a[0], a[1], a[2], a[3], columns[n].x, columns[n].y);
                multiply(d, a[4], a[5], a[6], a[7], columns[n].z, columns[n].w);
                sums[m][n][0] += top_scale * d[0];
                sums[m][n][1] += top_scale * d[1];
                sums[m][n][2] += bottom_scale * d[2];
                sums[m][n][3] += bottom_scale * d[3];
            }
        }
    }
}

// Multiplies this warp's columns of every item.
__device__ __forceinline__ void consume(Shared& shared, const u8* ring, const bf16* x, u8* halves,
                                        Range range) {
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, group = lane / 4;
    const int first = range.begin / ITEMS;
    int last = -1, changes = 0;
    for (int item = range.begin, number = 0; item < range.end; item++, number++) {
        const int tile = item / ITEMS - first, stage = number % STAGES;
        const u8* from = ring + stage * STAGE;
        if (tile != last) {
            if (!GATED && changes == 0) pdl_wait();  // for h; weights and ids were there before
            convert_rows(shared, halves, x, tile, changes);
            last = tile;
            changes++;
        }
        barrier_wait(shared.full[stage], number / STAGES & 1);
        u32 codes[EACH_CHUNKS][2][2][4], scales[EACH_CHUNKS][2][2];
#pragma unroll
        for (int c = 0; c < EACH_CHUNKS; c++) {
            const int block = min(warp + c * CONSUMERS, CHUNKS - 1) * 4;
#pragma unroll
            for (int m = 0; m < 2; m++)
#pragma unroll
                for (int half = 0; half < 2; half++) {
                    const int row = m * 16 + half * 8 + group;
                    u32 four = load_scales(from + WEIGHT_BYTES + row * PIECES + block);
                    // Beyond the last block, x is zero, but the scale may be any byte.
                    if (PIECES % 4 != 0 && block + 4 > PIECES) four &= (1u << PIECES % 4 * 8) - 1;
                    scales[c][m][half] = four;
#pragma unroll
                    for (int i = 0; i < 4; i++)
                        codes[c][m][half][i] =
                            *(const u32*)(from + (row * PIECES + block + i) * 16 + lane % 4 * 4);
                }
        }
        barrier_arrive_warp(shared.empty[stage]);
        float sums[2][TILES_N][4] = {};
#pragma unroll
        for (int c = 0; c < EACH_CHUNKS; c++) {
            const int block = (warp + c * CONSUMERS) * 4;
            if (block < PIECES)
                multiply_chunk(sums, codes[c], scales[c], halves + block * 64);
        }
        const int side = number % 2;
        if (number >= 2) barrier_wait(shared.parts_empty[side], (number / 2 - 1) & 1);
#pragma unroll
        for (int m = 0; m < 2; m++)
#pragma unroll
            for (int n = 0; n < TILES_N; n++)
#pragma unroll
                for (int i = 0; i < 4; i++)
                    shared.parts[side][warp][m][n][i][lane] = sums[m][n][i];
        barrier_arrive_warp(shared.parts_full[side]);
    }
}

// Adds the parts of 16 weight rows of every item and writes the results.
__device__ __forceinline__ void finish(Shared& shared, Range range, const float* weights,
                                       const bf16* bias, void* out, int rows) {
    const int m = threadIdx.x / 32 - CONSUMERS, lane = threadIdx.x % 32, first = range.begin / ITEMS;
    for (int item = range.begin, number = 0; item < range.end; item++, number++) {
        const int tile = item / ITEMS - first, side = number % 2;
        // This lane's weight rows are `row` and `row` + 1.
        const int row = item % ITEMS * ROWS_AT_ONCE + m * 16 + lane / 4 * 2;
        float sum[TILES_N][4] = {}, added[2] = {};
        if (HAS_BIAS)
            for (int half = 0; half < 2; half++)
                added[half] = to_float(bias[(u64)shared.expert[tile] * ROWS + row + half]);
        barrier_wait(shared.parts_full[side], number / 2 & 1);
        // Of 8 rows, one lane group each holds the results; registers 2 and 3 are 8 rows further.
        const int place_of_row = lane / 4 % 4 * 8 + lane % 4, further = lane / 16 * 2;
#pragma unroll
        for (int part = 0; part < CONSUMERS; part++)
#pragma unroll
            for (int n = 0; n < TILES_N; n++)
#pragma unroll
                for (int i = 0; i < 4; i++)
                    sum[n][i] += shared.parts[side][part][m][n][further + i % 2]
                                             [place_of_row + i / 2 * 4];
        barrier_arrive_warp(shared.parts_empty[side]);
#pragma unroll
        for (int ni = 0; ni < 2 * TILES_N; ni++) {
            const int n = ni / 2, i = ni % 2, place = n * 8 + lane % 4 * 2 + i;
            if (place >= shared.rows[tile]) continue;
            const int pair = shared.pairs[tile][place];
            const float factor = shared.factors[tile][place];
            const float low = sum[n][i] * factor + added[0];
            const float high = sum[n][i + 2] * factor + added[1];
            if (GATED) {
                ((bf16*)out)[(u64)pair * OUTPUTS + row / 2] = to_bf16(activate(low, high));
            } else {
                const float weight = weights[pair];
                float* to = (float*)out + ((u64)(pair % TOP_K) * rows + pair / TOP_K) * OUTPUTS;
                to[row] = low * weight;
                to[row + 1] = high * weight;
            }
        }
    }
}

// x [rows, INPUTS] and out bfloat16 [pairs, OUTPUTS] if GATED; else x [pairs, INPUTS] and out
// float32 [TOP_K, rows, OUTPUTS]. `weights` are the pairs', [rows * TOP_K].
extern "C" __global__ void __launch_bounds__(THREADS, 1)
experts_mxfp4_stream(const bf16* x, const int* ids, const float* weights, const u8* w,
                     const u8* scales, const bf16* bias, void* out, int rows) {
    extern __shared__ __align__(128) u8 ring[];
    u8* halves = ring + STAGES * STAGE;
    Shared& shared = *(Shared*)(halves + PAIRS * HALF_PITCH);
    if (threadIdx.x < 2 * PAIRS) shared.largest[threadIdx.x / PAIRS][threadIdx.x % PAIRS] = 0;
    if (threadIdx.x == 0) {
        for (int i = 0; i < STAGES; i++) {
            barrier_init(shared.full[i], 1);
            barrier_init(shared.empty[i], CONSUMERS);
        }
        for (int i = 0; i < 2; i++) {
            barrier_init(shared.parts_full[i], CONSUMERS);
            barrier_init(shared.parts_empty[i], FINISHERS);
        }
        fence_async_proxy();
    }
    // The launch before the first product writes ids. The launch before the second one is the
    // first, which has waited for that.
    if (GATED) pdl_wait();
    pdl_launch_dependents();
    const Range range = find_tiles(shared, ids, rows * TOP_K);
    const int warp = threadIdx.x / 32;
    if (warp < CONSUMERS) consume(shared, ring, x, halves, range);
    else if (warp < CONSUMERS + FINISHERS) finish(shared, range, weights, bias, out, rows);
    else if (threadIdx.x % 32 == 0) produce(shared, ring, range, w, scales);
}
