"""Tiny random models of every supported architecture give the tokens of transformers' generate."""

from pathlib import Path

import pytest
import torch
from helpers.engine_cases import tiny_models
from helpers.engine_cases.engine_driver import NEW_TOKENS, greedy_reference, run_until_idle

from eightfold.engine import Engine, EngineConfig, SamplingParams

LENGTHS = (3, 40, 17, 1)
GREEDY = SamplingParams(temperature=0, max_new_tokens=NEW_TOKENS, stop_token_ids=())
CONFIG = EngineConfig(max_step_tokens=16, max_running=8, max_context=160, page_size=8)


@pytest.fixture(scope="module", params=sorted(tiny_models.BUILDERS))
def saved(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory):
    folder = tmp_path_factory.mktemp(request.param)
    return folder, tiny_models.save(request.param, folder)


def prompts() -> list[list[int]]:
    generator = torch.Generator().manual_seed(7)
    return [
        torch.randint(3, tiny_models.VOCABULARY, (n,), generator=generator).tolist()
        for n in LENGTHS
    ]


@pytest.mark.parametrize("lookahead", [0, 1])
def test_greedy_tokens_equal_generate_alone_and_in_a_batch(saved, lookahead: int) -> None:
    folder, reference = saved
    expected = [greedy_reference(reference, prompt) for prompt in prompts()]
    assert len(set(expected[0])) > 5, "a reference that repeats one token proves little"
    config = EngineConfig(
        max_step_tokens=16, max_running=8, max_context=160, page_size=8, lookahead=lookahead
    )
    engine = Engine(folder, config)
    seqs = [engine.submit(prompt, GREEDY) for prompt in prompts()]
    generated = run_until_idle(engine)
    assert [generated[seq] for seq in seqs] == expected
    alone = engine.submit(prompts()[1], GREEDY)
    assert run_until_idle(engine)[alone] == expected[1]
    assert engine.stats()["prefix_hit_tokens"] > 0


def test_greedy_tokens_across_a_pause(saved) -> None:
    folder, reference = saved
    engine = Engine(folder, CONFIG)
    prompt, tool = prompts()[1], [5, 9, 11, 4, 77]
    # The third token of transformers is the pause token, at which a tool would be called.
    before = greedy_reference(reference, prompt, 3)
    first = before.index(before[2]) + 1
    pausing = SamplingParams(
        temperature=0,
        pause_token_ids=(before[2],),
        stop_token_ids=(),
        max_new_tokens=first + 20,
    )
    seq = engine.submit(prompt, pausing)
    generated = run_until_idle(engine)[seq]
    assert generated == before[:first]
    engine.resume(seq, tool)
    generated += run_until_idle(engine)[seq]
    after = greedy_reference(reference, [*prompt, *before[:first], *tool], 20)
    end = after.index(before[2]) + 1 if before[2] in after else 20
    assert generated[first:] == after[:end]
    assert engine.stats()["recomputed_tokens"] == 0


def test_sampled_tokens_do_not_depend_on_neighbors(saved) -> None:
    folder, _ = saved
    params = SamplingParams(temperature=1.0, top_p=0.95, seed=11, max_new_tokens=20)
    alone = Engine(folder, CONFIG)
    seq = alone.submit(prompts()[2], params)
    expected = run_until_idle(alone)[seq]
    crowd = Engine(folder, CONFIG)
    for seed, prompt in enumerate(prompts()):
        crowd.submit(prompt, SamplingParams(seed=seed, max_new_tokens=25))
    for _ in range(3):
        crowd.step()
    seq = crowd.submit(prompts()[2], params)
    other = crowd.fork(seq, 1, [12])[0]
    generated = run_until_idle(crowd)
    assert generated[seq] == expected
    assert generated[other] != expected


def test_model_object_and_preemption(tmp_path: Path) -> None:
    reference = tiny_models.save("gemma4", tmp_path)
    expected = [greedy_reference(reference, prompt, 60) for prompt in prompts()]
    tiny = EngineConfig(
        max_step_tokens=16, max_running=8, page_size=8, full_pages=18, sliding_pages=16,
        max_context=110, prefix_cache=False, offload_bytes=0,
    )  # fmt: skip
    for config in (tiny, EngineConfig(**{**_fields(tiny), "offload_bytes": 10_000_000})):
        engine = Engine(tiny_models.build("gemma4"), config)
        params = SamplingParams(temperature=0, max_new_tokens=60, stop_token_ids=())
        seqs = [engine.submit(prompt, params) for prompt in prompts()]
        generated = run_until_idle(engine)
        assert [generated[seq] for seq in seqs] == expected
        stats = engine.stats()
        assert stats["preempted"] > 0
        assert (
            (stats["restored"] > 0)
            == (stats["recomputed_tokens"] == 0)
            == bool(config.offload_bytes)
        )


def _fields(config: EngineConfig) -> dict[str, object]:
    return {name: getattr(config, name) for name in config.__dataclass_fields__}


def test_the_text_part_of_a_multimodal_model() -> None:
    prompt = list(range(5, 40))
    expected = greedy_reference(tiny_models.build("gemma4_wrapped"), prompt, 12)
    engine = Engine(tiny_models.build("gemma4_wrapped"), EngineConfig(max_context=256))
    seq = engine.submit(prompt, SamplingParams(temperature=0, max_new_tokens=12, stop_token_ids=()))
    assert run_until_idle(engine)[seq] == expected
