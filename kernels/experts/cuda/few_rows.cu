// One product of a layer's experts for few rows: each touched expert's weights are read once.
//
// The kernel is bound by reading weights, so they go from memory straight into the registers that
// the matrix instruction takes them from (m16n8k16, 16 weight rows by 8 rows of x); MXFP4 is
// expanded there. Columns may be summed in any order as long as x follows, so a lane takes 16
// consecutive bytes of a row: four lanes a chunk of 64 bytes.
//
// A program computes 8 * TILES_N pairs of one expert by COLUMNS outputs. It finds its expert by
// itself, from the ids of all pairs. Its warps take turns at the chunks of a row; their sums are
// added in the order of the warps, so results repeat bit for bit.
//
// Macros: MXFP4, GATED, INTERLEAVED, HAS_BIAS (0 or 1); ACTIVATION (0 SiLU, 1 GELU, 2 clamped
// SwiGLU); INPUTS and OUTPUTS, columns of both sides; EXPERTS; TOP_K; WARPS; TILES_M groups of 16
// weight rows; TILES_N groups of 8 pairs; UNROLL chunks per step; BLOCKS resident programs to
// allow; PDL (0 or 1: from Hopper on).
#include "expert_arithmetic.cuh"

typedef unsigned char u8;
constexpr int ROWS = GATED ? 2 * OUTPUTS : OUTPUTS;  // weight rows of an expert
constexpr int COLUMNS = GATED ? 8 * TILES_M : 16 * TILES_M;
constexpr int PAIRS = 8 * TILES_N;
constexpr int PIECES = MXFP4 ? INPUTS / 32 : INPUTS / 8;  // of 16 bytes in a row
constexpr int CHUNKS = (PIECES + 3) / 4;
constexpr int STEPS = (CHUNKS + WARPS * UNROLL - 1) / (WARPS * UNROLL);
constexpr int EACH = (EXPERTS + 31) / 32;  // experts that a lane counts
constexpr int MOST_IDS = 2048;
constexpr int X_WORDS = MXFP4 ? 4 : 1;  // loads of 16 bytes of x that go with a piece
static_assert(OUTPUTS % COLUMNS == 0, "no partial tiles");

struct Piece { u32 word[4]; };

__device__ __forceinline__ Piece load_weights(const u8* from) {
    Piece p;
    asm volatile("ld.global.nc.L1::no_allocate.L2::128B.v4.u32 {%0,%1,%2,%3}, [%4];"
                 : "=r"(p.word[0]), "=r"(p.word[1]), "=r"(p.word[2]), "=r"(p.word[3])
                 : "l"((u64)from));
    return p;
}
__device__ __forceinline__ Piece load_x(const bf16* from) {
    Piece p;
    asm volatile("ld.global.v4.u32 {%0,%1,%2,%3}, [%4];"
                 : "=r"(p.word[0]), "=r"(p.word[1]), "=r"(p.word[2]), "=r"(p.word[3])
                 : "l"((u64)from) : "memory");
    return p;
}
__device__ __forceinline__ void multiply(float (&c)[4], u32 a0, u32 a1, u32 a2, u32 a3, u32 b0,
                                         u32 b1) {
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7},"
        " {%8,%9}, {%0,%1,%2,%3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
}
__device__ __forceinline__ u32 halves(u32 a, u32 b, u32 selector) {
    u32 result;
    asm("prmt.b32 %0, %1, %2, %3;" : "=r"(result) : "r"(a), "r"(b), "r"(selector));
    return result;
}
__device__ __forceinline__ float from_bf16(bf16 x) { return __uint_as_float((u32)x << 16); }

struct Tile {
    unsigned short ids[MOST_IDS];
    int count[EACH * 32];
    int pairs[PAIRS];
    int expert, number, rows;
};

// Finds the tile's expert and pairs: experts in ascending order, PAIRS of its pairs at a time, in
// ascending order. `expert` is -1 beyond the last tile.
__device__ __forceinline__ void find_tile(Tile& tile, const int* ids, int amount, int index) {
    for (int e = threadIdx.x; e < EACH * 32; e += WARPS * 32) tile.count[e] = 0;
    if (threadIdx.x == 0) tile.expert = -1;
    __syncthreads();
    for (int p = threadIdx.x; p < amount; p += WARPS * 32) {
        int id = min(max(ids[p], 0), EXPERTS - 1);
        tile.ids[p] = id;
        atomicAdd(&tile.count[id], 1);
    }
    __syncthreads();
    if (threadIdx.x >= 32) return;
    int lane = threadIdx.x, mine = 0;
    for (int i = 0; i < EACH; i++) mine += (tile.count[lane * EACH + i] + PAIRS - 1) / PAIRS;
    int end = mine;
    for (int step = 1; step < 32; step *= 2) {
        int other = __shfl_up_sync(~0u, end, step);
        if (lane >= step) end += other;
    }
    int begin = end - mine;
    if (begin <= index && index < end) {
        for (int i = 0; i < EACH; i++) {
            int expert = lane * EACH + i;
            int tiles = (tile.count[expert] + PAIRS - 1) / PAIRS;
            if (begin <= index && index < begin + tiles) {
                tile.expert = expert;
                tile.number = index - begin;
                tile.rows = min(tile.count[expert] - tile.number * PAIRS, PAIRS);
            }
            begin += tiles;
        }
    }
    __syncwarp();
    int expert = tile.expert, before = 0;
    if (expert < 0) return;
    int first = tile.number * PAIRS;
    for (int base = 0; base < amount; base += 32) {
        bool match = base + lane < amount && tile.ids[base + lane] == expert;
        u32 mask = __ballot_sync(~0u, match);
        int rank = before + __popc(mask & ((1u << lane) - 1)) - first;
        if (match && rank >= 0 && rank < PAIRS) tile.pairs[rank] = base + lane;
        before += __popc(mask);
    }
}

// Byte offset, from a warp's first weight row, of the row that a lane's group begins with.
__device__ __forceinline__ int row_offset(int m, int half) {
    constexpr int BYTES = PIECES * 16;
    if (!GATED) return (m * 16 + half * 8) * BYTES;
    return INTERLEAVED ? (m * 16 + half) * BYTES : (m * 8 + half * OUTPUTS) * BYTES;
}

struct Step { Piece w[UNROLL][TILES_M][2]; };

__device__ __forceinline__ int first_piece(int step, int u) {
    int warp = threadIdx.x / 32;
    return ((step * WARPS + warp) * UNROLL + u) * 4 + threadIdx.x % 4;
}
__device__ __forceinline__ void load_step(Step& to, const u8* rows, int step) {
#pragma unroll
    for (int u = 0; u < UNROLL; u++) {
        int piece = first_piece(step, u);
        bool live = piece < PIECES;
#pragma unroll
        for (int m = 0; m < TILES_M; m++)
#pragma unroll
            for (int half = 0; half < 2; half++) {
                to.w[u][m][half] = Piece{};
                if (live) to.w[u][m][half] = load_weights(rows + row_offset(m, half) + piece * 16);
            }
    }
}

typedef float Sums[TILES_M][TILES_N][4];

__device__ __forceinline__ void multiply_step(Sums& sums, const Step& from, const bf16* const* x,
                                              const u8* scales, int step) {
#pragma unroll
    for (int u = 0; u < UNROLL; u++) {
        int piece = first_piece(step, u);
        if (STEPS * WARPS * UNROLL * 4 > PIECES && piece - threadIdx.x % 4 >= PIECES) continue;
        bool live = piece < PIECES;
        u32 factor[TILES_M][2];
        if (MXFP4) {
#pragma unroll
            for (int m = 0; m < TILES_M; m++)
#pragma unroll
                for (int half = 0; half < 2; half++) {
                    int row = m * 16 + (GATED ? half : half * 8);
                    u32 scale = live ? scales[row * PIECES + piece] : 0;
                    factor[m][half] = ((scale + 62) << 7) * 0x10001u;
                }
        }
#pragma unroll
        for (int i = 0; i < X_WORDS; i++) {
#pragma unroll
            for (int n = 0; n < TILES_N; n++) {
                Piece b{};
                if (live && x[n]) b = load_x(x[n] + (piece * X_WORDS + i) * 8);
                u32 b0 = b.word[0], b1 = b.word[1], b2 = b.word[2], b3 = b.word[3];
                if (MXFP4) {
                    b0 = halves(b.word[0], b.word[2], 0x5410);
                    b1 = halves(b.word[0], b.word[2], 0x7632);
                    b2 = halves(b.word[1], b.word[3], 0x5410);
                    b3 = halves(b.word[1], b.word[3], 0x7632);
                }
#pragma unroll
                for (int m = 0; m < TILES_M; m++) {
                    const Piece &low = from.w[u][m][0], &high = from.w[u][m][1];
                    if (MXFP4) {
                        u32 wl = low.word[i], wh = high.word[i];
                        u32 fl = factor[m][0], fh = factor[m][1];
                        multiply(sums[m][n], expand(wl, 0, fl), expand(wh, 0, fh),
                                 expand(wl, 1, fl), expand(wh, 1, fh), b0, b1);
                        multiply(sums[m][n], expand(wl, 2, fl), expand(wh, 2, fh),
                                 expand(wl, 3, fl), expand(wh, 3, fh), b2, b3);
                    } else {
                        multiply(sums[m][n], low.word[0], high.word[0], low.word[1], high.word[1],
                                 b0, b1);
                        multiply(sums[m][n], low.word[2], high.word[2], low.word[3], high.word[3],
                                 b2, b3);
                    }
                }
            }
        }
    }
}

// x [rows, INPUTS] and out bfloat16 [pairs, OUTPUTS] if GATED; else x [pairs, INPUTS] and out float32
// [TOP_K, rows, OUTPUTS]. `weights` are the pairs', [rows * TOP_K].
extern "C" __global__ void __launch_bounds__(WARPS * 32, BLOCKS)
experts_few_rows(const bf16* x, const int* ids, const float* weights, const u8* w,
                 const u8* scales, const bf16* bias, void* out, int rows) {
    constexpr int SCALES = MXFP4 ? 16 * TILES_M * PIECES : 16;
    __shared__ Tile tile;
    __shared__ __align__(16) u8 tile_scales[SCALES];
    __shared__ float parts[WARPS][TILES_M * TILES_N][4][32];
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, group = lane / 4;
    const int n0 = blockIdx.x % (OUTPUTS / COLUMNS) * COLUMNS;

    // The launch before the first product writes ids. The launch before the second one is the
    // first, which has waited for that.
    if (GATED && PDL) {
        pdl_wait();
        pdl_launch_dependents();
    }
    find_tile(tile, ids, rows * TOP_K, blockIdx.x / (OUTPUTS / COLUMNS));
    __syncthreads();
    const int expert = tile.expert;
    if (expert < 0) return;

    const u64 first = (u64)expert * ROWS + (GATED && INTERLEAVED ? 2 * n0 : n0);
    const u8* w_rows = w + (first + (GATED && INTERLEAVED ? 2 * group : group)) * (PIECES * 16);
    Step steps[2];
    load_step(steps[0], w_rows, 0);
    if (MXFP4) {
        const u8* from = scales + first * PIECES;
        for (int i = threadIdx.x; i < SCALES / 16; i += WARPS * 32)
            ((uint4*)tile_scales)[i] = ((const uint4*)from)[i];
    }
    if (!GATED && PDL) {
        pdl_wait();
        pdl_launch_dependents();
    }
    const bf16* x_rows[TILES_N];
#pragma unroll
    for (int n = 0; n < TILES_N; n++) {
        int pair = n * 8 + group < tile.rows ? tile.pairs[n * 8 + group] : -1;
        x_rows[n] = pair < 0 ? nullptr : x + (u64)(GATED ? pair / TOP_K : pair) * INPUTS;
    }
    const u8* lane_scales = tile_scales + (GATED ? 2 * group : group) * PIECES;
    __syncthreads();
    Sums sums = {};
#pragma unroll 2
    for (int step = 0; step < STEPS; step += 2) {
        if (step + 1 < STEPS) load_step(steps[1], w_rows, step + 1);
        multiply_step(sums, steps[0], x_rows, lane_scales, step);
        if (step + 2 < STEPS) load_step(steps[0], w_rows, step + 2);
        if (step + 1 < STEPS) multiply_step(sums, steps[1], x_rows, lane_scales, step + 1);
    }
#pragma unroll
    for (int m = 0; m < TILES_M; m++)
#pragma unroll
        for (int n = 0; n < TILES_N; n++)
#pragma unroll
            for (int i = 0; i < 4; i++) parts[warp][m * TILES_N + n][i][lane] = sums[m][n][i];
    __syncthreads();
    for (int mn = warp; mn < TILES_M * TILES_N; mn += WARPS) {
        float sum[4] = {};
#pragma unroll
        for (int i = 0; i < 4; i++)
            for (int part = 0; part < WARPS; part++) sum[i] += parts[part][mn][i][lane];
        if (MXFP4)
            for (int i = 0; i < 4; i++) sum[i] *= 18446744073709551616.0f;  // 2^64
        const int m = mn / TILES_N, place = mn % TILES_N * 8 + lane % 4 * 2;
        const int n = n0 + m * (GATED ? 8 : 16) + group;
        if (HAS_BIAS) {
            u64 at = (u64)expert * ROWS + (GATED && INTERLEAVED ? 2 * n : n);
            float low = from_bf16(bias[at]);
            float high = from_bf16(bias[at + (!GATED ? 8 : INTERLEAVED ? 1 : OUTPUTS)]);
            sum[0] += low, sum[1] += low, sum[2] += high, sum[3] += high;
        }
        for (int i = 0; i < 2; i++) {
            if (place + i >= tile.rows) continue;
            int pair = tile.pairs[place + i];
            if (GATED) {
                ((bf16*)out)[(u64)pair * OUTPUTS + n] =
                    to_bf16(activate<ACTIVATION>(sum[i], sum[i + 2]));
            } else {
                float weight = weights[pair];
                float* to = (float*)out + ((u64)(pair % TOP_K) * rows + pair / TOP_K) * OUTPUTS + n;
                to[0] = sum[i] * weight;
                to[8] = sum[i + 2] * weight;
            }
        }
    }
}
