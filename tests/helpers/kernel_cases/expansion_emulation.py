"""Runs the warps of `linear_many_rows.cu` that expand stored weights on a CPU.

A thread stands for the warps that compute: it takes each slot's weights out of the ring.
"""

import ctypes
import re
import subprocess
from pathlib import Path

import torch
from helpers.kernel_cases.cuda_emulation import BEFORE, without

from eightfold.kernels.cuda import nvrtc
from eightfold.kernels.layers.linear_many_rows import CLUSTER, COLUMNS
from eightfold.kernels.quantized.stored_many_rows import kernel_defines
from eightfold.kernels.quantized.stored_matrix import StoredMatrix

INSTRUCTIONS = r"""
struct uint4 { u32 x, y, z, w; };
static uint4 make_uint4(u32 x, u32 y, u32 z, u32 w) { return {x, y, z, w}; }
template <class T> static T __ldg(const T* at) { return *at; }
static uint4 load_shared(u32 at) { uint4 v; memcpy(&v, memory + at, 16); return v; }
static void store_shared(u32 at, uint4 v) {
    if (at % 16) abort();
    memcpy(memory + at, &v, 16);
}
static pthread_barrier_t expanders;
"""
COPY = r"""
static void tma_load_4d(u32 to, const TensorMap& map, int x, int, int, int w, u64& bar) {
    const int parts = GATED ? 2 : 1, size = CODES / TILE;
    for (int line = 0; line < TILE; line++) {
        int part = line / 8 % parts, row = (w + line / 8 / parts) * 8 + line % 8;
        memset(memory + to + line * size, 0, size);
        if (row < map.rows)
            memcpy(memory + to + line * size,
                   map.base + (row + part * map.rows) * map.width + x * 2, size);
    }
    change(bar, 0, -CODES);
}
"""
AFTER = r"""
extern "C" int launch(const TensorMap* map, const void* scales, const u8* zeros, int tiles,
                       int steps, int rank, u8* out) {
    Ring& ring = *(Ring*)(memory + SHARED - 128);
    memset(memory, 255, sizeof memory);
    for (int i = 0; i < SLOTS; i++) barrier_init(ring.full[i], 1), barrier_init(ring.empty[i], 1);
    for (int i = 0; i < STAGES; i++) barrier_init(ring.staged[i], 1);
    pthread_barrier_init(&expanders, 0, EXPANDERS);
    const Schedule schedule{ROWS, 1, tiles, steps, 0, 1, rank};
    std::vector<std::thread> threads;
    for (int thread = 0; thread < EXPANDERS; thread++)
        threads.emplace_back(
            [=, &ring] { expand_weights(schedule, ring, 0, *map, Scales{scales, zeros}, thread); });
    for (int n = 0; n < tiles * steps; n++) {
        barrier_wait(ring.full[n % SLOTS], n / SLOTS & 1);
        u8* weights = memory + n % SLOTS * SLOT + X_BYTES;
        memcpy(out + (u64)n * W_BYTES, weights, W_BYTES);
        memset(weights, 255, W_BYTES);
        barrier_arrive(ring.empty[n % SLOTS]);
    }
    for (auto& thread : threads) thread.join();
    int outside = 0;  // bytes that were written where x and results lie
    for (u32 at = 0; at < CODES_AT; at++)
        outside += (at >= SLOTS * SLOT || at % SLOT < X_BYTES) && memory[at] != 255;
    return outside;
}
"""


class _Map(ctypes.Structure):
    _fields_ = (
        ("base", ctypes.c_void_p), ("width", ctypes.c_long), ("rows", ctypes.c_int),
        ("unused", ctypes.c_int * 3),
    )  # fmt: skip


def expand(
    matrix: StoredMatrix, tile: int, rank: int, tiles: int, folder: Path, *, gated: bool
) -> torch.Tensor:
    """Return what the ring held of one of a cluster's programs.

    Args:
        matrix: on a CPU, gate rows first if it is gated.
        tile: weight rows of a tile.
        rank: the program in its cluster.
        tiles: tiles of the cluster, from the first on.
        folder: an existing folder for what is compiled.

    Returns:
        bfloat16 [tiles, steps, lines of a tile, COLUMNS], without the swizzle.
    """
    steps, n = matrix.columns // COLUMNS, matrix.rows // (2 if gated else 1)
    raw = torch.empty(tiles, steps, tile, 8, 8, dtype=torch.bfloat16)
    library = _compiled(kernel_defines(matrix, tile, gated, silu=False), folder)
    outside = library.launch(
        ctypes.byref(_Map(matrix.codes.data_ptr(), matrix.codes.shape[1], n)),
        ctypes.c_void_p(matrix.scales.data_ptr()),
        ctypes.c_void_p(None if matrix.zeros is None else matrix.zeros.data_ptr()),
        tiles, steps, rank, ctypes.c_void_p(raw.data_ptr()),
    )  # fmt: skip
    assert outside == 0
    places = torch.arange(8) ^ (torch.arange(tile) % 8)[:, None]
    index = places[:, :, None].expand(tiles, steps, tile, 8, 8)
    return raw.gather(3, index).flatten(3)


def tile_rows(tile: int, number: int, rank: int, n: int, *, gated: bool) -> torch.Tensor:
    """Return the weight row of each line of a tile; -1 beyond the last."""
    parts, lines = 2 if gated else 1, torch.arange(tile)
    first = (number * CLUSTER + rank) * (tile // parts)
    row = first + lines // 8 // parts * 8 + lines % 8
    return torch.where(row < n, row + lines // 8 % parts * n, -1)


def _compiled(defines: tuple[tuple[str, object], ...], folder: Path) -> ctypes.CDLL:
    names = ("stored_weights.cuh", "linear_many_rows.cu", "many_rows_expansion.cuh")
    weights, kernel, expansion = ((nvrtc.SOURCE_FOLDER / name).read_text() for name in names)
    for name in ("permute", "and_or", "fma2"):
        weights = without(name, weights)
    sizes = kernel[kernel.index("constexpr int CLUSTER") : kernel.index("__device__ __forceinline")]
    expansion = re.sub(
        r"asm volatile\(\"bar.sync 3.*", "pthread_barrier_wait(&expanders);", expansion
    )
    text = BEFORE + INSTRUCTIONS + weights + sizes + COPY + expansion + AFTER
    text = re.sub(r"#pragma .*|#include \".*", "", text.replace("__forceinline__", "inline"))
    source = folder / "expansion.cpp"
    source.write_text("typedef unsigned char u8;\n" + text.replace("__device__", ""))
    command = ["g++", "-O1", "-shared", "-fPIC", "-std=c++17", "-pthread", "-w"]
    command += [f"-D{name}={value}" for name, value in defines]
    command += [str(source), "-o", str(folder / "expansion.so")]
    run = subprocess.run(command, capture_output=True, text=True, timeout=280)
    assert run.returncode == 0, run.stderr
    return ctypes.CDLL(str(folder / "expansion.so"))
