// Up to four linear layers with norms between them in one launch, on Hopper, bf16, for at most ROWS
// rows. For a dense layer they are a decode step from the end of its attention to the first linear
// layer of the next layer:
//
//     y = x W0^T               residual, x1 = norms of y
//     h = act(x1 Wg^T) * (x1 Wu^T)
//     y = h W2^T               residual, x3 = norms of y
//     out = x3 W3^T
//
// If y has no norm of its own, the layers that compute y add it to the residual by themselves. The
// norm of the residual then costs no wait: x is the residual times the norm's weight, and the layer
// that takes it divides its results by the root mean square.
//
// A launch per linear layer leaves memory idle while its last programs finish, the next launch
// starts and its inputs arrive. Weights depend on nothing, so here one warp of each program streams
// them through a ring in shared memory from the first stage to the last without a stop. A second
// warp follows with the inputs as they become known, and four warps compute. A stage learns from
// counters in global memory, which are zero at the start, that its inputs are there. All programs
// must therefore run at once, one on each multiprocessor.
//
// The matrix unit's M are up to 64 weight rows, a tile; its N are the rows of x. A tile has as many
// rows as give all programs the same share of a stage: if only some of them read, the paths to
// these are the limit (84 of 132 programs: 31 GB/s each, 2.6 TB/s in total). Which program computes
// a tile does not depend on the number of rows, and no sum is split, so results do not depend on
// the batch.
//
// Defined at compile time: ROWS (8, 16, 32 or 64), WIDTH (of the residual, a multiple of 64), DEPTH
// (blocks of 64 columns in a slot of the ring), SILU (the activation: 1 for SiLU, 0 for gelu_tanh).
// For instance
//   nvcc -arch=sm_90a -cubin -DROWS=8 -DWIDTH=5376 -DDEPTH=4 -DSILU=0 layer_tail.cu

#include "hopper.cuh"

constexpr int STAGES = 4;
constexpr int BLOCK = 64 * 128, X_BLOCK = ROWS * 128;  // bytes of 64 weight rows, of x
constexpr int SHARED = 232448, BARRIERS = ROWS > 8 ? 2560 : 1024, RING_BYTES = SHARED - BARRIERS;
constexpr int SLOTS = 32;  // at most in use at once
constexpr u64 EVICT_FIRST = 0x12F0000000000000;  // createpolicy.fractional.L2::evict_first
// GATED: act(gate) * up in bf16. ADDED: the output is added to the residual.
enum OutputKind { BFLOAT16, GATED, FLOAT32, ADDED };

// One linear layer, and the norms that make its input. linear_chain.py mirrors both structs.
struct __align__(64) Stage {
    TensorMap weights, x;
    void* out;  // [rows, outputs]
    const bf16* out_bias;  // [outputs] or none
    // If y is given, the norms first make `normed`, [rows, WIDTH], of it, which is x. Each of y's
    // bias and the two weights may be none.
    const void* y;  // bf16 [rows, WIDTH], or float [parts, rows, WIDTH] to be added up
    const bf16 *bias, *post_norm, *next_norm;
    bf16 *residual, *normed;
    float scale;
    int outputs;  // of the layer: weight rows, or half of them if it is gated
    int tile_rows;  // weight rows of a tile, at most 64
    int tiles, steps;  // number of tiles; slots of each, or pairs of slots if gated
    OutputKind kind;
    int parts;  // of y; 0 if it is bf16
    // If the kind is ADDED: residual = (residual + output + bias) * scale; `normed` takes it times
    // next_norm; and `squares`, [tiles][ROWS], the sums of its squares. The division by the root
    // mean square is left to the layer that takes `normed`: it multiplies its output by `factor`,
    // which it computes from `squares` if `square_tiles` is not 0.
    float* squares;
    int square_tiles;
};

struct __align__(64) LayerTail {
    Stage stages[STAGES];
    int* counters;  // [STAGES][2]: rows normed, tiles computed
    float eps, norm_offset;  // the norms' weights are stored less norm_offset
    int rows, count;  // rows of x; stages
};

struct Ring {
    // Barriers; in parentheses, what completes a phase.
    u64 full[SLOTS];  // weights and inputs loaded (2 arrivals and bytes)
    u64 empty[SLOTS];  // slot read (4 warps)
    u64 stored, noted;  // a tile's results written (128 threads); noted by the counting warp (1)
    u32 ends[2][SLOTS];  // positions at which slots end, for each of the two warps that fill them
    float sums[2][4];  // of each warp, for the two norms
    float squares[4][ROWS];  // of each warp
    float factor[ROWS];
};
static_assert(sizeof(Ring) <= BARRIERS, "shared memory");

__device__ __forceinline__ void wgmma(float (&d)[4], u64 a, u64 b, int add) {
    asm volatile(
        "{.reg .pred p; setp.ne.b32 p, %6, 0;"
        "wgmma.mma_async.sync.aligned.m64n8k16.f32.bf16.bf16 {%0, %1, %2, %3}, %4, %5, "
        "p, 1, 1, 0, 0;}" : F4(d, 0) : "l"(a), "l"(b), "r"(add));
}
__device__ __forceinline__ void wgmma(float (&d)[8], u64 a, u64 b, int add) {
    asm volatile(
        "{.reg .pred p; setp.ne.b32 p, %10, 0;"
        "wgmma.mma_async.sync.aligned.m64n16k16.f32.bf16.bf16 {%0, %1, %2, %3, %4, %5, %6, %7}, "
        "%8, %9, p, 1, 1, 0, 0;}" : F4(d, 0), F4(d, 4) : "l"(a), "l"(b), "r"(add));
}
__device__ __forceinline__ void wgmma(float (&d)[16], u64 a, u64 b, int add) {
    asm volatile(
        "{.reg .pred p; setp.ne.b32 p, %18, 0;"
        "wgmma.mma_async.sync.aligned.m64n32k16.f32.bf16.bf16 {%0, %1, %2, %3, %4, %5, %6, %7, "
        "%8, %9, %10, %11, %12, %13, %14, %15}, %16, %17, p, 1, 1, 0, 0;}"
        : F4(d, 0), F4(d, 4), F4(d, 8), F4(d, 12)
        : "l"(a), "l"(b), "r"(add));
}
__device__ __forceinline__ void wgmma(float (&d)[32], u64 a, u64 b, int add) {
    wgmma_n64(d, a, b, add);
}

// Waits for a counter. Afterwards, what other programs wrote before they added to it is visible;
// bulk copies also need a fence.
__device__ __forceinline__ void counter_wait(const int* counter, int target) {
    int seen;
    do asm volatile("ld.acquire.gpu.global.s32 %0, [%1];" : "=r"(seen) : "l"(counter) : "memory");
    while (seen < target);
}
// Adds 1, after all writes of this thread and those of threads whose arrivals it has waited for.
__device__ __forceinline__ void counter_add(int* counter) {
    asm volatile("red.release.gpu.global.add.s32 [%0], 1;" ::"l"(counter) : "memory");
}

// Counts this program's finished tiles. Called by one thread of a warp of its own: the addition
// waits until the results have reached L2, behind all loads in progress. This takes several
// microseconds, for which the computing warps need not stop.
__device__ __forceinline__ void publish_tiles(const LayerTail& tail, Ring& ring) {
    u32 number = 0;
    for (int index = 0; index < tail.count - 1; ++index)
        for (int tile = blockIdx.x; tile < tail.stages[index].tiles; tile += gridDim.x, ++number) {
            barrier_wait(ring.stored, number & 1);
            barrier_arrive(ring.noted);
            counter_add(tail.counters + 2 * index + 1);
        }
}

// First weight row of a tile. The last tile begins early enough to be whole, because copies that
// reach beyond the end of a tensor are slower.
__device__ __forceinline__ int first_row(const Stage& stage, int tile) {
    return min(tile * stage.tile_rows, stage.outputs - stage.tile_rows);
}

// Slots lie one after another in the ring: x, then blocks of as many rows as a tile has, so that
// the ring holds as much as it can while a stage waits for its inputs. `at` counts all bytes up to
// there.
struct Layout {
    u32 block, size;
    __device__ __forceinline__ Layout(const Stage& stage)
        : block((stage.tile_rows + 7) / 8 * 1024), size(DEPTH * (X_BLOCK + block)) {}
    // Returns the next slot's position; the ring's end cuts none. The matrix unit reads 64 rows of
    // each block, and the results of those beyond the tile are discarded.
    __device__ __forceinline__ u32 next(u32& at) const {
        u32 from = at % RING_BYTES;
        if (from + size + BLOCK - block > RING_BYTES) at += RING_BYTES - from, from = 0;
        at += size;
        return from;
    }
};

// Loads weights, which are read once, so that data that is read again stays in L2.
__device__ __forceinline__ void tma_load_once(u32 to, const TensorMap& map, int y, int z,
                                              u64& bar) {
    asm volatile(
        "cp.async.bulk.tensor.3d.shared::cluster.global.tile.mbarrier::complete_tx::bytes"
        ".L2::cache_hint [%0], [%1, {%2, %3, %4}], [%5], %6;" ::"r"(to), "l"((u64)&map), "r"(0),
        "r"(y), "r"(z), "r"(shared_address(&bar)), "l"(EVICT_FIRST) : "memory");
}

// Loads the weights of all of this program's tiles, or their inputs, in the order of the ring.
// Called by one thread.
template <bool INPUTS>
__device__ __forceinline__ void fill_ring(const LayerTail& tail, Ring& ring, u32 base) {
    u32 number = 0, at = 0, oldest = 0, freed = 0;
    u32(&ends)[SLOTS] = ring.ends[INPUTS];
    for (int index = 0; index < tail.count; ++index) {
        const Stage& stage = tail.stages[index];
        const Layout layout(stage);
        const int tiles = stage.tiles, parts = stage.kind == GATED ? 2 : 1;
        if (INPUTS && blockIdx.x < tiles && (index || stage.y)) {
            if (stage.y)
                counter_wait(tail.counters + 2 * index, tail.rows);
            else
                counter_wait(tail.counters + 2 * index - 1, tail.stages[index - 1].tiles);
            asm volatile("fence.proxy.async;" ::: "memory");
        }
        for (int tile = blockIdx.x; tile < tiles; tile += gridDim.x)
            for (int step = 0; step < stage.steps; ++step)
                for (int part = 0; part < parts; ++part, ++number) {
                    const u32 to = base + layout.next(at);
                    for (; number - oldest == SLOTS || at - freed > RING_BYTES; ++oldest) {
                        barrier_wait(ring.empty[oldest % SLOTS], oldest / SLOTS & 1);
                        freed = ends[oldest % SLOTS];
                    }
                    ends[number % SLOTS] = at;
                    u64& full = ring.full[number % SLOTS];
                    barrier_expect_bytes(full, DEPTH * 128 * (INPUTS ? ROWS : stage.tile_rows));
                    if (INPUTS)
                        tma_load_3d(to, stage.x, 0, 0, step * DEPTH, full);
                    else  // one by one, because each block must begin at a multiple of 1,024 bytes
                        for (int b = 0; b < DEPTH; ++b)
                            tma_load_once(to + DEPTH * X_BLOCK + b * layout.block, stage.weights,
                                          first_row(stage, tile) + part * stage.outputs,
                                          step * DEPTH + b, full);
                }
    }
}

// Adds the product of one slot's matrices to d. Gives back the slot before, unless there is none
// (`alone`): it is no longer read then.
__device__ __forceinline__ void accumulate_slot(float (&d)[ROWS / 2], Ring& ring,
                                                const Layout& layout, u32 from, u32 number,
                                                bool first, bool alone) {
    const u64 x = matrix_descriptor(from, 16), w = matrix_descriptor(from + DEPTH * X_BLOCK, 16);
    barrier_wait(ring.full[number % SLOTS], number / SLOTS & 1);
    wgmma_fence();
#pragma unroll
    for (int b = 0; b < DEPTH; ++b)
#pragma unroll
        for (int k = 0; k < 4; ++k)
            wgmma(d, w + b * (layout.block / 16) + k * 2, x + b * (X_BLOCK / 16) + k * 2,
                  !first || b > 0 || k > 0);
    wgmma_commit();
    wgmma_wait<1>();
    if (!alone) barrier_arrive_warp(ring.empty[(number - 1) % SLOTS]);
}

// SiLU, or GELU in its tanh approximation.
__device__ __forceinline__ float activation(float x) {
    const float inner = SILU ? 0.5f * x : 0.7978845608028654f * (x + 0.044715f * x * x * x);
    // (1 + tanh(u)) / 2 = 1 - 1 / (exp(2u) + 1) does not overflow to NaN at either end.
    return x * (1.0f - 1.0f / (exp2_fast(2.0f * 1.4426950408889634f * inner) + 1.0f));
}

__device__ __forceinline__ float rsqrt_fast(float x) {
    float y;
    asm("rsqrt.approx.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

// Row of x and weight row within the tile of a thread's i-th result.
__device__ __forceinline__ int row_of_x(int i) { return i / 4 * 8 + threadIdx.x % 4 * 2 + i % 2; }
__device__ __forceinline__ int row_of_tile(int i) {
    return threadIdx.x / 32 * 16 + threadIdx.x % 32 / 4 + i % 4 / 2 * 8;
}

// One over the root mean square of each row of x, from the sums that tiles have left. They are added
// up in PARTS parts, and these in pairs, in the same order whatever ROWS is. EACH neighboring threads
// take a row. Called when the input has been read.
__device__ __forceinline__ void load_factors(const LayerTail& tail, const Stage& stage,
                                             Ring& ring) {
    constexpr int PARTS = 16, EACH = 128 / ROWS, OWN = PARTS / EACH;
    const int row = threadIdx.x / EACH, first = threadIdx.x % EACH * OWN;
    float total[OWN] = {};
    for (int tile = 0; tile < stage.square_tiles; tile += PARTS)
#pragma unroll
        for (int i = 0; i < OWN; ++i) {
            float value = 0.0f;
            if (tile + first + i < stage.square_tiles)
                asm volatile("ld.global.cg.f32 %0, [%1];"
                             : "=f"(value)
                             : "l"(stage.squares + (tile + first + i) * ROWS + row) : "memory");
            total[i] += value;
        }
#pragma unroll
    for (int lanes = EACH / 2; lanes; lanes /= 2)
#pragma unroll
        for (int i = 0; i < OWN; ++i) total[i] += __shfl_xor_sync(~0u, total[i], lanes);
#pragma unroll
    for (int apart = OWN / 2; apart; apart /= 2)
#pragma unroll
        for (int i = 0; i < apart; ++i) total[i] += total[i + apart];
    sync_warp_group(1);  // the factors of an earlier stage are no longer read
    if (threadIdx.x % EACH == 0) ring.factor[row] = rsqrt_fast(total[0] / WIDTH + tail.eps);
    sync_warp_group(1);
}

// Adds a tile's results to the residual, and leaves the sums of its squares.
__device__ __forceinline__ void add_to_residual(const LayerTail& tail, const Stage& stage,
                                                int tile, Ring& ring,
                                                const float (&d)[ROWS / 2],
                                                const u32 (&before)[ROWS / 2]) {
    float squares[ROWS / 4] = {};
#pragma unroll
    for (int i = 0; i < ROWS / 2; ++i) {
        const int m = row_of_x(i), row = row_of_tile(i), column = first_row(stage, tile) + row;
        // The last tile may overlap the one before it.
        if (m >= tail.rows || row >= stage.tile_rows || column < tile * stage.tile_rows) continue;
        const float bias = stage.out_bias ? to_float(stage.out_bias[column]) : 0.0f;
        const float sum = (bf16_low(before[i]) + d[i] + bias) * stage.scale;
        const u32 rounded = pack_bf16(sum, 0.0f);
        const float value = bf16_low(rounded);
        const u64 at = (u64)m * WIDTH + column;
        stage.residual[at] = (bf16)rounded;
        const float weight = stage.next_norm ? to_float(stage.next_norm[column]) + tail.norm_offset
                                             : 1.0f;
        stage.normed[at] = (bf16)pack_bf16(value * weight, 0.0f);
        squares[i / 4 * 2 + i % 2] += value * value;
    }
#pragma unroll
    for (int j = 0; j < ROWS / 4; ++j) {
#pragma unroll
        for (int lanes = 4; lanes < 32; lanes *= 2)
            squares[j] += __shfl_xor_sync(~0u, squares[j], lanes);
        if (threadIdx.x % 32 < 4)
            ring.squares[threadIdx.x / 32][j / 2 * 8 + threadIdx.x % 4 * 2 + j % 2] = squares[j];
    }
    sync_warp_group(1);
    if (threadIdx.x < ROWS) {
        float total = 0.0f;
#pragma unroll
        for (int warp = 0; warp < 4; ++warp) total += ring.squares[warp][threadIdx.x];
        stage.squares[tile * ROWS + threadIdx.x] = total;
    }
    sync_warp_group(1);
}

// Computes this program's tiles of one stage. Called by the four computing warps.
template <OutputKind KIND>
__device__ __forceinline__ void linear(const LayerTail& tail, int index, Ring& ring, u32 base,
                                       u32& number, u32& at, u32& stored) {
    const Stage& stage = tail.stages[index];
    const Layout layout(stage);
    const bool scaled = KIND != ADDED && stage.square_tiles;
    for (int tile = blockIdx.x; tile < stage.tiles; tile += gridDim.x) {
        float d[ROWS / 2], up[KIND == GATED ? ROWS / 2 : 4];
        u32 before[KIND == ADDED ? ROWS / 2 : 1];
        if constexpr (KIND == ADDED) {
#pragma unroll
            for (int i = 0; i < ROWS / 2; ++i) {
                const int m = min(row_of_x(i), tail.rows - 1);
                const int row = min(row_of_tile(i), stage.tile_rows - 1);
                asm volatile("{.reg .b16 v; ld.global.cg.b16 v, [%1]; cvt.u32.u16 %0, v;}"
                             : "=r"(before[i])
                             : "l"(stage.residual + (u64)m * WIDTH + first_row(stage, tile) + row)
                             : "memory");
            }
        }
        for (int step = 0; step < stage.steps; ++step) {
            const bool fresh = step == 0;
            accumulate_slot(d, ring, layout, base + layout.next(at), number++, fresh, fresh);
            if constexpr (KIND == GATED)
                accumulate_slot(up, ring, layout, base + layout.next(at), number++, fresh, false);
        }
        wgmma_wait<0>();
        barrier_arrive_warp(ring.empty[(number - 1) % SLOTS]);
        if (scaled && tile == blockIdx.x) load_factors(tail, stage, ring);
        if constexpr (KIND == ADDED) add_to_residual(tail, stage, tile, ring, d, before);
#pragma unroll
        for (int i = 0; i < (KIND == ADDED ? 0 : ROWS / 2); ++i) {
            const int m = row_of_x(i), row = row_of_tile(i);
            const int column = first_row(stage, tile) + row;
            const u64 at = (u64)m * stage.outputs + column;
            const float factor = scaled ? ring.factor[m] : 1.0f;
            float value = d[i] * factor;
            if constexpr (KIND == GATED) value = activation(value) * (up[i] * factor);
            if (m >= tail.rows || row >= stage.tile_rows) continue;
            if (KIND != GATED && stage.out_bias) value += to_float(stage.out_bias[column]);
            if constexpr (KIND == FLOAT32)
                ((float*)stage.out)[at] = value;
            else
                ((bf16*)stage.out)[at] = (bf16)pack_bf16(value, 0.0f);
        }
        if (index == tail.count - 1) continue;
        barrier_wait(ring.noted, (stored++ & 1) ^ 1);  // for the tile before
        barrier_arrive(ring.stored);
    }
}

// Sum over the 128 computing threads.
__device__ __forceinline__ float sum(float value, float (&sums)[4]) {
#pragma unroll
    for (int lanes = 16; lanes; lanes /= 2) value += __shfl_xor_sync(~0u, value, lanes);
    if (threadIdx.x % 32 == 0) sums[threadIdx.x / 32] = value;
    sync_warp_group(1);
    return sums[0] + sums[1] + sums[2] + sums[3];
}
__device__ __forceinline__ u32 load_l2(const bf16* at) {
    u32 v;
    asm volatile("ld.global.cg.b32 %0, [%1];" : "=r"(v) : "l"(at) : "memory");
    return v;
}

// Two neighboring elements of row `row` of y, from column `column` on, with their bias.
__device__ __forceinline__ void load_y(const Stage& stage, int rows, int row, int column,
                                       float (&y)[2]) {
    if (stage.parts == 0) {
        const u32 pair = load_l2((const bf16*)stage.y + (u64)row * WIDTH + column);
        y[0] = bf16_low(pair), y[1] = bf16_high(pair);
    } else {
        y[0] = y[1] = 0.0f;
        const float* from = (const float*)stage.y + (u64)row * WIDTH + column;
        for (int part = 0; part < stage.parts; ++part, from += (u64)rows * WIDTH) {
            float a, b;
            asm volatile("ld.global.cg.v2.f32 {%0, %1}, [%2];"
                         : "=f"(a), "=f"(b) : "l"(from) : "memory");
            y[0] += a, y[1] += b;
        }
    }
    if (stage.bias) {
        const u32 pair = load_l2(stage.bias + column);
        y[0] += bf16_low(pair), y[1] += bf16_high(pair);
    }
}

// residual = (residual + rms(y) * post_norm) * scale; normed = rms(residual) * next_norm, where
// rms(v) is v over its root mean square. Without a weight, v itself stands for its norm. The last
// programs take a row each, as they have the fewest tiles.
__device__ __forceinline__ void normalize(const LayerTail& tail, int index, Ring& ring) {
    constexpr int EACH = (WIDTH + 255) / 256;  // pairs of neighboring elements per thread
    const Stage& stage = tail.stages[index];
    const bool has_post = stage.post_norm, has_next = stage.next_norm;
    for (int row = gridDim.x - 1 - blockIdx.x; row < tail.rows; row += gridDim.x) {
        const int column = threadIdx.x * 2;
        const u64 first = (u64)row * WIDTH + column;
        u32 residual[EACH], post[EACH], next[EACH];
        float y[EACH][2], squares = 0.0f;
        auto inside = [&](int i) { return WIDTH % 256 == 0 || column + i * 256 < WIDTH; };
#pragma unroll
        for (int i = 0; i < EACH; ++i) {
            residual[i] = post[i] = next[i] = 0;
            if (!inside(i)) continue;
            residual[i] = load_l2(stage.residual + first + i * 256);
            if (has_post) post[i] = load_l2(stage.post_norm + column + i * 256);
            if (has_next) next[i] = load_l2(stage.next_norm + column + i * 256);
        }
        if (index && threadIdx.x % 32 == 0)
            counter_wait(tail.counters + 2 * index - 1, tail.stages[index - 1].tiles);
        __syncwarp();
#pragma unroll
        for (int i = 0; i < EACH; ++i) {
            y[i][0] = y[i][1] = 0.0f;
            if (inside(i)) load_y(stage, tail.rows, row, column + i * 256, y[i]);
        }
        if (has_post) {
#pragma unroll
            for (int i = 0; i < EACH; ++i) squares += y[i][0] * y[i][0] + y[i][1] * y[i][1];
            const float factor = rsqrt_fast(sum(squares, ring.sums[0]) / WIDTH + tail.eps);
#pragma unroll
            for (int i = 0; i < EACH; ++i) {
                y[i][0] *= factor * (bf16_low(post[i]) + tail.norm_offset);
                y[i][1] *= factor * (bf16_high(post[i]) + tail.norm_offset);
            }
        }
        squares = 0.0f;
#pragma unroll
        for (int i = 0; i < EACH; ++i) {
            // The norm uses the residual as rounded.
            residual[i] = pack_bf16((bf16_low(residual[i]) + y[i][0]) * stage.scale,
                                    (bf16_high(residual[i]) + y[i][1]) * stage.scale);
            squares += bf16_low(residual[i]) * bf16_low(residual[i]) +
                       bf16_high(residual[i]) * bf16_high(residual[i]);
            if (inside(i)) *(u32*)(stage.residual + first + i * 256) = residual[i];
        }
        float factor = 1.0f;
        if (has_next) factor = rsqrt_fast(sum(squares, ring.sums[1]) / WIDTH + tail.eps);
#pragma unroll
        for (int i = 0; i < EACH; ++i) {
            if (has_next)
                residual[i] = pack_bf16(
                    bf16_low(residual[i]) * factor * (bf16_low(next[i]) + tail.norm_offset),
                    bf16_high(residual[i]) * factor * (bf16_high(next[i]) + tail.norm_offset));
            if (inside(i)) *(u32*)(stage.normed + first + i * 256) = residual[i];
        }
        sync_warp_group(1);
        if (threadIdx.x == 0) counter_add(tail.counters + 2 * index);
    }
}

extern "C" __global__ void __launch_bounds__(224, 1)
layer_tail(const __grid_constant__ LayerTail tail) {
    extern __shared__ __align__(1024) unsigned char memory[];
    Ring& ring = *(Ring*)(memory + RING_BYTES);
    const u32 base = shared_address(memory);
    const int t = threadIdx.x;
    pdl_launch_dependents();
    if (base % 1024) asm volatile("trap;");
    if (t == 0) {
        for (int i = 0; i < SLOTS; ++i)
            barrier_init(ring.full[i], 2), barrier_init(ring.empty[i], 4);
        barrier_init(ring.stored, 128), barrier_init(ring.noted, 1);
        asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
        fence_async_proxy();
    }
    __syncthreads();
    if (t >= 128) {
        if (t == 128) fill_ring<false>(tail, ring, base);
        if (t == 160) {
            pdl_wait();
            fill_ring<true>(tail, ring, base);
        }
        if (t == 192) publish_tiles(tail, ring);
    } else {
        pdl_wait();
        u32 number = 0, at = 0, stored = 0;
        for (int index = 0; index < tail.count; ++index) {
            if (tail.stages[index].y) normalize(tail, index, ring);
            const OutputKind kind = tail.stages[index].kind;
            if (kind == BFLOAT16)
                linear<BFLOAT16>(tail, index, ring, base, number, at, stored);
            else if (kind == GATED)
                linear<GATED>(tail, index, ring, base, number, at, stored);
            else if (kind == FLOAT32)
                linear<FLOAT32>(tail, index, ring, base, number, at, stored);
            else
                linear<ADDED>(tail, index, ring, base, number, at, stored);
        }
    }
}
