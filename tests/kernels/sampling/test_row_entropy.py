"""Entropy of rows of logits against PyTorch."""

import pytest
import torch

from eightfold.kernels.sampling.row_entropy import (
    entropy_workspace_size,
    row_entropy,
    row_entropy_reference,
)

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


@pytest.mark.parametrize("rows", [1, 3])
@pytest.mark.parametrize("vocab_size", [5, 8192, 20_001])
@pytest.mark.parametrize("softcap", [0.0, 30.0])
def test_matches_torch(rows: int, vocab_size: int, softcap: float) -> None:
    logits = torch.randn(rows, vocab_size, device=DEVICE) * 8
    logits[0, : vocab_size // 2] = -1e4  # half of a row without mass
    out = torch.full((rows,), float("nan"), device=DEVICE)
    workspace = torch.full((entropy_workspace_size(rows, vocab_size),), float("nan"), device=DEVICE)
    assert row_entropy(logits, out, workspace, softcap=softcap) is out
    torch.testing.assert_close(out, row_entropy_reference(logits, softcap), rtol=2e-5, atol=2e-5)


def test_forbidden_tokens_have_no_mass() -> None:
    logits = torch.full((2, 9000), float("-inf"), device=DEVICE)
    logits[0, 8500] = 3.0
    logits[1, [5, 8999]] = 1.0
    out = torch.empty(2, device=DEVICE)
    workspace = torch.empty(entropy_workspace_size(2, 9000), device=DEVICE)
    row_entropy(logits, out, workspace)
    wanted = torch.tensor([1.0, 2.0]).log()  # equally likely tokens
    torch.testing.assert_close(out.cpu(), wanted, atol=1e-5, rtol=0)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("at", [3, 8500])
def test_a_logit_without_a_finite_value_makes_the_entropy_nan(value: float, at: int) -> None:
    """This is how the engine notices that a model is broken."""
    logits = torch.zeros(2, 9000, device=DEVICE)
    logits[1, at] = value
    out = torch.full((2,), float("nan"), device=DEVICE)
    row_entropy(logits, out, torch.empty(entropy_workspace_size(2, 9000), device=DEVICE))
    assert out.isnan().tolist() == [False, True]
    assert row_entropy_reference(logits).isnan().tolist() == [False, True]


def test_wrong_sizes_are_refused() -> None:
    logits, workspace = torch.zeros(2, 10, device=DEVICE), torch.empty(6, device=DEVICE)
    with pytest.raises(ValueError, match="out holds 3"):
        row_entropy(logits, torch.empty(3, device=DEVICE), workspace)
    with pytest.raises(ValueError, match="workspace holds 1"):
        row_entropy(logits, torch.empty(2, device=DEVICE), workspace[:1])
