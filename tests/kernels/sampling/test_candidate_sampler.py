"""Rows that are drawn from few candidates have the token of torch_sampler.

Takes about 20 seconds in Triton's interpreter.
"""

import pytest
import torch
from helpers.kernel_cases.kernel_devices import CUDA, DEVICE
from helpers.kernel_cases.sampling_cases import sampling_batch

from eightfold.kernels.sampling.candidate_sampler import (
    BLOCK,
    MAX_CANDIDATES,
    candidate_workspace_size,
    sample_candidates,
)
from eightfold.kernels.sampling.torch_sampler import sample

VOCAB_SIZE = 12_289
# temperature, top_k, top_p, min_p, and whether candidates suffice (None: depends on the logits)
SETTINGS = [
    (0.0, 0, 1.0, 0.0, True),
    (0.0, 7, 0.5, 0.3, True),
    (1.0, 1, 1.0, 0.0, True),
    (1.0, 8, 1.0, 0.0, True),
    (1.0, 7, 0.9, 0.0, True),
    (0.6, 7, 0.95, 0.02, True),
    (1.3, 6, 0.01, 0.0, True),
    (0.3, 0, 0.8, 0.0, True),  # sharp: the candidates hold the mass of top-p
    (0.3, 0, 0.999, 0.2, None),  # min-p drops what top-p keeps beyond them
    (1.0, 0, 1.0, 0.4, None),
    (1.0, 0, 1.0, 0.0, False),  # keeps every token
    (3.0, 0, 0.9, 0.0, False),  # flat
    (3.0, 0, 1.0, 1e-4, False),
    (1.0, 2 * MAX_CANDIDATES, 1.0, 0.0, False),
    (1.0, 15_000, 0.5, 0.0, False),
]


def draw_both(logits: torch.Tensor, settings: list[tuple[float, int, float, float]], seed: int):
    """Tokens drawn from candidates, -1 for rows that are left open, and those of torch_sampler."""
    rows, vocab_size = logits.shape
    batch = sampling_batch(settings, seed)
    maxima = torch.full((rows * -(-vocab_size // BLOCK),), float("nan"), device=DEVICE)
    chosen = torch.full((rows,), -7, dtype=torch.int32, device=DEVICE)
    workspace = torch.full(
        (candidate_workspace_size(rows, vocab_size),), float("nan"), device=DEVICE
    )
    sample_candidates(logits, batch, maxima, chosen, workspace, softcap=0.0, pdl=False)
    return chosen.tolist(), sample(logits, batch).tolist()


@pytest.mark.parametrize("seed", range(8 if CUDA else 1))
def test_drawn_rows_have_the_token_of_torch_sampler(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(len(SETTINGS), VOCAB_SIZE, generator=generator).to(DEVICE) * 3
    chosen, expected = draw_both(logits, [setting[:4] for setting in SETTINGS], seed)
    for setting, token, wanted in zip(SETTINGS, chosen, expected, strict=True):
        allowed = {True: {wanted}, False: {-1}, None: {-1, wanted}}[setting[4]]
        assert token in allowed, setting


def test_equal_logits_are_kept_together() -> None:
    """Any token equal to the k-th may be drawn; in transformers their order decides."""
    logits = torch.zeros(16, VOCAB_SIZE, device=DEVICE)
    logits[:, 5] = logits[:, 7_000] = logits[:, 12_288] = 9.0
    chosen, _ = draw_both(logits, [(1.0, 2, 1.0, 0.0)] * 16, 0)
    assert set(chosen) == {5, 7_000, 12_288}


def test_too_many_candidates_leave_the_row_open() -> None:
    logits = torch.zeros(2, VOCAB_SIZE, device=DEVICE)
    logits[1, ::100] = 1.0
    chosen, _ = draw_both(logits, [(1.0, 4, 1.0, 0.0)] * 2, 0)
    assert chosen[0] == -1
    assert chosen[1] >= 0
    assert chosen[1] % 100 == 0


@pytest.mark.parametrize("vocab_size", [1, 3, 200, BLOCK, BLOCK + 1])
def test_small_vocabularies(vocab_size: int) -> None:
    generator = torch.Generator().manual_seed(vocab_size)
    logits = torch.randn(3, vocab_size, generator=generator).to(DEVICE)
    settings = [(1.0, 5, 1.0, 0.0), (1.0, 0, 0.7, 0.0), (0.0, 0, 1.0, 0.0)]
    chosen, expected = draw_both(logits, settings, 1)
    for token, wanted in zip(chosen, expected, strict=True):
        assert token in (-1, wanted)
    assert chosen[2] == expected[2]
