// One product of a layer's experts in MXFP4 for few rows, on Hopper.
//
// One program runs on each multiprocessor and takes a contiguous part of all touched experts'
// weight rows, so that it reads memory as one stream. One warp copies weight rows in bulk into a
// ring, ahead of the computation. CONSUMERS warps divide the columns among themselves: each takes
// codes from the ring to registers, expands them there, and multiplies 32 weight rows by 8 rows of x,
// or 16 (m16n8k16). Two more warps add the parts in the order of the warps and finish the results, while
// the next rows are multiplied.
//
// A lane takes 16 consecutive bytes of a weight row; columns are summed in the order that results
// from this, and x follows. Results repeat bit for bit.
//
// Macros: GATED (gate and up rows take turns), HAS_BIAS (0 or 1); INPUTS and OUTPUTS, columns of
// both sides; EXPERTS; TOP_K; STAGES of the ring; CONSUMERS; TILES_N groups of 8 pairs.
#include "expert_arithmetic.cuh"

typedef unsigned char u8;
constexpr int FINISHERS = 2, WARPS = CONSUMERS + FINISHERS + 1;
constexpr int THREADS = WARPS * 32, ROWS_AT_ONCE = 32, PAIRS = 8 * TILES_N;
constexpr int ROWS = GATED ? 2 * OUTPUTS : OUTPUTS;  // weight rows of an expert
constexpr int ITEMS = ROWS / ROWS_AT_ONCE;  // of a tile
constexpr int PIECES = INPUTS / 32;  // of 16 bytes in a weight row
constexpr int CHUNKS = (PIECES + 3) / 4, EACH_CHUNKS = (CHUNKS + CONSUMERS - 1) / CONSUMERS;
constexpr int WEIGHT_BYTES = ROWS_AT_ONCE * PIECES * 16, SCALE_BYTES = ROWS_AT_ONCE * PIECES;
constexpr int STAGE = WEIGHT_BYTES + SCALE_BYTES;
constexpr int X_PITCH = INPUTS * 2 + 16;  // of a row of x
constexpr int EACH = (EXPERTS + 31) / 32;  // experts that a lane counts
constexpr int MOST_IDS = 2048, MOST_TILES = 16;
static_assert(ROWS % ROWS_AT_ONCE == 0 && INPUTS % 32 == 0, "no partial stages");

struct Shared {
    float parts[2][CONSUMERS][2][TILES_N][4][32];
    u64 full[STAGES], empty[STAGES], x_full, x_empty, parts_full[2], parts_empty[2];
    int count[EACH * 32];
    int pairs[MOST_TILES][PAIRS], expert[MOST_TILES], rows[MOST_TILES];
    int tiles;  // of all programs
    unsigned short ids[MOST_IDS];
};
// The program's items: 32 weight rows of a tile, which is at most 8 pairs of one expert.
struct Range { int begin, end; };

struct Piece { u32 word[4]; };

__device__ __forceinline__ Piece load_piece(const u8* from) {
    uint4 v = *(const uint4*)from;
    return Piece{{v.x, v.y, v.z, v.w}};
}
__device__ __forceinline__ void copy_bulk(u8* to, const void* from, int bytes, u64& bar) {
    asm volatile(
        "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];"
        ::"r"(shared_address(to)), "l"((u64)from), "r"(bytes), "r"(shared_address(&bar))
        : "memory");
}
__device__ __forceinline__ void multiply(float (&c)[4], u32 a0, u32 a1, u32 a2, u32 a3, u32 b0,
                                         u32 b1) {
    asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7},"
        " {%8,%9}, {%0,%1,%2,%3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
}
__device__ __forceinline__ u32 halves(u32 a, u32 b, u32 selector) {
    u32 result;
    asm("prmt.b32 %0, %1, %2, %3;" : "=r"(result) : "r"(a), "r"(b), "r"(selector));
    return result;
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

// Copies weights, scales and rows of x. Called by one thread.
__device__ __forceinline__ void produce(Shared& shared, u8* ring, u8* x_rows, Range range,
                                        const bf16* x, const u8* w, const u8* scales) {
    const int first = range.begin / ITEMS;
    int last = -1, changes = 0;
    for (int item = range.begin, number = 0; item < range.end; item++, number++) {
        const int tile = item / ITEMS - first, stage = number % STAGES;
        const u64 row = (u64)shared.expert[tile] * ROWS + item % ITEMS * ROWS_AT_ONCE;
        u8* to = ring + stage * STAGE;
        if (number >= STAGES) barrier_wait(shared.empty[stage], (number / STAGES - 1) & 1);
        barrier_expect_bytes(shared.full[stage], STAGE);
        copy_bulk(to, w + row * (PIECES * 16), WEIGHT_BYTES, shared.full[stage]);
        copy_bulk(to + WEIGHT_BYTES, scales + row * PIECES, SCALE_BYTES, shared.full[stage]);
        if (tile != last) {
            if (changes > 0) barrier_wait(shared.x_empty, (changes - 1) & 1);
            else if (!GATED) pdl_wait();  // for h; weights and ids were there before
            barrier_expect_bytes(shared.x_full, shared.rows[tile] * INPUTS * 2);
            for (int i = 0; i < shared.rows[tile]; i++) {
                const int pair = shared.pairs[tile][i];
                const bf16* from = x + (u64)(GATED ? pair / TOP_K : pair) * INPUTS;
                copy_bulk(x_rows + i * X_PITCH, from, INPUTS * 2, shared.x_full);
            }
            last = tile;
            changes++;
        }
    }
}

// Multiplies this warp's columns of every item.
__device__ __forceinline__ void consume(Shared& shared, const u8* ring, const u8* x_rows,
                                        Range range) {
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, group = lane / 4;
    const int first = range.begin / ITEMS;
    int last = -1, changes = 0;
    for (int item = range.begin, number = 0; item < range.end; item++, number++) {
        const int tile = item / ITEMS - first, stage = number % STAGES;
        const u8* from = ring + stage * STAGE;
        barrier_wait(shared.full[stage], number / STAGES & 1);
        Piece codes[EACH_CHUNKS][2][2];
        u32 factors[EACH_CHUNKS][2][2];
#pragma unroll
        for (int c = 0; c < EACH_CHUNKS; c++) {
            const int piece = (warp + c * CONSUMERS) * 4 + lane % 4;
#pragma unroll
            for (int m = 0; m < 2; m++)
#pragma unroll
                for (int half = 0; half < 2; half++) {
                    const int row = m * 16 + 2 * group + half;
                    codes[c][m][half] = Piece{};
                    u32 scale = 0;
                    if (piece < PIECES) {
                        codes[c][m][half] = load_piece(from + (row * PIECES + piece) * 16);
                        scale = from[WEIGHT_BYTES + row * PIECES + piece];
                    }
                    factors[c][m][half] = ((scale + 62) << 7) * 0x10001u;
                }
        }
        barrier_arrive_warp(shared.empty[stage]);
        if (tile != last) {
            if (changes > 0) barrier_arrive_warp(shared.x_empty);
            barrier_wait(shared.x_full, changes & 1);
            last = tile;
            changes++;
        }
        float sums[2][TILES_N][4] = {};
#pragma unroll
        for (int c = 0; c < EACH_CHUNKS; c++) {
            const int piece = (warp + c * CONSUMERS) * 4 + lane % 4;
            Piece b[4][TILES_N];
#pragma unroll
            for (int i = 0; i < 4; i++)
#pragma unroll
                for (int n = 0; n < TILES_N; n++) {
                    const u8* at = x_rows + (n * 8 + group) * X_PITCH + piece * 64 + i * 16;
                    b[i][n] = Piece{};
                    if (piece < PIECES) b[i][n] = load_piece(at);
                }
#pragma unroll
            for (int i = 0; i < 4; i++) {
                u32 columns[TILES_N][4];
#pragma unroll
                for (int n = 0; n < TILES_N; n++)
#pragma unroll
                    for (int j = 0; j < 2; j++) {
                        const u32 even = b[i][n].word[j], odd = b[i][n].word[j + 2];
                        columns[n][2 * j] = halves(even, odd, 0x5410);
                        columns[n][2 * j + 1] = halves(even, odd, 0x7632);
                    }
#pragma unroll
                for (int m = 0; m < 2; m++) {
                    const u32 low = codes[c][m][0].word[i], high = codes[c][m][1].word[i];
                    const u32 fl = factors[c][m][0], fh = factors[c][m][1];
                    const u32 a[8] = {
                        expand(low, 0, fl), expand(high, 0, fh), expand(low, 1, fl),
                        expand(high, 1, fh), expand(low, 2, fl), expand(high, 2, fh),
                        expand(low, 3, fl), expand(high, 3, fh)};
#pragma unroll
                    for (int n = 0; n < TILES_N; n++) {
                        multiply(sums[m][n], a[0], a[1], a[2], a[3], columns[n][0], columns[n][1]);
                        multiply(sums[m][n], a[4], a[5], a[6], a[7], columns[n][2], columns[n][3]);
                    }
                }
            }
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
#pragma unroll
        for (int part = 0; part < CONSUMERS; part++)
#pragma unroll
            for (int n = 0; n < TILES_N; n++)
#pragma unroll
                for (int i = 0; i < 4; i++) sum[n][i] += shared.parts[side][part][m][n][i][lane];
        barrier_arrive_warp(shared.parts_empty[side]);
#pragma unroll
        for (int ni = 0; ni < 2 * TILES_N; ni++) {
            const int n = ni / 2, i = ni % 2, place = n * 8 + lane % 4 * 2 + i;
            if (place >= shared.rows[tile]) continue;
            const int pair = shared.pairs[tile][place];
            const float low = sum[n][i] * 18446744073709551616.0f + added[0];  // 2^64
            const float high = sum[n][i + 2] * 18446744073709551616.0f + added[1];
            if (GATED) {
                ((bf16*)out)[(u64)pair * OUTPUTS + row / 2] = to_bf16(clamped_swiglu(low, high));
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
    u8* x_rows = ring + STAGES * STAGE;
    Shared& shared = *(Shared*)(x_rows + PAIRS * X_PITCH);
    if (threadIdx.x == 0) {
        for (int i = 0; i < STAGES; i++) {
            barrier_init(shared.full[i], 1);
            barrier_init(shared.empty[i], CONSUMERS);
        }
        barrier_init(shared.x_full, 1);
        barrier_init(shared.x_empty, CONSUMERS);
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
    if (warp < CONSUMERS) consume(shared, ring, x_rows, range);
    else if (warp < CONSUMERS + FINISHERS) finish(shared, range, weights, bias, out, rows);
    else if (threadIdx.x % 32 == 0) produce(shared, ring, x_rows, range, x, w, scales);
}
