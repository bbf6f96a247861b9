"""Decode benchmarks over a cache of random numbers compute single tokens and no prompts."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


def test_only_single_tokens_are_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(BENCHMARKS)
    from support.random_cache import pass_over_prompts

    computed = torch.ones(2, 7)
    cache = [(torch.zeros(5, 4, 1, 8), None), (torch.zeros(5, 4, 1, 8), torch.zeros(5, 4, 1, 8))]
    decoder = SimpleNamespace(logits=lambda *_: computed)
    runner = SimpleNamespace(decoder=decoder, cache=SimpleNamespace(layers=cache))
    pass_over_prompts(SimpleNamespace(_runner=runner, _vocabulary=7))  # type: ignore[arg-type]
    tokens = torch.zeros(2, dtype=torch.int32)
    assert decoder.logits(tokens, tokens, {}, cache, None) is computed
    assert torch.equal(decoder.logits(tokens, tokens, {}, cache, tokens[:1]), torch.zeros(1, 7))
    assert decoder.logits(tokens, tokens, {}, cache, tokens[:0]).shape == (0, 7)
    assert all(
        0.5 < tensor.std() < 1.5 for layer in cache for tensor in layer if tensor is not None
    )
