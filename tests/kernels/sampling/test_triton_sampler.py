"""The Triton sampler draws the tokens that torch_sampler draws.

Takes about 15 seconds in Triton's interpreter.
"""

from dataclasses import replace

import pytest
import torch
from helpers.kernel_cases.kernel_devices import CUDA, DEVICE
from helpers.kernel_cases.sampling_cases import sampling_batch

from eightfold.kernels.sampling.torch_sampler import sample
from eightfold.kernels.sampling.triton_sampler import sample_tokens, sampler_workspace_size

VOCAB_SIZE = 5003
# temperature, top_k, top_p, min_p
SETTINGS = {
    "greedy": (0.0, 5, 0.5, 0.1),
    "unfiltered": (1.0, 0, 1.0, 0.0),
    "high temperature": (1.7, 0, 1.0, 0.0),
    "top_k": (1.0, 20, 1.0, 0.0),
    "top_k of one": (1.0, 1, 1.0, 0.0),
    "top_k beyond the range": (0.05, 5000, 1.0, 0.0),
    "top_p": (1.0, 0, 0.9, 0.0),
    "small top_p": (1.0, 0, 0.01, 0.0),
    "min_p": (0.8, 0, 1.0, 0.05),
    "all": (0.7, 64, 0.95, 0.02),
}


@pytest.mark.parametrize("seed", range(8 if CUDA else 1))
def test_draws_what_the_torch_sampler_draws(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    settings = list(SETTINGS.values())
    logits = torch.randn(len(settings), VOCAB_SIZE, generator=generator).to(DEVICE) * 3
    batch = sampling_batch(settings, seed)
    out = torch.full((len(settings),), -1, dtype=torch.int64, device=DEVICE)
    need = sampler_workspace_size(len(settings), VOCAB_SIZE)
    workspace = torch.full((need,), float("nan"), device=DEVICE)
    sample_tokens(logits, batch, out, workspace, softcap=30.0)
    assert out.tolist() == sample(30 * torch.tanh(logits / 30), batch).tolist()


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_logits_without_finite_values_draw_a_token_of_the_vocabulary(value: float) -> None:
    """The next step reads its embedding before the host can notice."""
    settings = list(SETTINGS.values()) * 2
    logits = torch.zeros(len(settings), 300, device=DEVICE)
    logits[: len(SETTINGS)] = value
    logits[len(SETTINGS) :, 299] = value
    out = torch.full((len(settings),), -1, dtype=torch.int64, device=DEVICE)
    workspace = torch.empty(sampler_workspace_size(len(settings), 300), device=DEVICE)
    sample_tokens(logits, sampling_batch(settings, 0), out, workspace)
    assert all(0 <= token < 300 for token in out.tolist())


def test_wrong_settings_are_refused() -> None:
    logits = torch.zeros(2, 300, device=DEVICE)
    out = torch.zeros(2, dtype=torch.int64, device=DEVICE)
    workspace = torch.empty(sampler_workspace_size(2, 300), device=DEVICE)
    batch = sampling_batch([(1.0, 3, 1.0, 0.0)] * 2, 0)
    for wrong, message in (
        ({"top_p": batch.top_p[:1]}, "top_p holds 1 settings; the logits have 2 rows"),
        ({"top_k": batch.top_k.int()}, "top_k is torch.int32"),
        ({"seeds": batch.seeds.float()}, "seeds is torch.float32"),
    ):
        with pytest.raises(ValueError, match=message):
            sample_tokens(logits, replace(batch, **wrong), out, workspace)


def test_a_small_workspace_is_refused() -> None:
    logits = torch.zeros(1, VOCAB_SIZE, device=DEVICE)
    out = torch.zeros(1, dtype=torch.int64, device=DEVICE)
    with pytest.raises(ValueError, match="are needed"):
        sample_tokens(logits, sampling_batch([(1.0, 0, 1.0, 0.0)], 0), out, logits[0, :9])
