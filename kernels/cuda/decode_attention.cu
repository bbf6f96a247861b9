// Decode attention on Hopper: the newest rows of each sequence attend to its paged keys and values.
// bf16, with or without a sliding window, with or without sinks.
//
// A program takes work items (sequence, split of the keys, KV head), numbered as in split_kv.py. One
// warp loads tiles of TILE keys and their values into a ring of SLOTS slots, across items, so that
// memory is busy while items begin and end. STREAMS warps take the tiles of an item in turn, each
// with a softmax of its own, and merge when the item ends: a tile needs no barrier but its own. If
// there are more rows than a warp has registers for, ROW_BLOCKS warps share each tile. A slot always
// belongs to the same stream, whose warps therefore see every phase of its barriers.
//
// Scores are computed transposed, keys x rows: the keys fill the matrix unit's M, the rows (query
// heads of one KV head times query rows) its N of 8. The weights of 8 keys x 8 rows are transposed
// in registers for the product with the values, which is transposed as well, dimensions x rows.
// A tile lies in shared memory as [part][block of 64 dimensions][key][128 bytes], with a swizzle of
// 128 bytes; a part holds the keys of one page, so that one copy fills it.
//
// Defined at compile time: HEADS, KV_HEADS, HEAD_DIM (64, 128 or 256), PAGE_SIZE (a power of two,
// at least 16), Q_LEN, TILE (a power of two, at least 16), SLOTS (a multiple of STREAMS), STREAMS,
// ROW_BLOCKS. For instance
//   nvcc -arch=sm_90a -cubin -DHEADS=64 -DKV_HEADS=8 -DHEAD_DIM=128 -DPAGE_SIZE=64 -DQ_LEN=1
//     -DTILE=32 -DSLOTS=12 -DSTREAMS=4 -DROW_BLOCKS=1 decode_attention.cu

#include "decode_work_items.cuh"

// Copies the tiles of all items into the ring. Called by one warp.
__device__ __forceinline__ void load_tiles(SharedState& shared, const Params& params,
                                           const TensorMap& keys, const TensorMap& values,
                                           u32 base, int items) {
    const int lane = threadIdx.x % 32;
    bool waited = false;
    int count = 0;
    for (int index = blockIdx.x; index < items; index += gridDim.x) {
        const WorkItem item = work_item(shared, params, index);
        const int* table = params.table + (u64)item.sequence * params.table_stride;
        const int first = shared.first[item.sequence];
        int pages = 0;
        for (int tile = 0; tile < item.tiles; ++tile, ++count) {
            // 32 parts' pages at a time, one in each lane.
            if (tile * PARTS % 32 == 0) {
                const int key = item.begin + (tile * PARTS + lane) * PART;
                pages = 0;
                if (key + PART > item.low && key < item.end)
                    pages = table[(key - first) / PAGE_SIZE];
            }
            const int k0 = item.begin + tile * TILE, slot = count % SLOTS;
            // Earlier steps wrote all keys but those of this step's own rows.
            if (!waited && k0 + TILE > item.length - Q_LEN) pdl_wait(), waited = true;
            barrier_wait(shared.empty[slot], (count / SLOTS & 1) ^ 1);
            int loaded = 0;
#pragma unroll
            for (int p = 0; p < PARTS; ++p)
                loaded += k0 + (p + 1) * PART > item.low && k0 + p * PART < item.end;
            if (lane == 0) barrier_expect_bytes(shared.full[slot], loaded * 2 * PART_BYTES);
            const u32 to = base + slot * 2 * TILE_BYTES;
#pragma unroll
            for (int p = 0; p < PARTS; ++p) {
                const int page = __shfl_sync(~0u, pages, (tile * PARTS + p) % 32);
                const int key = k0 + p * PART;
                if (key + PART <= item.low || key >= item.end || lane) continue;
                const int at = page * PAGE_SIZE + key % PAGE_SIZE;
                tma_load_3d(to + p * PART_BYTES, keys, 0, at, item.head * BLOCKS,
                            shared.full[slot]);
                tma_load_3d(to + TILE_BYTES + p * PART_BYTES, values, 0, at, item.head * BLOCKS,
                            shared.full[slot]);
            }
            __syncwarp();
        }
    }
}

// Address of 16 bytes (8 dimensions) of a key in a tile.
__device__ __forceinline__ u32 chunk_address(u32 tile, int key, int chunk) {
    return tile + key / PART * PART_BYTES + chunk / 8 * (PART * 128) + key % PART * 128 +
           ((chunk ^ key) & 7) * 16;
}

__device__ __forceinline__ void load_matrices_transposed(u32 (&x)[4], u32 from) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(x[0]), "=r"(x[1]), "=r"(x[2]), "=r"(x[3]) : "r"(from) : "memory");
}
__device__ __forceinline__ u32 transpose_matrix(u32 x) {
    u32 y;
    asm("movmatrix.sync.aligned.m8n8.trans.b16 %0, %1;" : "=r"(y) : "r"(x));
    return y;
}
// State of a warp's tiles of one item. A thread has rows 2 * (lane % 4) + {0, 1} of each column
// block of 8 rows, and for the sums the dimensions lane / 4 + {0, 8} of each 16.
struct Sums {
    float acc[STEPS][COLUMNS][4], top[COLUMNS][2], total[COLUMNS][2];
};

// Values that no row may see become 0: they may never have been written, and 0 * NaN is NaN. The
// warps that share a tile divide them, and none goes on before all are 0.
__device__ __forceinline__ void zero_unseen_values(u32 values, int k0, int low, int end) {
    const int warp = threadIdx.x / 32;
    for (int at = warp % ROW_BLOCKS * 32 + threadIdx.x % 32; at < TILE * (HEAD_DIM / 8);
         at += ROW_BLOCKS * 32) {
        const int key = at / (HEAD_DIM / 8);
        if (k0 + key < low || k0 + key >= end)
            store_shared(chunk_address(values, key, at % (HEAD_DIM / 8)), make_uint4(0, 0, 0, 0));
    }
    fence_async_proxy();
    __syncwarp();
    // Barriers 0 and 1 belong to all warps. The numbers are constants: one in a register would
    // reserve all 16 of the multiprocessor's.
#pragma unroll
    for (int stream = 0; stream < STREAMS; ++stream)
        if (ROW_BLOCKS > 1 && warp / ROW_BLOCKS == stream)
            asm volatile("bar.sync %0, %1;" ::"r"(2 + stream), "n"(ROW_BLOCKS * 32) : "memory");
}

// Takes one tile into a warp's sums.
__device__ __forceinline__ void attend_tile(Sums& sums, const u32 (&query)[STEPS][COLUMNS][2],
                                            const WorkItem& item, int window, u32 keys, int k0,
                                            int first_row, float scale) {
    const int lane = threadIdx.x % 32;
    const float infinity = __int_as_float(0x7F800000);
    const u32 values = keys + TILE_BYTES;
    float s[KEY_STEPS][COLUMNS][4];
#pragma unroll
    for (int i = 0; i < KEY_STEPS; ++i) {
#pragma unroll
        for (int n = 0; n < COLUMNS; ++n)
#pragma unroll
            for (int j = 0; j < 4; ++j) s[i][n][j] = 0.0f;
#pragma unroll
        for (int k = 0; k < STEPS; ++k) {
            u32 a[4];
            load_matrices(a, chunk_address(keys, i * 16 + lane % 16, k * 2 + lane / 16));
#pragma unroll
            for (int n = 0; n < COLUMNS; ++n) multiply(s[i][n], a, query[k][n][0], query[k][n][1]);
        }
    }
    const bool dirty = k0 < item.low || k0 + TILE > item.end;
    if (dirty) zero_unseen_values(values, k0, item.low, item.end);
    const bool masked = dirty || k0 + TILE > item.length - Q_LEN + 1 ||
                        k0 <= item.length - 1 - window;
    float decay[COLUMNS][2];
#pragma unroll
    for (int n = 0; n < COLUMNS; ++n)
#pragma unroll
        for (int r = 0; r < 2; ++r) {
            const int row = first_row + n * 8 + lane % 4 * 2 + r;
            const int position = item.length - Q_LEN + row / GROUP;
            float most = -infinity;
#pragma unroll
            for (int i = 0; i < KEY_STEPS; ++i)
#pragma unroll
                for (int half = 0; half < 2; ++half) {
                    float& x = s[i][n][half * 2 + r];
                    if (masked) {
                        const int key = k0 + i * 16 + half * 8 + lane / 4;
                        if ((u32)(position - key) >= (u32)window || key >= item.end) x = -infinity;
                    }
                    most = fmaxf(most, x);
                }
            most = fmaxf(most, __shfl_xor_sync(~0u, most, 4));
            most = fmaxf(most, __shfl_xor_sync(~0u, most, 8));
            most = fmaxf(most, __shfl_xor_sync(~0u, most, 16));
            const float top = fmaxf(sums.top[n][r], most * scale);
            // A row that has seen no key yet has top = -inf. It is shifted by 0 instead.
            const float shift = top == -infinity ? 0.0f : top;
            decay[n][r] = exp2_fast(sums.top[n][r] - shift);
            sums.top[n][r] = top;
            float added = 0.0f;
#pragma unroll
            for (int i = 0; i < KEY_STEPS; ++i)
#pragma unroll
                for (int half = 0; half < 2; ++half) {
                    float& x = s[i][n][half * 2 + r];
                    x = exp2_fast(x * scale - shift);
                    added += x;
                }
            sums.total[n][r] = sums.total[n][r] * decay[n][r] + added;  // of this thread's keys
        }
#pragma unroll
    for (int d = 0; d < STEPS; ++d)
#pragma unroll
        for (int n = 0; n < COLUMNS; ++n)
#pragma unroll
            for (int j = 0; j < 4; ++j) sums.acc[d][n][j] *= decay[n][j % 2];
#pragma unroll
    for (int i = 0; i < KEY_STEPS; ++i) {
        u32 weights[COLUMNS][2];
#pragma unroll
        for (int n = 0; n < COLUMNS; ++n)
#pragma unroll
            for (int half = 0; half < 2; ++half)
                weights[n][half] =
                    transpose_matrix(pack_bf16(s[i][n][half * 2], s[i][n][half * 2 + 1]));
#pragma unroll
        for (int d = 0; d < STEPS; ++d) {
            u32 a[4];
            load_matrices_transposed(
                a, chunk_address(values, i * 16 + lane % 8 + lane / 16 * 8, d * 2 + lane / 8 % 2));
#pragma unroll
            for (int n = 0; n < COLUMNS; ++n)
                multiply(sums.acc[d][n], a, weights[n][0], weights[n][1]);
        }
    }
}

// Merges the warps' sums of an item into shared memory, all relative to the row's largest score.
__device__ __forceinline__ void share_sums(SharedState& shared, Sums& sums, float* merge, int round,
                                           int stream, int first_row) {
    auto& stats = shared.stats[round % 2];
    const int lane = threadIdx.x % 32;
    const float infinity = __int_as_float(0x7F800000);
#pragma unroll
    for (int n = 0; n < COLUMNS; ++n)
#pragma unroll
        for (int r = 0; r < 2; ++r) {
            float total = sums.total[n][r];
            total += __shfl_xor_sync(~0u, total, 4);
            total += __shfl_xor_sync(~0u, total, 8);
            total += __shfl_xor_sync(~0u, total, 16);
            if (lane < 4) {
                stats[stream][first_row + n * 8 + lane * 2 + r][0] = sums.top[n][r];
                stats[stream][first_row + n * 8 + lane * 2 + r][1] = total;
            }
        }
    asm volatile("bar.sync 1, %0;" ::"n"(WARPS * 32) : "memory");
#pragma unroll
    for (int n = 0; n < COLUMNS; ++n)
#pragma unroll
        for (int r = 0; r < 2; ++r) {
            const int row = first_row + n * 8 + lane % 4 * 2 + r;
            float top = -infinity;
#pragma unroll
            for (int w = 0; w < STREAMS; ++w) top = fmaxf(top, stats[w][row][0]);
            const float factor = top == -infinity ? 0.0f : exp2_fast(sums.top[n][r] - top);
            if (row >= ROWS) continue;
            float* to = merge + (stream * ROWS + row) * ROW_FLOATS + lane / 4;
#pragma unroll
            for (int d = 0; d < STEPS; ++d) {
                to[d * 16] = sums.acc[d][n][r] * factor;
                to[d * 16 + 8] = sums.acc[d][n][2 + r] * factor;
            }
        }
    asm volatile("bar.sync 1, %0;" ::"n"(WARPS * 32) : "memory");
}

// Adds up the warps' sums, and writes them as a split's results, or the attention itself. The stream
// that took the item's first tile comes first, which depends on the items before: `first_stream`.
__device__ __forceinline__ void store_sums(const SharedState& shared, const float* merge,
                                           const WorkItem& item, int round, int index,
                                           int first_stream, bool split, const bf16* sinks,
                                           bf16* out, float* part, float* stats) {
    const float infinity = __int_as_float(0x7F800000);
    for (int at = threadIdx.x; at < ROWS * (HEAD_DIM / 4); at += WARPS * 32) {
        const int row = at / (HEAD_DIM / 4), dim = at % (HEAD_DIM / 4) * 4;
        float4 sum = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
        float top = -infinity, total = 0.0f;
#pragma unroll
        for (int i = 0; i < STREAMS; ++i) {
            const int w = (first_stream + i) % STREAMS;
            const float4 x = *(const float4*)(merge + (w * ROWS + row) * ROW_FLOATS + dim);
            sum.x += x.x, sum.y += x.y, sum.z += x.z, sum.w += x.w;
            top = fmaxf(top, shared.stats[round % 2][w][row][0]);
        }
#pragma unroll
        for (int i = 0; i < STREAMS; ++i)
            if (top != -infinity) {
                const float* own = shared.stats[round % 2][(first_stream + i) % STREAMS][row];
                total += own[1] * exp2_fast(own[0] - top);
            }
        if (split) {
            const u64 to = (u64)index * ROWS + row;
            *(float4*)(part + to * HEAD_DIM + dim) = sum;
            if (dim == 0) stats[to * 2] = top, stats[to * 2 + 1] = total;
            continue;
        }
        float factor = 1.0f;
        if (sinks) {
            const float sink =
                to_float(sinks[item.head * GROUP + row % GROUP]) * 1.4426950408889634f;
            const float most = fmaxf(top, sink);
            factor = exp2_fast(top - most);
            total = total * factor + exp2_fast(sink - most);
        }
        // Rows without a visible key have a total of 0; they become 0.
        factor = total > 0.0f ? factor / total : 0.0f;
        const u64 to = ((u64)(item.sequence * Q_LEN + row / GROUP) * HEADS + item.head * GROUP +
                        row % GROUP) * HEAD_DIM + dim;
        *(uint2*)(out + to) = make_uint2(pack_bf16(sum.x * factor, sum.y * factor),
                                         pack_bf16(sum.z * factor, sum.w * factor));
    }
}

// Computes all items. Called by the first WARPS warps.
__device__ __forceinline__ void attend(SharedState& shared, const Params& params, u32 base,
                                       float* merge, int items, const bf16* q, const bf16* sinks,
                                       bf16* out, float* part, float* stats, float scale) {
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, stream = warp / ROW_BLOCKS;
    const int first_row = warp % ROW_BLOCKS * COLUMNS * 8;
    const float infinity = __int_as_float(0x7F800000);
    int before = 0, round = 0;
    for (int index = blockIdx.x; index < items; index += gridDim.x, ++round) {
        const WorkItem item = work_item(shared, params, index);
        u32 query[STEPS][COLUMNS][2];
#pragma unroll
        for (int n = 0; n < COLUMNS; ++n) {
            const int row = min(first_row + n * 8 + lane / 4, ROWS - 1);
            const bf16* from = q + ((u64)(item.sequence * Q_LEN + row / GROUP) * HEADS +
                                    item.head * GROUP + row % GROUP) * HEAD_DIM + lane % 4 * 2;
#pragma unroll
            for (int k = 0; k < STEPS; ++k) {
                query[k][n][0] = *(const u32*)(from + k * 16);
                query[k][n][1] = *(const u32*)(from + k * 16 + 8);
            }
        }
        Sums sums;
#pragma unroll
        for (int n = 0; n < COLUMNS; ++n) {
            sums.top[n][0] = sums.top[n][1] = -infinity;
            sums.total[n][0] = sums.total[n][1] = 0.0f;
#pragma unroll
            for (int d = 0; d < STEPS; ++d)
#pragma unroll
                for (int j = 0; j < 4; ++j) sums.acc[d][n][j] = 0.0f;
        }
        for (int tile = (stream + STREAMS - before % STREAMS) % STREAMS; tile < item.tiles;
             tile += STREAMS) {
            const int at = before + tile, slot = at % SLOTS;
            barrier_wait(shared.full[slot], at / SLOTS & 1);
            attend_tile(sums, query, item, params.window, base + slot * 2 * TILE_BYTES,
                        item.begin + tile * TILE, first_row, scale);
            barrier_arrive_warp(shared.empty[slot]);
        }
        share_sums(shared, sums, merge, round, stream, first_row);
        store_sums(shared, merge, item, round, index, before % STREAMS, params.split > 0, sinks, out,
                   part, stats);
        before += item.tiles;
    }
}

extern "C" __global__ void __launch_bounds__(WARPS * 32 + 32, 1)
decode_attention(const __grid_constant__ TensorMap keys, const __grid_constant__ TensorMap values,
                 const bf16* q, const int* table, int table_stride, const int* lens,
                 const int* first_pos, const bf16* sinks, bf16* out, float* part, float* stats,
                 float scale, int sequences, int window, int split, int longest_short,
                 int short_split) {
    extern __shared__ __align__(1024) unsigned char memory[];
    SharedState& shared = *(SharedState*)(memory + STATE);
    const u32 base = shared_address(memory);
    const int t = threadIdx.x;
    const Params params{table, table_stride, sequences, window, split, short_split, longest_short};
    if (base % 1024) asm volatile("trap;");
    pdl_launch_dependents();
    if (t == 0) {
        for (int i = 0; i < SLOTS; ++i)
            barrier_init(shared.full[i], 1), barrier_init(shared.empty[i], ROW_BLOCKS);
        asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
        fence_async_proxy();
    }
    // Lengths and page tables are uploaded before the first launch of a step.
    for (int s = t; s < sequences; s += WARPS * 32 + 32) {
        shared.length[s] = lens[s];
        shared.first[s] = first_pos ? first_pos[s] : 0;
    }
    __syncthreads();
    if (t < 32) {
        int end = 0;
        for (int s = t; s - t < sequences; s += 32) {
            int count = s < sequences ? split_count(params, shared.length[s]) : 0;
#pragma unroll
            for (int step = 1; step < 32; step *= 2) {
                const int below = __shfl_up_sync(~0u, count, step);
                if (t >= step) count += below;
            }
            if (s < sequences) shared.end[s] = end + count;
            end += __shfl_sync(~0u, count, 31);
        }
    }
    __syncthreads();
    const int items = shared.end[sequences - 1] * KV_HEADS;
    if (t >= WARPS * 32) {
        load_tiles(shared, params, keys, values, base, items);
    } else {
        pdl_wait();
        attend(shared, params, base, (float*)(memory + MERGE), items, q, sinks, out, part, stats,
               scale * 1.4426950408889634f);
    }
}
