"""Runs `stored_stream.cu` on a CPU: its instructions are functions, its threads are threads.

Matrix instructions have the layout of fragments that PTX documents (m16n8k16), copies the swizzle
of 128 bytes, and barriers their phases, so that a wrong index or a missing arrival shows without a
GPU. It is for a few thousand instructions, not for speed.
"""

import ctypes
import re
import subprocess
from pathlib import Path

import torch

from eightfold.kernels.cuda import nvrtc
from eightfold.kernels.quantized import stored_stream
from eightfold.kernels.quantized.stored_matrix import StoredMatrix
from eightfold.kernels.quantized.stored_stream import StreamConfig

INSTRUCTIONS = (
    "multiply", "permute", "and_or", "fma2", "load_global", "tma_load_once", "tma_prefetch_3d",
    *("load_words",) * 3,
)  # fmt: skip
"""Functions of the source that consist of inline assembly."""

BEFORE = r"""
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <map>
#include <mutex>
#include <pthread.h>
#include <sched.h>
#include <thread>
#include <vector>
#define __align__(n) alignas(n)
#define __grid_constant__
typedef unsigned int u32; typedef unsigned long long u64; typedef unsigned short bf16;
struct Index { int x; };
static thread_local Index threadIdx, blockIdx, gridDim;
static pthread_barrier_t warp_barrier[32], block_barrier;
using std::min;
static u32 __float_as_uint(float x) { u32 bits; memcpy(&bits, &x, 4); return bits; }
static float __uint_as_float(u32 x) { float f; memcpy(&f, &x, 4); return f; }
static float to_float(float x) { return x; }
static float to_float(bf16 x) { return __uint_as_float((u32)x << 16); }
static float bf16_low(u32 x) { return to_float((bf16)x); }
static float bf16_high(u32 x) { return to_float((bf16)(x >> 16)); }
static u32 rounded(float x) {
    u32 bits = __float_as_uint(x);
    return (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16;
}
static u32 pack_bf16(float low, float high) { return rounded(low) | rounded(high) << 16; }
static float exp2_fast(float x) { return exp2f(x); }
static u32 permute(u32 a, u32 b, u32 selector) {
    u64 bytes = (u64)b << 32 | a; u32 result = 0;
    for (int i = 0; i < 4; i++) {
        u32 digit = selector >> 4 * i, byte = bytes >> 8 * (digit & 7) & 255;
        result |= (digit & 8 ? byte / 128 * 255 : byte) << 8 * i;
    }
    return result;
}
static u32 and_or(u32 a, u32 mask, u32 bits) { return a & mask | bits; }
static u32 fma2(u32 a, u32 b, u32 c) {
    u32 result = 0;
    for (int i = 0; i < 32; i += 16) {
        double product = (double)bf16_low(a >> i) * bf16_low(b >> i);
        result |= rounded(product + bf16_low(c >> i)) << i;
    }
    return result;
}
static u32 a_of[32][32][4], b_of[32][32][2];
static void multiply(float (&c)[4], u32 a0, u32 a1, u32 a2, u32 a3, u32 b0, u32 b1) {
    int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    u32 a[4] = {a0, a1, a2, a3}, b[2] = {b0, b1};
    memcpy(a_of[warp][lane], a, 16);
    memcpy(b_of[warp][lane], b, 8);
    pthread_barrier_wait(&warp_barrier[warp]);
    for (int i = 0; i < 4; i++) {
        int row = lane / 4 + i / 2 * 8, column = lane % 4 * 2 + i % 2;
        double sum = 0;
        for (int k = 0; k < 16; k++) {
            u32 left = a_of[warp][row % 8 * 4 + k % 8 / 2][row / 8 + k / 8 * 2];
            u32 right = b_of[warp][column * 4 + k % 8 / 2][k / 8];
            sum += (double)bf16_low(left >> 16 * (k % 2)) * bf16_low(right >> 16 * (k % 2));
        }
        c[i] += sum;
    }
    pthread_barrier_wait(&warp_barrier[warp]);
}
static void pdl_wait() {}
static void pdl_launch_dependents() {}
static void fence_async_proxy() {}
static void prefetch_l2(const void*) {}
static void __syncthreads() { pthread_barrier_wait(&block_barrier); }
static void __syncwarp() { pthread_barrier_wait(&warp_barrier[threadIdx.x / 32]); }

alignas(1024) static unsigned char memory[1 << 18];  // shared memory
static u32 shared_address(const void* p) { return (const unsigned char*)p - memory; }
struct Barrier {
    int count, pending;
    long bytes;
    u32 phase;
    void settle() {
        if (pending < 0) abort();
        if (pending == 0 && bytes == 0) phase++, pending = count;
    }
};
static std::map<const u64*, Barrier> barriers;
static std::mutex lock;
typedef std::lock_guard<std::mutex> Guard;
static void barrier_init(u64& bar, int n) { Guard guard(lock); barriers[&bar] = {n, n, 0, 0}; }
static void change(u64& bar, int arrivals, long bytes) {
    Guard guard(lock);
    Barrier& found = barriers[&bar];
    found.pending -= arrivals, found.bytes += bytes;
    found.settle();
}
static void barrier_arrive(u64& bar) { change(bar, 1, 0); }
static void barrier_expect_bytes(u64& bar, int bytes) { change(bar, 1, bytes); }
static void barrier_wait(u64& bar, int parity) {
    for (;; sched_yield()) {
        Guard guard(lock);
        if ((barriers[&bar].phase & 1) != (u32)parity) return;
    }
}
static void barrier_arrive_warp(u64& bar) {
    __syncwarp();
    if (threadIdx.x % 32 == 0) barrier_arrive(bar);
}

struct TensorMap { const unsigned char* base; long width; int rows, blocks, box_rows, depth; };
static void tma_load_3d(u32 to, const TensorMap& map, int x, int y, int z, u64& bar) {
    if (to % 1024 || x) abort();
    for (int d = 0; d < map.depth; d++)
        for (int r = 0; r < map.box_rows; r++)
            for (int c = 0; c < 8; c++) {
                int line = d * map.box_rows + r;
                unsigned char* at = memory + to + line * 128 + ((c ^ line % 8) * 16);
                bool inside = y + r < map.rows && z + d < map.blocks;
                memset(at, 0, 16);
                if (inside)
                    memcpy(at, map.base + (y + r) * map.width + (z + d) * 128L + c * 16, 16);
            }
    change(bar, 0, -(long)map.depth * map.box_rows * 128);
}
static void tma_load_once(u32 to, const TensorMap& map, int y, int z, u64& bar) {
    if (y + map.box_rows > map.rows) abort();
    tma_load_3d(to, map, 0, y, z, bar);
}
static void tma_prefetch_3d(const TensorMap&, int, int, int) {}
template <int N> static void load_global(u32 (&to)[N], const void* from) {
    if ((u64)from % min(16, N * 4)) abort();
    memcpy(to, from, N * 4);
}
template <int N> static void load_words(u32 (&to)[N], u32 at) {
    if (at % (N * 4)) abort();
    memcpy(to, memory + at, N * 4);
}
"""

AFTER = r"""
extern "C" void launch(const Layer* layer, int grid) {
    for (int warp = 0; warp <= UNITS; warp++) pthread_barrier_init(&warp_barrier[warp], 0, 32);
    pthread_barrier_init(&block_barrier, 0, (UNITS + 1) * 32);
    for (int block = 0; block < grid; block++) {
        memset(memory, 255, sizeof memory);
        std::vector<std::thread> threads;
        for (int thread = 0; thread < (UNITS + 1) * 32; thread++)
            threads.emplace_back([=] {
                threadIdx.x = thread, blockIdx.x = block, gridDim.x = grid;
                stored_stream(*layer);
            });
        for (auto& thread : threads) thread.join();
    }
}
"""


class _Map(ctypes.Structure):
    _fields_ = (
        ("base", ctypes.c_void_p), ("width", ctypes.c_long), ("rows", ctypes.c_int),
        ("blocks", ctypes.c_int), ("box_rows", ctypes.c_int), ("depth", ctypes.c_int),
    )  # fmt: skip


class _Layer(ctypes.Structure):
    _fields_ = (
        ("weights", _Map), ("x", _Map), ("scales", ctypes.c_void_p), ("zeros", ctypes.c_void_p),
        ("bias", ctypes.c_void_p), ("out", ctypes.c_void_p), ("rows", ctypes.c_int),
        ("pad", ctypes.c_char * 64),
    )  # fmt: skip


def emulate(
    x: torch.Tensor,
    matrix: StoredMatrix,
    out: torch.Tensor,
    config: StreamConfig,
    folder: Path,
    *,
    gated: bool,
    bias: torch.Tensor | None,
    programs: int,
) -> None:
    """Compute a layer, with GELU if it is gated, on as many programs.

    Args:
        x: bfloat16 [rows, K], on a CPU as all tensors.
        out: bfloat16 [rows, N], or float32 [splits, rows, N].
        folder: an existing folder for what is compiled.
    """
    rows, block = x.shape[0], stored_stream.block_columns(matrix)
    defines = stored_stream.kernel_defines(
        matrix, rows, config, gated=gated, silu=False, has_bias=bias is not None
    )
    width = matrix.codes.shape[1]
    box = stored_stream.UNIT_ROWS // (2 if gated else 1)
    tiles, address = stored_stream.row_tiles(rows), _address
    layer = _Layer(
        _Map(address(matrix.codes), width, matrix.rows, width // 128, box, config.depth),
        _Map(address(x), x.shape[1] * 2, rows, x.shape[1] // 64, tiles * 8,
             config.depth * block // 64),
        address(matrix.scales), address(matrix.zeros), address(bias), address(out), rows,
    )  # fmt: skip
    _compiled(defines, folder).launch(ctypes.byref(layer), programs)


def _address(tensor: torch.Tensor | None) -> int | None:
    return None if tensor is None else tensor.data_ptr()


def _compiled(defines: tuple[tuple[str, object], ...], folder: Path) -> ctypes.CDLL:
    sources = ("stored_weights.cuh", stored_stream.SOURCE)
    text = "".join((nvrtc.SOURCE_FOLDER / source).read_text() for source in sources)
    for name in INSTRUCTIONS:
        text = without(name, text)
    text = re.sub(r"#(include|pragma) .*|extern __shared__ .*|asm volatile\(\"fence.*", "", text)
    text = text.replace('asm volatile("trap;")', "abort()")
    text = re.sub(r"__launch_bounds__\(.*?\)\n", "", text)
    text = re.sub(r"__(device|global)__", "", text).replace("__forceinline__", "inline")
    (folder / "kernel.cpp").write_text(BEFORE + text + AFTER)
    command = ["g++", "-O1", "-shared", "-fPIC", "-std=c++17", "-pthread", "-w"]
    command += [f"-D{name}={value}" for name, value in defines]
    command += [str(folder / "kernel.cpp"), "-o", str(folder / "kernel.so")]
    run = subprocess.run(command, capture_output=True, text=True, timeout=280)
    assert run.returncode == 0, run.stderr
    return ctypes.CDLL(str(folder / "kernel.so"))


def without(name: str, text: str) -> str:
    """Return a source without a function."""
    head = rf"(template <[^\n]*>\n)?__device__ __forceinline__ [^\n]*\b{name}\([^{{;]*\{{"
    match = re.search(head, text)
    assert match, f"the source has no {name}"
    end, depth = match.end(), 1
    while depth:
        depth += {"{": 1, "}": -1}.get(text[end], 0)
        end += 1
    return text[: match.start()] + text[end:]
