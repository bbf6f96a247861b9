"""Sampling in PyTorch: the noise, and draws against the exact filtered distribution."""

import numpy as np
import pytest
import torch
from transformers import (
    LogitsProcessorList,
    MinPLogitsWarper,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from eightfold.engine.execution.cpu_batch import sampling_batch
from eightfold.engine.sampling_params import MIN_TEMPERATURE, SamplingParams
from eightfold.engine.scheduling.scheduled_step import ScheduledTokens
from eightfold.engine.scheduling.sequence import Sequence
from eightfold.kernels.sampling import philox_noise
from eightfold.kernels.sampling.philox_noise import exponential_noise, philox, vocabulary_noise
from eightfold.kernels.sampling.torch_sampler import SamplingBatch, _draw_sorted, entropy, sample

CPU = torch.device("cpu")


def batch(params: list[SamplingParams], positions: list[int] | None = None) -> SamplingBatch:
    scheduled = []
    for index, param in enumerate(params):
        position = positions[index] if positions else index
        seq = Sequence(index, [], 0, param, frozenset())
        scheduled.append(ScheduledTokens(seq, position - 1, 1, True, False, 0))
    return sampling_batch(scheduled)


def filtered(logits: torch.Tensor, params: SamplingParams) -> torch.Tensor:
    """Return the distribution that transformers' own logits processors leave."""
    steps = LogitsProcessorList([TemperatureLogitsWarper(params.temperature)])
    if params.top_k:
        steps.append(TopKLogitsWarper(params.top_k))
    if params.top_p < 1:
        steps.append(TopPLogitsWarper(params.top_p))
    if params.min_p:
        steps.append(MinPLogitsWarper(params.min_p))
    return steps(torch.zeros(1, 1, dtype=torch.long), logits[None].clone()).softmax(-1)[0]


def test_philox_known_answers() -> None:
    # From kat_vectors of Random123, philox4x32-10: a counter and a key of zeros.
    assert philox(torch.tensor(0), torch.tensor(0), torch.tensor(0)).item() == 0x6627E8D5
    words = philox(torch.tensor(0), torch.tensor(0), torch.arange(4)).tolist()
    assert words == [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]
    bits = philox(torch.tensor(1), torch.arange(1000), torch.tensor(5))
    assert len(set(bits.tolist())) == 1000


@pytest.mark.parametrize("elements", [1, 10, 1 << 16])
def test_vocabulary_noise_gives_each_token_the_noise_of_philox(
    elements: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(philox_noise, "CHUNK_ELEMENTS", elements)
    seeds, positions = torch.tensor([3, 2**62 + 5]), torch.tensor([0, 77])
    parts = list(vocabulary_noise(seeds, positions, 30))
    assert [first for first, _ in parts] == list(range(0, 30, max(4, 4 * (elements // 2))))
    together = torch.cat([noise for _, noise in parts], dim=1)
    alone = exponential_noise(philox(seeds[:, None], positions[:, None], torch.arange(30)[None, :]))
    assert torch.equal(together, alone)


def test_parts_of_the_vocabulary_change_no_token(monkeypatch: pytest.MonkeyPatch) -> None:
    """All tokens are drawn as if the noise of the whole vocabulary were there at once."""
    generator = torch.Generator().manual_seed(5)
    logits = torch.randn(9, 1003, generator=generator) * 3
    params = [SamplingParams(temperature=0.3 * (i % 3), seed=i, top_k=0) for i in range(9)]
    settings = batch(params, positions=list(range(1, 10)))
    tokens = torch.arange(1003)[None, :]
    noise = exponential_noise(philox(settings.seeds[:, None], settings.positions[:, None], tokens))
    scaled = logits / settings.temperature.clamp(min=1e-9)[:, None]
    wanted = torch.where(
        settings.temperature == 0, logits.argmax(-1), (scaled - noise.log()).argmax(-1)
    )
    for elements in (1, 100, 1 << 16):
        monkeypatch.setattr(philox_noise, "CHUNK_ELEMENTS", elements)
        assert torch.equal(sample(logits, settings), wanted)


def test_philox_uses_all_64_bits_of_the_seed() -> None:
    low, high = torch.tensor(7), torch.tensor(7 + (3 << 32))
    top = torch.tensor(np.array([2**64 - 1], dtype=np.uint64).astype(np.int64))
    draws = {philox(s, torch.tensor(1), torch.tensor(1)).item() for s in (low, high, top)}
    assert len(draws) == 3


def test_exponential_noise_is_positive_and_has_mean_one() -> None:
    edges = exponential_noise(torch.tensor([0, 1, 2**31, 2**32 - 1]))
    assert edges[0] > 0
    assert edges[0] < 1e-9
    assert edges[3] == float("inf")
    noise = exponential_noise(philox(torch.tensor(3), torch.tensor(0), torch.arange(200_000)))
    assert abs(noise.mean().item() - 1) < 0.01


COMBINATIONS = [
    {},
    {"temperature": 0.6},
    {"top_k": 5},
    {"top_p": 0.8},
    {"min_p": 0.1},
    {"top_k": 8, "top_p": 0.95, "temperature": 1.4},
    {"top_k": 20, "min_p": 0.05, "temperature": 1.5},
    {"top_p": 0.95, "min_p": 0.02, "temperature": 0.7},
    {"temperature": 1.3, "top_k": 12, "top_p": 0.9, "min_p": 0.03},
]


@pytest.mark.parametrize("over", ["positions", "seeds"])
@pytest.mark.parametrize("changes", COMBINATIONS, ids=str)
def test_chi_square_against_the_exact_distribution(changes: dict, over: str) -> None:
    """Draw 20,000 times, each with its own position or seed.

    The seeds are fixed, because 1 of 1,000 correct runs exceeds the bound.
    """
    draws = 20_000
    torch.manual_seed(0)
    logits = torch.randn(30) * 2
    if over == "positions":
        settings = batch([SamplingParams(seed=99, **changes)] * draws)
    else:
        each = [SamplingParams(seed=seed, **changes) for seed in range(draws)]
        settings = batch(each, [7] * draws)
    drawn = sample(logits.expand(draws, -1), settings)
    counts = np.bincount(drawn.numpy(), minlength=30)
    probabilities = filtered(logits, SamplingParams(**changes)).numpy().astype(float)
    assert counts[probabilities == 0].sum() == 0, "a dropped token was drawn"
    kept = probabilities > 0
    expected = probabilities[kept] / probabilities[kept].sum() * draws
    statistic = ((counts[kept] - expected) ** 2 / expected).sum()
    degrees = kept.sum() - 1
    assert degrees > 0, "a single token proves nothing"
    # Wilson and Hilferty (1931): the 0.999 quantile of chi-square from that of the normal, 3.09.
    bound = degrees * (1 - 2 / (9 * degrees) + 3.09 * np.sqrt(2 / (9 * degrees))) ** 3
    assert statistic < bound


def test_the_smallest_temperature_takes_the_most_likely_token() -> None:
    torch.manual_seed(2)
    logits = torch.randn(50, 40) * 30
    for changes in ({}, {"top_p": 0.9}, {"top_k": 7, "min_p": 0.1}):
        params = [SamplingParams(temperature=MIN_TEMPERATURE, seed=3, **changes)] * 50
        assert torch.equal(sample(logits, batch(params)), logits.argmax(-1))


def test_rows_do_not_depend_on_each_other() -> None:
    torch.manual_seed(1)
    settings = [
        SamplingParams(temperature=0),
        SamplingParams(seed=4, top_k=3),
        SamplingParams(seed=2**64 - 1, temperature=0.5, top_p=0.7),
        SamplingParams(seed=6, min_p=0.2),
        SamplingParams(seed=7, top_k=50, top_p=0.5),
        SamplingParams(seed=8),
    ]
    logits = torch.randn(len(settings), 40) * 3
    positions = [10, 20, 30, 40, 50, 60]
    together = sample(logits, batch(settings, positions)).tolist()
    assert together[0] == logits[0].argmax().item()
    for row, params in enumerate(settings):
        alone = sample(logits[row : row + 1], batch([params], [positions[row]]))
        assert alone.item() == together[row]


def test_the_race_gives_the_tokens_that_sorting_gives() -> None:
    """Flat and peaked rows, equal logits, forbidden tokens, and every mixture of filters."""
    generator = torch.Generator().manual_seed(9)
    rows, vocabulary = 400, 700
    logits = torch.randn(rows, vocabulary, generator=generator)
    logits *= torch.rand(rows, 1, generator=generator) * 12
    logits[::3] = logits[::3].round()
    logits[1::5, ::2] = float("-inf")
    params = []
    for seed in range(rows):
        top_p, min_p, top_k = torch.rand(3, generator=generator).tolist()
        options = {"top_p": max(top_p, 1e-3) if seed % 4 else 1.0, "min_p": (seed % 3) * min_p / 9}
        params.append(SamplingParams(seed=seed, top_k=int(top_k * 40) * (seed % 7 == 0), **options))
    settings = batch(params)
    assert settings.max_top_k == 0
    found = sample(logits, settings)
    wanted = _draw_sorted(logits, settings)
    # Equal logits are ranked by their index here, and in any order by a sort.
    distinct = torch.arange(rows) % 3 != 0
    assert torch.equal(found[distinct], wanted[distinct])
    for row in (~distinct).nonzero()[:, 0].tolist():
        kept = filtered(logits[row], params[row])
        assert logits[row, found[row]] >= logits[row][kept > 0].min()


def test_the_sharpest_filters_leave_the_most_likely_token() -> None:
    logits = torch.tensor([[0.0, 3.0, 2.9, -1.0]])
    for changes in ({"top_k": 1}, {"top_p": 1e-6}, {"min_p": 1.0}):
        for seed in range(20):
            assert sample(logits, batch([SamplingParams(seed=seed, **changes)])).item() == 1


def test_entropy_in_nats() -> None:
    logits = torch.tensor([[0.0, 0.0, 0.0, 0.0], [50.0, -50.0, -50.0, -50.0]])
    assert entropy(logits).tolist() == pytest.approx([np.log(4), 0.0], abs=1e-5)
    masked = torch.tensor([[0.0, 0.0, float("-inf"), float("-inf")]])
    assert entropy(masked).item() == pytest.approx(np.log(2), abs=1e-6)
