"""The solver with the real model, engine and kernels: tokens, faults and surroundings (60 s)."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from eightfold.engine import Engine, EngineConfig
from eightfold.solver import Result, Solver, SolverConfig, SolverError

PROBLEM = "What is the value of $d(23326)$, where $d(n)$ is the number of divisors of $n$?"
ANSWER = 8

pytestmark = pytest.mark.timeout(280)


@pytest.fixture(scope="module")
def solver() -> Iterator[Solver]:
    with Solver(SolverConfig(attempts=4, early_stop=0, kernels=8, time=240, seed=1)) as shared:
        yield shared


def second_solver(solver: Solver, engine: EngineConfig, **settings: Any) -> Solver:
    """Return a solver with an engine of its own and the same kernels."""
    config = SolverConfig(**{"attempts": 4, "early_stop": 0, "time": 240, "seed": 1, **settings})
    tokenizer = solver.protocol.tokenizer
    return Solver(
        config, engine=Engine(solver.folder, engine), tokenizer=tokenizer, pool=solver.pool
    )


def endings(result: Result) -> list[str]:
    return [record["ending"] for record in result.attempts]


def calls(result: Result) -> list[dict[str, Any]]:
    turns = [turn for record in result.attempts for turn in record["turns"]]
    return [call for turn in turns for call in turn["calls"]]


def test_sequence_holds_the_prompt_and_all_sampled_and_appended_tokens(
    solver: Solver, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = solver.loop.engine
    sequences: list[list[int]] = []
    cancel = engine.cancel

    def cancel_and_record(seq: int) -> bool:
        sequences.append(engine.tokens(seq))
        return cancel(seq)

    monkeypatch.setattr(engine, "cancel", cancel_and_record)
    result = solver.solve(PROBLEM)
    assert result.answer == ANSWER
    assert any(call["status"] == "ok" for call in calls(result))
    for record in result.attempts:
        tokens = list(result.prompt)
        for turn in record["turns"]:
            assert turn["text"] == solver.protocol.decode(turn["tokens"])
            assert len(turn["entropies"]) == len(turn["tokens"])
            tokens += turn["tokens"][:-1] if turn["replaced"] else turn["tokens"]
            tokens += turn["appended"]
        assert tokens in sequences
    json.dumps(result.attempts)


# Faults


def test_kernel_that_dies_is_reported_and_replaced(
    solver: Solver, monkeypatch: pytest.MonkeyPatch
) -> None:
    lease = solver.pool.lease
    deadly = iter(["import os; os._exit(9)"])

    def poisoned(**options: Any) -> Any:
        kernel = lease(**options)
        execute = kernel.execute
        kernel.execute = lambda code, timeout: execute(next(deadly, code), timeout)
        return kernel

    monkeypatch.setattr(solver.pool, "lease", poisoned)
    result = solver.solve(PROBLEM)
    assert result.answer == ANSWER
    died = [call for call in calls(result) if call["status"] == "died"]
    assert len(died) == 1
    assert "KernelDied" in died[0]["output"]
    assert died[0]["error"] == "died"


def test_attempts_end_with_the_reason_if_no_kernel_can_be_leased(
    solver: Solver, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lease_nothing(**options: Any) -> Any:
        raise OSError(12, "Cannot allocate memory")

    monkeypatch.setattr(solver.pool, "lease", lease_nothing)
    result = solver.solve(PROBLEM)
    assert "sandbox failed" in endings(result)
    assert any("Cannot allocate memory" in record["detail"] for record in result.attempts)


def test_exception_in_one_attempt_spares_the_others(
    solver: Solver, monkeypatch: pytest.MonkeyPatch
) -> None:
    parse = solver.protocol.parse_calls
    broken = iter([True])

    def fails_once(text: str) -> Any:
        if next(broken, False):
            raise LookupError("no such thing")
        return parse(text)

    monkeypatch.setattr(solver.protocol, "parse_calls", fails_once)
    result = solver.solve(PROBLEM)
    assert endings(result).count("solver fault") == 1
    assert result.answer == ANSWER
    assert any("LookupError: no such thing" in fault for fault in result.faults)


def break_steps(solver: Solver, monkeypatch: pytest.MonkeyPatch, first: int, count: int) -> None:
    """Make steps fail after they have run and have written the cache."""
    launch, launched = solver.loop.engine._runner.launch, []

    def launch_or_fail(plan: Any) -> Any:
        launched.append(plan)
        in_flight = launch(plan)
        if first <= len(launched) < first + count:
            raise RuntimeError("CUDA error: an illegal memory access was encountered")
        return in_flight

    monkeypatch.setattr(solver.loop.engine._runner, "launch", launch_or_fail)


def test_cuda_error_in_two_steps_costs_no_attempt(
    solver: Solver, monkeypatch: pytest.MonkeyPatch
) -> None:
    break_steps(solver, monkeypatch, first=20, count=2)
    result = solver.solve(PROBLEM)
    assert len(result.faults) == 2
    assert all("CUDA error" in fault for fault in result.faults)
    assert "engine failed" not in endings(result)
    assert result.answer == ANSWER
    solver.loop.engine.check()


def test_lasting_cuda_error_ends_only_the_problem(
    solver: Solver, monkeypatch: pytest.MonkeyPatch
) -> None:
    break_steps(solver, monkeypatch, first=20, count=3)
    result = solver.solve(PROBLEM)
    assert set(endings(result)) == {"engine failed"}
    assert all("CUDA error" in record["detail"] for record in result.attempts)
    assert all(record["turns"][0]["text"] for record in result.attempts), "the trace is kept"
    monkeypatch.undo()
    solver.loop.engine.check()
    assert solver.solve(PROBLEM).answer == ANSWER


def test_full_cache_makes_attempts_wait_without_failing(solver: Solver) -> None:
    pages = len(solver.protocol.render_prompt(PROBLEM)) // 16 + 24
    config = EngineConfig(device="cpu", page_size=16, full_pages=pages, prefix_cache=False)
    with second_solver(solver, config, attempts=8) as small:
        result = small.solve(PROBLEM)
        stats = small.loop.engine.stats()
        small.loop.engine.check()
    assert stats["preempted"] + stats["reclaimed"] > 0, "the cache was full"
    assert result.answer == ANSWER
    assert "engine failed" not in endings(result)


def test_context_and_token_limit_end_attempts(solver: Solver) -> None:
    prompt = len(solver.protocol.render_prompt(PROBLEM))
    with second_solver(solver, EngineConfig(device="cpu", max_context=prompt + 24)) as narrow:
        result = narrow.solve(PROBLEM)
        assert set(endings(result)) == {"context full"}
        assert result.answer is None
        # A call that the context cut off is in the trace but was not run.
        assert all("<|tool_call>" in record["turns"][-1]["text"] for record in result.attempts)
        assert result.calls == 0
        with pytest.raises(SolverError, match="does not fit the model"):
            narrow.solve("x " * 200)
    with second_solver(solver, EngineConfig(device="cpu"), max_tokens=12) as brief:
        result = brief.solve(PROBLEM)
        assert set(endings(result)) == {"token limit"}
        assert result.tokens == 12 * 4


# Surroundings


def test_two_solvers_run_in_two_threads(solver: Solver) -> None:
    results: list[Result] = []
    with second_solver(solver, EngineConfig(device="cpu"), attempts=2) as other:
        threads = [
            threading.Thread(target=lambda each=each: results.append(each.solve(PROBLEM)))
            for each in (solver, other)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert sorted(len(result.attempts) for result in results) == [2, 4]
    assert {result.answer for result in results} == {ANSWER}


def test_exception_inside_with_closes_everything_and_closing_twice_is_harmless() -> None:
    solver = Solver(SolverConfig(kernels=1))
    pid = solver.pool.lease(timeout=60).pid

    def fail() -> None:
        with solver:
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    solver.close()
    assert not solver.alive
    wait_until(lambda: not running(pid))
    with pytest.raises(SolverError, match="closed"):
        solver.solve(PROBLEM)


def running(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, "waited for a minute"
        time.sleep(0.02)


def test_works_in_a_notebook_cell() -> None:
    """Two solvers, one after the other, in a real kernel whose event loop is running."""
    from jupyter_client.manager import start_new_kernel

    cell = (
        "from eightfold.solver import Solver, SolverConfig\n"
        "for seed in (1, 2):\n"
        "    config = SolverConfig(attempts=2, early_stop=0, kernels=2, time=200, seed=seed)\n"
        "    with Solver(config) as solver:\n"
        f"        print('answer', solver.solve({PROBLEM!r}).answer)\n"
    )
    manager, client = start_new_kernel(startup_timeout=120)
    try:
        printed: list[str] = []
        reply = client.execute_interactive(
            cell,
            timeout=250,
            allow_stdin=False,
            output_hook=lambda message: printed.append(str(message["content"].get("text"))),
        )
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)
    assert reply["content"]["status"] == "ok", reply["content"]
    assert "".join(printed).count(f"answer {ANSWER}") == 2
