// Hopper's barriers, bulk copies and matrix instructions as device functions.
//
// NVRTC compiles without CUDA's own headers, so the kernels take everything they use from here.
#pragma once

typedef unsigned char u8;
typedef unsigned int u32;
typedef unsigned long long u64;
typedef unsigned short bf16;
struct __align__(64) TensorMap { u64 words[16]; };  // the driver's CUtensorMap

// Address in the shared window, as the instructions below take it.
__device__ __forceinline__ u32 shared_address(const void* p) {
    return (u32)__cvta_generic_to_shared(p);
}

// Barriers (mbarrier) in shared memory, one u64 each. A phase completes when `count` arrivals, and
// all bytes expected, have come. A wait names the parity of a phase: 0 for the first, then 1, 0...
// Before the first phase has completed, a wait for parity 1 returns at once.
__device__ __forceinline__ void barrier_init(u64& bar, int count) {
    asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(shared_address(&bar)), "r"(count));
}
__device__ __forceinline__ void barrier_wait(u64& bar, int parity) {
    asm volatile(
        "{.reg .pred p; again: mbarrier.try_wait.parity.shared::cta.b64 p, [%0], %1;"
        "@!p bra again;}" ::"r"(shared_address(&bar)), "r"(parity) : "memory");
}
__device__ __forceinline__ void barrier_arrive(u64& bar) {
    asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(shared_address(&bar)) : "memory");
}
// Arrives once for the whole warp, after all of its lanes.
__device__ __forceinline__ void barrier_arrive_warp(u64& bar) {
    __syncwarp();
    if (threadIdx.x % 32 == 0) barrier_arrive(bar);
}
// Arrives once, and makes the phase wait for `bytes` bytes of copies as well.
__device__ __forceinline__ void barrier_expect_bytes(u64& bar, int bytes) {
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;"
                 ::"r"(shared_address(&bar)), "r"(bytes) : "memory");
}

// Synchronizes the 128 threads of a warp group. `number` is a hardware barrier from 1 on; 0 belongs
// to __syncthreads.
__device__ __forceinline__ void sync_warp_group(int number) {
    asm volatile("bar.sync %0, 128;" ::"r"(number) : "memory");
}

// Programmatic dependent launch. After pdl_wait, everything that earlier launches wrote is visible,
// and everything that they read may be overwritten.
__device__ __forceinline__ void pdl_wait() {
    asm volatile("griddepcontrol.wait;" ::: "memory");
}
// Lets the next launch start as soon as multiprocessors are free.
__device__ __forceinline__ void pdl_launch_dependents() {
    asm volatile("griddepcontrol.launch_dependents;");
}

// Bulk copies (TMA) of a box of a tensor to shared memory; `bar` counts the bytes. Coordinates are
// in elements, the contiguous axis first.
__device__ __forceinline__ void tma_load_3d(u32 to, const TensorMap& map, int x, int y, int z,
                                            u64& bar) {
    asm volatile(
        "cp.async.bulk.tensor.3d.shared::cluster.global.tile.mbarrier::complete_tx::bytes"
        " [%0], [%1, {%2, %3, %4}], [%5];" ::"r"(to), "l"((u64)&map), "r"(x), "r"(y), "r"(z),
        "r"(shared_address(&bar)) : "memory");
}
__device__ __forceinline__ void tma_load_4d(u32 to, const TensorMap& map, int x, int y, int z,
                                            int w, u64& bar) {
    asm volatile(
        "cp.async.bulk.tensor.4d.shared::cluster.global.tile.mbarrier::complete_tx::bytes"
        " [%0], [%1, {%2, %3, %4, %5}], [%6];" ::"r"(to), "l"((u64)&map), "r"(x), "r"(y), "r"(z),
        "r"(w), "r"(shared_address(&bar)) : "memory");
}
__device__ __forceinline__ void prefetch_l2(const void* from) {
    asm volatile("prefetch.global.L2 [%0];" ::"l"((u64)from));
}
// Makes this thread's writes to shared memory visible to bulk copies and matrix instructions.
__device__ __forceinline__ void fence_async_proxy() {
    asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}

// Matrix instructions of a warp group (wgmma), which run asynchronously. wgmma_fence comes before
// the first one that reads registers written by ordinary instructions, wgmma_commit closes a group
// of them, and wgmma_wait<N> waits until at most the N latest groups are in progress.
__device__ __forceinline__ void wgmma_fence() {
    asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
}
__device__ __forceinline__ void wgmma_commit() {
    asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
}
template <int N> __device__ __forceinline__ void wgmma_wait() {
    asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(N) : "memory");
}
// Descriptor of a matrix in shared memory with 128-byte swizzle. Groups of 8 rows lie 1,024 bytes
// apart; `leading` is the leading dimension's byte offset.
__device__ __forceinline__ u64 matrix_descriptor(u32 address, int leading) {
    return (u64)((address & 0x3FFFF) >> 4) | (u64)(leading >> 4) << 16 | (u64)(1024 >> 4) << 32 |
           (u64)1 << 62;
}

__device__ __forceinline__ float exp2_fast(float x) {
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}
__device__ __forceinline__ float rsqrt_fast(float x) {
    float y;
    asm("rsqrt.approx.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}
__device__ __forceinline__ u32 pack_bf16(float low, float high) {
    u32 y;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(y) : "f"(high), "f"(low));
    return y;
}
__device__ __forceinline__ float bf16_low(u32 x) { return __uint_as_float(x << 16); }
__device__ __forceinline__ float bf16_high(u32 x) { return __uint_as_float(x & 0xFFFF0000u); }
__device__ __forceinline__ float to_float(float x) { return x; }
__device__ __forceinline__ float to_float(bf16 x) { return __uint_as_float((u32)x << 16); }

__device__ __forceinline__ uint4 load_shared(u32 at) {
    uint4 v;
    asm volatile("ld.shared.v4.b32 {%0, %1, %2, %3}, [%4];"
                 : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w) : "r"(at));
    return v;
}
__device__ __forceinline__ void store_shared(u32 at, uint4 v) {
    asm volatile("st.shared.v4.b32 [%0], {%1, %2, %3, %4};" ::"r"(at), "r"(v.x), "r"(v.y), "r"(v.z),
                 "r"(v.w) : "memory");
}
__device__ __forceinline__ void store_shared(u32 at, u32 v) {
    asm volatile("st.shared.b32 [%0], %1;" ::"r"(at), "r"(v) : "memory");
}

// Accumulators d[i], d[i + 1], ... as operands of an asm statement.
#define F4(d, i) "+f"(d[i]), "+f"(d[i + 1]), "+f"(d[i + 2]), "+f"(d[i + 3])
#define F32(d, i) F4(d, i), F4(d, i + 4), F4(d, i + 8), F4(d, i + 12), \
                  F4(d, i + 16), F4(d, i + 20), F4(d, i + 24), F4(d, i + 28)

// d = (add ? d : 0) + a * b for a [64 x 16] and n columns. wgmma_n64 takes b as [n x 16], K-major;
// the functions whose names end in _t take it as [16 x n], MN-major.
__device__ __forceinline__ void wgmma_n64(float (&d)[32], u64 a, u64 b, int add) {
    asm volatile(
        "{.reg .pred p; setp.ne.b32 p, %34, 0;"
        "wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 {"
        "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
        "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31 "
        "}, %32, %33, p, 1, 1, 0, 0;}"
        : F32(d, 0)
        : "l"(a), "l"(b), "r"(add));
}

__device__ __forceinline__ void wgmma_n128_t(float (&d)[64], u64 a, u64 b, int add) {
    asm volatile(
        "{.reg .pred p; setp.ne.b32 p, %66, 0;"
        "wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 {"
        "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
        "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, "
        "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, "
        "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63 "
        "}, %64, %65, p, 1, 1, 0, 1;}"
        : F32(d, 0), F32(d, 32)
        : "l"(a), "l"(b), "r"(add));
}

__device__ __forceinline__ void wgmma_n128(float (&d)[64], u64 a, u64 b, int add) {
    asm volatile(
        "{.reg .pred p; setp.ne.b32 p, %66, 0;"
        "wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 {"
        "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
        "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, "
        "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, "
        "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63 "
        "}, %64, %65, p, 1, 1, 0, 0;}"
        : F32(d, 0), F32(d, 32)
        : "l"(a), "l"(b), "r"(add));
}

// a is in registers: rows r and r + 8 of its columns c, c + 1, then the same rows of c + 8, c + 9.
__device__ __forceinline__ void wgmma_n64_t(float (&d)[32], const u32 (&a)[4], u64 b, int add) {
    asm volatile(
        "{.reg .pred p; setp.ne.b32 p, %37, 0;"
        "wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 {"
        "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
        "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31 "
        "}, {%32, %33, %34, %35}, %36, p, 1, 1, 1;}"
        : F32(d, 0)
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(add));
}

__device__ __forceinline__ void wgmma_n128_t(float (&d)[64], const u32 (&a)[4], u64 b, int add) {
    asm volatile(
        "{.reg .pred p; setp.ne.b32 p, %69, 0;"
        "wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 {"
        "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
        "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, "
        "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, "
        "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63 "
        "}, {%64, %65, %66, %67}, %68, p, 1, 1, 1;}"
        : F32(d, 0), F32(d, 32)
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(add));
}

__device__ __forceinline__ void wgmma_n256_t(float (&d)[128], const u32 (&a)[4], u64 b, int add) {
    asm volatile(
        "{.reg .pred p; setp.ne.b32 p, %133, 0;"
        "wgmma.mma_async.sync.aligned.m64n256k16.f32.bf16.bf16 {"
        "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
        "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, "
        "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, "
        "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63, "
        "%64, %65, %66, %67, %68, %69, %70, %71, %72, %73, %74, %75, %76, %77, %78, %79, "
        "%80, %81, %82, %83, %84, %85, %86, %87, %88, %89, %90, %91, %92, %93, %94, %95, "
        "%96, %97, %98, %99, %100, %101, %102, %103, %104, %105, %106, %107, %108, %109, %110, %111, "
        "%112, %113, %114, %115, %116, %117, %118, %119, %120, %121, %122, %123, %124, %125, %126, %127 "
        "}, {%128, %129, %130, %131}, %132, p, 1, 1, 1;}"
        : F32(d, 0), F32(d, 32), F32(d, 64), F32(d, 96)
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(add));
}

// Copies `bytes` bytes, 16 at least, into shared memory; the barrier counts them.
__device__ __forceinline__ void copy_bulk(u8* to, const void* from, int bytes, u64& bar) {
    asm volatile(
        "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];"
        ::"r"(shared_address(to)), "l"((u64)from), "r"(bytes), "r"(shared_address(&bar))
        : "memory");
}
// Makes what this thread sees in global memory visible to the bulk copies that it starts.
__device__ __forceinline__ void fence_async_copies() {
    asm volatile("fence.proxy.async;" ::: "memory");
}
// Four matrices of 8 rows of 16 bytes: lanes 0 to 7 give the addresses of the first one's rows, and
// so on. A lane gets 4 bytes of each, of row lane / 4.
__device__ __forceinline__ void load_matrices(u32 (&to)[4], u32 at) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3]) : "r"(at) : "memory");
}
// c += a [16 x 16] * b [16 x 8].
__device__ __forceinline__ void multiply(float (&c)[4], const u32 (&a)[4], u32 b0, u32 b1) {
    asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7},"
        " {%8,%9}, {%0,%1,%2,%3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

// Counters in global memory. Adds 1, after all writes of the threads that this one has synchronized
// with; returns what it was.
__device__ __forceinline__ u32 count_up(u32* counter) {
    u32 old;
    asm volatile("fence.acq_rel.gpu;" ::: "memory");
    asm volatile("atom.add.acq_rel.gpu.global.u32 %0, [%1], 1;"
                 : "=r"(old) : "l"(counter) : "memory");
    return old;
}
// Afterwards, what others wrote before they counted is visible.
__device__ __forceinline__ u32 load_counter(const u32* counter) {
    u32 seen;
    asm volatile("ld.acquire.gpu.global.u32 %0, [%1];" : "=r"(seen) : "l"(counter) : "memory");
    return seen;
}

// Call this after wgmma_wait. It keeps the compiler from reading or moving accumulators before the
// products that write them have ended.
template <int N> __device__ __forceinline__ void settle_registers(float (&d)[N]) {
#pragma unroll
    for (int i = 0; i < N; ++i) asm volatile("" : "+f"(d[i])::"memory");
}
