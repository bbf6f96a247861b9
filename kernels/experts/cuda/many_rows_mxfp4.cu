// One product of a layer's experts in MXFP4 for many rows, on Hopper.
//
// A program computes a tile of at most 128 sorted pairs of one expert by 256 weight rows. Two warp
// groups take weight rows as the matrix instruction's left operand, from registers, where they are
// expanded just before; codes and x come through a ring in shared memory, and all scales are there
// from the start. A lane takes 16 consecutive bytes of a weight row, so the columns of x are
// permuted (`place_of`). The instruction computes the next multiple of 32 pairs.
//
// Sums run over ascending chunks of 128 columns within one program: results repeat bit for bit.
//
// Macros: GATED (gate and up rows take turns), HAS_BIAS (0 or 1); ACTIVATION (2: clamped SwiGLU);
// INPUTS and OUTPUTS, columns of both sides; TOP_K.
#include "expert_arithmetic.cuh"

typedef unsigned char u8;
constexpr int GROUPS = 2, TILES = 2;  // warp groups, and 64 weight rows at a time of each
constexpr int THREADS = GROUPS * 128, MOST_ROWS = 128;
constexpr int ROWS = GATED ? 2 * OUTPUTS : OUTPUTS;  // weight rows of an expert
constexpr int WEIGHT_ROWS = GROUPS * TILES * 64;  // of a program
constexpr int BLOCKS = (ROWS + WEIGHT_ROWS - 1) / WEIGHT_ROWS;
constexpr int PIECES = INPUTS / 32;  // of 16 bytes in a weight row
constexpr int CHUNKS = (PIECES + 3) / 4;
constexpr int X_ROW = CHUNKS * 128;  // columns of a row of x in memory
constexpr int COLUMNS = GATED ? WEIGHT_ROWS / 2 : WEIGHT_ROWS;  // outputs of a program
constexpr int OUT_ROW = GATED ? BLOCKS * 128 : OUTPUTS;  // columns of a row of results in memory
constexpr int PITCH = COLUMNS * 2 + 16;  // bytes of a row of results on its way to memory
constexpr int RING = 204800, WEIGHT_BYTES = WEIGHT_ROWS * 64;  // of a chunk
static_assert(ROWS % 16 == 0 && OUTPUTS % 8 == 0, "scales and results are copied by 16 bytes");

// The ring for N pairs: a slot holds a chunk of x, in two halves of 64 columns, and of the codes.
template <int N> struct Ring {
    static constexpr int X_BYTES = N * 256, SLOT = X_BYTES + WEIGHT_BYTES;
    static constexpr int SLOTS = RING / SLOT, AHEAD = SLOTS - 2;  // chunks on their way
};

// Place of column c (0 to 127) of a chunk: the order in which lanes hold expanded weights.
__device__ __forceinline__ int place_of(int c) {
    int lane = c / 32, word = c % 32 / 8, code = c % 8;
    return 16 * (2 * word + code % 4 / 2) + 2 * lane + code / 4 + 8 * (code % 2);
}
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
    "wgmma.mma_async.sync.aligned.m64n" #n "k16.f32.bf16.bf16 {" registers "}, {" a "}, %" #b \
    ", p, 1, 1, 0;}"
#define INPUT(a, b, add) "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(add)

// d = (add ? d : 0) + a [64 x 16] * b^T, b [n x 16] in shared memory at `at`.
__device__ __forceinline__ void product(float (&d)[16], const u32 (&a)[4], u32 at, int add) {
    u64 b = matrix_descriptor(at, 16);
    asm volatile(PRODUCT(32, D16_0, "%16, %17, %18, %19", 20, 21)
                 : D16(d, 0) : INPUT(a, b, add));
}
__device__ __forceinline__ void product(float (&d)[32], const u32 (&a)[4], u32 at, int add) {
    u64 b = matrix_descriptor(at, 16);
    asm volatile(PRODUCT(64, D16_0 ", " D16_1, "%32, %33, %34, %35", 36, 37)
                 : D16(d, 0), D16(d, 16) : INPUT(a, b, add));
}
__device__ __forceinline__ void product(float (&d)[48], const u32 (&a)[4], u32 at, int add) {
    u64 b = matrix_descriptor(at, 16);
    asm volatile(PRODUCT(96, D16_0 ", " D16_1 ", " D16_2, "%48, %49, %50, %51", 52, 53)
                 : D16(d, 0), D16(d, 16), D16(d, 32) : INPUT(a, b, add));
}
__device__ __forceinline__ void product(float (&d)[64], const u32 (&a)[4], u32 at, int add) {
    u64 b = matrix_descriptor(at, 16);
    asm volatile(PRODUCT(128, D16_0 ", " D16_1 ", " D16_2 ", " D16_3, "%64, %65, %66, %67", 68, 69)
                 : D16(d, 0), D16(d, 16), D16(d, 32), D16(d, 48) : INPUT(a, b, add));
}

// A tile's pairs, for the whole program.
struct Tile {
    int x_rows[MOST_ROWS];  // of x
    int places[MOST_ROWS];  // of the second product's results
    float weights[MOST_ROWS];
};

__device__ __forceinline__ u32 word_of(const uint4& v, int i) {
    return i == 0 ? v.x : i == 1 ? v.y : i == 2 ? v.z : v.w;
}
// Weight rows 2 * u and 2 * u + 1 of a program belong to one lane. This is the lane's first u; that
// of the next 64 weight rows is 32 more.
__device__ __forceinline__ int first_u() {
    return threadIdx.x / 128 * (TILES * 32) + threadIdx.x / 32 % 4 * 8 + threadIdx.x % 32 / 4;
}

// Starts the copies of a chunk. `w` is the program's first weight row, of which `left` follow.
template <int N>
__device__ __forceinline__ void load_chunk(u32 slot, const bf16* x,
                                           const u32 (&offsets)[MOST_ROWS / 16], const u8* w,
                                           int left, int chunk) {
    if (chunk < CHUNKS) {
        const int piece = threadIdx.x % 16, first = threadIdx.x / 16;
#pragma unroll
        for (int i = 0; i < N / 16; i++) {
            const int row = first + 16 * i;
            copy_async(slot + piece / 8 * (N * 128) + row * 128 + ((piece % 8) ^ (row % 8)) * 16,
                       (const u8*)x + offsets[i] + chunk * 256 + piece * 16, true);
        }
#pragma unroll
        for (int i = 0; i < WEIGHT_ROWS * 4 / THREADS; i++) {
            const int row = threadIdx.x / 4 + i * (THREADS / 4), at = chunk * 4 + threadIdx.x % 4;
            const int from = min(row, left - 1) * PIECES + min(at, PIECES - 1);
            // Rows of the same parity lie together, so that lanes read without bank conflicts.
            const int place = row % 2 * (WEIGHT_ROWS / 2) + row / 2;
            copy_async(slot + Ring<N>::X_BYTES + place * 64 + threadIdx.x % 4 * 16,
                       w + (u64)from * 16, at < PIECES);
        }
    }
    copy_commit();
}

// d [TILES][N / 2]: this warp group's weight rows times N rows of x.
template <int N>
__device__ __forceinline__ void multiply(float (&d)[TILES][N / 2], u8* shared, const bf16* x,
                                         const u8* w, const u8* scales, int left,
                                         const Tile& tile) {
    typedef Ring<N> Ring;
    const u32 ring = shared_address(shared);
    const u8* own_scales = shared + RING;
    u32 offsets[MOST_ROWS / 16];
#pragma unroll
    for (int i = 0; i < MOST_ROWS / 16; i++)
        offsets[i] = (u32)tile.x_rows[threadIdx.x / 16 + 16 * i] * (X_ROW * 2);
    for (int i = threadIdx.x; i < min(left, WEIGHT_ROWS) * PIECES / 16; i += THREADS)
        copy_async(ring + RING + i * 16, scales + i * 16, true);
#pragma unroll
    for (int chunk = 0; chunk < Ring::AHEAD; chunk++)
        load_chunk<N>(ring + chunk * Ring::SLOT, x, offsets, w, left, chunk);
    u32 a[2][TILES][4];
#pragma unroll 1
    for (int chunk = 0; chunk < CHUNKS; chunk++) {
        copy_wait<Ring::AHEAD - 1>();
        fence_async_proxy();
        __syncthreads();
        // The last product of the chunk before may still run; those of the one before it have ended
        // in both warp groups, so its slot is free.
        load_chunk<N>(ring + (chunk + Ring::AHEAD) % Ring::SLOTS * Ring::SLOT, x, offsets, w, left,
                      chunk + Ring::AHEAD);
        const u32 slot = ring + chunk % Ring::SLOTS * Ring::SLOT;
        uint4 words[TILES][2];
        u32 factors[TILES][2];
        const int piece = min(chunk * 4 + (int)threadIdx.x % 4, PIECES - 1);
#pragma unroll
        for (int t = 0; t < TILES; t++)
#pragma unroll
            for (int half = 0; half < 2; half++) {
                const int u = first_u() + t * 32;
                words[t][half] = load_shared(slot + Ring::X_BYTES + threadIdx.x % 4 * 16 +
                                             (half * (WEIGHT_ROWS / 2) + u) * 64);
                const u32 scale = own_scales[(2 * u + half) * PIECES + piece];
                factors[t][half] = ((scale + 62) << 7) * 0x10001u;
            }
#pragma unroll
        for (int step = 0; step < 8; step++) {
#pragma unroll
            for (int t = 0; t < TILES; t++)
#pragma unroll
                for (int i = 0; i < 4; i++)
                    a[step % 2][t][i] = expand(word_of(words[t][i % 2], step / 2),
                                               step % 2 * 2 + i / 2, factors[t][i % 2]);
            wgmma_fence();
#pragma unroll
            for (int t = 0; t < TILES; t++)
                product(d[t], a[step % 2][t], slot + step / 4 * (N * 128) + step % 4 * 32,
                        chunk > 0 || step > 0);
            wgmma_commit();
            wgmma_wait<1>();
        }
    }
    wgmma_wait<0>();
#pragma unroll
    for (int t = 0; t < TILES; t++) settle_registers(d[t]);
    __syncthreads();
}

template <int N>
__device__ __forceinline__ void compute(u8* shared, const bf16* x, const u8* w, const u8* scales,
                                        const bf16* bias, bf16* out, const Tile& tile, int begin,
                                        int rows, int block) {
    const int left = ROWS - block * WEIGHT_ROWS;  // weight rows from the program's first one on
    float d[TILES][N / 2];
    multiply<N>(d, shared, x, w, scales, left, tile);
#pragma unroll
    for (int t = 0; t < TILES; t++) {
        const int u = first_u() + t * 32;
        const bool live = 2 * u < left;
        float added[2] = {};
        if (HAS_BIAS && live)
            for (int half = 0; half < 2; half++) added[half] = to_float(bias[2 * u + half]);
#pragma unroll
        for (int i = 0; i < N / 2; i += 4) {
#pragma unroll
            for (int j = 0; j < 2; j++) {
                // Registers i + j and i + j + 2 are one pair's results of the two weight rows.
                const int pair = i / 4 * 8 + threadIdx.x % 4 * 2 + j;
                const float low = d[t][i + j] * 18446744073709551616.0f + added[0];  // 2^64
                const float high = d[t][i + j + 2] * 18446744073709551616.0f + added[1];
                if (GATED) {
                    const float h = live ? clamped_swiglu(low, high) : 0.0f;
                    *(bf16*)(shared + pair * PITCH + place_of(u) * 2) = to_bf16(h);
                } else {
                    const float weight = tile.weights[pair];
                    *(u32*)(shared + pair * PITCH + u * 4) = pack_bf16(low * weight, high * weight);
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

// x bfloat16 [rows, X_ROW] if GATED, else [pairs, X_ROW], sorted; columns permuted, zero beyond
// INPUTS. `tiles` [3, most]: expert, first sorted pair and number of pairs. out bfloat16: if GATED
// [pairs, OUT_ROW], sorted, columns permuted; else [TOP_K, rows, OUTPUTS], weighted.
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
    const u64 first = (u64)expert * ROWS + block * WEIGHT_ROWS;
    w += first * (PIECES * 16);
    scales += first * PIECES;
    bias += first;
    if (amount <= 32) compute<32>(shared, x, w, scales, bias, out, tile, begin, amount, block);
    else if (amount <= 64) compute<64>(shared, x, w, scales, bias, out, tile, begin, amount, block);
    else if (amount <= 96) compute<96>(shared, x, w, scales, bias, out, tile, begin, amount, block);
    else compute<128>(shared, x, w, scales, bias, out, tile, begin, amount, block);
}
