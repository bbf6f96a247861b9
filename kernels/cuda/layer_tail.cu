// Four products with norms between them in one launch, on Hopper, bf16, for at most ROWS rows: a
// decode step from the end of one layer's attention to the first product of the next layer.
//
//     y = x W0^T               residual, x1 = norms of y
//     h = gelu(x1 Wg^T) * (x1 Wu^T)
//     y = h W2^T               residual, x3 = norms of y
//     out = x3 W3^T
//
// A product alone leaves memory idle while its last programs finish, the next launch starts and its
// inputs arrive. Weights depend on nothing, so here one warp of each program streams them through a
// ring in shared memory from the first product to the last without a stop, a second one follows
// with the inputs as they become known, and four compute. A product knows its inputs by counters in
// global memory, zero at the start. So all programs must run at once: one a multiprocessor.
//
// The matrix unit's M are up to 64 weight rows, a tile; its N are the rows of x. A tile has as many
// rows as give all programs the same share of a product: where only some read, the paths to them
// are the limit (84 of 132 programs: 31 GB/s each, 2.6 TB/s). Which program computes a tile does not
// depend on the rows, and no sum is split: results do not depend on the batch.
//
// Preceded by hopper.cuh. Defined at compile time: ROWS (8, 16, 32 or 64), WIDTH (of the residual, a
// multiple of 256), DEPTH (blocks of 64 columns in a slot of the ring).

constexpr int PHASES = 4;
constexpr int BLOCK = 64 * 128, X_BLOCK = ROWS * 128;  // bytes of 64 weight rows, of x
constexpr int SHARED = 232448, BARRIERS = 1024, ROOM = SHARED - BARRIERS;
constexpr int SLOTS = 32;  // most in use at once
constexpr u64 EVICT_FIRST = 0x12F0000000000000;  // createpolicy.fractional.L2::evict_first
enum Kind { PLAIN, GATED, WIDE };  // bf16; gelu(gate) * up in bf16; float32

struct __align__(64) Phase {
    TensorMap weights, x;
    void* out;  // [rows, n]
    // Where y is given, x is normed, [rows, WIDTH], and made of it first.
    const bf16 *y, *post, *next;
    bf16 *residual, *normed;
    float scale;
    int n, tile, tiles, steps;  // outputs; weight rows a tile, at most 64; tiles; slots of one
    Kind kind;
};

struct __align__(64) Chain {
    Phase phases[PHASES];
    int* counters;  // [PHASES][2]: rows that are normed, tiles that are computed
    float eps;
    int rows;
};

struct Ring {
    // Each barrier is one u64; what completes a phase stands beside it.
    u64 full[SLOTS], empty[SLOTS];  // weights and inputs are there (2 and bytes); read (4 warps)
    u64 stored, noted;  // a tile's results are written (128 threads); to be counted (1)
    u32 ends[2][SLOTS];  // where slots end, for each warp that fills them
    float sums[2][4];
};
static_assert(sizeof(Ring) <= BARRIERS, "shared memory");

__device__ __forceinline__ void mma(float (&d)[4], u64 a, u64 b, int add) {
    asm volatile(
        "{.reg .pred p; setp.ne.b32 p, %6, 0;"
        "wgmma.mma_async.sync.aligned.m64n8k16.f32.bf16.bf16 {%0, %1, %2, %3}, %4, %5, "
        "p, 1, 1, 0, 0;}" : F4(d, 0) : "l"(a), "l"(b), "r"(add));
}
__device__ __forceinline__ void mma(float (&d)[8], u64 a, u64 b, int add) {
    asm volatile(
        "{.reg .pred p; setp.ne.b32 p, %10, 0;"
        "wgmma.mma_async.sync.aligned.m64n16k16.f32.bf16.bf16 {%0, %1, %2, %3, %4, %5, %6, %7}, "
        "%8, %9, p, 1, 1, 0, 0;}" : F4(d, 0), F4(d, 4) : "l"(a), "l"(b), "r"(add));
}
__device__ __forceinline__ void mma(float (&d)[16], u64 a, u64 b, int add) {
    asm volatile(
        "{.reg .pred p; setp.ne.b32 p, %18, 0;"
        "wgmma.mma_async.sync.aligned.m64n32k16.f32.bf16.bf16 {%0, %1, %2, %3, %4, %5, %6, %7, "
        "%8, %9, %10, %11, %12, %13, %14, %15}, %16, %17, p, 1, 1, 0, 0;}"
        : F4(d, 0), F4(d, 4), F4(d, 8), F4(d, 12) : "l"(a), "l"(b), "r"(add));
}
__device__ __forceinline__ void mma(float (&d)[32], u64 a, u64 b, int add) {
    mma_n64(d, a, b, add);
}

// What other programs wrote before they counted is visible afterwards; to bulk copies, by a fence.
__device__ __forceinline__ void wait_for_count(const int* counter, int target) {
    int seen;
    do
        asm volatile("ld.acquire.gpu.global.s32 %0, [%1];" : "=r"(seen) : "l"(counter) : "memory");
    while (seen < target);
}
// After all that this thread wrote, and what it has seen other threads arrive with.
__device__ __forceinline__ void count(int* counter) {
    asm volatile("red.release.gpu.global.add.s32 [%0], 1;" ::"l"(counter) : "memory");
}

// Counts this program's tiles. A count waits until what was written has reached L2, behind all
// loads under way: several microseconds, for which the products need not stop.
__device__ __forceinline__ void count_tiles(const Chain& chain, Ring& ring) {
    u32 number = 0;
    for (int p = 0; p < PHASES - 1; ++p)
        for (int tile = blockIdx.x; tile < chain.phases[p].tiles; tile += gridDim.x, ++number) {
            wait(ring.stored, number & 1);
            arrive(ring.noted);
            count(chain.counters + 2 * p + 1);
        }
}

// The last tile begins early enough to be whole: copies that reach beyond a tensor are slower.
__device__ __forceinline__ int first_row(const Phase& phase, int tile) {
    return min(tile * phase.tile, phase.n - phase.tile);
}

// Slots lie one after another in the ring, x and then blocks of as many rows as a tile has, so that
// the ring holds as much as it can when a phase is waited for. `at` counts all bytes up to there.
struct Layout {
    u32 block, size;
    __device__ __forceinline__ Layout(const Phase& phase)
        : block((phase.tile + 7) / 8 * 1024), size(DEPTH * (X_BLOCK + block)) {}
    // The next slot; none is cut by the ring's end. The matrix unit reads 64 rows of each block,
    // those beyond a tile in vain.
    __device__ __forceinline__ u32 next(u32& at) const {
        u32 from = at % ROOM;
        if (from + size + BLOCK - block > ROOM) at += ROOM - from, from = 0;
        at += size;
        return from;
    }
};

// Read once: what is read again shall stay in L2.
__device__ __forceinline__ void load_once(u32 to, const TensorMap& map, int y, int z, u64& bar) {
    asm volatile(
        "cp.async.bulk.tensor.3d.shared::cluster.global.tile.mbarrier::complete_tx::bytes"
        ".L2::cache_hint [%0], [%1, {%2, %3, %4}], [%5], %6;" ::"r"(to), "l"((u64)&map), "r"(0),
        "r"(y), "r"(z), "r"(shared_address(&bar)), "l"(EVICT_FIRST) : "memory");
}

// Brings the weights of all of this program's tiles, or their inputs, in the order of the ring.
template <bool INPUTS>
__device__ __forceinline__ void stream(const Chain& chain, Ring& ring, u32 base) {
    u32 number = 0, at = 0, oldest = 0, freed = 0;
    u32(&ends)[SLOTS] = ring.ends[INPUTS];
    for (int p = 0; p < PHASES; ++p) {
        const Phase& phase = chain.phases[p];
        const Layout layout(phase);
        const int tiles = phase.tiles, parts = phase.kind == GATED ? 2 : 1;
        if (INPUTS && p && blockIdx.x < tiles) {
            if (phase.y)
                wait_for_count(chain.counters + 2 * p, chain.rows);
            else
                wait_for_count(chain.counters + 2 * p - 1, chain.phases[p - 1].tiles);
            asm volatile("fence.proxy.async;" ::: "memory");
        }
        for (int tile = blockIdx.x; tile < tiles; tile += gridDim.x)
            for (int step = 0; step < phase.steps; ++step)
                for (int part = 0; part < parts; ++part, ++number) {
                    const u32 to = base + layout.next(at);
                    for (; number - oldest == SLOTS || at - freed > ROOM; ++oldest) {
                        wait(ring.empty[oldest % SLOTS], oldest / SLOTS & 1);
                        freed = ends[oldest % SLOTS];
                    }
                    ends[number % SLOTS] = at;
                    u64& full = ring.full[number % SLOTS];
                    expect(full, DEPTH * 128 * (INPUTS ? ROWS : phase.tile));
                    if (INPUTS)
                        load_3d(to, phase.x, 0, 0, step * DEPTH, full);
                    else  // one by one, since each block must begin at a multiple of 1,024 bytes
                        for (int b = 0; b < DEPTH; ++b)
                            load_once(to + DEPTH * X_BLOCK + b * layout.block, phase.weights,
                                      first_row(phase, tile) + part * phase.n, step * DEPTH + b,
                                      full);
                }
    }
}

// Adds up one slot; the slot before, which nothing reads any more then, is given back.
__device__ __forceinline__ void multiply(float (&d)[ROWS / 2], Ring& ring, const Layout& layout,
                                         u32 from, u32 number, bool first, bool alone) {
    const u64 x = describe(from, 16), w = describe(from + DEPTH * X_BLOCK, 16);
    wait(ring.full[number % SLOTS], number / SLOTS & 1);
    mma_fence();
#pragma unroll
    for (int b = 0; b < DEPTH; ++b)
#pragma unroll
        for (int k = 0; k < 4; ++k)
            mma(d, w + b * (layout.block / 16) + k * 2, x + b * (X_BLOCK / 16) + k * 2,
                !first || b > 0 || k > 0);
    mma_commit();
    mma_wait<1>();
    if (!alone) arrive_warp(ring.empty[(number - 1) % SLOTS]);
}

__device__ __forceinline__ float gelu(float x) {
    const float inner = 0.7978845608028654f * (x + 0.044715f * x * x * x);
    // tanh(u) = 1 - 2 / (exp(2u) + 1) does not overflow to NaN at either end.
    return x * (1.0f - 1.0f / (exp2_fast(2.0f * 1.4426950408889634f * inner) + 1.0f));
}

template <Kind KIND>
__device__ __forceinline__ void products(const Chain& chain, int p, Ring& ring, u32 base,
                                         u32& number, u32& at, u32& stored) {
    const Phase& phase = chain.phases[p];
    const Layout layout(phase);
    const int lane = threadIdx.x % 32, first = threadIdx.x / 32 * 16 + lane / 4;
    for (int tile = blockIdx.x; tile < phase.tiles; tile += gridDim.x) {
        float d[ROWS / 2], up[KIND == GATED ? ROWS / 2 : 4];
        for (int step = 0; step < phase.steps; ++step) {
            const bool fresh = step == 0;
            multiply(d, ring, layout, base + layout.next(at), number++, fresh, fresh);
            if constexpr (KIND == GATED)
                multiply(up, ring, layout, base + layout.next(at), number++, fresh, false);
        }
        mma_wait<0>();
        arrive_warp(ring.empty[(number - 1) % SLOTS]);
#pragma unroll
        for (int i = 0; i < ROWS / 2; ++i) {
            const int m = i / 4 * 8 + lane % 4 * 2 + i % 2, row = first + i % 4 / 2 * 8;
            const int column = first_row(phase, tile) + row;
            const u64 at = (u64)m * phase.n + column;
            float value = d[i];
            if constexpr (KIND == GATED) value = gelu(value) * up[i];
            if (m >= chain.rows || row >= phase.tile) continue;
            if constexpr (KIND == WIDE)
                ((float*)phase.out)[at] = value;
            else
                ((bf16*)phase.out)[at] = (bf16)pack(value, 0.0f);
        }
        if (p == PHASES - 1) continue;
        wait(ring.noted, (stored++ & 1) ^ 1);  // of the tile before
        arrive(ring.stored);
    }
}

// Sum over the 128 threads of the group.
__device__ __forceinline__ float sum(float value, float (&sums)[4]) {
#pragma unroll
    for (int lanes = 16; lanes; lanes /= 2) value += __shfl_xor_sync(~0u, value, lanes);
    if (threadIdx.x % 32 == 0) sums[threadIdx.x / 32] = value;
    sync_group(1);
    return sums[0] + sums[1] + sums[2] + sums[3];
}
__device__ __forceinline__ float inverse_root(float x) {
    float y;
    asm("rsqrt.approx.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}
__device__ __forceinline__ u32 load_fresh(const bf16* at) {
    u32 v;
    asm volatile("ld.global.cg.b32 %0, [%1];" : "=r"(v) : "l"(at) : "memory");
    return v;
}

// residual = (residual + rms(y) * post) * scale; normed = rms(residual) * next. The last programs
// take a row each: they have the fewest tiles.
__device__ __forceinline__ void normalise(const Chain& chain, int p, Ring& ring) {
    constexpr int EACH = WIDTH / 256;  // pairs of neighbours a thread
    const Phase& phase = chain.phases[p];
    for (int row = gridDim.x - 1 - blockIdx.x; row < chain.rows; row += gridDim.x) {
        const u64 first = (u64)row * WIDTH + threadIdx.x * 2;
        u32 residual[EACH], post[EACH], next[EACH];
        float y[2 * EACH], squares = 0.0f;
#pragma unroll
        for (int i = 0; i < EACH; ++i) {
            residual[i] = load_fresh(phase.residual + first + i * 256);
            post[i] = load_fresh(phase.post + threadIdx.x * 2 + i * 256);
            next[i] = load_fresh(phase.next + threadIdx.x * 2 + i * 256);
        }
        if (threadIdx.x % 32 == 0)
            wait_for_count(chain.counters + 2 * p - 1, chain.phases[p - 1].tiles);
        __syncwarp();
#pragma unroll
        for (int i = 0; i < EACH; ++i) {
            const u32 pair = load_fresh(phase.y + first + i * 256);
            y[2 * i] = low(pair), y[2 * i + 1] = high(pair);
        }
#pragma unroll
        for (int i = 0; i < 2 * EACH; ++i) squares += y[i] * y[i];
        float factor = inverse_root(sum(squares, ring.sums[0]) / WIDTH + chain.eps);
        squares = 0.0f;
#pragma unroll
        for (int i = 0; i < EACH; ++i) {
            // The norm sees what the residual holds after rounding.
            residual[i] = pack((low(residual[i]) + y[2 * i] * factor * low(post[i])) * phase.scale,
                               (high(residual[i]) + y[2 * i + 1] * factor * high(post[i])) *
                                   phase.scale);
            squares += low(residual[i]) * low(residual[i]) + high(residual[i]) * high(residual[i]);
            *(u32*)(phase.residual + first + i * 256) = residual[i];
        }
        factor = inverse_root(sum(squares, ring.sums[1]) / WIDTH + chain.eps);
#pragma unroll
        for (int i = 0; i < EACH; ++i)
            *(u32*)(phase.normed + first + i * 256) =
                pack(low(residual[i]) * factor * low(next[i]),
                     high(residual[i]) * factor * high(next[i]));
        sync_group(1);
        if (threadIdx.x == 0) count(chain.counters + 2 * p);
    }
}

extern "C" __global__ void __launch_bounds__(224, 1)
layer_tail(const __grid_constant__ Chain chain) {
    extern __shared__ __align__(1024) unsigned char memory[];
    Ring& ring = *(Ring*)(memory + ROOM);
    const u32 base = shared_address(memory);
    const int t = threadIdx.x;
    asm volatile("griddepcontrol.launch_dependents;");
    if (base % 1024) asm volatile("trap;");
    if (t == 0) {
        for (int i = 0; i < SLOTS; ++i) init(ring.full[i], 2), init(ring.empty[i], 4);
        init(ring.stored, 128), init(ring.noted, 1);
        asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
        fence_async();
    }
    __syncthreads();
    if (t >= 128) {
        if (t == 128) stream<false>(chain, ring, base);
        if (t == 160) {
            wait_for_launches();
            stream<true>(chain, ring, base);
        }
        if (t == 192) count_tiles(chain, ring);
    } else {
        wait_for_launches();
        u32 number = 0, at = 0, stored = 0;
        for (int p = 0; p < PHASES; ++p) {
            if (chain.phases[p].y) normalise(chain, p, ring);
            const Kind kind = chain.phases[p].kind;
            if (kind == PLAIN) products<PLAIN>(chain, p, ring, base, number, at, stored);
            else if (kind == GATED) products<GATED>(chain, p, ring, base, number, at, stored);
            else products<WIDE>(chain, p, ring, base, number, at, stored);
        }
    }
}
