// A linear layer of few rows whose weights are stored in FP8 (E4M3) or 4 bits.
//
// The kernel is bound by reading weights, so they go from memory straight into registers, where they
// become bfloat16 for the matrix instruction (m16n8k16: 16 weight rows by 8 rows of x). Columns may
// be summed in any order as long as x follows, so a lane takes 16 consecutive bytes of a row: four
// lanes a chunk of 64 bytes.
//
// A program computes COLUMNS outputs, or one of SPLITS parts of their sums. Its warps take turns at
// the chunks of a row; their sums are added in the order of the warps, so results repeat bit for
// bit, and a row's result does not depend on the rows beside it.
//
// Where scales apply (SCALES): 0, a row has one: to its sum. 1, a chunk lies in one group: to the
// chunk's sum. 2, a lane's bytes lie in one group: to the weights, whose products are rounded to
// bfloat16.
//
// Macros: FP8, GATED, ZEROS, HAS_BIAS, FLOAT_SCALES (0 or 1); SCALES (0 to 2); SILU (1, or 0 for
// GELU in its tanh approximation); INPUTS and OUTPUTS, columns of both sides; GROUP, columns that
// share a scale; SHARED_ROWS, rows that share scales; WARPS; TILES_M groups of 16 weight rows;
// TILES_N groups of 8 rows of x; UNROLL chunks per step; SPLITS; BLOCKS resident programs to allow;
// AHEAD, bytes of each weight row that are fetched into L2 while x is not there yet.
#include "hopper.cuh"

typedef unsigned char u8;
constexpr int COLUMNS = GATED ? 8 * TILES_M : 16 * TILES_M;
constexpr int PIECE = FP8 ? 16 : 32;  // columns in 16 bytes
constexpr int PIECES = INPUTS / PIECE;
constexpr int GROUPS = (INPUTS + GROUP - 1) / GROUP;
constexpr int CHUNKS = (PIECES + 3) / 4;
constexpr int STEPS = (CHUNKS + WARPS * UNROLL - 1) / (WARPS * UNROLL);
constexpr int PART_STEPS = (STEPS + SPLITS - 1) / SPLITS;
constexpr int X_WORDS = PIECE / 8;  // loads of 16 bytes of x that go with a piece
static_assert(OUTPUTS % COLUMNS == 0, "no partial tiles");
static_assert(INPUTS % PIECE == 0, "rows of whole pieces");
static_assert(SPLITS == 1 || !GATED, "parts are added before the activation");

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
__device__ __forceinline__ u32 permute(u32 a, u32 b, u32 selector) {
    u32 result;
    asm("prmt.b32 %0, %1, %2, %3;" : "=r"(result) : "r"(a), "r"(b), "r"(selector));
    return result;
}
// Two bfloat16: a * b + c.
__device__ __forceinline__ u32 fma2(u32 a, u32 b, u32 c) {
    u32 result;
    asm("fma.rn.bf16x2 %0, %1, %2, %3;" : "=r"(result) : "r"(a), "r"(b), "r"(c));
    return result;
}
constexpr u32 MINUS_ZERO = 0x80008000u;

// Two bytes of a word (the first two, or the last two if HIGH) from FP8 to bfloat16, exactly. The
// bits of E4M3, moved to the lowest exponent bits, are its value times 2^-120.
template <bool HIGH>
__device__ __forceinline__ u32 expand_fp8(u32 word) {
    u32 apart = permute(word, 0, HIGH ? 0x3424 : 0x1404);
    return fma2((apart & 0x80008000u) | ((apart >> 4) & 0x07F007F0u), 0x7B807B80u, MINUS_ZERO);
}
// Codes J and J + 4 of a word, minus their zero: a code in the lowest bits of 128 is 128 + code, and
// `offset` is -128 - zero, twice.
template <int J>
__device__ __forceinline__ u32 expand_int4(u32 word, u32 offset) {
    return fma2(((word >> (4 * J)) & 0x000F000Fu) | 0x43004300u, 0x3F803F80u, offset);
}

__device__ __forceinline__ float from_bf16(bf16 x) { return __uint_as_float((u32)x << 16); }
__device__ __forceinline__ bf16 to_bf16(float x) {
    bf16 result;
    asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(result) : "f"(x));
    return result;
}
__device__ __forceinline__ float activate(float gate, float up) {
    if (SILU) return gate / (1.0f + __expf(-gate)) * up;
    float inner = 0.7978845608028654f * (gate + 0.044715f * gate * gate * gate);
    return gate * (1.0f - 1.0f / (__expf(2.0f * inner) + 1.0f)) * up;
}
__device__ __forceinline__ float load_scale(const void* scales, int at) {
    return FLOAT_SCALES ? ((const float*)scales)[at] : from_bf16(((const bf16*)scales)[at]);
}

// Weight row, from the first of the program, of a lane's group of 4 in half a tile.
__device__ __forceinline__ int tile_row(int m, int half) {
    return GATED ? m * 8 + half * OUTPUTS : m * 16 + half * 8;
}

struct Step {
    Piece w[UNROLL][TILES_M][2];
    float scale[SCALES ? UNROLL : 1][TILES_M][2];
    u32 zero[ZEROS && SCALES ? UNROLL : 1][TILES_M][2];
};
struct Weights {
    const u8* codes;
    const void* scales;
    const u8* zeros;
    int row;  // first one of the lane
};

__device__ __forceinline__ int first_piece(int step, int u) {
    int warp = threadIdx.x / 32;
    return ((step * WARPS + warp) * UNROLL + u) * 4 + threadIdx.x % 4;
}
__device__ __forceinline__ void load_step(Step& to, const Weights& from, int step) {
#pragma unroll
    for (int u = 0; u < UNROLL; u++) {
        int piece = first_piece(step, u);
        bool live = piece < PIECES;
#pragma unroll
        for (int m = 0; m < TILES_M; m++)
#pragma unroll
            for (int half = 0; half < 2; half++) {
                int row = from.row + tile_row(m, half);
                to.w[u][m][half] = Piece{};
                if (live) to.w[u][m][half] = load_weights(from.codes + ((u64)row * PIECES + piece) * 16);
                if (SCALES) {
                    int group = min(piece, PIECES - 1) * PIECE / GROUP;
                    to.scale[u][m][half] =
                        load_scale(from.scales, row / SHARED_ROWS * GROUPS + group);
                    if (ZEROS) to.zero[u][m][half] = from.zeros[row * GROUPS + group];
                }
            }
    }
}

// Memory would be idle while the launches before finish. Each thread of the first ones takes a row.
__device__ __forceinline__ void fetch_ahead(const u8* codes, int n0, int step) {
    constexpr int ROWS = GATED ? 8 * TILES_M : 16 * TILES_M, SKIPPED = WARPS * UNROLL * 64;
    constexpr int WIDTH = PIECES * 16;
    const int from = (step * WARPS * UNROLL) * 64 + SKIPPED, size = min(AHEAD, WIDTH - from);
    if ((int)threadIdx.x >= (GATED ? 2 : 1) * ROWS || size <= 0) return;
    const int row = n0 + threadIdx.x % ROWS + (int)threadIdx.x / ROWS * OUTPUTS;
    asm volatile("cp.async.bulk.prefetch.L2.global [%0], %1;"
                 ::"l"((u64)(codes + (u64)row * WIDTH + from)), "r"(size) : "memory");
}

typedef float Sums[TILES_M][TILES_N][4];

__device__ __forceinline__ void multiply_step(Sums& sums, const Step& from, const bf16* const* x,
                                              const u32 (&row_zero)[TILES_M][2], int step) {
#pragma unroll
    for (int u = 0; u < UNROLL; u++) {
        int piece = first_piece(step, u);
        if (STEPS * WARPS * UNROLL * 4 > PIECES && piece - (int)threadIdx.x % 4 >= PIECES) continue;
        bool live = piece < PIECES;
        Sums chunk = {};
        Sums& to = SCALES == 1 ? chunk : sums;
        u32 offset[TILES_M][2], factor[TILES_M][2];
        if (!FP8) {
#pragma unroll
            for (int m = 0; m < TILES_M; m++)
#pragma unroll
                for (int half = 0; half < 2; half++) {
                    u32 zero = !ZEROS ? 8 : SCALES ? from.zero[u][m][half] : row_zero[m][half];
                    offset[m][half] = (0xC300u + zero) * 0x10001u;
                    if (SCALES == 2)
                        factor[m][half] = to_bf16(from.scale[u][m][half]) * 0x10001u;
                }
        }
#pragma unroll
        for (int i = 0; i < X_WORDS; i++) {
#pragma unroll
            for (int n = 0; n < TILES_N; n++) {
                Piece b{};
                if (live && x[n]) b = load_x(x[n] + piece * PIECE + i * 8);
                u32 b0 = b.word[0], b1 = b.word[1], b2 = b.word[2], b3 = b.word[3];
                if (!FP8) {
                    b0 = permute(b.word[0], b.word[2], 0x5410);
                    b1 = permute(b.word[0], b.word[2], 0x7632);
                    b2 = permute(b.word[1], b.word[3], 0x5410);
                    b3 = permute(b.word[1], b.word[3], 0x7632);
                }
#pragma unroll
                for (int m = 0; m < TILES_M; m++) {
                    const Piece &low = from.w[u][m][0], &high = from.w[u][m][1];
                    if (FP8) {
                        u32 l0 = low.word[2 * i % 4], l1 = low.word[(2 * i + 1) % 4];
                        u32 h0 = high.word[2 * i % 4], h1 = high.word[(2 * i + 1) % 4];
                        multiply(to[m][n], expand_fp8<false>(l0), expand_fp8<false>(h0),
                                 expand_fp8<true>(l0), expand_fp8<true>(h0), b0, b1);
                        multiply(to[m][n], expand_fp8<false>(l1), expand_fp8<false>(h1),
                                 expand_fp8<true>(l1), expand_fp8<true>(h1), b2, b3);
                    } else {
                        u32 wl = low.word[i], wh = high.word[i];
                        u32 ol = offset[m][0], oh = offset[m][1];
                        u32 a[8] = {expand_int4<0>(wl, ol), expand_int4<0>(wh, oh),
                                    expand_int4<1>(wl, ol), expand_int4<1>(wh, oh),
                                    expand_int4<2>(wl, ol), expand_int4<2>(wh, oh),
                                    expand_int4<3>(wl, ol), expand_int4<3>(wh, oh)};
                        if (SCALES == 2)
#pragma unroll
                            for (int j = 0; j < 8; j++)
                                a[j] = fma2(a[j], factor[m][j % 2], MINUS_ZERO);
                        multiply(to[m][n], a[0], a[1], a[2], a[3], b0, b1);
                        multiply(to[m][n], a[4], a[5], a[6], a[7], b2, b3);
                    }
                }
            }
        }
        if (SCALES == 1)
#pragma unroll
            for (int m = 0; m < TILES_M; m++)
#pragma unroll
                for (int n = 0; n < TILES_N; n++)
#pragma unroll
                    for (int i = 0; i < 4; i++)
                        sums[m][n][i] += chunk[m][n][i] * from.scale[u][m][i / 2];
    }
}

// x [rows, INPUTS]. out is bfloat16 [rows, OUTPUTS], or float32 [SPLITS, rows, OUTPUTS] if SPLITS > 1.
// `codes` has 2 * OUTPUTS rows if GATED, those of the gate first.
extern "C" __global__ void __launch_bounds__(WARPS * 32, BLOCKS)
stored_few_rows(const bf16* x, const u8* codes, const void* scales, const u8* zeros,
                const bf16* bias, void* out, int rows) {
    __shared__ float parts[WARPS][TILES_M * TILES_N][4][32];
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, group = lane / 4;
    const int n0 = blockIdx.x / SPLITS * COLUMNS, part = blockIdx.x % SPLITS;
    const int begin = part * PART_STEPS, end = min(begin + PART_STEPS, STEPS);

    const Weights weights{codes, scales, zeros, n0 + group};
    Step steps[2];
    if (begin < end) load_step(steps[0], weights, begin);
    if (AHEAD) fetch_ahead(codes, n0, begin);
    u32 row_zero[TILES_M][2] = {};
    if (ZEROS && !SCALES)
#pragma unroll
        for (int m = 0; m < TILES_M; m++)
#pragma unroll
            for (int half = 0; half < 2; half++)
                row_zero[m][half] = zeros[weights.row + tile_row(m, half)];
    pdl_wait();
    pdl_launch_dependents();
    const bf16* x_rows[TILES_N];
#pragma unroll
    for (int n = 0; n < TILES_N; n++)
        x_rows[n] = n * 8 + group < rows ? x + (u64)(n * 8 + group) * INPUTS : nullptr;
    Sums sums = {};
#pragma unroll 2
    for (int step = begin; step < end; step += 2) {
        if (step + 1 < end) load_step(steps[1], weights, step + 1);
        multiply_step(sums, steps[0], x_rows, row_zero, step);
        if (step + 2 < end) load_step(steps[0], weights, step + 2);
        if (step + 1 < end) multiply_step(sums, steps[1], x_rows, row_zero, step + 1);
    }
#pragma unroll
    for (int m = 0; m < TILES_M; m++)
#pragma unroll
        for (int n = 0; n < TILES_N; n++)
#pragma unroll
            for (int i = 0; i < 4; i++) parts[warp][m * TILES_N + n][i][lane] = sums[m][n][i];
    __syncthreads();
    for (int mn = warp; mn < TILES_M * TILES_N; mn += WARPS) {
        const int m = mn / TILES_N, place = mn % TILES_N * 8 + lane % 4 * 2;
        const int row = weights.row + tile_row(m, 0), other = weights.row + tile_row(m, 1);
        float sum[4] = {};
#pragma unroll
        for (int i = 0; i < 4; i++)
            for (int w = 0; w < WARPS; w++) sum[i] += parts[w][mn][i][lane];
        if (!SCALES) {
            float low = load_scale(scales, row / SHARED_ROWS);
            float high = load_scale(scales, other / SHARED_ROWS);
            sum[0] *= low, sum[1] *= low, sum[2] *= high, sum[3] *= high;
        }
        if (HAS_BIAS) {
            float low = from_bf16(bias[row]), high = from_bf16(bias[other]);
            sum[0] += low, sum[1] += low, sum[2] += high, sum[3] += high;
        }
        for (int i = 0; i < 2; i++) {
            if (place + i >= rows) continue;
            if (SPLITS > 1) {
                float* to = (float*)out + ((u64)part * rows + place + i) * OUTPUTS + row;
                to[0] = sum[i];
                to[8] = sum[i + 2];
            } else {
                bf16* to = (bf16*)out + (u64)(place + i) * OUTPUTS + row;
                to[0] = to_bf16(GATED ? activate(sum[i], sum[i + 2]) : sum[i]);
                if (!GATED) to[8] = to_bf16(sum[i + 2]);
            }
        }
    }
}
