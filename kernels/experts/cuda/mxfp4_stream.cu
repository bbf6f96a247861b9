// A layer's experts in MXFP4 for few rows, both products in one launch, on Hopper.
//
// One program runs on each multiprocessor and takes a contiguous part of all touched experts'
// weight rows, so that it reads memory as one stream: first of gate and up, then, after all programs
// have finished those, of down, whose first weights have arrived by then. One warp copies
// weights into a ring, ahead of the computation, in slices of 64 weight rows by 8 blocks. Three
// groups of four warps take turns at the slices and multiply them by up to 4 * TILES_N rows of x.
// Two more warps add the groups' parts, always in the same order, and finish the results, while the
// next rows are multiplied.
//
// What limits this is instructions, not memory. Therefore codes become 8-bit floats (e4m3), exactly
// and in 7 instructions for 8 of them, which the matrix unit takes from registers (m64nNk32). One of
// its products is a block of 32 codes, whose scale multiplies the float32 result. A row of x is a sum
// of two 8-bit floats, which has all 8 bits of a bfloat16: columns take turns at them.
//
// Macros: HAS_BIAS (0 or 1); HIDDEN and INNER, columns; EXPERTS; TOP_K; ROUTED; STAGES of
// the ring, for each group; TILES_N groups of 4 pairs, 1 or 2.
#include "e4m3_products.cuh"
#include "e4m3_rows.cuh"
#include "mxfp4_stream_state.cuh"

__device__ __forceinline__ void load_slice(u32 to, const TensorMap& map, int column, int row, u64& bar) {
    asm volatile(
        "cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes"
        ".L2::cache_hint [%0], [%1, {%2, %3}], [%4], %5;" ::"r"(to), "l"((u64)&map), "r"(column),
        "r"(row), "r"(shared_address(&bar)), "l"(EVICT_FIRST) : "memory");
}
// Tells the compiler that a value is the same in all lanes; else matrix products wait for each other.
__device__ __forceinline__ int uniform(int value) { return __shfl_sync(~0u, value, 0); }

// Copies weights and scales. Called by one thread. A group has stages of its own: the barriers of a
// stage that groups took in turns could be a phase behind.
template <class P>
__device__ __forceinline__ void produce(Shared& shared, u8* ring, Position& position, u32* counter,
                                        const TensorMap& w, const u8* scales) {
    Items<P> items;
    items.start(shared.tiles, counter);
    for (int item = 0; item >= 0; position.entries++) {
        item = items.next();
        const int side = position.entries % SCALE_STAGES, turn = position.entries / SCALE_STAGES;
        if (turn > 0) barrier_wait(shared.scales_empty[side], (turn - 1) & 1);
        shared.queue[side] = item;
        if (item < 0) {
            barrier_arrive(shared.scales_full[side]);
            continue;
        }
        const int begin = item % P::ITEMS * ROWS_AT_ONCE;
        const int row = shared.tiles.expert[item / P::ITEMS] * P::ROWS + begin;
        const int bytes = min(ROWS_AT_ONCE, P::ROWS - begin) * P::BLOCKS;
        barrier_expect_bytes(shared.scales_full[side], bytes);
        copy_bulk(shared.scales[side], scales + (u64)row * P::BLOCKS, bytes, shared.scales_full[side]);
        for (int first = 0; first < P::SLICES; first += GROUPS)
#pragma unroll
            for (int group = 0; group < GROUPS; group++) {
                if (P::SLICES % GROUPS != 0 && first + group >= P::SLICES) break;
                const int number = position.slices[group]++, stage = number % STAGES;
                u64& full = shared.full[group][stage];
                if (number >= STAGES)
                    barrier_wait(shared.empty[group][stage], (number / STAGES - 1) & 1);
                barrier_expect_bytes(full, SLICE);
                load_slice(shared_address(ring + (group * STAGES + stage) * SLICE), w,
                           (first + group) * 64, row, full);
            }
    }
}

// Multiplies this group's slices of every item.
template <class P>
__device__ __forceinline__ void consume(Shared& shared, u8* ring, const bf16* x, Position& position,
                                        const u32* counters, u32 generation) {
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, group = uniform(warp / 4);
    const bool has_slices = P::SLICES % GROUPS == 0 || group < P::SLICES;
    int last = -1;
    Half halves[2];
    int& number = position.slices[0];  // of the group's slice
    auto address_of = [&](int n) {
        return shared_address(ring) + (group * STAGES + n % STAGES) * SLICE;
    };
    auto load_first = [&](int n) {
        barrier_wait(shared.full[group][n % STAGES], n / STAGES & 1);
        load_half(halves[0], address_of(n), 0);
    };
    auto item_of = [&](int entry) {
        const int side = entry % SCALE_STAGES;
        barrier_wait(shared.scales_full[side], entry / SCALE_STAGES & 1);
        return uniform(shared.queue[side]);
    };
    int item = item_of(position.entries);
    if (item >= 0 && has_slices) load_first(number);
    while (true) {
        const int scale_stage = position.entries % SCALE_STAGES, side = position.entries % 2;
        Sums sums = {};
        int next = -1;
        if (item >= 0) {
            const int tile = item / P::ITEMS;
            if (tile != last) {
                if (!P::GATED && last < 0) wait_for_all(counters, generation);
                convert_rows<P>(shared, x, tile, position.tiles++);
                last = tile;
            }
            const u8* scales = shared.scales[scale_stage] + (warp % 4 * 16 + lane / 4) * P::BLOCKS;
            for (int turn = 0; turn < P::TURNS; turn++) {
                const int slice = turn * GROUPS + group;
                if (P::SLICES % GROUPS != 0 && slice >= P::SLICES) break;
                const u32 x_at = shared_address(shared.x[slice * 8]) >> 4 | LEADING;
                load_half(halves[1], address_of(number), 4);
                barrier_arrive_warp(shared.empty[group][number % STAGES]);
                number++;
                multiply_half<P>(sums, halves[0], x_at, scales + slice * 8);
                const bool another = slice + GROUPS < P::SLICES;
                if (!another) next = item_of(position.entries + 1);
                if (another || next >= 0) load_first(number);
                multiply_half<P>(sums, halves[1], x_at + 4 * X_BLOCK, scales + slice * 8 + 4);
            }
            if (!has_slices) next = item_of(position.entries + 1);
        }
        barrier_arrive_warp(shared.scales_empty[scale_stage]);
        if (position.entries >= 2)
            barrier_wait(shared.parts_empty[side], (position.entries / 2 - 1) & 1);
#pragma unroll
        for (int i = 0; i < 4 * TILES_N; i++) shared.parts[side][warp][i][lane] = sums[i];
        if (threadIdx.x == 0) shared.items[side] = item;
        if (threadIdx.x < PAIRS) shared.factors[side][threadIdx.x] = shared.tile_factors[threadIdx.x];
        barrier_arrive_warp(shared.parts_full[side]);
        position.entries++;
        if (item < 0) return;
        item = next;
    }
}

// Adds the parts of 32 weight rows of every item and writes the results.
template <class P>
__device__ __forceinline__ void finish(Shared& shared, Position& position,
                                       const float* weights, const bf16* bias, void* out, int rows) {
    const int half = threadIdx.x / 32 - CONSUMERS, lane = threadIdx.x % 32;
    const int q = lane % 4, couple = lane / 4;
    while (true) {
        const int side = position.entries % 2;
        barrier_wait(shared.parts_full[side], position.entries++ / 2 & 1);
        const int item = shared.items[side], tile = item / P::ITEMS;
        if (item < 0) {
            barrier_arrive_warp(shared.parts_empty[side]);
            return;
        }
        float factors[TILES_N];
#pragma unroll
        for (int n = 0; n < TILES_N; n++) factors[n] = shared.factors[side][n * 4 + q];
        // This lane's weight rows are two neighbors, `row` and `row` + 1, of each of two groups of
        // 16. Registers 0 and 1 of the parts hold the first 8 rows, 2 and 3 the others.
        const int begin = item % P::ITEMS * ROWS_AT_ONCE + half * 32 + couple * 2;
        const int from = couple % 4 * 8 + q, part_of = couple / 4 * 2;
        float added[2][2] = {};
        if (HAS_BIAS)
            for (int m = 0; m < 2; m++)
                for (int odd = 0; odd < 2; odd++)
                    if (begin + m * 16 < P::ROWS)
                        added[m][odd] = to_float(bias[
                            (u64)shared.tiles.expert[tile] * P::ROWS + begin + m * 16 + odd]);
        float sum[2][TILES_N][2] = {};
#pragma unroll
        for (int group = 0; group < GROUPS; group++)
#pragma unroll
            for (int m = 0; m < 2; m++)
#pragma unroll
                for (int n = 0; n < TILES_N; n++)
#pragma unroll
                    for (int odd = 0; odd < 2; odd++) {
                        const float(&part)[4 * TILES_N][32] =
                            shared.parts[side][group * 4 + half * 2 + m];
                        sum[m][n][odd] += part[n * 4 + part_of][from + odd * 4] +
                                          part[n * 4 + part_of + 1][from + odd * 4] * SECOND;
                    }
        barrier_arrive_warp(shared.parts_empty[side]);
#pragma unroll
        for (int m = 0; m < 2; m++)
#pragma unroll
            for (int n = 0; n < TILES_N; n++) {
                const int place = n * 4 + q, row = begin + m * 16;
                if (place >= shared.tiles.rows(tile) || row >= P::ROWS) continue;
                const int pair = shared.tiles.pair(tile, place);
                const float factor = factors[n];
                const float low = sum[m][n][0] * factor + added[m][0];
                const float high = sum[m][n][1] * factor + added[m][1];
                if (P::GATED) {
                    ((bf16*)out)[(u64)pair * P::OUTPUTS + row / 2] = to_bf16(clamped_swiglu(low, high));
                } else {
                    const float weight = ROUTED ? shared.tiles.weights[pair] : weights[pair];
                    float* to = (float*)out + ((u64)(pair % TOP_K) * rows + pair / TOP_K) * P::OUTPUTS;
                    *(float2*)(to + row) = {low * weight, high * weight};
                }
            }
    }
}

struct __align__(64) Weights { TensorMap gate_up, down; };

// x [rows, HIDDEN], h [pairs, INNER], out float32 [TOP_K, rows, HIDDEN]. `weights` are the pairs',
// [rows * TOP_K]. See `Counter` for counters.
extern "C" __global__ void __launch_bounds__(THREADS, 1)
experts_mxfp4_stream(const __grid_constant__ Weights w, const bf16* x, int* ids,
                     float* weights, const float* logits, const float* expert_scale,
                     const u8* gate_up_scales, const bf16* gate_up_bias,
                     const u8* down_scales, const bf16* down_bias, bf16* h, float* out,
                     u32* counters, int rows) {
    extern __shared__ __align__(1024) u8 ring[];
    Shared& shared = *(Shared*)(ring + GROUPS * STAGES * SLICE);
    const int warp = threadIdx.x / 32;
    if (threadIdx.x == 0) {
        for (int i = 0; i < GROUPS * STAGES; i++) {
            barrier_init(shared.full[0][i], 1);
            barrier_init(shared.empty[0][i], 4);
        }
        for (int i = 0; i < SCALE_STAGES; i++) {
            barrier_init(shared.scales_full[i], 1);
            barrier_init(shared.scales_empty[i], CONSUMERS);
        }
        for (int i = 0; i < 2; i++) {
            barrier_init(shared.parts_full[i], CONSUMERS);
            barrier_init(shared.parts_empty[i], FINISHERS);
        }
        fence_async_proxy();
    }
    // Scales beyond the last block are read, and multiply zeros: they must be finite.
    for (int i = threadIdx.x; i < (int)sizeof(shared.scales) / 4; i += THREADS)
        ((u32*)shared.scales)[i] = 0;
    fence_async_proxy();
    if (threadIdx.x < 2 * PAIRS) shared.largest[threadIdx.x / PAIRS][threadIdx.x % PAIRS] = 0;
    pdl_wait();  // the launch before writes x, ids and weights
    pdl_launch_dependents();
    const u32 generation = load_counter(counters + GENERATION);
    if (blockIdx.x == 0 && threadIdx.x == 0) counters[LEFT_AT_0] = 0;
    list_tiles(shared.tiles, {ids, weights, logits, expert_scale}, rows);
    Position position = {};
    if (warp < CONSUMERS) {
        consume<GateUp>(shared, ring, x, position, counters, generation);
        consume<Down>(shared, ring, h, position, counters, generation);
    } else if (warp < CONSUMERS + FINISHERS) {
        finish<GateUp>(shared, position, weights, gate_up_bias, h, rows);
        count_finished(counters, generation, FINISHERS);
        finish<Down>(shared, position, weights, down_bias, out, rows);
    } else if (threadIdx.x % 32 == 0) {
        const u32 odd = generation % 2;
        produce<GateUp>(shared, ring, position, counters + GATE_UP_ITEMS + odd, w.gate_up, gate_up_scales);
        produce<Down>(shared, ring, position, counters + DOWN_ITEMS + odd, w.down, down_scales);
    }
}
