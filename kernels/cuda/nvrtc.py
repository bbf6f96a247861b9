"""Compile the CUDA C++ kernels, for Hopper unless a caller says otherwise, at run time with NVRTC.

They are the few kernels that Triton cannot express well. NVRTC comes with PyTorch's CUDA builds,
and nothing is compiled ahead of time. Every caller has other kernels to fall back on.

NVRTC and the driver (`cuda_driver`) are called through ctypes, because PyTorch's Linux wheels
depend on ``cuda-bindings`` only since 2.10, and PyTorch 2.9 is supported.
"""

import ctypes
import functools
import logging
import os
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

import torch

from .cuda_driver import CudaError, CudaKernel

SOURCE_FOLDER = Path(__file__).parent
ARCHITECTURE = "sm_90a"  # with the instructions that only Hopper has


def is_hopper(device: torch.device) -> bool:
    """Return whether the device runs code for ``ARCHITECTURE``."""
    return device.type == "cuda" and torch.cuda.get_device_capability(device) == (9, 0)


@functools.cache
def load_kernel(
    device: torch.device,
    name: str,
    defines: tuple[tuple[str, object], ...],
    shared_bytes: int,
    fallback: str,
    source: str | None = None,
    architecture: str = ARCHITECTURE,
) -> CudaKernel | None:
    """Compile and load a kernel, once for each device and set of macros.

    Args:
        device: a GPU that runs code for the architecture.
        name: name of the kernel, an ``extern "C"`` function.
        defines: macros, as names and values.
        shared_bytes: dynamic shared memory of each thread block, in bytes.
        fallback: what happens without the kernel, as a clause for the log.
        source: path of the source file from this folder on; ``None`` for ``name.cu``.
        architecture: NVRTC's name of the GPUs that are to run the code.

    Returns:
        The kernel; ``None``, after one warning, if it cannot be compiled or loaded.
    """
    try:
        with torch.cuda.device(device):
            cubin = compile_cubin(source or f"{name}.cu", dict(defines), architecture)
            return CudaKernel(cubin, name, shared_bytes)
    except CudaError as error:
        message = "The CUDA kernel %s is not available, so %s. The reason: %s"
        logging.getLogger(__name__).warning(message, name, fallback, error)
        return None


def compile_cubin(
    source: str, defines: Mapping[str, object], architecture: str = ARCHITECTURE
) -> bytes:
    """Compile a source file to machine code. No GPU is needed.

    Args:
        source: path of a ``.cu`` file from this folder on. It can include every header (``.cuh``)
            among the kernels, by its name alone.
        defines: macros, by name.
        architecture: NVRTC's name of the GPUs that are to run the code.

    Raises:
        CudaError: NVRTC was not found, or the source does not compile; the message has NVRTC's log.
    """
    options = [f"--gpu-architecture={architecture}", "--std=c++17"]
    options += ["--device-as-default-execution-space"]
    options += [f"-D{name}={value}" for name, value in defines.items()]
    text, headers = (SOURCE_FOLDER / source).read_text(), header_texts()
    nvrtc, program = _nvrtc(), ctypes.c_void_p()
    if nvrtc.nvrtcCreateProgram(
        ctypes.byref(program), text.encode(), source.encode(), len(headers),
        _c_strings(headers.values()), _c_strings(headers.keys()),
    ):  # fmt: skip
        raise CudaError("nvrtcCreateProgram failed.")
    try:
        if nvrtc.nvrtcCompileProgram(program, len(options), _c_strings(options)):
            log = _program_output(program, "nvrtcGetProgramLog").rstrip(b"\0")
            raise CudaError(f"NVRTC cannot compile {source}: {log.decode(errors='replace')}")
        return _program_output(program, "nvrtcGetCUBIN")
    finally:
        nvrtc.nvrtcDestroyProgram(ctypes.byref(program))


@functools.cache
def header_texts() -> dict[str, str]:
    """Return the text of each header among the kernels, by the name under which it is included."""
    return {path.name: path.read_text() for path in sorted(SOURCE_FOLDER.parent.rglob("*.cuh"))}


def _program_output(program: ctypes.c_void_p, function: str) -> bytes:
    """Return what NVRTC's ``function`` writes, whose size ``functionSize`` tells."""
    size = ctypes.c_size_t()
    getattr(_nvrtc(), f"{function}Size")(program, ctypes.byref(size))
    memory = ctypes.create_string_buffer(size.value)
    getattr(_nvrtc(), function)(program, memory)
    return memory.raw


def _c_strings(texts: Iterable[str]) -> ctypes.Array[ctypes.c_char_p]:
    encoded = [text.encode() for text in texts]
    return (ctypes.c_char_p * len(encoded))(*encoded)


@functools.cache
def _nvrtc() -> ctypes.CDLL:
    """Load NVRTC of PyTorch's CUDA version, from PyTorch's wheels or from the CUDA toolkit."""
    major = (torch.version.cuda or "").split(".")[0]
    name = f"libnvrtc.so.{major}"
    wheels = [Path(entry) / "nvidia" for entry in sys.path]
    found = [path for wheel in wheels for path in sorted(wheel.glob(f"*/lib/{name}"))]
    toolkit = Path(os.environ.get("CUDA_HOME", "/usr/local/cuda")) / "lib64" / name
    for candidate in (*found, name, toolkit):
        try:
            return ctypes.CDLL(str(candidate))
        except OSError:
            continue
    raise CudaError(f"{name} was not found.")
