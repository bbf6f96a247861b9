"""Tiny random models of every supported architecture against transformers' own generate."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from helpers import tiny_models
from helpers.engine_driver import NEW_TOKENS, greedy_reference, run_until_idle

from eightfold.engine import Engine, EngineConfig, ModelError, SamplingParams
from eightfold.engine.scheduling.scheduled_step import StepPlan, StepResult

LENGTHS = (3, 40, 17, 1)
PAIR = ("launch", "read")
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
    wanted = [greedy_reference(reference, prompt) for prompt in prompts()]
    assert len(set(wanted[0])) > 5, "a reference that repeats one token proves little"
    config = EngineConfig(
        max_step_tokens=16, max_running=8, max_context=160, page_size=8, lookahead=lookahead
    )
    engine = Engine(folder, config)
    seqs = [engine.submit(prompt, GREEDY) for prompt in prompts()]
    drawn = run_until_idle(engine)
    assert [drawn[seq] for seq in seqs] == wanted
    alone = engine.submit(prompts()[1], GREEDY)
    assert run_until_idle(engine)[alone] == wanted[1]
    assert engine.stats()["prefix_hit_tokens"] > 0


def test_greedy_tokens_across_a_pause(saved) -> None:
    folder, reference = saved
    engine = Engine(folder, CONFIG)
    prompt, tool = prompts()[1], [5, 9, 11, 4, 77]
    # The third token that transformers draws is the pause token: there a tool would be called.
    before = greedy_reference(reference, prompt, 3)
    first = before.index(before[2]) + 1
    pausing = SamplingParams(
        temperature=0,
        pause_token_ids=(before[2],),
        stop_token_ids=(),
        max_new_tokens=first + 20,
    )
    seq = engine.submit(prompt, pausing)
    drawn = run_until_idle(engine)[seq]
    assert drawn == before[:first]
    engine.resume(seq, tool)
    drawn += run_until_idle(engine)[seq]
    after = greedy_reference(reference, [*prompt, *before[:first], *tool], 20)
    end = after.index(before[2]) + 1 if before[2] in after else 20
    assert drawn[first:] == after[:end]
    assert engine.stats()["recomputed_tokens"] == 0


def test_sampled_tokens_do_not_depend_on_the_neighbours(saved) -> None:
    folder, _ = saved
    params = SamplingParams(temperature=1.0, top_p=0.95, seed=11, max_new_tokens=20)
    alone = Engine(folder, CONFIG)
    seq = alone.submit(prompts()[2], params)
    wanted = run_until_idle(alone)[seq]
    crowd = Engine(folder, CONFIG)
    for seed, prompt in enumerate(prompts()):
        crowd.submit(prompt, SamplingParams(seed=seed, max_new_tokens=25))
    for _ in range(3):
        crowd.step()
    seq = crowd.submit(prompts()[2], params)
    other = crowd.fork(seq, 1, [12])[0]
    drawn = run_until_idle(crowd)
    assert drawn[seq] == wanted
    assert drawn[other] != wanted


def test_model_object_and_preemption(tmp_path: Path) -> None:
    reference = tiny_models.save("gemma4", tmp_path)
    wanted = [greedy_reference(reference, prompt, 60) for prompt in prompts()]
    tiny = EngineConfig(
        max_step_tokens=16, max_running=8, page_size=8, full_pages=18, sliding_pages=16,
        max_context=110, prefix_cache=False, offload_bytes=0,
    )  # fmt: skip
    for config in (tiny, EngineConfig(**{**_fields(tiny), "offload_bytes": 10_000_000})):
        engine = Engine(tiny_models.build("gemma4"), config)
        params = SamplingParams(temperature=0, max_new_tokens=60, stop_token_ids=())
        seqs = [engine.submit(prompt, params) for prompt in prompts()]
        drawn = run_until_idle(engine)
        assert [drawn[seq] for seq in seqs] == wanted
        stats = engine.stats()
        assert stats["preempted"] > 0
        assert (
            (stats["restored"] > 0)
            == (stats["recomputed_tokens"] == 0)
            == bool(config.offload_bytes)
        )


def _fields(config: EngineConfig) -> dict[str, object]:
    return {name: getattr(config, name) for name in config.__dataclass_fields__}


class Watched:
    """A runner that notes when each step is launched and when its tokens are read back."""

    def __init__(self, runner: Any) -> None:
        self.cache = runner.cache
        self.order: list[tuple[str, int]] = []
        self._runner, self._launched = runner, 0

    def launch(self, plan: StepPlan) -> Any:
        flight, number = self._runner.launch(plan), self._launched
        self.order.append(("launch", number))
        self._launched += 1

        def wait() -> StepResult:
            self.order.append(("read", number))
            return flight.wait()

        return SimpleNamespace(plan=plan, wait=wait)


@pytest.mark.parametrize("lookahead", [0, 1])
def test_a_step_is_launched_before_the_one_before_it_is_read(lookahead: int) -> None:
    engine = Engine(tiny_models.build("llama"), EngineConfig(lookahead=lookahead, max_context=64))
    engine._runner = watched = Watched(engine._runner)
    engine.submit([3, 4, 5], SamplingParams(max_new_tokens=4, stop_token_ids=()))
    run_until_idle(engine)
    order = [("launch", 0), *((what, n + (what == "launch")) for n in range(3) for what in PAIR)]
    direct = [(what, n) for n in range(4) for what in PAIR]
    assert watched.order == ([*order, ("read", 3)] if lookahead else direct)


def test_failed_step_is_raised_and_survived(tmp_path: Path) -> None:
    reference = tiny_models.save("gemma4", tmp_path)
    engine = Engine(tmp_path, CONFIG)
    seq = engine.submit(prompts()[1], GREEDY)
    drawn: list[int] = []
    forward = engine._runner.model.forward
    for step in range(100):
        if step == 6:
            engine._runner.model.forward = _broken
            with pytest.raises(RuntimeError, match="device-side"):
                engine.step()
            engine._runner.model.forward = forward
        for event in engine.step():
            drawn += event.tokens
        engine.check()
    assert drawn == greedy_reference(reference, prompts()[1])
    assert seq not in engine._scheduler.sequences


def _broken(*args: object, **kwargs: object) -> None:
    raise RuntimeError("CUDA error: device-side assert triggered")


def test_the_table_tells_the_context_that_is_left() -> None:
    config = EngineConfig(max_running=4, full_pages=101, sliding_pages=180, max_context=500)
    engine = Engine(tiny_models.build("gemma4"), config)
    *sizes, context = engine.table().splitlines()
    assert [line.split()[0] for line in sizes] == ["weights", "buffers", "largest", "KV"]
    assert context == (
        "context: 1600 tokens in all, 400 for each of 4 sequences at once, at most 500 for one"
    )


def test_a_multimodal_model_already_made() -> None:
    """Its text part runs over its own weights."""
    prompt = list(range(5, 40))
    wanted = greedy_reference(tiny_models.build("gemma4_wrapped"), prompt, 12)
    engine = Engine(tiny_models.build("gemma4_wrapped"), EngineConfig(max_context=256))
    seq = engine.submit(prompt, SamplingParams(temperature=0, max_new_tokens=12, stop_token_ids=()))
    assert run_until_idle(engine)[seq] == wanted


@pytest.mark.parametrize("entropies", [False, True])
def test_logits_that_are_no_numbers_are_told(entropies: bool) -> None:
    model = tiny_models.build("gemma4")
    engine = Engine(model, EngineConfig(max_context=256))
    params = SamplingParams(max_new_tokens=12, stop_token_ids=(), entropy=entropies)
    engine.submit(list(range(5, 25)), params)
    engine.step()
    with torch.no_grad():
        model.model.layers[2].input_layernorm.weight[3] = float("nan")
    with pytest.raises(ModelError, match="not numbers"):
        run_until_idle(engine)
    engine.check()
