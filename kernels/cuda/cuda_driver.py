"""The CUDA driver through ctypes: load a cubin, launch its kernels, describe tensors for TMA."""

import ctypes
import functools
from collections.abc import Sequence
from typing import Any

import torch

# Constants of the driver's API (cuda.h); the prefix CU_ is left out.
LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION = 6
FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES = 8
TENSOR_MAP_DATA_TYPE_BFLOAT16 = 9
TENSOR_MAP_INTERLEAVE_NONE = 0
TENSOR_MAP_SWIZZLE_NONE, TENSOR_MAP_SWIZZLE_64B, TENSOR_MAP_SWIZZLE_128B = 0, 2, 3
TENSOR_MAP_L2_PROMOTION_256B = 3
TENSOR_MAP_FLOAT_OOB_FILL_NONE = 0  # elements beyond the tensor read as zero
TENSOR_MAP_BYTES, TENSOR_MAP_ALIGNMENT = 128, 64

TensorMap = ctypes.Array[ctypes.c_char]
"""A ``CUtensorMap``, passed to a kernel by value."""


class CudaError(RuntimeError):
    """A call of NVRTC or of the CUDA driver failed. The message names the call and the reason."""


class _LaunchAttribute(ctypes.Structure):  # CUlaunchAttribute; its value is a union of 64 bytes
    _fields_ = (("id", ctypes.c_int), ("pad", ctypes.c_char * 4), ("value", ctypes.c_int * 16))


class _LaunchConfig(ctypes.Structure):  # CUlaunchConfig
    _fields_ = (
        ("grid", ctypes.c_uint * 3),
        ("block", ctypes.c_uint * 3),
        ("shared_bytes", ctypes.c_uint),
        ("stream", ctypes.c_void_p),
        ("attributes", ctypes.POINTER(_LaunchAttribute)),
        ("attribute_count", ctypes.c_uint),
    )


class CudaKernel:
    """One compiled function, loaded on the current device.

    Args:
        cubin: machine code for the device.
        name: name of an ``extern "C"`` function in it.
        shared_bytes: dynamic shared memory of each thread block, in bytes.

    Raises:
        CudaError: the driver cannot load the code.
    """

    def __init__(self, cubin: bytes, name: str, shared_bytes: int) -> None:
        self._cubin = cubin
        self._shared_bytes = shared_bytes
        _make_context_current()
        module, self._function = ctypes.c_void_p(), ctypes.c_void_p()
        _call("cuModuleLoadData", ctypes.byref(module), cubin)
        _call("cuModuleGetFunction", ctypes.byref(self._function), module, name.encode())
        limit = FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
        _call("cuFuncSetAttribute", self._function, limit, shared_bytes)

    def launch(self, grid: int, block: int, arguments: Sequence[Any], pdl: bool) -> None:
        """Launch the kernel on PyTorch's current stream.

        Args:
            grid: number of thread blocks.
            block: threads of each block.
            arguments: the kernel's arguments in order, as ctypes objects.
            pdl: let the launch start before the one ahead of it in the stream has ended
                (programmatic dependent launch).

        Raises:
            CudaError: the driver refuses the launch.
        """
        _make_context_current()
        attribute = _LaunchAttribute(id=LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION)
        attribute.value[0] = 1
        config = _LaunchConfig(
            grid=(grid, 1, 1),
            block=(block, 1, 1),
            shared_bytes=self._shared_bytes,
            stream=torch.cuda.current_stream().cuda_stream,
            attributes=ctypes.pointer(attribute),
            attribute_count=1 if pdl else 0,
        )
        pointers = (ctypes.c_void_p * len(arguments))(
            *(ctypes.addressof(argument) for argument in arguments)
        )
        _call("cuLaunchKernelEx", ctypes.byref(config), self._function, pointers, None)


@functools.lru_cache(maxsize=1024)
def tensor_map(
    address: int,
    sizes: tuple[int, ...],
    strides: tuple[int, ...],
    box: tuple[int, ...],
    swizzle: int = TENSOR_MAP_SWIZZLE_128B,
) -> TensorMap:
    """Describe a bfloat16 tensor for the bulk copy engine (TMA).

    Args:
        address: address of the first element.
        sizes: elements along each axis, the contiguous axis first.
        strides: bytes between elements of every axis but the first.
        box: elements along each axis that one copy takes.
        swizzle: layout of a copy in shared memory, a ``TENSOR_MAP_SWIZZLE_*`` constant.

    Raises:
        CudaError: the driver refuses the description.
    """
    rank = len(sizes)
    memory = ctypes.create_string_buffer(TENSOR_MAP_BYTES + TENSOR_MAP_ALIGNMENT)
    aligned = -ctypes.addressof(memory) % TENSOR_MAP_ALIGNMENT
    result = (ctypes.c_char * TENSOR_MAP_BYTES).from_buffer(memory, aligned)
    element_strides = (1,) * rank
    _call(
        "cuTensorMapEncodeTiled",
        ctypes.byref(result),
        TENSOR_MAP_DATA_TYPE_BFLOAT16,
        rank,
        ctypes.c_void_p(address),
        (ctypes.c_uint64 * rank)(*sizes),
        (ctypes.c_uint64 * (rank - 1))(*strides),
        (ctypes.c_uint32 * rank)(*box),
        (ctypes.c_uint32 * rank)(*element_strides),
        TENSOR_MAP_INTERLEAVE_NONE,
        swizzle,
        TENSOR_MAP_L2_PROMOTION_256B,
        TENSOR_MAP_FLOAT_OOB_FILL_NONE,
    )
    return result


@functools.cache
def _driver() -> ctypes.CDLL:
    return ctypes.CDLL("libcuda.so.1")


def _call(function: str, *arguments: Any) -> None:
    """Call a function of the driver; raise CudaError unless it succeeds."""
    status = getattr(_driver(), function)(*arguments)
    if status == 0:
        return
    text = ctypes.c_char_p()
    _driver().cuGetErrorString(status, ctypes.byref(text))
    reason = (text.value or b"unknown error").decode()
    raise CudaError(f"{function} failed with error {status}: {reason}.")


def _make_context_current() -> None:
    """Make PyTorch's context current, because this thread may not have used the GPU before."""
    context = ctypes.c_void_p()
    _call("cuCtxGetCurrent", ctypes.byref(context))
    if not context.value:
        device = ctypes.c_int(torch.cuda.current_device())
        _call("cuDevicePrimaryCtxRetain", ctypes.byref(context), device)
        _call("cuCtxSetCurrent", context)
