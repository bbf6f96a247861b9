// One product of a layer's experts in bfloat16 for many rows, on Hopper.
//
// A program computes a tile of at most 128 sorted pairs of one expert by 256 weight rows, which are
// the matrix instruction's left operand. Weights and x come through a ring in shared memory. The
// instruction computes the next multiple of 32 pairs.
//
// Sums run over ascending chunks of 64 columns within one program: results repeat bit for bit.
//
// Macros: GATED, HAS_BIAS (0 or 1); INTERLEAVED (gate and up rows take turns, else all gate rows come
// first); ACTIVATION (0 SiLU, 1 GELU, 2 clamped SwiGLU); INPUTS and OUTPUTS, columns of both sides;
// TOP_K.
#include "expert_arithmetic.cuh"

typedef unsigned char u8;
constexpr int GROUPS = 2, TILES = 2;  // warp groups, and 64 weight rows at a time of each
constexpr int THREADS = GROUPS * 128, MOST_ROWS = 128;
constexpr int ROWS = GATED ? 2 * OUTPUTS : OUTPUTS;  // weight rows of an expert
constexpr int WEIGHT_ROWS = GROUPS * TILES * 64;  // of a program
constexpr int COLUMNS = GATED ? WEIGHT_ROWS / 2 : WEIGHT_ROWS;  // outputs of a program
constexpr int BLOCKS = (OUTPUTS + COLUMNS - 1) / COLUMNS;
constexpr int CHUNKS = (INPUTS + 63) / 64;
constexpr int OUT_ROW = OUTPUTS;  // columns of a row of results in memory
constexpr int PITCH = COLUMNS * 2 + 16;  // bytes of a row of results on its way to memory
constexpr int RING = 229376, WEIGHT_BYTES = WEIGHT_ROWS * 128;  // of a chunk
static_assert(INPUTS % 8 == 0 && OUTPUTS % 8 == 0, "copies of 16 bytes");

// The ring for N pairs: a slot holds a chunk of the weights and of x.
template <int N> struct Ring {
    static constexpr int SLOT = WEIGHT_BYTES + N * 128;
    static constexpr int SLOTS = RING / SLOT, AHEAD = SLOTS - 2;  // chunks on their way
};

// Copies 16 bytes, or writes zeros.
__device__ __forceinline__ void copy_async(u32 to, const void* from, bool live) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;"
                 ::"r"(to), "l"((u64)from), "r"(live ? 16 : 0) : "memory");
}
__device__ __forceinline__ void copy_commit() {
    asm volatile("cp.async.commit_group;" ::: "memory");
}
template <int LATEST> __device__ __forceinline__ void copy_wait() {
    asm volatile("cp.async.wait_group %0;" ::"n"(LATEST) : "memory");
}

#define D16_0 "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15"
#define D16_1 "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31"
#define D16_2 "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47"
#define D16_3 "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63"
#define D16(d, i) F4(d, i), F4(d, i + 4), F4(d, i + 8), F4(d, i + 12)
#define PRODUCT(n, registers, a, b, add) \
    "{.reg .pred p; setp.ne.b32 p, %" #add ", 0;" \
    "wgmma.mma_async.sync.aligned.m64n" #n "k16.f32.bf16.bf16 {" registers "}, %" #a ", %" #b \
    ", p, 1, 1, 0, 0;}"
#define INPUT "l"(matrix_descriptor(a, 16)), "l"(matrix_descriptor(b, 16)), "r"(add)

// d = (add ? d : 0) + a [64 x 16] * b^T, b [n x 16], both in shared memory.
__device__ __forceinline__ void product(float (&d)[16], u32 a, u32 b, int add) {
    asm volatile(PRODUCT(32, D16_0, 16, 17, 18) : D16(d, 0) : INPUT);
}
__device__ __forceinline__ void product(float (&d)[32], u32 a, u32 b, int add) {
    asm volatile(PRODUCT(64, D16_0 ", " D16_1, 32, 33, 34) : D16(d, 0), D16(d, 16) : INPUT);
}
__device__ __forceinline__ void product(float (&d)[48], u32 a, u32 b, int add) {
    asm volatile(PRODUCT(96, D16_0 ", " D16_1 ", " D16_2, 48, 49, 50)
                 : D16(d, 0), D16(d, 16), D16(d, 32) : INPUT);
}
__device__ __forceinline__ void product(float (&d)[64], u32 a, u32 b, int add) {
    asm volatile(PRODUCT(128, D16_0 ", " D16_1 ", " D16_2 ", " D16_3, 64, 65, 66)
                 : D16(d, 0), D16(d, 16), D16(d, 32), D16(d, 48) : INPUT);
}

// A tile's pairs, for the whole program.
struct Tile {
    int x_rows[MOST_ROWS];  // of x
    int places[MOST_ROWS];  // of the second product's results
    float weights[MOST_ROWS];
};

// A weight row, counted from the expert's first, for row r of the program's. Gate and up rows take
// turns by eights, so that one thread gets both of an output.
__device__ __forceinline__ int weight_row(int block, int r) {
    if (!GATED) return block * COLUMNS + r;
    const int output = block * COLUMNS + r / 16 * 8 + r % 8, up = r / 8 % 2;
    return INTERLEAVED ? 2 * output + up : output + up * OUTPUTS;
}
__device__ __forceinline__ bool weight_row_is_live(int block, int r) {
    return block * COLUMNS + (GATED ? r / 16 * 8 + r % 8 : r) < OUTPUTS;
}

// Starts the copies of a chunk. A thread copies the same 16 bytes of 128 of every 32nd row.
template <int N>
__device__ __forceinline__ void load_chunk(u32 slot, const u8* x, const u32 (&offsets)[4],
                                           const u8* w, u32 live, int chunk) {
    if (chunk < CHUNKS) {
        const int piece = threadIdx.x % 8, first = threadIdx.x / 8;
        const bool inside = chunk * 64 + piece * 8 < INPUTS;
        const u32 to = slot + first * 128 + (piece ^ (first % 8)) * 16;
        const int at = inside ? chunk * 128 + piece * 16 : 0;
#pragma unroll
        for (int i = 0; i < WEIGHT_ROWS / 32; i++) {
            const bool here = inside && (live >> i & 1);
            const int step = GATED ? (INTERLEAVED ? 32 : 16) : 32;  // weight rows in 32 of ours
            copy_async(to + i * 4096, w + (here ? (u64)(i * step) * (INPUTS * 2) + at : 0), here);
        }
#pragma unroll
        for (int i = 0; i < N / 32; i++)
            copy_async(to + WEIGHT_BYTES + i * 4096, x + offsets[i] + at, inside);
    }
    copy_commit();
}

// d [TILES][N / 2]: this warp group's weight rows times N rows of x.
template <int N>
__device__ __forceinline__ void multiply(float (&d)[TILES][N / 2], u32 ring, const u8* x,
                                         const u8* w, u32 live, const Tile& tile) {
    typedef Ring<N> Ring;
    const int group = __shfl_sync(~0u, threadIdx.x / 128, 0);
    u32 offsets[4];
#pragma unroll
    for (int i = 0; i < 4; i++)
        offsets[i] = (u32)tile.x_rows[threadIdx.x / 8 + 32 * i] * (INPUTS * 2);
#pragma unroll
    for (int chunk = 0; chunk < Ring::AHEAD; chunk++)
        load_chunk<N>(ring + chunk * Ring::SLOT, x, offsets, w, live, chunk);
#pragma unroll 1
    for (int chunk = 0; chunk < CHUNKS; chunk++) {
        copy_wait<Ring::AHEAD - 1>();
        fence_async_proxy();
        __syncthreads();
        // The products of the chunk before may still run; those of the one before it have ended in
        // both warp groups, so its slot is free.
        load_chunk<N>(ring + (chunk + Ring::AHEAD) % Ring::SLOTS * Ring::SLOT, x, offsets, w, live,
                      chunk + Ring::AHEAD);
        const u32 slot = ring + chunk % Ring::SLOTS * Ring::SLOT;
        wgmma_fence();
#pragma unroll
        for (int step = 0; step < 4; step++)
#pragma unroll
            for (int t = 0; t < TILES; t++)
                product(d[t], slot + (group * TILES + t) * 8192 + step * 32,
                        slot + WEIGHT_BYTES + step * 32, chunk > 0 || step > 0);
        wgmma_commit();
        wgmma_wait<1>();
    }
    wgmma_wait<0>();
#pragma unroll
    for (int t = 0; t < TILES; t++) settle_registers(d[t]);
    __syncthreads();
}

template <int N>
__device__ __forceinline__ void compute(u8* shared, const u8* x, const u8* w, u32 live,
                                        const bf16* bias, bf16* out, const Tile& tile, int begin,
                                        int rows, int block) {
    float d[TILES][N / 2];
    multiply<N>(d, shared_address(shared), x, w, live, tile);
#pragma unroll
    for (int t = 0; t < TILES; t++) {
        // This lane's weight rows are r and r + 8 of the program's.
        const int r = threadIdx.x / 128 * (TILES * 64) + t * 64 + threadIdx.x / 32 % 4 * 16 +
                      threadIdx.x % 32 / 4;
        const int column = GATED ? r / 16 * 8 + r % 8 : r;
        float added[2] = {};
        if (HAS_BIAS)
            for (int half = 0; half < 2; half++)
                if (weight_row_is_live(block, r + half * 8))
                    added[half] = to_float(bias[weight_row(block, r + half * 8)]);
#pragma unroll
        for (int i = 0; i < N / 2; i += 4) {
#pragma unroll
            for (int j = 0; j < 2; j++) {
                // Registers i + j and i + j + 2 are one pair's results of the two weight rows.
                const int pair = i / 4 * 8 + threadIdx.x % 4 * 2 + j;
                const float low = d[t][i + j] + added[0], high = d[t][i + j + 2] + added[1];
                bf16* to = (bf16*)(shared + pair * PITCH) + column;
                if (GATED) {
                    to[0] = to_bf16(activate<ACTIVATION>(low, high));
                } else {
                    to[0] = to_bf16(low * tile.weights[pair]);
                    to[8] = to_bf16(high * tile.weights[pair]);
                }
            }
        }
    }
    __syncthreads();
    // Rows of results leave by 16 bytes: to sorted pairs, or back to the pairs' places.
    constexpr int PIECES_OUT = COLUMNS / 8;
    for (int i = threadIdx.x; i < rows * PIECES_OUT; i += THREADS) {
        const int pair = i / PIECES_OUT, n = block * COLUMNS + i % PIECES_OUT * 8;
        const u64 row = GATED ? begin + pair : tile.places[pair];
        if (n < OUT_ROW)
            *(uint4*)(out + row * OUT_ROW + n) =
                *(const uint4*)(shared + pair * PITCH + i % PIECES_OUT * 16);
    }
}

// x bfloat16 [rows, INPUTS] if GATED, else [pairs, INPUTS], sorted. `tiles` [3, most]: expert, first
// sorted pair and number of pairs. out bfloat16: if GATED [pairs, OUTPUTS], sorted; else
// [TOP_K, rows, OUTPUTS], weighted. `scales` is not read; the kernel for MXFP4 has them.
extern "C" __global__ void __launch_bounds__(THREADS, 1)
experts_many_rows(const bf16* x, const int* order, const int* tiles, const float* weights,
                  const u8* w, const u8* scales, const bf16* bias, bf16* out, int rows, int most) {
    extern __shared__ __align__(1024) u8 memory[];
    __shared__ Tile tile;
    u8* shared = memory + (-shared_address(memory) & 1023);  // swizzling needs the alignment
    pdl_wait();
    pdl_launch_dependents();
    const int index = blockIdx.x / BLOCKS, block = blockIdx.x % BLOCKS;
    const int expert = tiles[index];
    if (expert < 0) return;
    const int begin = tiles[most + index], amount = tiles[2 * most + index];
    for (int i = threadIdx.x; i < MOST_ROWS; i += THREADS) {
        const int position = begin + min(i, amount - 1), pair = order[position];
        tile.x_rows[i] = GATED ? pair / TOP_K : position;
        tile.places[i] = pair % TOP_K * rows + pair / TOP_K;
        tile.weights[i] = weights[pair];
    }
    __syncthreads();
    const int first = threadIdx.x / 8;
    u32 live = 0;
#pragma unroll
    for (int i = 0; i < WEIGHT_ROWS / 32; i++)
        live |= (u32)weight_row_is_live(block, first + 32 * i) << i;
    w += ((u64)expert * ROWS + weight_row(block, first)) * (INPUTS * 2);
    bias += (u64)expert * ROWS;
    const u8* from = (const u8*)x;
    if (amount <= 32) compute<32>(shared, from, w, live, bias, out, tile, begin, amount, block);
    else if (amount <= 64) compute<64>(shared, from, w, live, bias, out, tile, begin, amount, block);
    else if (amount <= 96) compute<96>(shared, from, w, live, bias, out, tile, begin, amount, block);
    else compute<128>(shared, from, w, live, bias, out, tile, begin, amount, block);
}
