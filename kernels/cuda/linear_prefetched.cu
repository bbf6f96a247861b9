// One linear layer of few rows whose weights are in shared memory when its input arrives, on Hopper.
//
// For layers so small that a multiprocessor's part of the weights fits into shared memory, the time
// is that of a chain of waits. One program runs on each multiprocessor and takes a contiguous part
// of the weight rows. One warp copies them into a ring while the launch before still runs. When the
// input is ready, a second warp copies it. CONSUMERS warps, which divide the columns among
// themselves, multiply 8 weight rows at a time (m16n8k16, x as the first 8 of the 16 rows), and the
// second warp adds the parts in the order of the warps.
//
// With PARTS, the input is the norm of a sum: the first programs compute a row each, and count it.
//
// Macros: COLUMNS; STAGES of the ring; COLUMN_PARTS, into which stages divide the columns;
// CONSUMERS; PARTS to be added to the residual, or 0; NORM, the type of the norm's weight.
#include "hopper.cuh"

constexpr int WARPS = CONSUMERS + 2, THREADS = WARPS * 32;
constexpr int ROWS = 8, GROUP = 8;  // of x at most; weight rows at a time
constexpr int PART_COLUMNS = COLUMNS / COLUMN_PARTS, STEPS = PART_COLUMNS / 16;
constexpr int EACH_STEPS = ((STEPS + CONSUMERS - 1) / CONSUMERS + 1) / 2 * 2;  // of a warp; even
constexpr int PITCH = PART_COLUMNS * 2 + 16, STAGE = GROUP * PITCH, X_PITCH = COLUMNS * 2 + 16;
static_assert(COLUMNS % (COLUMN_PARTS * 16) == 0, "no partial steps");

struct Shared {
    float parts[2][CONSUMERS][2][32];
    float squares[CONSUMERS];
    u64 full[STAGES], empty[STAGES], x_full, parts_full[2], parts_empty[2];
};
// Groups of 8 weight rows that the program takes.
struct Range { int begin, end; };

__device__ __forceinline__ float2 load_floats(const float* from) {
    float2 v;
    asm volatile("ld.global.cg.v2.f32 {%0, %1}, [%2];"
                 : "=f"(v.x), "=f"(v.y) : "l"(from) : "memory");
    return v;
}
__device__ __forceinline__ u32 load_word(const bf16* from) {
    u32 v;
    asm volatile("ld.global.cg.b32 %0, [%1];" : "=r"(v) : "l"(from) : "memory");
    return v;
}
__device__ __forceinline__ void sync_consumers() {
    asm volatile("bar.sync 1, %0;" ::"n"(CONSUMERS * 32) : "memory");
}

// Copies weights. Called by one warp; a lane takes a row.
__device__ __forceinline__ void produce(Shared& shared, u8* ring, Range range, const bf16* w) {
    const int lane = threadIdx.x % 32;
    int number = 0;
    for (int group = range.begin; group < range.end; group++)
        for (int part = 0; part < COLUMN_PARTS; part++, number++) {
            const int stage = number % STAGES, round = number / STAGES;
            if (round > 0) barrier_wait(shared.empty[stage], (round - 1) & 1);
            if (lane == 0) barrier_expect_bytes(shared.full[stage], GROUP * PART_COLUMNS * 2);
            __syncwarp();
            if (lane < GROUP)
                copy_bulk(ring + stage * STAGE + lane * PITCH,
                          w + (u64)(group * GROUP + lane) * COLUMNS + part * PART_COLUMNS,
                          PART_COLUMNS * 2, shared.full[stage]);
        }
}

// residual = residual + sum of the parts; x = rms(residual) * norm, of one row. Called by all
// consumers.
__device__ __forceinline__ void normalize(Shared& shared, int row, int rows, const float* y,
                                          bf16* residual, const NORM* norm, bf16* x, float eps) {
    constexpr int EACH = (COLUMNS / 2 + CONSUMERS * 32 - 1) / (CONSUMERS * 32);
    u32 sums[EACH];
    float squares = 0.0f;
#pragma unroll
    for (int i = 0; i < EACH; i++) {
        const int column = (threadIdx.x + i * CONSUMERS * 32) * 2;
        sums[i] = 0;
        if (column >= COLUMNS) continue;
        const u64 at = (u64)row * COLUMNS + column;
        float low = 0.0f, high = 0.0f;
#pragma unroll
        for (int part = 0; part < PARTS; part++) {
            const float2 v = load_floats(y + (u64)part * rows * COLUMNS + at);
            low += v.x, high += v.y;
        }
        const u32 before = load_word(residual + at);
        sums[i] = pack_bf16(bf16_low(before) + low, bf16_high(before) + high);
        *(u32*)(residual + at) = sums[i];
        squares += bf16_low(sums[i]) * bf16_low(sums[i]) + bf16_high(sums[i]) * bf16_high(sums[i]);
    }
#pragma unroll
    for (int lanes = 16; lanes; lanes /= 2) squares += __shfl_xor_sync(~0u, squares, lanes);
    if (threadIdx.x % 32 == 0) shared.squares[threadIdx.x / 32] = squares;
    sync_consumers();
    float total = 0.0f;
#pragma unroll
    for (int warp = 0; warp < CONSUMERS; warp++) total += shared.squares[warp];
    const float factor = rsqrt_fast(total / COLUMNS + eps);
#pragma unroll
    for (int i = 0; i < EACH; i++) {
        const int column = (threadIdx.x + i * CONSUMERS * 32) * 2;
        if (column >= COLUMNS) continue;
        *(u32*)(x + (u64)row * COLUMNS + column) =
            pack_bf16(bf16_low(sums[i]) * factor * to_float(norm[column]),
                      bf16_high(sums[i]) * factor * to_float(norm[column + 1]));
    }
    sync_consumers();
}

// Multiplies this warp's columns of every group.
__device__ __forceinline__ void consume(Shared& shared, const u8* ring, const u8* x_rows, Range range) {
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    // The matrices' rows whose addresses this lane gives: 8 weight rows, or rows of x, by four
    // groups of 8 columns.
    const u32 weight_at = lane % 8 * PITCH + lane / 8 * 16;
    const u32 x = shared_address(x_rows) + lane % 8 * X_PITCH + lane / 8 * 16;
    barrier_wait(shared.x_full, 0);
    int number = 0;
    for (int group = range.begin, turn = 0; group < range.end; group++, turn++) {
        float sums[2][4] = {};
        for (int part = 0; part < COLUMN_PARTS; part++, number++) {
            const int stage = number % STAGES;
            const u32 w = shared_address(ring + stage * STAGE) + weight_at;
            barrier_wait(shared.full[stage], number / STAGES & 1);
#pragma unroll
            for (int i = 0; i < EACH_STEPS; i += 2) {
                const int step = warp * EACH_STEPS + i;
                if (EACH_STEPS * CONSUMERS != STEPS && step >= STEPS) break;
                const u32 column = (part * STEPS + step) * 32;
                u32 a[4], b[4];
                load_matrices(b, w + step * 32);
                load_matrices(a, x + column);
                multiply(sums[0], {a[0], 0, a[1], 0}, b[0], b[1]);
                if (STEPS % 2 == 0 || step + 1 < STEPS)
                    multiply(sums[1], {a[2], 0, a[3], 0}, b[2], b[3]);
            }
            barrier_arrive_warp(shared.empty[stage]);
        }
        const int side = turn % 2;
        if (turn >= 2) barrier_wait(shared.parts_empty[side], (turn / 2 - 1) & 1);
#pragma unroll
        for (int i = 0; i < 2; i++) shared.parts[side][warp][i][lane] = sums[0][i] + sums[1][i];
        barrier_arrive_warp(shared.parts_full[side]);
    }
}

// Adds the parts of every group and writes the results. Called by one warp.
__device__ __forceinline__ void finish(Shared& shared, Range range, bf16* out, int rows, int outputs) {
    const int lane = threadIdx.x % 32;
    for (int group = range.begin, turn = 0; group < range.end; group++, turn++) {
        const int side = turn % 2, column = group * GROUP + lane % 4 * 2;
        float sum[2] = {};
        barrier_wait(shared.parts_full[side], turn / 2 & 1);
#pragma unroll
        for (int part = 0; part < CONSUMERS; part++)
#pragma unroll
            for (int i = 0; i < 2; i++) sum[i] += shared.parts[side][part][i][lane];
        barrier_arrive_warp(shared.parts_empty[side]);
        const int row = lane / 4;
        if (row < rows) *(u32*)(out + (u64)row * outputs + column) = pack_bf16(sum[0], sum[1]);
    }
}

// x [rows, COLUMNS], w [outputs, COLUMNS], out [rows, outputs], outputs a multiple of 8. With PARTS,
// y is float32 [PARTS, rows, COLUMNS], residual [rows, COLUMNS], norm [COLUMNS], and x is written;
// `counter` is 0 at the start.
extern "C" __global__ void __launch_bounds__(THREADS, 1)
linear_prefetched(bf16* x, const bf16* w, bf16* out, const float* y, bf16* residual, const NORM* norm,
                  u32* counter, float eps, int rows, int outputs) {
    extern __shared__ __align__(128) u8 ring[];
    u8* x_rows = ring + STAGES * STAGE;
    Shared& shared = *(Shared*)(x_rows + ROWS * X_PITCH);
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    if (threadIdx.x == 0) {
        for (int i = 0; i < STAGES; i++) {
            barrier_init(shared.full[i], 1);
            barrier_init(shared.empty[i], CONSUMERS);
        }
        barrier_init(shared.x_full, 1);
        for (int i = 0; i < 2; i++) {
            barrier_init(shared.parts_full[i], CONSUMERS);
            barrier_init(shared.parts_empty[i], 1);
        }
        fence_async_proxy();
    }
    pdl_launch_dependents();
    __syncthreads();
    const int groups = outputs / GROUP;
    const Range range = {groups * (int)blockIdx.x / (int)gridDim.x,
                         groups * ((int)blockIdx.x + 1) / (int)gridDim.x};
    if (warp < CONSUMERS) {
        pdl_wait();
        if (PARTS > 0)
            for (int row = blockIdx.x; row < rows; row += gridDim.x) {
                normalize(shared, row, rows, y, residual, norm, x, eps);
                if (threadIdx.x == 0) count_up(counter);
            }
        consume(shared, ring, x_rows, range);
    } else if (warp == CONSUMERS) {
        pdl_wait();
        if (lane == 0) {
            if (PARTS > 0)
                while (load_counter(counter) < rows) {}
            barrier_expect_bytes(shared.x_full, rows * COLUMNS * 2);
        }
        __syncwarp();
        fence_async_copies();
        if (lane < rows)
            copy_bulk(x_rows + lane * X_PITCH, x + (u64)lane * COLUMNS, COLUMNS * 2, shared.x_full);
        finish(shared, range, out, rows, outputs);
    } else {
        produce(shared, ring, range, w);
    }
}
