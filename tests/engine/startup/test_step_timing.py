"""How long steps of different sizes take: the fastest step on a CPU, the mean on a GPU."""

from types import SimpleNamespace
from typing import Any

import pytest

from eightfold.engine.scheduling.scheduled_step import StepPlan
from eightfold.engine.startup import step_timing


class SlowSteps:
    """A runner whose steps take given times, by a clock of its own."""

    def __init__(self, device: str, seconds: list[float]) -> None:
        self.device = SimpleNamespace(type=device)
        self.now = 0.0
        self._seconds = iter(seconds)

    def launch(self, plan: StepPlan) -> Any:
        self.now += next(self._seconds)
        return SimpleNamespace(wait=lambda: None)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """Let the module see the time of the runner that it is given."""
    found = SimpleNamespace(runner=None)
    monkeypatch.setattr(step_timing.time, "perf_counter", lambda: found.runner.now)
    return found


def test_a_gpu_runs_steps_behind_one_another(clock: SimpleNamespace) -> None:
    runner: Any = SlowSteps("cuda", [9.0, 1, 2, 6])
    clock.runner = runner
    assert step_timing._seconds(runner, StepPlan([])) == 3.0


def test_other_work_on_a_cpu_does_not_make_a_step_dearer(clock: SimpleNamespace) -> None:
    """Work that disturbs steps one after the other does not hit both steps of a kind."""
    warmup, disturbed, quiet = [9.0, 9.0, 9.0], [7.0, 8.0, 3.0], [1.0, 2.0, 4.0]
    runner: Any = SlowSteps("cpu", [*warmup, *disturbed, *quiet])
    clock.runner = runner
    plans = {rows: StepPlan([]) for rows in (1, 2, 4)}
    assert step_timing._fastest(runner, plans) == {1: 1.0, 2: 2.0, 4: 3.0}
