// Hopper's instructions as functions of a CPU, for `stream_emulation.py`: all thread blocks run at
// once, and their threads are threads. Matrix instructions have the layouts that PTX documents, so
// that a wrong index shows without a GPU. Barriers count arrivals and bytes as mbarrier does, so
// that a wrong count ends in an error or a hang.
#include <cmath>
#include <condition_variable>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <mutex>
#include <pthread.h>
#include <thread>
#include <vector>

typedef unsigned char u8;
typedef unsigned short bf16;
typedef unsigned int u32;
typedef unsigned long long u64;
struct Index { int x; };
struct float2 { float x, y; };
struct uint4 { u32 x, y, z, w; };
struct TensorMap { u64 words[16]; };  // here: address, bytes of a row, rows

constexpr int MOST_BLOCKS_AT_ONCE = 4, SHARED_BYTES = 232448;
static thread_local Index threadIdx, blockIdx, gridDim;
static thread_local u8* block_memory;
static pthread_barrier_t warp_barriers[MOST_BLOCKS_AT_ONCE][32];
static pthread_barrier_t block_barriers[MOST_BLOCKS_AT_ONCE], consumer_barriers[MOST_BLOCKS_AT_ONCE];
struct Lock { std::mutex mutex; std::condition_variable changed; };
static Lock locks[64];  // of barriers, by address: few threads wake up for others' barriers

static void fail(const char* reason) { fprintf(stderr, "%s\n", reason), abort(); }
static int lane() { return threadIdx.x % 32; }
static int warp() { return threadIdx.x / 32; }

// What each lane of a warp has given to the others.
template <class T> struct Exchange {
    T values[MOST_BLOCKS_AT_ONCE][32][32];
    const T* share(const T& value) {
        pthread_barrier_t& barrier = warp_barriers[blockIdx.x][warp()];
        pthread_barrier_wait(&barrier);
        values[blockIdx.x][warp()][lane()] = value;
        pthread_barrier_wait(&barrier);
        return values[blockIdx.x][warp()];
    }
};
template <class T> static const T* share(const T& value) {
    static Exchange<T> exchange;
    return exchange.share(value);
}

// CUDA's own functions.
template <class T> static T min(T a, T b) { return a < b ? a : b; }
template <class T> static T max(T a, T b) { return a > b ? a : b; }
static void __syncwarp() { pthread_barrier_wait(&warp_barriers[blockIdx.x][warp()]); }
static void __syncthreads() { pthread_barrier_wait(&block_barriers[blockIdx.x]); }
static u32 __ballot_sync(u32, bool value) {
    const u32* all = share((u32)value);
    u32 result = 0;
    for (int i = 0; i < 32; i++) result |= all[i] << i;
    return result;
}
template <class T> static T __shfl_sync(u32, T value, int from) { return share(value)[from]; }
template <class T> static T __shfl_up_sync(u32, T value, int by) {
    const T* all = share(value);
    return lane() >= by ? all[lane() - by] : value;
}
template <class T> static T __shfl_xor_sync(u32, T value, int by) { return share(value)[lane() ^ by]; }
static u32 __reduce_max_sync(u32, u32 value) {
    const u32* all = share(value);
    u32 result = 0;
    for (int i = 0; i < 32; i++) result = max(result, all[i]);
    return result;
}
static int __reduce_min_sync(u32, int value) {
    const int* all = share(value);
    int result = value;
    for (int i = 0; i < 32; i++) result = min(result, all[i]);
    return result;
}
static int __popc(u32 x) { return __builtin_popcount(x); }
static int __ffs(u32 x) { return __builtin_ffs(x); }
static float __uint_as_float(u32 x) { float f; memcpy(&f, &x, 4); return f; }
static u32 __float_as_uint(float f) { u32 x; memcpy(&x, &f, 4); return x; }
static float fast_exp(float x) { return expf(x); }
#define __expf fast_exp
static int atomicAdd(int* at, int value) { return __atomic_fetch_add(at, value, __ATOMIC_SEQ_CST); }
static Lock& lock_of(const void* at) { return locks[(u64)at / 8 % 64]; }
static void atomicMax(int* at, int value) {
    std::lock_guard<std::mutex> guard(lock_of(at).mutex);
    *at = max(*at, value);
}

// Those of hopper.cuh. A barrier's bits: phase (1), arrivals of a phase (from bit 8), those still
// to come (from bit 16), bytes still to come (from bit 32).
static float bf16_low(u32 x) { return __uint_as_float(x << 16); }
static float bf16_high(u32 x) { return __uint_as_float(x & 0xFFFF0000u); }
static float to_float(bf16 x) { return bf16_low(x); }
static float to_float(float x) { return x; }
static bf16 to_bf16(float x) {
    const u32 bits = __float_as_uint(x);
    return x != x ? 0x7FFF : (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16;
}
static u32 pack_bf16(float low, float high) { return to_bf16(low) | (u32)to_bf16(high) << 16; }
static u32 shared_address(const void* p) { return (u32)((const u8*)p - block_memory); }
static void settle(u64& bar) {
    if ((bar >> 16 & 255) == 0 && bar >> 32 == 0) {
        const u64 count = bar >> 8 & 255;
        bar = ((bar & 1) ^ 1) | count << 8 | count << 16;
        lock_of(&bar).changed.notify_all();
    }
}
static void arrive(u64& bar) {
    if ((bar >> 16 & 255) == 0) fail("too many arrivals at a barrier");
    bar -= 1 << 16;
    settle(bar);
}
static void barrier_init(u64& bar, int count) { bar = (u64)count << 8 | (u64)count << 16; }
static void barrier_wait(u64& bar, int parity) {
    std::unique_lock<std::mutex> guard(lock_of(&bar).mutex);
    while ((int)(bar & 1) == parity) lock_of(&bar).changed.wait(guard);
}
static void barrier_arrive(u64& bar) {
    std::lock_guard<std::mutex> guard(lock_of(&bar).mutex);
    arrive(bar);
}
static void barrier_arrive_warp(u64& bar) {
    __syncwarp();
    if (lane() == 0) barrier_arrive(bar);
}
static void barrier_expect_bytes(u64& bar, int bytes) {
    std::lock_guard<std::mutex> guard(lock_of(&bar).mutex);
    bar += (u64)bytes << 32;
    arrive(bar);
}
static void complete_bytes(u64& bar, int bytes) {
    std::lock_guard<std::mutex> guard(lock_of(&bar).mutex);
    bar -= (u64)bytes << 32;
    settle(bar);
}
static void pdl_wait() {}
static void pdl_launch_dependents() {}
static void fence_async_proxy() {}
static void wgmma_fence() {}
static void wgmma_commit() {}
template <int N> static void wgmma_wait() {}

// Those of the kernels' sources.
static void fence_async_copies() {}
static void prefetch_bulk(const void*, int) {}
static void use_from_here(float&) {}
static void sync_consumers() { pthread_barrier_wait(&consumer_barriers[blockIdx.x]); }
static void copy_bulk(u8* to, const void* from, int bytes, u64& bar) {
    if ((u64)from % 16 || bytes % 16 || shared_address(to) % 16) fail("a copy is not aligned");
    memcpy(to, from, bytes);
    complete_bytes(bar, bytes);
}
static void copy_bulk_once(u8* to, const void* from, int bytes, u64& bar) {
    copy_bulk(to, from, bytes, bar);
}
static void load_slice(u32 to, const TensorMap& map, int column, int row, u64& bar) {
    for (int r = 0; r < 64; r++)
        for (int c = 0; c < 8; c++) {
            u8* at = block_memory + to + r * 128 + (c ^ r % 8) * 16;
            const u64 from = (u64)column * 2 + c * 16;
            memset(at, 0, 16);
            if ((u64)(row + r) < map.words[2] && from < map.words[1])
                memcpy(at, (u8*)map.words[0] + (row + r) * map.words[1] + from, 16);
        }
    complete_bytes(bar, 64 * 128);
}
static void load_matrices(u32 (&to)[4], u32 at) {
    const u32* rows = share(at);
    for (int i = 0; i < 4; i++)
        memcpy(&to[i], block_memory + rows[i * 8 + lane() / 4] + lane() % 4 * 4, 4);
}
static void load_pair(u32 (&to)[2], u32 at) {
    if (at % 8) fail("a load is not aligned");
    memcpy(to, block_memory + at, 8);
}
static u32 permute(u32 a, u32 b, u32 selector) {
    const u64 both = a | (u64)b << 32;
    u32 result = 0;
    for (int i = 0; i < 4; i++) {
        const u32 digit = selector >> 4 * i, byte = both >> 8 * (digit & 7) & 255;
        result |= (digit & 8 ? byte / 128 * 255 : byte) << 8 * i;
    }
    return result;
}
static u32 and_or(u32 a, u32 mask, u32 bits) { return (a & mask) | bits; }
static u32 fma2(u32 a, u32 b, u32 c) {
    return pack_bf16(bf16_low(a) * bf16_low(b) + bf16_low(c),
                     bf16_high(a) * bf16_high(b) + bf16_high(c));
}
static u32 count_up(u32* counter) { return __atomic_fetch_add(counter, 1, __ATOMIC_SEQ_CST); }
static u32 add_one(u32* counter) { return count_up(counter); }
static u32 load_counter(const u32* counter) {
    std::this_thread::yield();
    return __atomic_load_n(counter, __ATOMIC_SEQ_CST);
}
static uint4 load_x(const bf16* from) { uint4 v; memcpy(&v, from, 16); return v; }
static float2 load_floats(const float* from) { return {from[0], from[1]}; }
static float load_float(const float* from) { return *from; }
static u32 load_word(const bf16* from) { u32 v; memcpy(&v, from, 4); return v; }
static float rsqrt_fast(float x) { return 1 / sqrtf(x); }
static float from_e4m3(u32 bits) {
    const int exponent = bits >> 3 & 15, digits = bits & 7;
    if ((bits & 127) == 127) return NAN;
    const float size = exponent ? ldexpf(8 + digits, exponent - 10) : ldexpf(digits, -9);
    return bits & 128 ? -size : size;
}
static u32 one_to_e4m3(float x) {
    if (x != x) return 127;
    u32 best = 0;
    for (u32 bits = 1; bits < 127; bits++) {
        const float apart = fabsf(from_e4m3(bits) - fabsf(x));
        const float before = fabsf(from_e4m3(best) - fabsf(x));
        if (apart < before || (apart == before && bits % 2 == 0)) best = bits;
    }
    return best | (x < 0 ? 128 : 0);
}
static u32 round_to_e4m3(float low, float high) { return one_to_e4m3(low) | one_to_e4m3(high) << 8; }
static u32 to_halves(u32 pair) { return (pair & 255) | (pair >> 8 & 255) << 16; }
static float half_to_float(u32 halves, int high) { return from_e4m3(halves >> 16 * high & 255); }

struct Words { u32 word[4]; };
// m64nNk32 of a warp's 16 rows; `b` describes N columns of 32 floats.
template <int N> static void multiply(float (&d)[N], const u32 (&a)[4], u64 b) {
    const Words* rows = share(Words{a[0], a[1], a[2], a[3]});
    const u32 at = (b & 0x3FFF) << 4, half = (b >> 16 & 0x3FFF) << 4, eight = (b >> 32 & 0x3FFF) << 4;
    for (int i = 0; i < N; i++) {
        const int row = lane() / 4 + i % 4 / 2 * 8, column = i / 4 * 8 + lane() % 4 * 2 + i % 2;
        double sum = 0;
        for (int k = 0; k < 32; k++) {
            const u32 left = rows[row % 8 * 4 + k % 16 / 4].word[row / 8 + k / 16 * 2];
            const u8 right =
                block_memory[at + column / 8 * eight + k / 16 * half + column % 8 * 16 + k % 16];
            sum += (double)from_e4m3(left >> 8 * (k % 4) & 255) * from_e4m3(right);
        }
        d[i] = sum;
    }
}
// m16n8k16.
static void multiply(float (&c)[4], const u32 (&a)[4], u32 b0, u32 b1) {
    struct Both { u32 a[4], b[2]; };
    const Both* all = share(Both{{a[0], a[1], a[2], a[3]}, {b0, b1}});
    for (int i = 0; i < 4; i++) {
        const int row = lane() / 4 + i / 2 * 8, column = lane() % 4 * 2 + i % 2;
        double sum = 0;
        for (int k = 0; k < 16; k++) {
            const u32 left = all[row % 8 * 4 + k % 8 / 2].a[row / 8 + k / 8 * 2];
            const u32 right = all[column * 4 + k % 8 / 2].b[k / 8];
            sum += (double)to_float((bf16)(left >> 16 * (k % 2))) *
                   to_float((bf16)(right >> 16 * (k % 2)));
        }
        c[i] += sum;
    }
}

// Runs `grid` thread blocks of `warps` warps, of which the first `consumers` have a barrier of
// their own. Shared memory is full of NaN at first.
template <class Kernel> static void run_blocks(int grid, int warps, int consumers, Kernel kernel) {
    std::vector<std::thread> threads;
    std::vector<u8*> memories;
    for (int block = 0; block < grid; block++) {
        for (int i = 0; i < warps; i++) pthread_barrier_init(&warp_barriers[block][i], 0, 32);
        pthread_barrier_init(&block_barriers[block], 0, warps * 32);
        pthread_barrier_init(&consumer_barriers[block], 0, consumers * 32);
        memories.push_back((u8*)aligned_alloc(1024, SHARED_BYTES));
        memset(memories.back(), 0xFF, SHARED_BYTES);
    }
    for (int block = 0; block < grid; block++)
        for (int thread = 0; thread < warps * 32; thread++)
            threads.emplace_back([=] {
                threadIdx.x = thread, blockIdx.x = block, gridDim.x = grid;
                block_memory = memories[block];
                kernel();
            });
    for (auto& thread : threads) thread.join();
    for (u8* memory : memories) free(memory);
}
