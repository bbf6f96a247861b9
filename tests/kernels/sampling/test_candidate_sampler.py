"""Rows that few candidates suffice for: which are settled, and that the draw is the sampler's.

About 20 seconds in Triton's interpreter.
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

VOCABULARY = 12_289
# temperature, top_k, top_p, min_p, and whether candidates settle it; None: with some logits.
SETTINGS = [
    (0.0, 0, 1.0, 0.0, True),
    (0.0, 7, 0.5, 0.3, True),
    (1.0, 1, 1.0, 0.0, True),
    (1.0, 8, 1.0, 0.0, True),
    (1.0, 7, 0.9, 0.0, True),
    (0.6, 7, 0.95, 0.02, True),
    (1.3, 6, 0.01, 0.0, True),
    (0.3, 0, 0.8, 0.0, True),  # sharp: the candidates hold the mass
    (0.3, 0, 0.999, 0.2, None),  # what top-p keeps beyond them, min-p drops
    (1.0, 0, 1.0, 0.4, None),
    (1.0, 0, 1.0, 0.0, False),  # keeps every token
    (3.0, 0, 0.9, 0.0, False),  # flat
    (3.0, 0, 1.0, 1e-4, False),
    (1.0, 2 * MAX_CANDIDATES, 1.0, 0.0, False),
    (1.0, 15_000, 0.5, 0.0, False),
]


def draw(logits: torch.Tensor, settings: list[tuple[float, int, float, float]], seed: int):
    rows, vocabulary = logits.shape
    batch = sampling_batch(settings, seed)
    maxima = torch.full((rows * -(-vocabulary // BLOCK),), float("nan"), device=DEVICE)
    chosen = torch.full((rows,), -7, dtype=torch.int32, device=DEVICE)
    space = torch.full((candidate_workspace_size(rows, vocabulary),), float("nan"), device=DEVICE)
    sample_candidates(logits, batch, maxima, chosen, space, softcap=0.0, pdl=False)
    return chosen.tolist(), sample(logits, batch).tolist()


@pytest.mark.parametrize("seed", range(8 if CUDA else 1))
def test_settled_rows_have_the_samplers_token(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(len(SETTINGS), VOCABULARY, generator=generator).to(DEVICE) * 3
    chosen, expected = draw(logits, [setting[:4] for setting in SETTINGS], seed)
    for setting, token, wanted in zip(SETTINGS, chosen, expected, strict=True):
        allowed = {True: {wanted}, False: {-1}, None: {-1, wanted}}[setting[4]]
        assert token in allowed, setting


def test_equal_logits_are_kept_together() -> None:
    """Of tokens equal to the k-th, transformers' order decides; here all of them may be drawn."""
    logits = torch.zeros(16, VOCABULARY, device=DEVICE)
    logits[:, 5] = logits[:, 7_000] = logits[:, 12_288] = 9.0
    chosen, _ = draw(logits, [(1.0, 2, 1.0, 0.0)] * 16, 0)
    assert set(chosen) == {5, 7_000, 12_288}


def test_too_many_candidates_leave_the_row_open() -> None:
    logits = torch.zeros(2, VOCABULARY, device=DEVICE)
    logits[1, ::100] = 1.0
    chosen, _ = draw(logits, [(1.0, 4, 1.0, 0.0)] * 2, 0)
    assert chosen[0] == -1
    assert chosen[1] >= 0
    assert chosen[1] % 100 == 0


@pytest.mark.parametrize("vocabulary", [1, 3, 200, BLOCK, BLOCK + 1])
def test_small_vocabularies(vocabulary: int) -> None:
    generator = torch.Generator().manual_seed(vocabulary)
    logits = torch.randn(3, vocabulary, generator=generator).to(DEVICE)
    settings = [(1.0, 5, 1.0, 0.0), (1.0, 0, 0.7, 0.0), (0.0, 0, 1.0, 0.0)]
    chosen, expected = draw(logits, settings, 1)
    for token, wanted in zip(chosen, expected, strict=True):
        assert token in (-1, wanted)
    assert chosen[2] == expected[2]
