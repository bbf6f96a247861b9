"""Helpers that all Triton launches share: dependent launch, GPU properties, workspaces.

Programmatic dependent launch (PDL): a kernel launched with it may start while the kernel before it
in the stream still runs. It calls ``pdl_wait`` before it reads what earlier kernels wrote, and
before it writes anything. It calls ``pdl_launch_dependents`` as soon as the next kernel may take
free multiprocessors. Before the wait it touches constants (weights) only, so that an early start
costs no bandwidth. GPUs before Hopper have neither PDL nor bulk copies: there it is left out.
"""

import functools
from typing import Any

import torch
import triton
import triton.language as tl
from triton.language.extra import cuda as tl_cuda

from .supported_gpus import DEPENDENT_LAUNCH_MIN_CAPABILITY


@triton.jit
def pdl_wait(PDL: tl.constexpr):
    if PDL:
        tl_cuda.gdc_wait()


@triton.jit
def pdl_launch_dependents(PDL: tl.constexpr):
    if PDL:
        tl_cuda.gdc_launch_dependents()


def pdl_options(pdl: bool) -> dict[str, bool]:
    """Return launch options: ``PDL`` for the kernel and ``launch_pdl`` for the launcher.

    Dependent launch is left out on GPUs that do not have it.
    """
    if not pdl or _is_interpreted() or not _current_gpu_is_hopper_or_newer():
        return {"PDL": False}
    return {"PDL": True, "launch_pdl": True}


def _is_interpreted() -> bool:
    """Return whether kernels run in Triton's interpreter (``TRITON_INTERPRET=1`` at import)."""
    return not isinstance(pdl_wait, triton.JITFunction)


def _current_gpu_is_hopper_or_newer() -> bool:
    return torch.cuda.is_available() and hopper_or_newer(
        torch.device("cuda", torch.cuda.current_device())
    )


@functools.cache
def hopper_or_newer(device: torch.device) -> bool:
    """Return whether a device has dependent launch and bulk copies; False for the CPU."""
    if device.type != "cuda":
        return False
    major, minor = torch.cuda.get_device_capability(device)
    return major + minor / 10 >= DEPENDENT_LAUNCH_MIN_CAPABILITY


@functools.cache
def shared_memory_bytes(device: torch.device) -> int:
    """Return the shared memory that a program can have; that of an H100 for the CPU."""
    if device.type != "cuda":
        return 232448
    properties: Any = torch.cuda.get_device_properties(device)
    return int(properties.shared_memory_per_block_optin)


@functools.cache
def multiprocessor_count(device: torch.device) -> int:
    """Return a CUDA device's multiprocessors; 2 for the CPU, so that grids wrap there too."""
    if device.type != "cuda":
        return 2
    return torch.cuda.get_device_properties(device).multi_processor_count


def next_power_of_2(n: int) -> int:
    """Return the smallest power of two that is at least ``n``, and at least 1."""
    return 1 << max(0, n - 1).bit_length()


def workspace_size(sizes: list[int]) -> int:
    """Return the float32 elements that ``split_workspace`` needs for parts of these sizes."""
    return sum(-(-size // 4) * 4 for size in sizes)


def split_workspace(workspace: torch.Tensor, sizes: list[int]) -> list[torch.Tensor]:
    """Split float32 memory into consecutive parts that begin at multiples of 16 bytes.

    Triton would compile another variant of a kernel for a pointer that is aligned differently.
    """
    parts, begin = [], 0
    for size in sizes:
        parts.append(workspace[begin : begin + size])
        begin += workspace_size([size])
    return parts
