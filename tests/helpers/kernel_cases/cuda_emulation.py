"""Runs `stored_few_rows.cu` on a CPU: its instructions are functions, its threads are threads.

The matrix instruction is emulated with the layout of its fragments that PTX documents (m16n8k16),
so that a wrong index shows without a GPU. It is for a few thousand instructions, not for speed.
"""

import ctypes
import re
import subprocess
from collections.abc import Iterable, Sequence
from pathlib import Path

import torch

INSTRUCTIONS = ("load_weights", "load_x", "multiply", "permute", "fma2", "to_bf16", "from_bf16")
"""Functions of the source that consist of inline assembly or of CUDA's own functions."""

BEFORE = r"""
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <pthread.h>
#include <thread>
#include <vector>
typedef unsigned int u32; typedef unsigned long long u64; typedef unsigned short bf16;
struct Index { int x; };
static thread_local Index threadIdx, blockIdx;
static pthread_barrier_t warp_barrier[32], block_barrier;
using std::min;
struct Piece { u32 word[4]; };
static float from_bf16(bf16 x) { u32 bits = (u32)x << 16; float f; memcpy(&f, &bits, 4); return f; }
static bf16 to_bf16(float x) {
    u32 bits; memcpy(&bits, &x, 4);
    return (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16;
}
static float fast_exp(float x) { return expf(x); }
#define __expf fast_exp
static Piece load_weights(const unsigned char* from) {
    if ((u64)from % 16) abort();
    Piece p; memcpy(&p, from, 16); return p;
}
static Piece load_x(const bf16* from) { return load_weights((const unsigned char*)from); }
static u32 permute(u32 a, u32 b, u32 selector) {
    u64 bytes = (u64)b << 32 | a; u32 result = 0;
    for (int i = 0; i < 4; i++)
        result |= (u32)(bytes >> 8 * (selector >> 4 * i & 7) & 255) << 8 * i;
    return result;
}
static u32 fma2(u32 a, u32 b, u32 c) {
    u32 result = 0;
    for (int i = 0; i < 32; i += 16) {
        double product = (double)from_bf16(a >> i) * from_bf16(b >> i);
        result |= (u32)to_bf16(product + from_bf16(c >> i)) << i;
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
            sum += (double)from_bf16(left >> 16 * (k % 2)) * from_bf16(right >> 16 * (k % 2));
        }
        c[i] += sum;
    }
    pthread_barrier_wait(&warp_barrier[warp]);
}
static void pdl_wait() {}
static void pdl_launch_dependents() {}
static void __syncthreads() { pthread_barrier_wait(&block_barrier); }
"""

AFTER = r"""
extern "C" void launch(const bf16* x, const u8* codes, const void* scales, const u8* zeros,
                       const bf16* bias, void* out, int rows, int grid) {
    for (int warp = 0; warp < WARPS; warp++) pthread_barrier_init(&warp_barrier[warp], 0, 32);
    pthread_barrier_init(&block_barrier, 0, WARPS * 32);
    for (int block = 0; block < grid; block++) {
        std::vector<std::thread> threads;
        for (int thread = 0; thread < WARPS * 32; thread++)
            threads.emplace_back([=] {
                threadIdx.x = thread;
                blockIdx.x = block;
                stored_few_rows(x, codes, scales, zeros, bias, out, rows);
            });
        for (auto& thread : threads) thread.join();
    }
}
"""


class EmulatedKernel:
    """The kernel of a source, compiled for the CPU.

    Args:
        source: the CUDA source.
        defines: its macros.
        folder: an existing folder for what is compiled.
    """

    def __init__(self, source: Path, defines: Iterable[tuple[str, object]], folder: Path) -> None:
        text = source.read_text().replace('#include "hopper.cuh"', "")
        for name in (*INSTRUCTIONS, "struct Piece"):
            text = _without(name, text)
        text = re.sub(r"__launch_bounds__\(.*?\)\n", "", text)
        text = re.sub(r"__(device|global)__", "", text).replace("__forceinline__", "inline")
        text = text.replace("__shared__", "static")
        (folder / "kernel.cpp").write_text(BEFORE + text + AFTER)
        command = ["g++", "-O1", "-shared", "-fPIC", "-std=c++17", "-pthread", "-w"]
        command += [f"-D{name}={value}" for name, value in defines]
        command += [str(folder / "kernel.cpp"), "-o", str(folder / "kernel.so")]
        run = subprocess.run(command, capture_output=True, text=True, timeout=280)
        assert run.returncode == 0, run.stderr
        self._library = ctypes.CDLL(str(folder / "kernel.so"))

    def launch(self, grid: int, arguments: Sequence[torch.Tensor | int | None]) -> None:
        """Run `grid` thread blocks, one after another, with tensors of a CPU."""
        self._library.launch(
            *(
                ctypes.c_int(each)
                if isinstance(each, int)
                else ctypes.c_void_p(None if each is None else each.data_ptr())
                for each in arguments
            ),
            ctypes.c_int(grid),
        )


def _without(name: str, text: str) -> str:
    """Return a source without a function or a structure."""
    head = name if name.startswith("struct") else rf"__device__ __forceinline__ [^\n]*\b{name}\("
    match = re.search(head + r"[^{]*\{", text)
    assert match, f"the source has no {name}"
    end, depth = match.end(), 1
    while depth:
        depth += {"{": 1, "}": -1}.get(text[end], 0)
        end += 1
    return text[: match.start()] + text[end:].lstrip(";")
