"""What every Triton launch here shares: dependent launch, interpreter mode and shape checks.

Programmatic dependent launch (PDL): a kernel launched with it may start while the kernel before it
in the stream still runs. It calls ``pdl_wait`` before it reads what earlier kernels wrote or
writes anything, and ``pdl_launch_dependents`` as soon as its successor may take free
multiprocessors. What it does before the wait touches constants (weights) only, so
its start costs no bandwidth.
"""

import functools

import torch
import triton
import triton.language as tl
from triton.language.extra import cuda as tl_cuda


@triton.jit
def pdl_wait(PDL: tl.constexpr):
    if PDL:
        tl_cuda.gdc_wait()


@triton.jit
def pdl_launch_dependents(PDL: tl.constexpr):
    if PDL:
        tl_cuda.gdc_launch_dependents()


def interpreted() -> bool:
    """Whether kernels run in Triton's interpreter (``TRITON_INTERPRET=1`` at import)."""
    return not isinstance(pdl_wait, triton.JITFunction)


@functools.cache
def multiprocessor_count(device: torch.device) -> int:
    """Multiprocessors of a CUDA device; 2 for the interpreter, so that grids wrap there too."""
    if device.type != "cuda":
        return 2
    return torch.cuda.get_device_properties(device).multi_processor_count


def pdl_options(pdl: bool) -> dict[str, bool]:
    """Keyword arguments of a launch: ``PDL`` for the kernel and the attribute for the launcher."""
    if not pdl or interpreted():
        return {"PDL": False}
    return {"PDL": True, "launch_pdl": True}


def next_power_of_2(n: int) -> int:
    """The smallest power of two >= n."""
    return 1 << max(0, n - 1).bit_length()


def workspace_size(sizes: list[int]) -> int:
    """Elements of float32 memory that ``split_workspace`` cuts into parts of these sizes."""
    return sum(-(-size // 4) * 4 for size in sizes)


def split_workspace(memory: torch.Tensor, sizes: list[int]) -> list[torch.Tensor]:
    """Consecutive parts of float32 memory, each from a multiple of 16 bytes on.

    Triton compiles a kernel anew where a pointer that was aligned so is not.
    """
    found, begin = [], 0
    for size in sizes:
        found.append(memory[begin : begin + size])
        begin += workspace_size([size])
    return found


def require(condition: bool, message: str) -> None:
    """Raise ValueError(message) unless the condition holds."""
    if not condition:
        raise ValueError(message)


def require_tile(name: str, size: int) -> None:
    """Raise ValueError unless Triton's products take tiles of this size."""
    if size < 16 or size & (size - 1):
        raise ValueError(f"{name} is {size}; it must be a power of two from 16")


def require_tensor(
    name: str, tensor: torch.Tensor, dtype: torch.dtype | tuple[torch.dtype, ...], dims: int
) -> None:
    """Raise ValueError unless the tensor is contiguous, of a dtype given and has ``dims`` axes."""
    dtypes = dtype if isinstance(dtype, tuple) else (dtype,)
    if tensor.dtype not in dtypes:
        wanted = " or ".join(str(each) for each in dtypes)
        raise ValueError(f"{name} is {tensor.dtype}; it must be {wanted}")
    if tensor.dim() != dims:
        raise ValueError(f"{name} has shape {tuple(tensor.shape)}; it must have {dims} axes")
    if not tensor.is_contiguous():
        raise ValueError(f"{name} must be contiguous")


FLOAT_DTYPES = (torch.bfloat16, torch.float16, torch.float32)
