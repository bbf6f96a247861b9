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

#include "chain_norms.cuh"

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

// Computes this program's tiles of one stage. Called by the four computing warps.
template <OutputKind KIND>
__device__ __forceinline__ void linear(const LayerTail& tail, int index, Ring& ring, u32 base,
                                       u32& number, u32& at, u32& stored) {
    const Stage& stage = tail.stages[index];
    const Layout layout(stage);
    const bool scaled = KIND != ADDED && stage.square_tiles;
    for (int tile = blockIdx.x; tile < stage.tiles; tile += gridDim.x) {
        float d[ROWS / 2], up[KIND == GATED ? ROWS / 2 : 4];
        Added added;
        if constexpr (KIND == ADDED) added.load(tail, stage, first_row(stage, tile));
        for (int step = 0; step < stage.steps; ++step) {
            const bool fresh = step == 0;
            accumulate_slot(d, ring, layout, base + layout.next(at), number++, fresh, fresh);
            if constexpr (KIND == GATED)
                accumulate_slot(up, ring, layout, base + layout.next(at), number++, fresh, false);
        }
        wgmma_wait<0>();
        barrier_arrive_warp(ring.empty[(number - 1) % SLOTS]);
        if (scaled && tile == blockIdx.x) load_factors(tail, stage, ring);
        if constexpr (KIND == ADDED) add_to_residual(tail, stage, tile, ring, d, added);
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
