"""A KV cache in FP8: what it holds, and that tokens do not depend on how steps were divided."""

from dataclasses import replace

import pytest
import torch
from helpers.engine_cases import tiny_models
from helpers.engine_cases.engine_driver import run_until_idle
from helpers.kernel_cases.kernel_devices import CUDA

from eightfold.engine import Engine, EngineConfig, SamplingParams, UnsupportedModelError
from eightfold.engine.inspection.architecture import inspect_architecture
from eightfold.engine.inspection.kv_geometry import bytes_per_page, with_fp8_cache
from eightfold.engine.scheduling.scheduled_step import PageCopy
from eightfold.kernels.attention.fp8_pages import Fp8Pages

CONFIG = EngineConfig(device="cpu", kv="fp8", max_context=96, page_size=16, max_running=4)
NAMES = ("llama", "gemma4")


def greedy(count: int, **changes: object) -> SamplingParams:
    settings = {"temperature": 0, "max_new_tokens": count, "stop_token_ids": (), **changes}
    return SamplingParams(**settings)  # type: ignore[arg-type]


def prompt(length: int, seed: int = 0) -> list[int]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(3, tiny_models.VOCABULARY, (length,), generator=generator).tolist()


def alone(name: str, tokens: list[int], count: int) -> list[int]:
    engine = Engine(tiny_models.build(name), replace(CONFIG, prefix_cache=False))
    seq = engine.submit(tokens, greedy(count))
    return run_until_idle(engine)[seq]


def pages_of(engine: Engine) -> list[Fp8Pages]:
    caches = [cache for pair in engine._runner.cache.layers for cache in pair]
    return [cache for cache in caches if isinstance(cache, Fp8Pages)]


@pytest.mark.parametrize("name", NAMES)
def test_tokens_do_not_depend_on_chunks_preemption_or_offloading(name: str) -> None:
    prompts = [prompt(length, seed) for seed, length in enumerate((37, 21, 30))]
    expected = [alone(name, each, 4) for each in prompts]
    tight = replace(
        CONFIG, max_step_tokens=9, full_pages=6, offload_bytes=1 << 24, prefix_cache=False
    )
    engine = Engine(tiny_models.build(name), tight)
    seqs = [engine.submit(each, greedy(4)) for each in prompts]
    found = run_until_idle(engine)
    assert [found[seq] for seq in seqs] == expected
    for pages in pages_of(engine):
        pages.check()


@pytest.mark.parametrize("name", NAMES)
def test_forks_rewinds_and_shared_prefixes(name: str) -> None:
    engine = Engine(tiny_models.build(name), replace(CONFIG, rewind_tokens=32))
    start = prompt(35)
    seq = engine.submit(start, greedy(5))
    first = run_until_idle(engine)[seq]
    twin = engine.submit(start, greedy(5))  # reads the pages of the first one
    assert run_until_idle(engine)[twin] == first == alone(name, start, 5)
    paused = engine.submit(start, greedy(9, pause_token_ids=(first[3],)))
    before = run_until_idle(engine)[paused]
    (fork,) = engine.fork(paused, 1, [3])
    more = [[7, 9, 11], [20, 21]]
    for each, added in zip((paused, fork), more, strict=True):
        engine.resume(each, added)
    found = run_until_idle(engine)
    for each, added in zip((paused, fork), more, strict=True):
        whole = [*start, *before, *added]
        assert found[each] == alone(name, whole, len(found[each]))


def test_the_cache_holds_rounded_keys_and_values() -> None:
    found = []
    for kv in (None, "fp8"):
        engine = Engine(tiny_models.build("llama"), replace(CONFIG, kv=kv))
        engine.submit(prompt(40), greedy(1))
        run_until_idle(engine)
        found.append(engine._runner.cache)
        if kv is not None:
            assert "kv: full attention in FP8" in engine.table()
    for wide, narrow in zip(*(cache.layers[0] for cache in found), strict=True):
        assert isinstance(narrow, Fp8Pages)
        apart = narrow.expand(torch.float32) - wide
        assert 0.01 < float(apart[:3].norm() / wide[:3].norm()) < 0.04
    assert found[1].nbytes < found[0].nbytes / 3.5  # of float32


@pytest.mark.skipif(CUDA, reason="the interpreter takes tensors of a CPU only")
def test_the_fused_decoder_writes_one_copy() -> None:
    config = replace(CONFIG, fused=True, max_step_tokens=18, max_running=1, max_context=32)
    engine = Engine(tiny_models.build("gemma4_one_copy"), config)
    engine.submit(prompt(18), greedy(1))
    run_until_idle(engine)
    (pages,) = pages_of(engine)
    pages.check()
    vectors = pages.gather(torch.arange(16, 34), torch.float32)
    # They are normalized, and keep their length but for the rounding.
    torch.testing.assert_close(vectors.square().mean(-1), torch.ones(18, 1), rtol=0.1, atol=0)


def test_a_token_moves_between_pages_with_other_scales() -> None:
    engine = Engine(tiny_models.build("llama"), CONFIG)
    engine.submit(prompt(40), greedy(1))
    run_until_idle(engine)
    cache = engine._runner.cache
    for pages in pages_of(engine):
        pages.codes[2], pages.scales[2] = 0, 2.0**-20
    source, target = 16 + 5, 32 + 3
    before = [pages.gather(torch.tensor([source]), torch.float32) for pages in pages_of(engine)]
    cache.copy_pages([PageCopy("token", 0, source, target)])
    for pages, expected in zip(pages_of(engine), before, strict=True):
        pages.check()
        moved = pages.gather(torch.tensor([target]), torch.float32)
        torch.testing.assert_close(moved, expected, rtol=0, atol=float(expected.abs().max()) / 500)


def test_sizes_count_codes_and_scales() -> None:
    layers = inspect_architecture(tiny_models.build("gemma4").config).layers
    fp8 = with_fp8_cache(layers)
    elements = sum(x.copies * x.kv_heads * x.head_dim for x in layers if x.window is None)
    heads = sum(x.copies * x.kv_heads for x in layers if x.window is None)
    assert bytes_per_page(layers, None, 2, 64) == 64 * 2 * elements
    assert bytes_per_page(fp8, None, 2, 64) == 64 * elements + 4 * heads
    window = tiny_models.WINDOW
    assert bytes_per_page(fp8, window, 2, 64) == bytes_per_page(layers, window, 2, 64)


def test_a_model_without_full_attention_is_refused() -> None:
    model = tiny_models.build("mistral")
    with pytest.raises(UnsupportedModelError, match="leave kv at None"):
        Engine(model, CONFIG)
    with pytest.raises(ValueError, match="kv must be 'fp8' or None"):
        EngineConfig(kv="int8")
