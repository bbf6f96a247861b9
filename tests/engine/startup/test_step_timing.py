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


@pytest.mark.parametrize(
    ("device", "seconds", "expected"),
    [("cpu", [9.0, 8.0, 2.0], 2.0), ("cpu", [9.0, 2.0, 8.0], 2.0), ("cuda", [9.0, 1, 2, 6], 3.0)],
)
def test_other_work_on_a_cpu_does_not_make_a_step_dearer(
    device: str, seconds: list[float], expected: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    runner = SlowSteps(device, seconds)
    monkeypatch.setattr(step_timing.time, "perf_counter", lambda: runner.now)
    assert step_timing._seconds(runner, StepPlan([])) == expected  # type: ignore[arg-type]
