// Linear layers of many rows on Hopper, bf16 with float32 sums: out = x W^T, or
// act(x Wg^T) * (x Wu^T), where act is gelu_tanh or silu.
//
// A program computes tiles of ROWS rows of x (the matrix unit's M) by TILE rows of the weights (its
// N), one after the other, on a multiprocessor of its own. One warp streams weights through a ring
// in shared memory, another one x, and two warp groups compute. The two programs of a cluster
// compute neighboring tiles of the same rows: each reads half of x and multicasts it to both. Tiles
// of the same weights run at the same time, so that these are read from memory once.
//
// TILE is chosen so that the tiles fill all multiprocessors a whole number of times: 5,376 outputs
// are 32 tiles of 168, which with 1,024 rows makes 128 tiles for 132 multiprocessors. A gated tile
// has as many gate rows as up rows, in turns of 8: they become neighboring blocks of 8 columns, of
// which one thread holds both.
//
// Results leave through the memory behind the ring and, if that does not suffice, through the slots
// that were read last: of each slot, through the rows of x that only this warp group reads. Such a
// slot is given back only after the copy to global memory has read it, while the next tile is in
// progress. No sum is split.
//
// If weights are STORED in FP8 or 4 bits, three more warps expand them: a copy brings a slot's codes
// to memory of their own, and the warps write them to the slot as bfloat16. A row's scale applies to
// the results, that of a group to the weights.
//
// Defined at compile time: TILE (weight rows of a tile, gate and up rows counted together: 128, 160,
// 168, 176 or 192), GATED and SILU (true or false). For instance
//   nvcc -arch=sm_90a -cubin -DTILE=192 -DGATED=true -DSILU=false linear_many_rows.cu
// With STORED also FP8, ZEROS, FLOAT_SCALES (0 or 1); ROWS_OF_WEIGHTS, of gate or of up if gated;
// GROUPS_OF_ROW, scales of a row; GROUP, columns that share one; SHARED_ROWS, rows that share them.

#include "stored_weights.cuh"

#ifndef STORED
#define STORED 0
#endif

constexpr int CLUSTER = 2, SLOTS = TILE > (STORED ? 128 : 160) ? 3 : 4;
constexpr int SHARED = 232448;  // bytes of shared memory
constexpr int GROUPS = 2;  // warp groups that compute
constexpr int BLOCKS = 2;  // blocks of 64 rows of x in each warp group
constexpr int ROWS = GROUPS * BLOCKS * 64, OUT = GATED ? TILE / 2 : TILE;
constexpr int X_BYTES = ROWS * 128, W_BYTES = TILE * 128, SLOT = X_BYTES + W_BYTES;  // 64 columns
constexpr int RELEASES = 4;  // arrivals per slot of one warp group in each program: its warps
// One copy stores a chunk of CHUNK_ROWS rows by COLUMNS columns. Rows of an odd number of 16-byte
// units cause no bank conflicts as they are; others are swizzled.
constexpr bool SWIZZLED = OUT % 16 == 0;
constexpr int COLUMNS = !SWIZZLED ? OUT : OUT % 64 ? 32 : 64, PITCH = COLUMNS * 2;
constexpr int CHUNK_ROWS = SWIZZLED ? 64 : 32, CHUNK = CHUNK_ROWS * PITCH;
constexpr int ACROSS = OUT / COLUMNS, CHUNKS = BLOCKS * 64 / CHUNK_ROWS * ACROSS;  // of a group
#if STORED
constexpr int CODES = TILE * (FP8 ? 64 : 32), STAGES = 2;  // bytes of a slot's codes; copies of them
#else
constexpr int CODES = 0, STAGES = 0;
#endif
constexpr int BEHIND =  // chunks behind the ring
    (SHARED - 128 - SLOTS * SLOT - STAGES * CODES) / GROUPS / CHUNK;
constexpr int REGION = BLOCKS * 64 * 128;  // bytes of x in a slot that only one warp group reads
constexpr int PER_SLOT = REGION / CHUNK;  // chunks that fit there
constexpr int HELD =  // slots that results occupy
    CHUNKS <= BEHIND ? 0 : (CHUNKS - BEHIND + PER_SLOT - 1) / PER_SLOT;
static_assert(OUT % COLUMNS == 0 && CHUNK % 512 == 0 && HELD <= 2 && HELD < SLOTS, "tile");

struct Ring {
    // A phase of `full` completes with weights and x (2 arrivals and bytes), one of `empty` with
    // all computing warps of the cluster, because each program writes to the slots of both.
    u64 full[SLOTS], empty[SLOTS];
    u64 staged[STAGES + 1];  // codes have come (1 arrival and bytes)
};

struct Schedule {
    int rows, across;  // rows of x; tiles along them
    int tiles, steps;  // tiles, one for a whole cluster; slots per tile
    int first, stride;  // the cluster's tiles are first, first + stride, ...
    int rank;  // of this program in the cluster
    __device__ int row(int tile) const { return tile % across * ROWS; }
    __device__ int column(int tile) const { return (tile / across * CLUSTER + rank) * OUT; }
};

__device__ __forceinline__ void cluster_sync() {
    asm volatile("barrier.cluster.arrive.release.aligned;"
                 "barrier.cluster.wait.acquire.aligned;" ::: "memory");
}
__device__ __forceinline__ u32 cluster_rank() {
    u32 rank;
    asm("mov.u32 %0, %%cluster_ctarank;" : "=r"(rank));
    return rank;
}
// Arrives at the same barrier in another program of the cluster. The scope is no wider than this
// program. That is enough, because the arrival orders only reads by the matrix unit and the copy
// engine, which have ended. A wider scope would wait for all earlier writes to memory.
__device__ __forceinline__ void barrier_arrive_remote(u64& bar, u32 rank, int count) {
    asm volatile(
        "{.reg .b32 there; mapa.shared::cluster.u32 there, %0, %1;"
        "mbarrier.arrive.shared::cluster.b64 _, [there], %2;}" ::"r"(shared_address(&bar)),
        "r"(rank), "r"(count)
        : "memory");
}
// Copies to the same address in both programs of the cluster; each one's barrier counts the bytes.
__device__ __forceinline__ void tma_load_multicast(u32 to, const TensorMap& map, int x, int y,
                                                   u64& bar) {
    asm volatile(
        "cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes"
        ".multicast::cluster [%0], [%1, {%2, %3}], [%4], %5;" ::"r"(to), "l"((u64)&map), "r"(x),
        "r"(y), "r"(shared_address(&bar)), "h"((unsigned short)((1 << CLUSTER) - 1)) : "memory");
}
__device__ __forceinline__ void tma_store_2d(const TensorMap& map, int x, int y, u32 from) {
    asm volatile("cp.async.bulk.tensor.2d.global.shared::cta.tile.bulk_group [%0, {%1, %2}], [%3];"
                 ::"l"((u64)&map), "r"(x), "r"(y), "r"(from) : "memory");
}
// Stores four 8x8 blocks, or two; lane i gives the address of row i % 8 of block i / 8.
__device__ __forceinline__ void stmatrix(u32 at, u32 a, u32 b, u32 c, u32 d) {
    asm volatile("stmatrix.sync.aligned.m8n8.x4.shared.b16 [%0], {%1, %2, %3, %4};"
                 ::"r"(at), "r"(a), "r"(b), "r"(c), "r"(d) : "memory");
}
__device__ __forceinline__ void stmatrix(u32 at, u32 a, u32 b) {
    asm volatile("stmatrix.sync.aligned.m8n8.x2.shared.b16 [%0], {%1, %2};"
                 ::"r"(at), "r"(a), "r"(b) : "memory");
}
#define TEN(t) "%" #t "0, %" #t "1, %" #t "2, %" #t "3, %" #t "4, " \
               "%" #t "5, %" #t "6, %" #t "7, %" #t "8, %" #t "9, "
#define SIXTY TEN() TEN(1) TEN(2) TEN(3) TEN(4) TEN(5)
#define WGMMA(n, add, registers, inputs) \
    "{.reg .pred p; setp.ne.b32 p, %" #add ", 0;" \
    "wgmma.mma_async.sync.aligned.m64n" #n "k16.f32.bf16.bf16 {" registers "}, " inputs \
    ", p, 1, 1, 0, 0;}"

// d = (add ? d : 0) + a [64 x 16] * b^T, b [TILE x 16].
__device__ __forceinline__ void wgmma(float (&d)[64], u64 a, u64 b, int add) {
    asm volatile(WGMMA(128, 66, SIXTY "%60, %61, %62, %63", "%64, %65")
                 : F32(d, 0), F32(d, 32) : "l"(a), "l"(b), "r"(add));
}
__device__ __forceinline__ void wgmma(float (&d)[80], u64 a, u64 b, int add) {
    asm volatile(WGMMA(160, 82, SIXTY TEN(6) "%70, %71, %72, %73, %74, %75, %76, %77, %78, %79",
                       "%80, %81")
                 : F32(d, 0), F32(d, 32), F4(d, 64), F4(d, 68), F4(d, 72), F4(d, 76)
                 : "l"(a), "l"(b), "r"(add));
}
__device__ __forceinline__ void wgmma(float (&d)[84], u64 a, u64 b, int add) {
    asm volatile(WGMMA(168, 86, SIXTY TEN(6) TEN(7) "%80, %81, %82, %83", "%84, %85")
                 : F32(d, 0), F32(d, 32), F4(d, 64), F4(d, 68), F4(d, 72), F4(d, 76), F4(d, 80)
                 : "l"(a), "l"(b), "r"(add));
}
__device__ __forceinline__ void wgmma(float (&d)[88], u64 a, u64 b, int add) {
    asm volatile(WGMMA(176, 90, SIXTY TEN(6) TEN(7) "%80, %81, %82, %83, %84, %85, %86, %87",
                       "%88, %89")
                 : F32(d, 0), F32(d, 32), F4(d, 64), F4(d, 68), F4(d, 72), F4(d, 76), F4(d, 80),
                   F4(d, 84)
                 : "l"(a), "l"(b), "r"(add));
}
__device__ __forceinline__ void wgmma(float (&d)[96], u64 a, u64 b, int add) {
    asm volatile(WGMMA(192, 98, SIXTY TEN(6) TEN(7) TEN(8) "%90, %91, %92, %93, %94, %95", "%96, %97")
                 : F32(d, 0), F32(d, 32), F32(d, 64) : "l"(a), "l"(b), "r"(add));
}

#if STORED
#include "many_rows_expansion.cuh"
#endif

// Loads the weights of all tiles, or this program's half of x for the whole cluster. Called by one
// thread.
template <bool WEIGHTS>
__device__ __forceinline__ void fill_ring(const Schedule& schedule, Ring& ring, u32 base,
                                          const TensorMap& map) {
    u32 number = 0;
    for (int tile = schedule.first; tile < schedule.tiles; tile += schedule.stride)
#pragma unroll 1
        for (int step = 0; step < schedule.steps; ++step, ++number) {
            const u32 slot = number % SLOTS, to = base + slot * SLOT;
            u64& full = ring.full[slot];
            barrier_wait(ring.empty[slot], (number / SLOTS & 1) ^ 1);
            barrier_expect_bytes(full, WEIGHTS ? W_BYTES : X_BYTES);
            if (WEIGHTS)
                tma_load_4d(to + X_BYTES, map, step * 64, 0, 0, schedule.column(tile) / 8, full);
            else  // bytes from the other program may arrive before this one expects them
                tma_load_multicast(to + schedule.rank * (X_BYTES / CLUSTER), map, step * 64,
                                   schedule.row(tile) + schedule.rank * (ROWS / CLUSTER), full);
        }
}

// Returns act(a) * c and act(b) * d. Both activations are x * e / (e + 1), with e = exp(x) for SiLU
// and e = exp(2 * inner) for gelu_tanh. Special functions are the bottleneck, so both share one
// reciprocal. The exponents are clamped to keep (e + 1) * (f + 1) finite.
__device__ __forceinline__ u32 gated_pair(float a, float b, float c, float d) {
    constexpr float FIRST = 1.4426950408889634f * (SILU ? 1.0f : 2.0f * 0.7978845608028654f);
    constexpr float CUBIC = SILU ? 0.0f : FIRST * 0.044715f;
    const float e = exp2_fast(fminf(a * (FIRST + CUBIC * a * a), 60.0f));
    const float f = exp2_fast(fminf(b * (FIRST + CUBIC * b * b), 60.0f));
    float both;
    asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(both) : "f"((e + 1.0f) * (f + 1.0f)));
    return pack_bf16(a * c * (e * (both * (f + 1.0f))), b * d * (f * (both * (e + 1.0f))));
}

// Address in shared memory of this warp group's i-th chunk of results, `number` steps after the
// start.
__device__ __forceinline__ u32 chunk_address(u32 base, int group, u32 number, int i) {
    if (i < BEHIND) return base + SLOTS * SLOT + (group * min(BEHIND, CHUNKS) + i) * CHUNK;
    i -= BEHIND;
    return base + (number - 1 - i / PER_SLOT) % SLOTS * SLOT + group * REGION +
           i % PER_SLOT * CHUNK;
}

// Two neighboring results of one block of 64 rows, as word `i`. Every 8 columns are two words, of
// rows r and r + 8.
__device__ __forceinline__ u32 result_pair(const float (&d)[TILE / 2], int i) {
    if (!GATED) return pack_bf16(d[i * 2], d[i * 2 + 1]);
    const int at = i / 2 * 8 + i % 2 * 2;
    return gated_pair(d[at], d[at + 1], d[(at + 4) % (TILE / 2)], d[(at + 5) % (TILE / 2)]);
}

// Writes this warp group's results to shared memory that is no longer read.
__device__ __forceinline__ void stage_results(const float (&d)[BLOCKS][TILE / 2], u32 base,
                                              int group, u32 number, int live) {
    // Read the thread's index again: otherwise the compiler computes addresses before the products
    // and takes registers from them.
    u32 t;
    asm volatile("mov.u32 %0, %%tid.x;" : "=r"(t));
    const u32 lane = t % 32, warp = t / 32 % 4;
    const u32 row = warp * 16 % CHUNK_ROWS + lane % 16;
    const u32 mix = !SWIZZLED ? 0 : COLUMNS == 64 ? row % 8 * 16 : row / 2 % 4 * 16;
    const u32 half = lane / 16 * 16 ^ mix, first = row * PITCH;
#pragma unroll
    for (int b = 0; b < BLOCKS; ++b) {
        if (b * 64 >= live) break;
        const int down = (b * 64 + warp * 16) / CHUNK_ROWS * ACROSS;
#pragma unroll
        for (int j = 0; j < OUT / 8; j += 2) {
            const u32 to = chunk_address(base, group, number, down + j / (COLUMNS / 8)) + first;
            const u32 at = j % (COLUMNS / 8) * 16;
            if (j + 1 < OUT / 8)
                stmatrix(to + (SWIZZLED ? at ^ half : at + half), result_pair(d[b], 2 * j),
                         result_pair(d[b], 2 * j + 1), result_pair(d[b], (2 * j + 2) % (OUT / 4)),
                         result_pair(d[b], (2 * j + 3) % (OUT / 4)));
            else
                stmatrix(to + at, result_pair(d[b], 2 * j), result_pair(d[b], 2 * j + 1));
        }
    }
    fence_async_proxy();
}

// Copies this warp group's results from shared to global memory.
__device__ __forceinline__ void store_results(const Schedule& schedule, int tile, int group,
                                              u32 base, u32 number, const TensorMap& out) {
    for (int i = 0; i < CHUNKS; ++i)
        tma_store_2d(out, schedule.column(tile) + i % ACROSS * COLUMNS,
                     schedule.row(tile) + group * (BLOCKS * 64) + i / ACROSS * CHUNK_ROWS,
                     chunk_address(base, group, number, i));
    asm volatile("cp.async.bulk.commit_group;" ::: "memory");
}

// Computes this warp group's half of all tiles.
#if STORED
__device__ __forceinline__ void compute_tiles(const Schedule& schedule, Ring& ring, u32 base,
                                              const TensorMap& out, const Scales& scales) {
#else
__device__ __forceinline__ void compute_tiles(const Schedule& schedule, Ring& ring, u32 base,
                                              const TensorMap& out) {
#endif
    // The shuffle tells the compiler that the value is the same in all lanes of a warp.
    const int group = __shfl_sync(~0u, threadIdx.x / 128, 0), lane = threadIdx.x % 32;
    const bool stores = threadIdx.x % 128 == 0;
    float d[BLOCKS][TILE / 2];
    u32 number = 0;
    for (int tile = schedule.first; tile < schedule.tiles; tile += schedule.stride) {
#pragma unroll 1
        for (int step = 0; step < schedule.steps; ++step, ++number) {
            const u32 slot = number % SLOTS, from = base + slot * SLOT;
            const u64 x = matrix_descriptor(from + group * (BLOCKS * 64 * 128), 16);
            const u64 w = matrix_descriptor(from + X_BYTES, 16);
            barrier_wait(ring.full[slot], number / SLOTS & 1);
            wgmma_fence();
#pragma unroll
            for (int i = 0; i < 4 * BLOCKS; ++i) {
                const int k = i / BLOCKS, b = i % BLOCKS;
                wgmma(d[b], x + b * (64 * 128 / 16) + k * 2, w + k * 2, step > 0 || k > 0);
            }
            wgmma_commit();
            if (step > 0) {
                wgmma_wait<1>();  // the step before has ended; the last HELD slots are kept
                __syncwarp();
                if (step <= schedule.steps - HELD && lane < CLUSTER)
                    barrier_arrive_remote(ring.empty[(number - 1) % SLOTS], lane, 1);
            } else if (number && stores) {
                asm volatile("cp.async.bulk.wait_group.read 0;" ::: "memory");
                for (int held = 1; held <= HELD; ++held)
                    for (int rank = 0; rank < CLUSTER; ++rank)
                        barrier_arrive_remote(ring.empty[(number - held) % SLOTS], rank, RELEASES);
            }
        }
        wgmma_wait<0>();
#pragma unroll
        for (int b = 0; b < BLOCKS; ++b) settle_registers(d[b]);
#if STORED
        if (GROUPS_OF_ROW == 1)
#pragma unroll
            for (int b = 0; b < BLOCKS; ++b) scale_results(d[b], scales, schedule.column(tile));
#endif
        if (HELD == 0) {
            __syncwarp();
            if (lane < CLUSTER) barrier_arrive_remote(ring.empty[(number - 1) % SLOTS], lane, 1);
        }
        sync_warp_group(1 + group);
        stage_results(d, base, group, number,
                      schedule.rows - schedule.row(tile) - group * BLOCKS * 64);
        sync_warp_group(1 + group);
        if (stores) store_results(schedule, tile, group, base, number, out);
    }
    if (stores) asm volatile("cp.async.bulk.wait_group 0;" ::: "memory");
}

extern "C" __global__ void __cluster_dims__(CLUSTER, 1, 1) __launch_bounds__(GROUPS * 128 + 128, 1)
linear_many_rows(const __grid_constant__ TensorMap x, const __grid_constant__ TensorMap weights,
             const __grid_constant__ TensorMap out, int rows, int across, int tiles, int steps
#if STORED
             , const void* scales_of_weights, const u8* zeros_of_weights
#endif
             ) {
    extern __shared__ __align__(1024) unsigned char memory[];
    Ring& ring = *(Ring*)(memory + SHARED - 128);
    const u32 base = shared_address(memory);
    const int t = threadIdx.x;
    pdl_launch_dependents();
    if (base % 1024) asm volatile("trap;");
    if (t == 0) {
        for (int i = 0; i < SLOTS; ++i)
            barrier_init(ring.full[i], 2), barrier_init(ring.empty[i], CLUSTER * GROUPS * RELEASES);
        for (int i = 0; i < STAGES; ++i) barrier_init(ring.staged[i], 1);
        asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
        fence_async_proxy();
    }
    __syncthreads();
    cluster_sync();
    const int first = blockIdx.x / CLUSTER, stride = gridDim.x / CLUSTER, rank = cluster_rank();
    const Schedule schedule{rows, across, tiles, steps, first, stride, rank};
#if STORED
    const Scales scales{scales_of_weights, zeros_of_weights};
#endif
    if (t < GROUPS * 128) {
        // The launch has 168 registers for each thread, which both kinds of warps share anew.
        asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(STORED ? 224 : 240));
        // Earlier launches may still read the output's memory.
        pdl_wait();
#if STORED
        compute_tiles(schedule, ring, base, out, scales);
#else
        compute_tiles(schedule, ring, base, out);
#endif
    } else {
        asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(STORED ? 56 : 24));
#if STORED
        const int thread = t - GROUPS * 128;
        if (thread / 32 != 1)
            expand_weights(schedule, ring, base, weights, scales, thread - (thread < 32 ? 0 : 32));
#else
        if (t == GROUPS * 128) fill_ring<true>(schedule, ring, base, weights);
#endif
        if (t == GROUPS * 128 + 32) {
            pdl_wait();
            fill_ring<false>(schedule, ring, base, x);
        }
    }
    // Neither program may exit while the other may still arrive at its barriers.
    __syncwarp();
    cluster_sync();
}
