// A layer's experts for few rows, both products in one launch, on Hopper: in bfloat16, or stored in
// FP8 or 4 bits.
//
// One program runs on each multiprocessor and takes a contiguous part of all touched experts'
// weight rows, so that it reads memory as one stream: first of gate and up, then, after all programs
// have finished those, of down, whose first weights have arrived by then. One warp copies weight
// rows in bulk into a ring, another one the rows of x that go with them, both ahead of the
// computation. CONSUMERS warps divide the columns among themselves and multiply 16 weight rows by
// 8 rows of x (m16n8k16). One more warp adds the parts in the order of the warps and finishes the
// results, while the next rows are multiplied.
//
// Stored weights become bfloat16 in registers. Columns may be summed in any order as long as x
// follows, so a lane takes neighboring columns of the word of a row that it is given. Scales apply to
// the sums of the columns that share one, and are read ahead of the groups that they belong to.
//
// Macros: INTERLEAVED, HAS_BIAS (0 or 1); ACTIVATION (0 SiLU, 1 GELU, 2 clamped SwiGLU); HIDDEN and
// INNER, columns; EXPERTS; TOP_K; ROUTED; STAGES of the ring; CONSUMERS; GATE_UP_PARTS and
// DOWN_PARTS, into which stages divide the columns; DOWN_GROUPS of 16 weight rows in an item of
// down. Of stored weights: STORED (1 FP8, 2 4 bits; 0 or none for bfloat16); ZEROS, FLOAT_SCALES (0
// or 1); GROUP, columns that share a scale (0 for all); GATE_UP_SHARED and DOWN_SHARED, rows that
// share scales.
#include "bf16_stream_state.cuh"
#if STORED
#include "stored_columns.cuh"
#else
#include "bf16_columns.cuh"
#endif

// Copies weights, which are read once, so that data that is read again stays in L2.
__device__ __forceinline__ void copy_bulk_once(u8* to, const void* from, int bytes, u64& bar) {
    constexpr u64 EVICT_FIRST = 0x12F0000000000000;  // createpolicy.fractional.L2::evict_first
    asm volatile(
        "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes.L2::cache_hint"
        " [%0], [%1], %2, [%3], %4;" ::"r"(shared_address(to)), "l"((u64)from), "r"(bytes),
        "r"(shared_address(&bar)), "l"(EVICT_FIRST) : "memory");
}

// Copies weights. Called by one warp.
template <class P>
__device__ __forceinline__ void produce(Shared& shared, u8* ring, Position& position, u32* counter,
                                        const u8* w) {
    const int lane = threadIdx.x % 32;
    Items<P> items;
    if (lane == 0) items.start(shared.tiles, counter);
    for (int item = 0; item >= 0; position.entries++) {
        const int place = position.entries % QUEUE, turn = position.entries / QUEUE;
        if (lane == 0) {
            item = items.next();
            if (turn > 0) barrier_wait(shared.queue_empty[place], (turn - 1) & 1);
            shared.queue[place] = item;
            barrier_arrive(shared.queue_full[place]);
        }
        item = __shfl_sync(~0u, item, 0);
        if (item < 0) continue;
        const u64 expert = shared.tiles.expert[item / P::ITEMS];
        for (int part = 0; part < P::PARTS; part++, position.stages++) {
            const int stage = position.stages % STAGES, round = position.stages / STAGES;
            if (round > 0) barrier_wait(shared.empty[stage], (round - 1) & 1);
            if (lane == 0)
                barrier_expect_bytes(shared.full[stage], 16 * P::GROUPS * P::PART_BYTES);
            __syncwarp();
            for (int slot = lane; slot < 16 * P::GROUPS; slot += 32) {
                const u64 row = expert * P::ROWS + weight_row<P>(item % P::ITEMS, slot);
                copy_bulk_once(ring + stage * STAGE + slot * P::PITCH,
                               w + row * P::ROW_BYTES + part * P::PART_BYTES,
                               P::PART_BYTES, shared.full[stage]);
            }
        }
    }
}

// Copies the rows of x of every tile. Called by one warp.
template <class P>
__device__ __forceinline__ void produce_x(Shared& shared, u8* x_rows, Position& position,
                                          const bf16* x) {
    const int lane = threadIdx.x % 32;
    fence_async_copies();  // other multiprocessors wrote x by ordinary stores
    for (int item = 0, last = -1; item >= 0; position.entries++) {
        item = item_of(shared, position.entries);
        barrier_arrive_warp(shared.queue_empty[position.entries % QUEUE]);
        const int tile = item / P::ITEMS;
        if (item < 0 || tile == last) continue;
        const int side = position.tiles % 2, round = position.tiles / 2;
        const int rows = shared.tiles.rows(tile);
        if (round > 0) barrier_wait(shared.x_empty[side], (round - 1) & 1);
        if (lane == 0) barrier_expect_bytes(shared.x_full[side], rows * P::INPUTS * 2);
        __syncwarp();
        if (lane < rows) {
            const int pair = shared.tiles.pair(tile, lane);
            const bf16* from = x + (u64)(P::GATED ? pair / TOP_K : pair) * P::INPUTS;
            copy_bulk(x_rows + side * X_BYTES + lane * P::X_PITCH, from, P::INPUTS * 2,
                      shared.x_full[side]);
        }
        last = tile;
        position.tiles++;
    }
}

// Multiplies this warp's columns of every item.
template <class P>
__device__ __forceinline__ void consume(Shared& shared, const u8* ring, const u8* x_rows,
                                        Position& position, const Stored& stored) {
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    // The matrices' rows whose addresses this lane gives: 16 weight rows by two groups of 8
    // columns, and 8 rows of x by four.
    const u32 weight_at = lane % 16 * P::PITCH + lane / 16 * 16;
    const u32 x_at = STORED ? lane / 4 * P::X_PITCH + lane % 4 * 8
                            : lane % 8 * P::X_PITCH + lane / 8 * 16;
    int last = -1;
    for (int item = 0; item >= 0; position.entries++) {
        item = item_of(shared, position.entries);
        barrier_arrive_warp(shared.queue_empty[position.entries % QUEUE]);
        const int tile = item / P::ITEMS;
        if (item >= 0 && tile != last) {
            if (last >= 0) barrier_arrive_warp(shared.x_empty[(position.tiles - 1) % 2]);
            barrier_wait(shared.x_full[position.tiles % 2], position.tiles / 2 & 1);
            position.tiles++;
            last = tile;
        }
        const u32 x = shared_address(x_rows + (position.tiles - 1) % 2 * X_BYTES) + x_at;
        Sums<P> sums = {};
        for (int part = 0; part < (item < 0 ? 0 : P::PARTS); part++, position.stages++) {
            const int stage = position.stages % STAGES;
            const u32 w = shared_address(ring + stage * STAGE) + weight_at;
            multiply_part<P>(sums, w, x, part, shared.full[stage], position.stages / STAGES & 1,
                             stored, shared.tiles.expert[tile], item % P::ITEMS);
            barrier_arrive_warp(shared.empty[stage]);
        }
        const int side = position.entries % 2;
        if (position.entries >= 2)
            barrier_wait(shared.parts_empty[side], (position.entries / 2 - 1) & 1);
#pragma unroll
        for (int m = 0; m < P::GROUPS; m++)
#pragma unroll
            for (int i = 0; i < 4; i++)
                shared.parts[side][warp][m][i][lane] = total<P>(sums, m, i);
        if (threadIdx.x == 0) shared.items[side] = item;
        barrier_arrive_warp(shared.parts_full[side]);
    }
    if (last >= 0) barrier_arrive_warp(shared.x_empty[(position.tiles - 1) % 2]);
}

// Adds the parts of every item and writes the results. Called by one warp.
template <class P>
__device__ __forceinline__ void finish(Shared& shared, Position& position,
                                       const float* weights, const bf16* bias,
                                       const Stored& stored, void* out, int rows) {
    const int lane = threadIdx.x % 32, group = lane / 4;
    while (true) {
        const int side = position.entries % 2;
        barrier_wait(shared.parts_full[side], position.entries++ / 2 & 1);
        const int item = shared.items[side], tile = item / P::ITEMS;
        if (item < 0) {
            barrier_arrive_warp(shared.parts_empty[side]);
            return;
        }
        const u64 expert = shared.tiles.expert[tile];
        float sum[P::GROUPS][4] = {}, added[P::GROUPS][2] = {};
        if (HAS_BIAS)
            for (int m = 0; m < P::GROUPS; m++)
                for (int half = 0; half < 2; half++)
                    added[m][half] = to_float(bias[
                        expert * P::ROWS + weight_row<P>(item % P::ITEMS, m * 16 + half * 8 + group)]);
#pragma unroll
        for (int part = 0; part < CONSUMERS; part++)
#pragma unroll
            for (int m = 0; m < P::GROUPS; m++)
#pragma unroll
                for (int i = 0; i < 4; i++) sum[m][i] += shared.parts[side][part][m][i][lane];
        barrier_arrive_warp(shared.parts_empty[side]);
        if (STORED && !P::SCALED)
            for (int m = 0; m < P::GROUPS; m++)
                for (int i = 0; i < 4; i++)
                    sum[m][i] *= load_scale<P>(
                        stored, expert, 0,
                        weight_row<P>(item % P::ITEMS, m * 16 + i / 2 * 8 + group));
#pragma unroll
        for (int i = 0; i < 2; i++) {
            const int place = lane % 4 * 2 + i;
            if (place >= shared.tiles.rows(tile)) continue;
            const int pair = shared.tiles.pair(tile, place);
#pragma unroll
            for (int m = 0; m < P::GROUPS; m++) {
                const float low = sum[m][i] + added[m][0], high = sum[m][i + 2] + added[m][1];
                if (P::GATED) {
                    const int column = item % P::ITEMS * 8 + group;
                    ((bf16*)out)[(u64)pair * P::OUTPUTS + column] = to_bf16(activate<ACTIVATION>(low, high));
                } else {
                    const float weight = ROUTED ? shared.tiles.weights[pair] : weights[pair];
                    float* to = (float*)out + ((u64)(pair % TOP_K) * rows + pair / TOP_K) * P::OUTPUTS;
                    to += weight_row<P>(item % P::ITEMS, m * 16 + group);
                    to[0] = low * weight, to[8] = high * weight;
                }
            }
        }
    }
}

// x [rows, HIDDEN], h [pairs, INNER], out float32 [TOP_K, rows, HIDDEN]. `weights` are the pairs',
// [rows * TOP_K]. See `Counter` for counters.
extern "C" __global__ void __launch_bounds__(THREADS, 1)
experts_bf16_stream(const bf16* x, int* ids, float* weights, const float* logits,
                    const float* expert_scale, const u8* gate_up,
                    const bf16* gate_up_bias, const u8* down, const bf16* down_bias, bf16* h,
                    float* out, u32* counters, const u8* gate_up_scales, const u8* gate_up_zeros,
                    const u8* down_scales, const u8* down_zeros, int rows) {
    extern __shared__ __align__(128) u8 ring[];
    u8* x_rows = ring + STAGES * STAGE;
    Shared& shared = *(Shared*)(x_rows + 2 * X_BYTES);
    const int warp = threadIdx.x / 32;
    if (threadIdx.x == 0) {
        for (int i = 0; i < STAGES; i++) {
            barrier_init(shared.full[i], 1);
            barrier_init(shared.empty[i], CONSUMERS);
        }
        for (int i = 0; i < 2; i++) {
            barrier_init(shared.x_full[i], 1);
            barrier_init(shared.x_empty[i], CONSUMERS);
            barrier_init(shared.parts_full[i], CONSUMERS);
            barrier_init(shared.parts_empty[i], 1);
        }
        for (int i = 0; i < QUEUE; i++) {
            barrier_init(shared.queue_full[i], 1);
            barrier_init(shared.queue_empty[i], CONSUMERS + 1);
        }
        fence_async_proxy();
    }
    pdl_wait();  // the launch before writes x, ids and weights
    pdl_launch_dependents();
    const u32 generation = load_counter(counters + GENERATION), odd = generation % 2;
    if (blockIdx.x == 0 && threadIdx.x == 0) counters[LEFT_AT_0] = 0;
    list_tiles(shared.tiles, {ids, weights, logits, expert_scale}, rows);
    const Stored first = {gate_up_scales, gate_up_zeros}, second = {down_scales, down_zeros};
    Position position = {};
    if (warp < CONSUMERS) {
        consume<GateUp>(shared, ring, x_rows, position, first);
        consume<Down>(shared, ring, x_rows, position, second);
    } else if (warp == CONSUMERS) {
        finish<GateUp>(shared, position, weights, gate_up_bias, first, h, rows);
        count_finished(counters, generation, 1);
        finish<Down>(shared, position, weights, down_bias, second, out, rows);
    } else if (warp == CONSUMERS + 1) {
        produce<GateUp>(shared, ring, position, counters + GATE_UP_ITEMS + odd, gate_up);
        produce<Down>(shared, ring, position, counters + DOWN_ITEMS + odd, down);
    } else {
        produce_x<GateUp>(shared, x_rows, position, x);
        wait_for_all(counters, generation);
        produce_x<Down>(shared, x_rows, position, h);
    }
}
