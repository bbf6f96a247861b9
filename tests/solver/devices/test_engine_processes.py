"""A problem over two engine processes gives the tokens of one engine, and outlives one (25 s)."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest

from eightfold.solver import Solver, SolverConfig
from eightfold.solver.attempts.attempt import Ending
from eightfold.solver.cli import main
from eightfold.solver.devices.engine_process import EngineProcess

PROBLEM = "What is the remainder when $5^{8985}$ is divided by 66?"


@pytest.fixture(scope="module")
def spread() -> Iterator[Solver]:
    """A solver over two engine processes on the CPU."""
    config = SolverConfig(devices=("cpu", "cpu"), attempts=4, early_stop=0)
    with Solver(config) as solver:
        yield solver


def test_two_engines_sample_the_tokens_of_one(spread: Solver) -> None:
    assert len(spread.loops) == 2
    assert not spread.on_gpu
    assert spread.table().count("context:") == 2
    result = spread.solve(PROBLEM)
    with Solver(SolverConfig(attempts=4, early_stop=0)) as alone:
        expected = alone.solve(PROBLEM)
    assert result.answer == expected.answer == 23
    for one, other in zip(result.attempts, expected.attempts, strict=True):
        assert one["seed"] == other["seed"]
        assert [turn["tokens"] for turn in one["turns"]] == [
            turn["tokens"] for turn in other["turns"]
        ]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_dead_engine_process_costs_its_own_attempts_only(spread: Solver) -> None:
    engine = spread.loops[1].engine
    assert isinstance(engine, EngineProcess)
    os.kill(engine.pid, signal.SIGKILL)
    result = spread.solve(PROBLEM)
    ended = [record["ending"] for record in result.attempts]
    assert ended.count(Ending.ANSWERED) == 2
    assert result.answer == 23
    spread.loops[1]._thread.join(60)
    assert spread.alive
    result = spread.solve(PROBLEM)
    assert [record["ending"] for record in result.attempts] == [Ending.ANSWERED] * 4


def test_devices_that_there_are_not_are_wrong_input(capsys: pytest.CaptureFixture[str]) -> None:
    for devices, told in (("cuda:63", "There is no device cuda:63"), ("tpu", "--devices must be")):
        assert main(["solve", "--devices", devices, "--quiet", "What is 6 times 7?"]) == 2
        assert told in capsys.readouterr().err
