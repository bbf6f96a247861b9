"""Copies of single tokens in the cache: their order, and one launch for all layers of a shape."""

from random import Random

import pytest
import torch
from helpers.engine_cases import tiny_models

from eightfold.engine import Engine, EngineConfig
from eightfold.engine.execution.kv_cache import KVCache
from eightfold.engine.scheduling.scheduled_step import PageCopy

PAGES, PAGE_SIZE = 8, 4
SLOTS = range(PAGE_SIZE, PAGES * PAGE_SIZE)


@pytest.fixture
def cache() -> KVCache:
    """A random cache of two groups of layers."""
    config = EngineConfig(
        device="cpu", page_size=PAGE_SIZE, max_context=28, max_running=1, max_step_tokens=4,
        full_pages=PAGES, sliding_pages=PAGES,
    )  # fmt: skip
    found = Engine(tiny_models.build("gemma4"), config)._runner.cache
    assert isinstance(found, KVCache)
    for layer in found.layers:
        for pages in layer:
            assert isinstance(pages, torch.Tensor)
            pages.normal_()
    return found


def contents(cache: KVCache) -> list[list[torch.Tensor]]:
    """Return the slots of each group's layers, without copies of shared ones."""
    own = [layer for layer in cache._architecture.layers if layer.owns_kv]
    return [
        [
            pages.flatten(0, 1).clone()
            for layer in own
            if layer.window == window
            for pages in cache.layers[layer.index]
            if isinstance(pages, torch.Tensor)
        ]
        for window in cache.windows
    ]


@pytest.mark.parametrize("seed", range(20))
def test_copies_have_the_result_of_one_after_the_other(cache: KVCache, seed: int) -> None:
    rng, expected = Random(seed), contents(cache)
    copies = []
    for _ in range(24):
        group = rng.randrange(len(cache.windows))
        if rng.random() < 0.1:  # a page in between
            source, target = rng.sample(range(1, PAGES), 2)
            copies.append(PageCopy("fork", group, source, target))
            for tensor in expected[group]:
                pages = tensor.unflatten(0, (PAGES, PAGE_SIZE))
                pages[target] = pages[source].clone()
        else:
            source, target = rng.choice(SLOTS), rng.choice(SLOTS)
            copies.append(PageCopy("token", group, source, target))
            for tensor in expected[group]:
                tensor[target] = tensor[source].clone()
    cache.copy_pages(copies)
    for found, wanted in zip(contents(cache), expected, strict=True):
        assert len(found) == len(wanted) >= 2
        assert all(torch.equal(a, b) for a, b in zip(found, wanted, strict=True))


def test_tokens_of_many_sequences_take_one_launch_for_layers_of_a_shape(
    cache: KVCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    launches = []
    copy = torch.Tensor.index_copy_
    monkeypatch.setattr(
        torch.Tensor, "index_copy_", lambda *given: (launches.append(given), copy(*given))[1]
    )
    copies = [
        PageCopy("token", group, place + 1, place)
        for place in (5, 9, 13, 17)
        for group in range(len(cache.windows))
    ]
    cache.copy_pages(copies)
    layers = sum(map(len, contents(cache)))
    assert len(launches) == sum(map(len, cache._device_pages)) < layers
