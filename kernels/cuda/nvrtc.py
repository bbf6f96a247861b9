"""CUDA C++ compiled at run time by NVRTC, loaded and launched through the driver, by ctypes.

For the few kernels that Triton cannot express well. NVRTC comes with PyTorch's CUDA builds. Nothing
is compiled ahead, and whoever asks has a Triton kernel to fall back on.
"""

import ctypes
import functools
import logging
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

SOURCE_FOLDER = Path(__file__).parent  # the CUDA sources
PROGRAMMATIC_SERIALIZATION = 6  # CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION
MAX_DYNAMIC_SHARED = 8  # CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
BFLOAT16, PROMOTE_256 = 9, 3  # of CUtensorMap's enumerations
SWIZZLE_NONE, SWIZZLE_64, SWIZZLE_128 = 0, 2, 3


class CudaError(RuntimeError):
    """A call of NVRTC or of the driver failed; the text says which and why."""


class _Attribute(ctypes.Structure):
    _fields_ = (("id", ctypes.c_int), ("pad", ctypes.c_char * 4), ("value", ctypes.c_int * 16))


class _LaunchConfig(ctypes.Structure):
    _fields_ = (
        ("grid", ctypes.c_uint * 3), ("block", ctypes.c_uint * 3), ("shared", ctypes.c_uint),
        ("stream", ctypes.c_void_p), ("attributes", ctypes.POINTER(_Attribute)),
        ("count", ctypes.c_uint),
    )  # fmt: skip


@functools.cache
def _driver() -> ctypes.CDLL:
    return ctypes.CDLL("libcuda.so.1")


@functools.cache
def _nvrtc() -> ctypes.CDLL:
    """The library, from where PyTorch's wheels or the toolkit keep it."""
    major = (torch.version.cuda or "").split(".")[0]
    name = f"libnvrtc.so.{major}"
    folders = [Path(entry) / "nvidia" for entry in sys.path]
    found = [path for folder in folders for path in sorted(folder.glob(f"*/lib/{name}"))]
    home = os.environ.get("CUDA_HOME", "/usr/local/cuda")
    for candidate in (*found, name, Path(home) / "lib64" / name):
        try:
            return ctypes.CDLL(str(candidate))
        except OSError:
            continue
    raise CudaError(f"{name} was not found")


def _check(status: int, what: str) -> None:
    if status == 0:
        return
    text = ctypes.c_char_p()
    _driver().cuGetErrorString(status, ctypes.byref(text))
    raise CudaError(f"{what}: {(text.value or b'error').decode()} ({status})")


def _compile(source: str, options: Sequence[str]) -> bytes:
    nvrtc, program = _nvrtc(), ctypes.c_void_p()
    if nvrtc.nvrtcCreateProgram(
        ctypes.byref(program), source.encode(), b"kernel.cu", 0, None, None
    ):
        raise CudaError("nvrtcCreateProgram failed")
    try:
        given = (ctypes.c_char_p * len(options))(*(option.encode() for option in options))
        status = nvrtc.nvrtcCompileProgram(program, len(options), given)
        size = ctypes.c_size_t()
        if status:
            nvrtc.nvrtcGetProgramLogSize(program, ctypes.byref(size))
            log = ctypes.create_string_buffer(size.value)
            nvrtc.nvrtcGetProgramLog(program, log)
            raise CudaError(f"NVRTC: {log.value.decode(errors='replace')}")
        nvrtc.nvrtcGetCUBINSize(program, ctypes.byref(size))
        image = ctypes.create_string_buffer(size.value)
        nvrtc.nvrtcGetCUBIN(program, image)
        return image.raw
    finally:
        nvrtc.nvrtcDestroyProgram(ctypes.byref(program))


def is_hopper(device: torch.device) -> bool:
    """Whether the device runs code made for ``sm_90a``."""
    return device.type == "cuda" and torch.cuda.get_device_capability(device) == (9, 0)


class CudaKernel:
    """One compiled function on one device.

    Args:
        source: CUDA C++; needs no headers. name: an ``extern "C"`` function in it.
        defines: macros. arch: as NVRTC names it, "sm_90a". shared: dynamic shared memory, bytes.

    Raises:
        CudaError: it does not compile or load here.
    """

    def __init__(
        self, source: str, name: str, *, arch: str, defines: Mapping[str, object], shared: int
    ) -> None:
        options = [
            f"--gpu-architecture={arch}",
            "--std=c++17",
            "--device-as-default-execution-space",
        ]
        options += [f"-D{key}={value}" for key, value in defines.items()]
        self._image = _compile(source, options)
        self._shared = shared
        _current_context()
        module, self._function = ctypes.c_void_p(), ctypes.c_void_p()
        cuda = _driver()
        _check(cuda.cuModuleLoadData(ctypes.byref(module), self._image), "cuModuleLoadData")
        _check(
            cuda.cuModuleGetFunction(ctypes.byref(self._function), module, name.encode()),
            "cuModuleGetFunction",
        )
        _check(
            cuda.cuFuncSetAttribute(self._function, MAX_DYNAMIC_SHARED, shared),
            "cuFuncSetAttribute",
        )

    def launch(self, grid: int, block: int, arguments: Sequence[object], pdl: bool) -> None:
        """Launch on the current stream; ``arguments`` are ctypes objects in order."""
        _current_context()
        attribute = _Attribute(id=PROGRAMMATIC_SERIALIZATION)
        attribute.value[0] = 1
        config = _LaunchConfig(
            grid=(grid, 1, 1), block=(block, 1, 1), shared=self._shared,
            stream=torch.cuda.current_stream().cuda_stream,
            attributes=ctypes.pointer(attribute), count=1 if pdl else 0,
        )  # fmt: skip
        pointers = (ctypes.c_void_p * len(arguments))(
            *(ctypes.addressof(each) for each in arguments)  # type: ignore[arg-type]
        )
        _check(
            _driver().cuLaunchKernelEx(ctypes.byref(config), self._function, pointers, None),
            "cuLaunchKernelEx",
        )


@functools.cache
def load_kernel(
    device: torch.device,
    sources: tuple[str, ...],
    name: str,
    defines: tuple[tuple[str, object], ...],
    shared: int,
    otherwise: str,
) -> CudaKernel | None:
    """A Hopper kernel, compiled once for each device and set of macros.

    Args:
        sources: files of this folder, one after the other. otherwise: what runs in its place.

    Returns:
        ``None``, said once, where it cannot be had.
    """
    source = "".join((SOURCE_FOLDER / each).read_text() for each in sources)
    try:
        with torch.cuda.device(device):
            return CudaKernel(source, name, arch="sm_90a", defines=dict(defines), shared=shared)
    except CudaError as error:
        logging.getLogger(__name__).warning("%s cannot run, %s: %s", name, otherwise, error)
        return None


def _current_context() -> None:
    """Make PyTorch's context current: the thread may not have used the GPU yet."""
    cuda, context = _driver(), ctypes.c_void_p()
    _check(cuda.cuCtxGetCurrent(ctypes.byref(context)), "cuCtxGetCurrent")
    if not context.value:
        device = ctypes.c_int(torch.cuda.current_device())
        _check(cuda.cuDevicePrimaryCtxRetain(ctypes.byref(context), device), "primary context")
        _check(cuda.cuCtxSetCurrent(context), "cuCtxSetCurrent")


@functools.lru_cache(maxsize=1024)
def tensor_map(
    address: int,
    sizes: tuple[int, ...],
    strides: tuple[int, ...],
    box: tuple[int, ...],
    swizzle: int = SWIZZLE_128,
) -> ctypes.Array[ctypes.c_char]:
    """A descriptor for the bulk copy engine of a bf16 tensor.

    Args:
        sizes: elements along each axis, the contiguous one first. strides: bytes between elements
            of the other axes. box: what one copy takes, elements along each axis. swizzle: how it
            lies in shared memory, of CUtensorMap's enumerations.
    """
    rank = len(sizes)
    memory = ctypes.create_string_buffer(192)
    # The driver wants 64-byte alignment.
    result = (ctypes.c_char * 128).from_buffer(memory, -ctypes.addressof(memory) % 64)
    status = _driver().cuTensorMapEncodeTiled(
        ctypes.byref(result), BFLOAT16, rank, ctypes.c_void_p(address),
        (ctypes.c_uint64 * rank)(*sizes), (ctypes.c_uint64 * (rank - 1))(*strides),
        (ctypes.c_uint32 * rank)(*box), (ctypes.c_uint32 * rank)(*[1] * rank),
        0, swizzle, PROMOTE_256, 0,
    )  # fmt: skip
    _check(status, "cuTensorMapEncodeTiled")
    return result
