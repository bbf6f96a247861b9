// Norms between the stages of layer_tail.cu: those computed by themselves, and those for which the
// layer before leaves sums of squares, by whose mean's root the layer behind divides its results.
#pragma once
#include "chain_stages.cuh"

// Row of x and weight row within the tile of a thread's i-th result.
__device__ __forceinline__ int row_of_x(int i) { return i / 4 * 8 + threadIdx.x % 4 * 2 + i % 2; }
__device__ __forceinline__ int row_of_tile(int i) {
    return threadIdx.x / 32 * 16 + threadIdx.x % 32 / 4 + i % 4 / 2 * 8;
}

// One over the root mean square of each row of x, from the sums that tiles have left. They are
// added up in PARTS parts, and these in pairs, in the same order whatever ROWS is. EACH neighboring
// threads take a row. BATCH tiles of each part are loaded at once, without branches, since a load
// takes half a microsecond. Called when the input has been read.
__device__ __forceinline__ void load_factors(const LayerTail& tail, const Stage& stage,
                                             Ring& ring) {
    constexpr int PARTS = 16, EACH = 128 / ROWS, OWN = PARTS / EACH, BATCH = OWN < 2 ? 9 : 18 / OWN;
    const int row = threadIdx.x / EACH, first = threadIdx.x % EACH * OWN;
    float total[OWN] = {};
    for (int tile = 0; tile < stage.square_tiles; tile += PARTS * BATCH) {
        float value[BATCH][OWN];
#pragma unroll
        for (int b = 0; b < BATCH; ++b)
#pragma unroll
            for (int i = 0; i < OWN; ++i) {
                const int at = min(tile + b * PARTS + first + i, stage.square_tiles - 1);
                asm volatile("ld.global.cg.f32 %0, [%1];"
                             : "=f"(value[b][i])
                             : "l"(stage.squares + at * ROWS + row) : "memory");
            }
#pragma unroll
        for (int b = 0; b < BATCH; ++b)
#pragma unroll
            for (int i = 0; i < OWN; ++i)
                total[i] += tile + b * PARTS + first + i < stage.square_tiles ? value[b][i] : 0.0f;
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

// What a thread adds to the residual besides its results, loaded while the weights arrive: the
// residual before, and of both of its columns the norm's weight and the bias.
struct Added {
    u32 before[ROWS / 2];
    float weight[2], bias[2];
    __device__ __forceinline__ void load(const LayerTail& tail, const Stage& stage, int first) {
#pragma unroll
        for (int half = 0; half < 2; ++half) {
            const int column = first + min(row_of_tile(half * 2), stage.tile_rows - 1);
            weight[half] = stage.next_norm ? to_float(stage.next_norm[column]) + tail.norm_offset
                                           : 1.0f;
            bias[half] = stage.out_bias ? to_float(stage.out_bias[column]) : 0.0f;
        }
#pragma unroll
        for (int i = 0; i < ROWS / 2; ++i) {
            const int m = min(row_of_x(i), tail.rows - 1);
            const int row = min(row_of_tile(i), stage.tile_rows - 1);
            asm volatile("{.reg .b16 v; ld.global.cg.b16 v, [%1]; cvt.u32.u16 %0, v;}"
                         : "=r"(before[i])
                         : "l"(stage.residual + (u64)m * WIDTH + first + row) : "memory");
        }
    }
};

// Adds a tile's results to the residual, and leaves the sums of its squares.
__device__ __forceinline__ void add_to_residual(const LayerTail& tail, const Stage& stage,
                                                int tile, Ring& ring,
                                                const float (&d)[ROWS / 2], const Added& added) {
    float squares[ROWS / 4] = {};
#pragma unroll
    for (int i = 0; i < ROWS / 2; ++i) {
        const int m = row_of_x(i), row = row_of_tile(i), column = first_row(stage, tile) + row;
        // The last tile may overlap the one before it.
        if (m >= tail.rows || row >= stage.tile_rows || column < tile * stage.tile_rows) continue;
        const int half = i % 4 / 2;
        const float sum = (bf16_low(added.before[i]) + d[i] + added.bias[half]) * stage.scale;
        const u32 rounded = pack_bf16(sum, 0.0f);
        const float value = bf16_low(rounded);
        const u64 at = (u64)m * WIDTH + column;
        stage.residual[at] = (bf16)rounded;
        stage.normed[at] = (bf16)pack_bf16(value * added.weight[half], 0.0f);
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

// Loads pairs of neighboring elements, 256 elements apart. They come in a loop without branches, so
// that all loads are in progress together: one takes half a microsecond.
template <int EACH>
__device__ __forceinline__ void load_pairs(u32 (&pairs)[EACH], const bf16* from, int column) {
#pragma unroll
    for (int i = 0; i < EACH; ++i) pairs[i] = load_l2(from + min(column + i * 256, WIDTH - 2));
}

// Loads y, [rows, WIDTH], or adds up its parts.
template <int EACH>
__device__ __forceinline__ void load_y(float (&y)[EACH][2], const Stage& stage, int rows, int row,
                                       int column) {
    const u64 begin = (u64)row * WIDTH;
    if (stage.parts == 0) {
        u32 pairs[EACH];
        load_pairs(pairs, (const bf16*)stage.y + begin, column);
#pragma unroll
        for (int i = 0; i < EACH; ++i) y[i][0] = bf16_low(pairs[i]), y[i][1] = bf16_high(pairs[i]);
        return;
    }
#pragma unroll
    for (int i = 0; i < EACH; ++i) {
        const float* from = (const float*)stage.y + begin + min(column + i * 256, WIDTH - 2);
        y[i][0] = y[i][1] = 0.0f;
        for (int part = 0; part < stage.parts; ++part, from += (u64)rows * WIDTH) {
            float a, b;
            asm volatile("ld.global.cg.v2.f32 {%0, %1}, [%2];"
                         : "=f"(a), "=f"(b) : "l"(from) : "memory");
            y[i][0] += a, y[i][1] += b;
        }
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
        u32 thread;  // read again, or addresses computed beforehand take registers from the loads
        asm volatile("mov.u32 %0, %%tid.x;" : "=r"(thread));
        const int column = thread * 2;
        const u64 first = (u64)row * WIDTH + column;
        u32 residual[EACH], post[EACH] = {}, next[EACH] = {};
        float y[EACH][2], squares = 0.0f;
        auto inside = [&](int i) { return WIDTH % 256 == 0 || column + i * 256 < WIDTH; };
        if (ROWS < 64) load_pairs(residual, stage.residual + (u64)row * WIDTH, column);
        if (ROWS < 64 && has_post) load_pairs(post, stage.post_norm, column);
        if (index && threadIdx.x % 32 == 0)
            counter_wait(tail.counters + 2 * index - 1, tail.stages[index - 1].tiles);
        __syncwarp();
        load_y(y, stage, tail.rows, row, column);
        if (stage.bias) {
            u32 bias[EACH];
            load_pairs(bias, stage.bias, column);
#pragma unroll
            for (int i = 0; i < EACH; ++i)
                y[i][0] += bf16_low(bias[i]), y[i][1] += bf16_high(bias[i]);
        }
        // On their way during the first sum; for 64 rows there are no registers earlier.
        if (ROWS == 64) load_pairs(residual, stage.residual + (u64)row * WIDTH, column);
        if (ROWS == 64 && has_post) load_pairs(post, stage.post_norm, column);
        if (has_next) load_pairs(next, stage.next_norm, column);
#pragma unroll
        for (int i = 0; i < EACH; ++i)
            if (!inside(i)) y[i][0] = y[i][1] = 0.0f, residual[i] = 0;
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
