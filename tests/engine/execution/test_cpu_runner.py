"""Steps of the CPU runner: their order with lookahead, failures, and logits that are NaN."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from helpers.engine_cases import tiny_models
from helpers.engine_cases.engine_driver import NEW_TOKENS, greedy_reference, run_until_idle

from eightfold.engine import Engine, EngineConfig, ModelError, SamplingParams
from eightfold.engine.scheduling.scheduled_step import StepPlan, StepResult

PAIR = ("launch", "read")


class RecordingRunner:
    """A runner that records when each step is launched and when its tokens are read."""

    def __init__(self, runner: Any) -> None:
        self.cache = runner.cache
        self.order: list[tuple[str, int]] = []
        self._runner, self._launched = runner, 0

    def launch(self, plan: StepPlan) -> Any:
        step, number = self._runner.launch(plan), self._launched
        self.order.append(("launch", number))
        self._launched += 1

        def wait() -> StepResult:
            self.order.append(("read", number))
            return step.wait()

        return SimpleNamespace(plan=plan, wait=wait)


@pytest.mark.parametrize("lookahead", [0, 1])
def test_with_lookahead_a_step_is_launched_before_the_last_one_is_read(lookahead: int) -> None:
    engine = Engine(tiny_models.build("llama"), EngineConfig(lookahead=lookahead, max_context=64))
    engine._runner = recorder = RecordingRunner(engine._runner)
    engine.submit([3, 4, 5], SamplingParams(max_new_tokens=4, stop_token_ids=()))
    run_until_idle(engine)
    order = [("launch", 0), *((what, n + (what == "launch")) for n in range(3) for what in PAIR)]
    direct = [(what, n) for n in range(4) for what in PAIR]
    assert recorder.order == ([*order, ("read", 3)] if lookahead else direct)


def test_a_failed_step_raises_and_the_engine_goes_on(tmp_path: Path) -> None:
    reference = tiny_models.save("gemma4", tmp_path)
    config = EngineConfig(
        device="cpu", max_step_tokens=16, max_running=8, max_context=160, page_size=8
    )
    engine = Engine(tmp_path, config)
    prompt = list(range(3, 43))
    params = SamplingParams(temperature=0, max_new_tokens=NEW_TOKENS, stop_token_ids=())
    seq = engine.submit(prompt, params)
    generated: list[int] = []
    forward = engine._runner.model.forward
    for step in range(100):
        if step == 6:
            engine._runner.model.forward = _fail
            with pytest.raises(RuntimeError, match="device-side"):
                engine.step()
            engine._runner.model.forward = forward
        for event in engine.step():
            generated += event.tokens
        engine.check()
    assert generated == greedy_reference(reference, prompt)
    assert seq not in engine._scheduler.sequences


def _fail(*args: object, **kwargs: object) -> None:
    raise RuntimeError("CUDA error: device-side assert triggered")


@pytest.mark.parametrize("entropies", [False, True])
def test_nan_logits_raise(entropies: bool) -> None:
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
