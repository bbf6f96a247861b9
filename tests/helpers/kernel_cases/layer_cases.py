"""Random and NaN tensors for tests of layer kernels, and the errors that these tests allow."""

import torch
from helpers.kernel_cases.kernel_devices import CUDA, DEVICE, DTYPE

LIMIT = 5e-3 if CUDA else 2e-5
LINEAR_LIMIT = 5e-3 if CUDA else 1e-3


def randn(*shape: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed + sum(shape))
    return torch.randn(*shape, generator=generator).to(DTYPE).to(DEVICE)


def poisoned(*shape: int, dtype: torch.dtype = DTYPE) -> torch.Tensor:
    """Return a tensor of NaN, which a kernel must overwrite."""
    return torch.full(shape, float("nan"), dtype=dtype, device=DEVICE)
