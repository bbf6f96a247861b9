"""Checks of arguments that all kernels share, on machines without Triton too."""

import torch

FLOAT_DTYPES = (torch.bfloat16, torch.float16, torch.float32)


def require(condition: bool, message: str) -> None:
    """Raise ValueError with this message unless the condition holds."""
    if not condition:
        raise ValueError(message)


def require_tile(name: str, size: int) -> None:
    """Raise ValueError unless ``tl.dot`` takes tiles of this size."""
    require(
        size >= 16 and not size & (size - 1),
        f"{name} is {size}; it must be a power of two, at least 16.",
    )


def require_tensor(
    name: str, tensor: torch.Tensor, dtype: torch.dtype | tuple[torch.dtype, ...], dims: int
) -> None:
    """Raise ValueError unless a tensor is contiguous, of a given dtype and has ``dims`` axes."""
    dtypes = dtype if isinstance(dtype, tuple) else (dtype,)
    if tensor.dtype not in dtypes:
        wanted = " or ".join(str(each) for each in dtypes)
        raise ValueError(f"{name} is {tensor.dtype}; it must be {wanted}.")
    if tensor.dim() != dims:
        raise ValueError(f"{name} has shape {tuple(tensor.shape)}; it must have {dims} axes.")
    if not tensor.is_contiguous():
        raise ValueError(f"{name} must be contiguous.")
