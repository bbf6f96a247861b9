"""Problems and requests over several engine processes, which may end one by one (35 s)."""

from __future__ import annotations

import os
import signal
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import openai
import pytest

from eightfold.engine import EngineConfig
from eightfold.solver import Solver, SolverConfig
from eightfold.solver.attempts.attempt import Ending
from eightfold.solver.cli import main
from eightfold.solver.devices import engine_process
from eightfold.solver.devices.engine_process import EngineProcess
from eightfold.solver.server.link.http_process import HttpProcess, listen

PROBLEM = "What is the remainder when $5^{8985}$ is divided by 66?"


@pytest.fixture(scope="module")
def spread() -> Iterator[Solver]:
    """A solver over three engine processes on the CPU; later tests end two of them."""
    config = SolverConfig(devices=("cpu",) * 3, attempts=4, early_stop=0)
    with Solver(config) as solver:
        yield solver


def test_several_engines_sample_the_tokens_of_one(spread: Solver) -> None:
    assert len(spread.loops) == 3
    assert not spread.on_gpu
    assert spread.table().count("context:") == 3
    assert "engine 2: " in spread.table(), "numbered as in messages, from 0"
    result = spread.solve(PROBLEM)
    with Solver(SolverConfig(attempts=4, early_stop=0)) as alone:
        expected = alone.solve(PROBLEM)
    assert result.answer == expected.answer == 23
    for one, other in zip(result.attempts, expected.attempts, strict=True):
        assert one["seed"] == other["seed"]
        assert [turn["tokens"] for turn in one["turns"]] == [
            turn["tokens"] for turn in other["turns"]
        ]


@pytest.fixture
def url(spread: Solver) -> Iterator[str]:
    """The address of a server of the solver and its model, `m`."""
    listening = listen("127.0.0.1", 0)
    address = f"http://127.0.0.1:{listening.getsockname()[1]}"
    http = HttpProcess(listening, len(spread.loops))
    try:
        http.serve(spread, "m")
        yield address
    finally:
        http.close()


def test_requests_are_spread_and_outlive_an_engine(spread: Solver, url: str) -> None:
    client = openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0)
    endless = {"model": "m", "prompt": "1", "temperature": 0, "max_tokens": 7000, "stream": True}
    endless |= {"extra_body": {"ignore_eos": True}}
    streams = [client.completions.create(**endless) for _ in spread.loops]
    for stream in streams:
        next(iter(stream))
    assert all(loop.engine.has_work() for loop in spread.loops)
    with urllib.request.urlopen(f"{url}/metrics", timeout=60) as answer:
        metrics = answer.read().decode()
    assert "eightfold_requests_running 3.0" in metrics
    assert "eightfold_engine_sampled_tokens_total" in metrics
    engine = spread.loops[2].engine
    assert isinstance(engine, EngineProcess)
    os.kill(engine.pid, signal.SIGKILL)
    with pytest.raises(openai.APIError, match=r"engine 2 on cpu has ended \(signal 9\)\.$"):
        for _ in streams[2]:
            pass
    for stream in streams[:2]:
        assert next(iter(stream)).choices
        stream.close()
    with urllib.request.urlopen(f"{url}/health", timeout=60) as answer:
        assert b"engine 2" in answer.read()
    short = client.completions.create(**{**endless, "max_tokens": 4, "stream": False})
    assert short.usage.completion_tokens == 4
    messages = [{"role": "user", "content": PROBLEM}]
    voted = client.chat.completions.create(model="m:vote4", messages=messages)
    assert "23" in voted.choices[0].message.content


@pytest.mark.filterwarnings("error::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_dead_engine_process_costs_its_own_attempts_only(spread: Solver) -> None:
    engine = spread.loops[1].engine
    assert isinstance(engine, EngineProcess)
    os.kill(engine.pid, signal.SIGKILL)
    result = spread.solve(PROBLEM)
    ended = [record["ending"] for record in result.attempts]
    assert ended.count(Ending.ANSWERED) == 2
    told = [fault for fault in result.faults if "engine 1 on cpu" in fault]
    assert told == ["EngineLostError: The process of engine 1 on cpu has ended (signal 9)."]
    assert result.answer == 23
    spread.loops[1]._thread.join(60)
    assert spread.alive
    result = spread.solve(PROBLEM)
    assert [record["ending"] for record in result.attempts] == [Ending.ANSWERED] * 4


def test_an_engine_that_loads_its_model_is_ended_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    ended: list[str] = []

    class Child:
        """Notes how it is ended."""

        def __init__(self, *arguments: object, **options: object) -> None:
            self.kill = lambda: ended.append("killed")
            self.close = lambda: ended.append("closed")
            self.ready = lambda: "cpu"

    monkeypatch.setattr(engine_process, "ChildProcess", Child)
    loading, loaded = (EngineProcess(Path(), EngineConfig(), "cpu", n) for n in range(2))
    loaded.ready()
    loading.close()
    loaded.close()
    assert ended == ["killed", "closed"]


def test_devices_that_there_are_not_are_wrong_input(capsys: pytest.CaptureFixture[str]) -> None:
    for devices, told in (
        ("cuda:63", "There is no device cuda:63"),
        ("tpu", "--devices must be auto or a list"),
    ):
        assert main(["solve", "--devices", devices, "--quiet", "What is 6 times 7?"]) == 2
        assert told in capsys.readouterr().err
