"""Sampling settings on the device of the test."""

import torch
from helpers.kernel_cases.kernel_devices import DEVICE

from eightfold.kernels.sampling.torch_sampler import SamplingBatch


def sampling_batch(settings: list[tuple[float, int, float, float]], seed: int) -> SamplingBatch:
    """Return a batch of rows of (temperature, top_k, top_p, min_p), each with a seed of its own."""

    def column(i: int, dtype: torch.dtype) -> torch.Tensor:
        return torch.tensor([s[i] for s in settings], dtype=dtype, device=DEVICE)

    rows = torch.arange(len(settings), device=DEVICE)
    return SamplingBatch(
        temperature=column(0, torch.float32), top_k=column(1, torch.int64),
        top_p=column(2, torch.float32), min_p=column(3, torch.float32),
        seeds=rows + seed * 1_000_003 * 2**20, positions=rows * 17 + seed,
        max_top_k=0, all_greedy=False, any_filtered=True,
    )  # fmt: skip
