// A linear layer of few rows whose weights are stored in FP8 (E4M3) or 4 bits, on Hopper.
//
// One warp of each program streams weights, and the columns of x that go with them, through a ring
// in shared memory; UNITS warps compute. A unit is 16 weight rows, or 8 of the gate and 8 of up. A
// program has one of SPLITS parts of the columns of some units, UNITS of them at a time. With up to
// 16 rows two programs fit a multiprocessor, so that the next launch fills its ring while this one
// ends.
//
// Weights become bfloat16 in registers for the matrix instruction (m16n8k16: 16 weight rows by 8
// rows of x). Columns may be summed in any order as long as x follows, so a lane takes 16
// neighboring columns of a row, four lanes a chunk of 64. No sum is divided among warps, and its
// order depends on SPLITS alone: results repeat bit for bit, and a row's result does not depend on
// the rows beside it.
//
// Where scales apply (SCALES): 0, a row has one: to its sum. 1, a chunk lies in one group: to the
// chunk's sum. 2, groups of 32: to the weights, whose products are rounded to bfloat16.
//
// Macros: FP8, GATED, ZEROS, HAS_BIAS, FLOAT_SCALES (0 or 1); SCALES (0 to 2); SILU (1, or 0 for
// GELU in its tanh approximation); INPUTS and OUTPUTS, columns of both sides; GROUP, columns that
// share a scale; SHARED_ROWS, rows that share scales; UNITS; TILES_N groups of 8 rows of x; DEPTH
// blocks of 128 bytes of a row in a slot of the ring; SLOTS; SPLITS; AHEAD slots that are fetched
// into L2 while x is not there yet.
#include "stored_weights.cuh"

typedef unsigned char u8;
constexpr int BLOCK = FP8 ? 128 : 256;  // columns in 128 bytes
constexpr int CHUNKS = BLOCK / 64;
constexpr int BLOCKS = INPUTS / BLOCK, STEPS = (BLOCKS + DEPTH - 1) / DEPTH;
constexpr int GROUPS = (INPUTS + GROUP - 1) / GROUP;
constexpr int UNIT_OUTPUTS = GATED ? 8 : 16, ALL_UNITS = OUTPUTS / UNIT_OUTPUTS;
constexpr int X_BLOCK = TILES_N * 8 * 128;  // bytes of 64 columns
constexpr int X_BYTES = DEPTH * CHUNKS * X_BLOCK, UNIT_BYTES = DEPTH * 16 * 128;
constexpr int SLOT = X_BYTES + UNITS * UNIT_BYTES;
static_assert(INPUTS % BLOCK == 0 && OUTPUTS % UNIT_OUTPUTS == 0, "whole blocks and units");
static_assert(SPLITS == 1 || !GATED, "parts are added before the activation");
static_assert(SCALES != 1 || GROUP % 64 == 0, "a chunk lies in one group");
static_assert(SCALES != 2 || (!FP8 && GROUP == 32), "two groups in a chunk");

struct __align__(64) Layer {  // stored_stream.py mirrors it
    TensorMap weights, x;
    const void* scales;
    const u8* zeros;
    const bf16* bias;
    void* out;  // bf16 [rows, OUTPUTS], or float [SPLITS, rows, OUTPUTS] if SPLITS > 1
    int rows;
};

__device__ __forceinline__ void multiply(float (&c)[4], u32 a0, u32 a1, u32 a2, u32 a3, u32 b0,
                                         u32 b1) {
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7},"
        " {%8,%9}, {%0,%1,%2,%3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
}
// Loads weights, which are read once, so that data that is read again stays in L2.
__device__ __forceinline__ void tma_load_once(u32 to, const TensorMap& map, int y, int z,
                                              u64& bar) {
    asm volatile(
        "cp.async.bulk.tensor.3d.shared::cluster.global.tile.mbarrier::complete_tx::bytes"
        ".L2::cache_hint [%0], [%1, {%2, %3, %4}], [%5], %6;" ::"r"(to), "l"((u64)&map), "r"(0),
        "r"(y), "r"(z), "r"(shared_address(&bar)), "l"(0x12F0000000000000) : "memory");
}
__device__ __forceinline__ void tma_prefetch_3d(const TensorMap& map, int x, int y, int z) {
    asm volatile("cp.async.bulk.prefetch.tensor.3d.L2.global.tile [%0, {%1, %2, %3}];"
                 ::"l"((u64)&map), "r"(x), "r"(y), "r"(z) : "memory");
}
__device__ __forceinline__ u32 to_bf16(float x) { return pack_bf16(x, 0.0f) & 0xFFFFu; }
__device__ __forceinline__ float activate(float gate, float up) {
    const float inner =
        SILU ? 0.5f * gate : 0.7978845608028654f * (gate + 0.044715f * gate * gate * gate);
    // (1 + tanh(u)) / 2 = 1 - 1 / (exp(2u) + 1) does not overflow to NaN at either end.
    return gate * (1.0f - 1.0f / (exp2_fast(2.0f * 1.4426950408889634f * inner) + 1.0f)) * up;
}

__device__ __forceinline__ void load_words(u32 (&to)[1], u32 at) {
    asm volatile("ld.shared.u32 %0, [%1];" : "=r"(to[0]) : "r"(at));
}
__device__ __forceinline__ void load_words(u32 (&to)[2], u32 at) {
    asm volatile("ld.shared.v2.u32 {%0, %1}, [%2];" : "=r"(to[0]), "=r"(to[1]) : "r"(at));
}
__device__ __forceinline__ void load_words(u32 (&to)[4], u32 at) {
    asm volatile("ld.shared.v4.u32 {%0, %1, %2, %3}, [%4];"
                 : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3]) : "r"(at));
}

// Scales and zeros of the groups of a block, for two weight rows.
constexpr int BLOCK_GROUPS = GROUP < BLOCK ? BLOCK / GROUP : 1;
constexpr int SCALE_WORDS = SCALES && !FP8 ? BLOCK_GROUPS * (FLOAT_SCALES ? 4 : 2) / 4 : 1;
constexpr int ZERO_WORDS = ZEROS && SCALES ? (BLOCK_GROUPS + 3) / 4 : 1;
struct BlockScales { u32 scale[2][SCALE_WORDS], zero[2][ZERO_WORDS]; };

template <int WORDS>
__device__ __forceinline__ void load_global(u32 (&to)[WORDS], const void* from) {
#pragma unroll
    for (int i = 0; i < WORDS; i += WORDS % 4 ? WORDS : 4) {
        const u32* at = (const u32*)from + i;
        if (WORDS % 4 == 0)
            asm("ld.global.nc.v4.u32 {%0, %1, %2, %3}, [%4];" : "=r"(to[i]), "=r"(to[i + 1]),
                "=r"(to[i + 2]), "=r"(to[i + 3]) : "l"((u64)at));
        else if (WORDS == 2)
            asm("ld.global.nc.v2.u32 {%0, %1}, [%2];" : "=r"(to[i]), "=r"(to[i + 1])
                : "l"((u64)at));
        else
            asm("ld.global.nc.u32 %0, [%1];" : "=r"(to[i]) : "l"((u64)at));
    }
}
__device__ __forceinline__ float load_scale(const void* scales, int at) {
    return FLOAT_SCALES ? ((const float*)scales)[at] : to_float(((const bf16*)scales)[at]);
}
__device__ __forceinline__ void load_scales(BlockScales& to, const Layer& layer,
                                            const int (&rows)[2], int block) {
    if (!SCALES || block >= BLOCKS) return;
#pragma unroll
    for (int half = 0; half < 2; ++half) {
        const int row = rows[half], group = block * BLOCK / GROUP;
        if (FP8) {
            to.scale[half][0] =
                __float_as_uint(load_scale(layer.scales, row / SHARED_ROWS * GROUPS + group));
            continue;
        }
        const u64 at = (u64)row * GROUPS + group;
        load_global(to.scale[half], (const u8*)layer.scales + at * (FLOAT_SCALES ? 4 : 2));
        if (!ZEROS) continue;
        if (BLOCK_GROUPS % 4)
            to.zero[half][0] = *(const unsigned short*)(layer.zeros + at);
        else
            load_global(to.zero[half], layer.zeros + at);
    }
}
// Scale of a group, whose number is known at compile time.
__device__ __forceinline__ float scale_of(const BlockScales& from, int half, int group) {
    if (FP8 || FLOAT_SCALES) return __uint_as_float(from.scale[half][group]);
    const u32 word = from.scale[half][group / 2];
    return group % 2 ? bf16_high(word) : bf16_low(word);
}
// What `expand_int4` adds in a group, of four groups the one after `first` if `next` is 1.
__device__ __forceinline__ u32 offset_of(const BlockScales& from, int half, int first, u32 next) {
    return int4_offset(from.zero[half][first / 4], first % 4 + next);
}

typedef float Sums[TILES_N][4];
struct Lane {
    int group, place;  // of 4 lanes; in it
    int row;  // of the first 8 of a unit
    u32 weights, x;  // first bytes in a unit's first block, and in x's, as they are swizzled
};

// Adds a block's products to the sums.
__device__ __forceinline__ void multiply_block(Sums& sums, const Lane& lane, u32 weights, u32 x,
                                               const BlockScales& scales,
                                               const u32 (&row_offset)[2]) {
    constexpr u32 HALF = GATED ? DEPTH * 1024 : 1024;
#pragma unroll
    for (int q = 0; q < CHUNKS; ++q) {
        u32 w[2][FP8 ? 4 : 2];
        u32 offset[2], factor[2];
#pragma unroll
        for (int half = 0; half < 2; ++half) {
            load_words(w[half], (weights + half * HALF) ^ (q * (FP8 ? 64 : 32)));
            offset[half] = row_offset[half];
            if (SCALES == 1 && ZEROS)
                offset[half] = offset_of(scales, half, q * 64 / GROUP, 0);
            if (SCALES == 2) {
                const u32 odd = lane.place / 2;
                if (ZEROS) offset[half] = offset_of(scales, half, 2 * q, odd);
                if (FLOAT_SCALES) {
                    const float scale = odd ? scale_of(scales, half, 2 * q + 1)
                                            : scale_of(scales, half, 2 * q);
                    factor[half] = pack_bf16(scale, scale);
                } else {
                    factor[half] = permute(scales.scale[half][q % SCALE_WORDS], 0,
                                           odd ? 0x3232 : 0x1010);
                }
            }
        }
        Sums chunk = {};
        Sums& to = SCALES == 1 ? chunk : sums;
#pragma unroll
        for (int i = 0; i < 2; ++i) {
            u32 a[8];
            if (FP8) {
#pragma unroll
                for (int j = 0; j < 2; ++j) {
                    a[4 * j] = expand_fp8<false>(w[0][(2 * i + j) % 4]);
                    a[4 * j + 1] = expand_fp8<false>(w[1][(2 * i + j) % 4]);
                    a[4 * j + 2] = expand_fp8<true>(w[0][(2 * i + j) % 4]);
                    a[4 * j + 3] = expand_fp8<true>(w[1][(2 * i + j) % 4]);
                }
            } else {
#pragma unroll
                for (int half = 0; half < 2; ++half) {
                    a[half] = expand_int4<0>(w[half][i], offset[half]);
                    a[half + 2] = expand_int4<1>(w[half][i], offset[half]);
                    a[half + 4] = expand_int4<2>(w[half][i], offset[half]);
                    a[half + 6] = expand_int4<3>(w[half][i], offset[half]);
                }
                if (SCALES == 2)
#pragma unroll
                    for (int j = 0; j < 8; ++j) a[j] = fma2(a[j], factor[j % 2], MINUS_ZERO);
            }
#pragma unroll
            for (int n = 0; n < TILES_N; ++n) {
                u32 b[4];
                load_words(b, (x + q * X_BLOCK + n * 1024) ^ (i * 16));
                if (FP8) {
                    multiply(to[n], a[0], a[1], a[2], a[3], b[0], b[1]);
                    multiply(to[n], a[4], a[5], a[6], a[7], b[2], b[3]);
                } else {
                    multiply(to[n], a[0], a[1], a[2], a[3], permute(b[0], b[2], 0x5410),
                             permute(b[0], b[2], 0x7632));
                    multiply(to[n], a[4], a[5], a[6], a[7], permute(b[1], b[3], 0x5410),
                             permute(b[1], b[3], 0x7632));
                }
            }
        }
        if (SCALES == 1)
#pragma unroll
            for (int n = 0; n < TILES_N; ++n)
#pragma unroll
                for (int i = 0; i < 4; ++i)
                    sums[n][i] += chunk[n][i] * scale_of(scales, i / 2, q * 64 / GROUP);
    }
}

// Writes the results of a unit.
__device__ __forceinline__ void store_unit(const Layer& layer, const Sums& sums, const Lane& lane,
                                           const int (&rows)[2], int part) {
    float scale[2] = {1.0f, 1.0f}, bias[2] = {};
#pragma unroll
    for (int half = 0; half < 2; ++half) {
        if (!SCALES) scale[half] = load_scale(layer.scales, rows[half] / SHARED_ROWS);
        if (HAS_BIAS) bias[half] = to_float(layer.bias[rows[half]]);
    }
#pragma unroll
    for (int n = 0; n < TILES_N; ++n)
#pragma unroll
        for (int i = 0; i < 2; ++i) {
            const int row = n * 8 + lane.place * 2 + i;
            if (row >= layer.rows) continue;
            const float low = sums[n][i] * scale[0] + bias[0];
            const float high = sums[n][i + 2] * scale[1] + bias[1];
            if (SPLITS > 1) {
                float* to = (float*)layer.out + ((u64)part * layer.rows + row) * OUTPUTS;
                to[rows[0]] = low;
                to[rows[1]] = high;
            } else {
                bf16* to = (bf16*)layer.out + (u64)row * OUTPUTS;
                to[rows[0]] = to_bf16(GATED ? activate(low, high) : low);
                if (!GATED) to[rows[1]] = to_bf16(high);
            }
        }
}

struct Ring { u64 full[SLOTS], empty[SLOTS]; };
static_assert(sizeof(Ring) <= 256, "memory behind the ring");
struct Share {  // of a program
    int first, end;  // its units
    int begin, steps;  // its part of the columns
    int total;  // slots
    __device__ __forceinline__ Share(int part, int place, int places)
        : first((int)((u64)place * ALL_UNITS / places)),
          end((int)((u64)(place + 1) * ALL_UNITS / places)), begin(part * STEPS / SPLITS),
          steps((part + 1) * STEPS / SPLITS - begin),
          total((end - first + UNITS - 1) / UNITS * steps) {}
};

// Fetches the weights of slot i into the ring, or into L2 if AHEAD_OF_RING. Called by a warp.
template <bool AHEAD_OF_RING>
__device__ __forceinline__ void load_weights(const Layer& layer, Ring& ring, u32 base,
                                             const Share& share, int i) {
    const int lane = threadIdx.x % 32, unit = share.first + i / share.steps * UNITS + lane;
    const int block = (share.begin + i % share.steps) * DEPTH;
    const int live = min(UNITS, share.end - unit + lane);
    u64& full = ring.full[i % SLOTS];
    if (!AHEAD_OF_RING && lane == 0) barrier_expect_bytes(full, X_BYTES + live * UNIT_BYTES);
    __syncwarp();
    if (lane >= live) return;
    const u32 to = base + i % SLOTS * SLOT + X_BYTES + lane * UNIT_BYTES;
    if (AHEAD_OF_RING) {
        tma_prefetch_3d(layer.weights, 0, unit * UNIT_OUTPUTS, block);
        if (GATED) tma_prefetch_3d(layer.weights, 0, OUTPUTS + unit * UNIT_OUTPUTS, block);
    } else {
        tma_load_once(to, layer.weights, unit * UNIT_OUTPUTS, block, full);
        if (GATED)
            tma_load_once(to + UNIT_BYTES / 2, layer.weights, OUTPUTS + unit * UNIT_OUTPUTS, block,
                          full);
    }
}
__device__ __forceinline__ void load_x(const Layer& layer, Ring& ring, u32 base,
                                       const Share& share, int i) {
    if (threadIdx.x % 32 == 0)
        tma_load_3d(base + i % SLOTS * SLOT, layer.x, 0, 0,
                    (share.begin + i % share.steps) * DEPTH * CHUNKS, ring.full[i % SLOTS]);
}
// Scales of a slot come to L2 with its weights: the computing warps load them one block early.
__device__ __forceinline__ void fetch_scales(const Layer& layer, const Share& share, int i) {
    if (!SCALES || FP8) return;
    const int first = share.first + i / share.steps * UNITS;
    const int rows = min(UNITS, share.end - first) * 16;
    const int group = (share.begin + i % share.steps) * DEPTH * BLOCK / GROUP;
    for (int at = threadIdx.x % 32; at < rows; at += 32) {
        const int row = GATED ? first * 8 + at / 2 + at % 2 * OUTPUTS : first * 16 + at;
        const u64 place = (u64)row * GROUPS + group;
        prefetch_l2((const u8*)layer.scales + place * (FLOAT_SCALES ? 4 : 2));
        if (ZEROS) prefetch_l2(layer.zeros + place);
    }
}
__device__ __forceinline__ void fill_ring(const Layer& layer, Ring& ring, u32 base,
                                          const Share& share) {
    const int early = min(share.total, SLOTS);
    for (int i = 0; i < early; ++i) {
        load_weights<false>(layer, ring, base, share, i);
        fetch_scales(layer, share, i);
    }
    for (int i = early; i < min(share.total, SLOTS + AHEAD); ++i)
        load_weights<true>(layer, ring, base, share, i);
    pdl_wait();
    for (int i = 0; i < early; ++i) load_x(layer, ring, base, share, i);
    for (int i = early; i < share.total; ++i) {
        barrier_wait(ring.empty[i % SLOTS], i / SLOTS - 1 & 1);
        load_weights<false>(layer, ring, base, share, i);
        load_x(layer, ring, base, share, i);
        fetch_scales(layer, share, i);
    }
}

extern "C" __global__ void __launch_bounds__((UNITS + 1) * 32, TILES_N > 2 ? 1 : 2)
stored_stream(const __grid_constant__ Layer layer) {
    extern __shared__ __align__(1024) unsigned char memory[];
    Ring& ring = *(Ring*)(memory + SLOTS * SLOT);
    const u32 base = shared_address(memory);
    const int warp = threadIdx.x / 32, part = blockIdx.x % SPLITS;
    const Share share(part, blockIdx.x / SPLITS, gridDim.x / SPLITS);
    pdl_launch_dependents();
    if (base % 1024) asm volatile("trap;");
    if (threadIdx.x == 0) {
        for (int i = 0; i < SLOTS; ++i)
            barrier_init(ring.full[i], 1), barrier_init(ring.empty[i], UNITS);
        asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
        fence_async_proxy();
    }
    __syncthreads();
    if (warp == UNITS) {
        fill_ring(layer, ring, base, share);
        return;
    }
    Lane lane;
    lane.group = threadIdx.x % 32 / 4, lane.place = threadIdx.x % 4;
    // Which weight row a group of lanes takes is free. These have no bank in common.
    lane.row = FP8 ? lane.group / 2 + lane.group % 2 * 4 : lane.group % 4 * 2 + lane.group / 4;
    const int chunk = FP8 ? lane.place : lane.place / 2;
    lane.weights = X_BYTES + warp * UNIT_BYTES + lane.row * 128 + (chunk ^ lane.row) * 16 +
                   (FP8 ? 0 : lane.place % 2 * 8);
    lane.x = lane.group * 128 + (lane.place * 2 ^ lane.group) * 16;
    int number = 0;
    for (int first = share.first; first < share.end; first += UNITS) {
        const int unit = first + warp;
        const bool live = unit < share.end;
        const int row = min(unit, share.end - 1) * UNIT_OUTPUTS + lane.row;
        const int rows[2] = {row, GATED ? row + OUTPUTS : row + 8};
        u32 row_offset[2];
#pragma unroll
        for (int half = 0; half < 2; ++half)
            row_offset[half] = int4_offset(ZEROS && !SCALES ? layer.zeros[rows[half]] : MIDDLE);
        Sums sums = {};
        BlockScales scales = {}, next = {};
        load_scales(next, layer, rows, share.begin * DEPTH);
        for (int step = share.begin; step < share.begin + share.steps; ++step, ++number) {
            const u32 slot = base + number % SLOTS * SLOT;
            barrier_wait(ring.full[number % SLOTS], number / SLOTS & 1);
#pragma unroll
            for (int d = 0; d < DEPTH; ++d) {
                scales = next;
                load_scales(next, layer, rows, step * DEPTH + d + 1);
                // Blocks beyond the last are zero in x.
                if (live)
                    multiply_block(sums, lane, slot + lane.weights + d * (GATED ? 1024 : 2048),
                                   slot + lane.x + d * CHUNKS * X_BLOCK, scales, row_offset);
            }
            barrier_arrive_warp(ring.empty[number % SLOTS]);
        }
        if (live) store_unit(layer, sums, lane, rows, part);
    }
}
