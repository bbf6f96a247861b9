"""Attempts on two scripted engines: one vote, one end, faults of one engine alone (2 s)."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest
import torch
from helpers.solver_cases.scripted_engine import (
    TOKENIZER,
    ScriptedEngine,
    ScriptedPool,
    boxed,
    call,
    endings,
    scripted_solver,
)

from eightfold.engine import Event
from eightfold.solver import SolverConfig, SolverError
from eightfold.solver.attempts.attempt import Ending
from eightfold.solver.attempts.engine_loop import EngineLoop
from eightfold.solver.attempts.problem_plan import SharedParts
from eightfold.solver.attempts.problem_run import ProblemRun
from eightfold.solver.cli.command_line import make_parser
from eightfold.solver.cli.commands.serve_command import serve_config
from eightfold.solver.devices import device_list
from eightfold.solver.devices.device_list import (
    choose_devices,
    device_environment,
    parse_devices,
)
from eightfold.solver.solver import Solver

ENDLESS = "thinking " * 4000


class FailingEngine(ScriptedEngine):
    """Runs out of memory in each step that has a sequence, once it is told to."""

    failing = True

    def step(self) -> list[Event]:
        """Raise what PyTorch raises on a full GPU."""
        if self.failing:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return super().step()


@contextmanager
def started(engines: list[ScriptedEngine], **config: object) -> Iterator[tuple[Solver, ProblemRun]]:
    """Yield a solver, and a run of a problem on several engines."""
    settings = {"attempts": 4, "time": 60.0, **config}
    with scripted_solver(ScriptedEngine([]), **settings) as solver:  # type: ignore[arg-type]
        loops = tuple(EngineLoop(engine) for engine in engines)
        with ThreadPoolExecutor(8) as executor:
            parts = SharedParts(loops, solver.protocol, ScriptedPool(), executor, solver.sampling)
            run = ProblemRun(solver._plan("problem", None, None), parts)
            run.start("problem")
            yield solver, run
            for loop in loops:
                if loop.alive:
                    loop.call(lambda: None)
                    assert not loop._listeners, "the problem listens no longer"
                loop.close()
    for engine in engines:
        assert all(one.status == "finished" for one in engine.sequences.values())


def test_attempts_are_dealt_out_and_vote_together() -> None:
    engines = [
        ScriptedEngine([[call("6*7"), boxed(42)], [boxed(41)]]),
        ScriptedEngine([[boxed(42)], [call("1"), boxed(42)]]),
    ]
    with started(engines, early_stop=0) as (_, run):
        result = run.wait()
    assert (result.answer, result.votes) == (42, {42: 3, 41: 1})
    assert [record["attempt"] for record in result.attempts] == [0, 1, 2, 3]
    assert [record["answer"] for record in result.attempts] == [42, 42, 41, 42]
    assert len({record["seed"] for record in result.attempts}) == 4
    assert TOKENIZER.decode(list(result.prompt)).count("problem") >= 1
    assert [len(engine.sequences) for engine in engines] == [2, 2]


def test_an_agreement_on_both_engines_ends_what_either_still_runs() -> None:
    engines = [
        ScriptedEngine([[boxed(7)], [ENDLESS]], 1),
        ScriptedEngine([[boxed(7)], [ENDLESS]], 1),
    ]
    with started(engines, early_stop=2) as (_, run):
        result = run.wait()
    assert result.stopped == "agreement"
    assert endings(result).count(Ending.CONSENSUS) == 2


def test_an_engine_without_memory_loses_its_own_attempts_only() -> None:
    failing = FailingEngine([[boxed(1)], [boxed(1)]])
    with started([ScriptedEngine([[boxed(5)], [boxed(5)]]), failing], early_stop=0) as (_, run):
        result = run.wait()
    assert result.answer == 5
    assert endings(result) == [Ending.ANSWERED, Ending.MEMORY, Ending.ANSWERED, Ending.MEMORY]
    assert "out of memory" in result.attempts[1]["detail"]
    with started([FailingEngine([[boxed(1)]] * 4)]) as (_, run):
        result = run.wait()
    assert endings(result) == [Ending.MEMORY] * 4
    assert result.stopped == Ending.MEMORY


def test_an_interrupt_while_attempts_start_ends_them(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(loop: EngineLoop, command: Callable[[], object]) -> None:
        loop.post(command)  # type: ignore[arg-type]
        raise KeyboardInterrupt

    engine = ScriptedEngine([[ENDLESS]] * 2, 1)
    with scripted_solver(engine, attempts=2, time=60.0) as solver:
        with monkeypatch.context() as patch:
            patch.setattr(EngineLoop, "call", interrupted)
            with pytest.raises(KeyboardInterrupt):
                solver.solve("problem")
        solver.loop.call(lambda: None)
        assert len(engine.sequences) == 2
        assert all(one.status == "finished" for one in engine.sequences.values())
        assert not solver.loop._listeners


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_an_engine_whose_thread_ends_loses_its_own_attempts_only() -> None:
    engines = [ScriptedEngine([[boxed(5)], [boxed(5)]]), ScriptedEngine([[ENDLESS], [ENDLESS]], 1)]

    def die() -> None:
        raise SystemExit

    with started(engines, early_stop=0) as (solver, run):
        dying = run._lanes[1].loop
        dying.post(die)
        result = run.wait()
        dying._thread.join(60)
        assert endings(result) == [Ending.ANSWERED, Ending.ENGINE, Ending.ANSWERED, Ending.ENGINE]
        loops = (dying, run._lanes[0].loop)
        parts = SharedParts(
            loops, solver.protocol, ScriptedPool(), ThreadPoolExecutor(1), solver.sampling
        )
        later = ProblemRun(solver._plan("later", None, None), parts)
        assert [lane.loop for lane in later._lanes] == [loops[1]], "later problems leave it out"


def test_the_time_limit_ends_the_attempts_of_all_engines() -> None:
    engines = [ScriptedEngine([[ENDLESS], [ENDLESS]], 1) for _ in range(2)]
    with started(engines, time=0.3) as (_, run):
        result = run.wait()
    assert endings(result) == [Ending.TIME] * 4


def test_a_lone_attempt_takes_one_engine() -> None:
    engines = [ScriptedEngine([[boxed(3)]]), ScriptedEngine([])]
    with started(engines, attempts=1, early_stop=0) as (_, run):
        assert run.wait().answer == 3


def test_many_problems_at_once_on_two_engines() -> None:
    """Locks of several problems and two threads never wait for each other."""
    engines = [ScriptedEngine([[boxed(1)], [call("1"), boxed(1)]] * 40, 1) for _ in range(2)]
    answers: list[int | None] = []
    with scripted_solver(ScriptedEngine([]), attempts=4, time=600.0, early_stop=3) as solver:
        loops = tuple(EngineLoop(engine) for engine in engines)
        parts = SharedParts(
            loops, solver.protocol, ScriptedPool(), ThreadPoolExecutor(16), solver.sampling
        )
        runs = [ProblemRun(solver._plan(f"p{i}", None, None), parts) for i in range(40)]

        def go(chosen: list[ProblemRun]) -> None:
            for run in chosen:
                run.start("problem")
                answers.append(run.wait(interval=0.01).answer)

        threads = [threading.Thread(target=go, args=(runs[i::4],)) for i in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(100)
        assert answers == [1] * len(runs)
        for loop in loops:
            loop.close()


@pytest.mark.parametrize(
    "devices", ["cuda", "cuda:0", "all", (), ("gpu",), ("cpu", "cuda:0"), ("cpu",) * 65, (0,)]
)
def test_devices_that_are_none_are_refused(devices: object) -> None:
    with pytest.raises(SolverError, match="devices must be"):
        SolverConfig(devices=devices)  # type: ignore[arg-type]


def test_devices_are_chosen_from_those_that_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device_list.os, "listdir", lambda path: ["nvidia0", "nvidiactl"])
    assert choose_devices(SolverConfig(devices="auto")) == (), "one GPU is found without torch"
    monkeypatch.setattr(device_list, "_may_have_several", lambda: True)
    monkeypatch.setattr(device_list, "_count_gpus", lambda: 4)
    assert choose_devices(SolverConfig()) == ()
    assert choose_devices(SolverConfig(devices="auto")) == ("cuda:0", "cuda:1", "cuda:2", "cuda:3")
    assert choose_devices(SolverConfig(devices="auto", attempts=2)) == ("cuda:0", "cuda:1")
    served = make_parser().parse_args(["serve", "--attempts", "1", "--running", "3"])
    assert choose_devices(serve_config(served)) == ("cuda:0", "cuda:1", "cuda:2")
    assert choose_devices(SolverConfig(devices=parse_devices("cuda:3, cuda:1"))) == (
        *("cuda:3", "cuda:1"),
    )
    with pytest.raises(SolverError, match=r"no device cuda:4; this machine has cuda:0 to cuda:3"):
        choose_devices(SolverConfig(devices=("cuda:4",)))
    monkeypatch.setattr(device_list, "_count_gpus", lambda: 1)
    assert choose_devices(SolverConfig(devices="auto")) == (), "one GPU needs no process"
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5,GPU-1234")
    assert device_environment("cuda:1") == {"CUDA_VISIBLE_DEVICES": "GPU-1234"}
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    assert device_environment("cuda:2") == {"CUDA_VISIBLE_DEVICES": "2"}
    assert device_environment("cpu") == {"CUDA_VISIBLE_DEVICES": ""}
