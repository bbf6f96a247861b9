// Stages of layer_tail.cu: what the host describes, what the warps of a program share, and how the
// programs learn of one another's results.
#pragma once
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

// First weight row of a tile. The last tile begins early enough to be whole, because copies that
// reach beyond the end of a tensor are slower.
__device__ __forceinline__ int first_row(const Stage& stage, int tile) {
    return min(tile * stage.tile_rows, stage.outputs - stage.tile_rows);
}
