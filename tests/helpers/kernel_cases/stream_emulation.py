"""Runs the streams of few rows on a CPU, with the instructions of `stream_emulation.h`."""

import ctypes
import re
import subprocess
from collections.abc import Iterable, Sequence
from pathlib import Path

import torch

from eightfold.kernels.cuda import nvrtc

EMULATED = Path(__file__).with_suffix(".h")
FUNCTION = re.compile(
    r"^(?:template <[^>]*> )?__device__ __forceinline__ [^\n]*?(\w+)\([^{]*\{", re.M
)
EMULATED_NAMES = set(
    re.findall(r"^(?:template <[^>]*> )?static [^\n=]*?(\w+)\(", EMULATED.read_text(), re.M)
)
"""Functions that the emulation has instead of the source."""


class EmulatedStream:
    """A kernel, compiled for the CPU.

    Args:
        source: path of a ``.cu`` file from the folder of kernels on.
        name: the kernel.
        defines: its macros.
        consumers: warps that have a barrier of their own.
        folder: an existing folder for what is compiled.
    """

    def __init__(
        self,
        source: str,
        name: str,
        defines: Iterable[tuple[str, object]],
        consumers: int,
        folder: Path,
    ) -> None:
        text = _for_a_cpu(_without(EMULATED_NAMES, _included(nvrtc.SOURCE_FOLDER / source)))
        found = re.search(rf"\b{name}\((.*?)\) \{{", text, re.S)
        assert found, f"the source has no kernel {name}"
        parameters = [" ".join(each.split()) for each in found[1].split(",")]
        passed = [re.sub(r"^const Weights w$", "const Weights* w", each) for each in parameters]
        given = [
            ("*" if "Weights*" in each else "") + re.findall(r"\w+$", each)[0] for each in passed
        ]
        call = f"{name}({', '.join(given)})"
        launch = (
            f'extern "C" void launch({", ".join(passed)}, int grid) {{\n'
            f"    run_blocks(grid, WARPS, {consumers}, [=] {{ {call}; }});\n}}\n"
            'extern "C" int threads() { return WARPS * 32; }\n'
        )
        (folder / "kernel.cpp").write_text(f'#include "{EMULATED}"\n{text}\n{launch}')
        command = ["g++", "-O1", "-shared", "-fPIC", "-std=c++17", "-pthread", "-w"]
        command += [f"-D{key}={value}" for key, value in defines]
        command += [str(folder / "kernel.cpp"), "-o", str(folder / "kernel.so")]
        run = subprocess.run(command, capture_output=True, text=True, timeout=280)
        assert run.returncode == 0, run.stderr[:4000]
        self._library = ctypes.CDLL(str(folder / "kernel.so"))
        self.threads: int = self._library.threads()
        """Threads of a block."""

    def launch(self, grid: int, arguments: Sequence[object]) -> None:
        """Run `grid` thread blocks at once; tensors of a CPU are passed by their addresses."""
        self._library.launch(*(_argument(each) for each in arguments), ctypes.c_int(grid))


class SliceMap(ctypes.Structure):
    """A ``TensorMap`` of the emulation: address, bytes of a row, rows."""

    _fields_ = (("words", ctypes.c_uint64 * 16),)

    def __init__(self, rows: torch.Tensor) -> None:
        experts, count, size = rows.shape
        super().__init__((ctypes.c_uint64 * 16)(rows.data_ptr(), size, experts * count))


def _argument(value: object) -> object:
    if isinstance(value, ctypes._SimpleCData):
        return value
    if isinstance(value, torch.Tensor):
        return ctypes.c_void_p(value.data_ptr())
    if isinstance(value, int):
        return ctypes.c_int(value)
    if isinstance(value, float):
        return ctypes.c_float(value)
    return ctypes.c_void_p(None) if value is None else ctypes.byref(value)  # type: ignore[call-overload]


def _included(path: Path) -> str:
    """Return a source with the headers that it includes, but for hopper.cuh."""
    headers, seen = nvrtc.header_texts(), {"hopper.cuh"}

    def header(match: re.Match[str]) -> str:
        if match[1] in seen:
            return ""
        seen.add(match[1])
        return included(headers[match[1]])

    def included(text: str) -> str:
        return re.sub(r'#include "([\w.]+)"', header, text.replace("#pragma once", ""))

    return included(path.read_text())


def _for_a_cpu(text: str) -> str:
    """Return a source without what only a compiler for GPUs understands."""
    shared = re.compile(r"extern __shared__ __align__\(\d+\) u8 (\w+)\[\];")
    text = shared.sub(r"u8* \1 = block_memory;", text)
    text = re.sub(r"__align__\((\d+)\)", r"alignas(\1)", text)
    text = re.sub(r"__launch_bounds__\(.*?\)\n|#pragma unroll.*", "", text)
    text = re.sub(r"__(device|global|grid_constant)__|typedef unsigned char u8;", "", text)
    return text.replace("__forceinline__", "inline")


def _without(names: set[str], text: str) -> str:
    """Return a source without functions."""
    at = 0
    while match := FUNCTION.search(text, at):
        at = match.end()
        if match[1] not in names:
            continue
        end, depth = match.end(), 1
        while depth:
            depth += {"{": 1, "}": -1}.get(text[end], 0)
            end += 1
        text, at = text[: match.start()] + text[end:], match.start()
    return text
