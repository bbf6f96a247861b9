"""The state that the parts of a pool share, tested without any process. Under 1 s."""

import random
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from eightfold.sandbox import PoolConfig, SandboxError
from eightfold.sandbox.host import pool_state
from eightfold.sandbox.host.pool_state import PoolState
from eightfold.sandbox.sandbox_errors import PortTakenError, SandboxOutageError


class FakeProcess:
    """A stand-in for a `KernelProcess`."""

    def __init__(self, pid: int = 1) -> None:
        self.pid = pid
        self.protections = {"uid": pid}
        self.kill_reason: str | None = None
        self.ended = False
        self.closed = False

    def alive(self) -> bool:
        return not self.ended

    def kill(self) -> None:
        self.ended = True

    def close(self) -> None:
        assert not self.closed
        self.ended = self.closed = True


class FakeLease:
    """A stand-in for a `Kernel`."""

    def __init__(self, state: PoolState, process: Any) -> None:
        self.state = state
        self.process = process

    def release(self) -> None:
        self.state.close_lease(self, self.process, keep=False)


def add_ready(state: PoolState, *pids: int) -> list[Any]:
    """Add ready processes and return them."""
    processes: list[Any] = [FakeProcess(pid) for pid in pids]
    for process in processes:
        state.add_ready(process)
    return processes


def lease(state: PoolState) -> FakeLease:
    """Lease a ready process."""
    state.claim(time.monotonic())
    return state.open_lease(state.take_ready(time.monotonic()), FakeLease)


def test_kernels_are_missing_for_free_and_for_waiting_claims() -> None:
    state = PoolState(PoolConfig(size=3, spares=2))
    assert state.missing(starting=0) == 3
    assert state.missing(starting=2) == 1
    add_ready(state, 1, 2, 3)
    assert state.missing(starting=0) == 0
    for _ in range(3):
        lease(state)
    assert state.missing(starting=0) == 2  # the spares
    state.discard(state.monitored()[0])
    assert state.missing(starting=0) == 3  # and one for the lease that lost its process
    state.check()


def test_a_ready_process_that_has_ended_is_closed_and_skipped() -> None:
    state = PoolState(PoolConfig(size=2))
    ended, living = add_ready(state, 1, 2)
    ended.ended = True
    assert lease(state).process is living
    assert ended.closed
    assert state.stats()["pids"] == [2]


def test_a_pool_gives_no_more_leases_than_its_size() -> None:
    state = PoolState(PoolConfig(size=1))
    add_ready(state, 1, 2)
    first = lease(state)
    with pytest.raises(TimeoutError, match="All kernels are leased"):
        state.claim(time.monotonic())
    first.release()
    assert first.process.closed
    lease(state)
    state.check()


def test_a_claim_without_a_kernel_can_be_dropped() -> None:
    state = PoolState(PoolConfig(size=1))
    state.claim(None)
    with pytest.raises(TimeoutError, match="No kernel became ready"):
        state.take_ready(time.monotonic() + 0.01)
    assert state.stats()["leased"] == 1
    state.drop_claim()
    assert state.stats()["leased"] == 0


def test_a_lease_that_cannot_be_made_closes_its_process() -> None:
    def fail(state: PoolState, process: Any) -> FakeLease:
        raise OSError("too many open files")

    state = PoolState(PoolConfig(size=1))
    (process,) = add_ready(state, 1)
    state.claim(None)
    with pytest.raises(OSError, match="too many open files"):
        state.open_lease(state.take_ready(None), fail)
    assert process.closed
    state.drop_claim()
    assert state.begin_close() == []


def test_a_kept_process_is_ready_again_unless_the_pool_is_closing() -> None:
    state = PoolState(PoolConfig(size=2, reset="soft"))
    add_ready(state, 1, 2)
    first, second = lease(state), lease(state)
    assert state.keeps_kernels()
    state.close_lease(first, first.process, keep=True)
    assert not first.process.closed
    assert state.stats()["ready"] == 1
    assert len(state.monitored()) == 2  # ready kernels have run cells
    assert state.begin_close() == [second]
    assert not state.keeps_kernels()
    state.close_lease(second, second.process, keep=True)
    assert second.process.closed
    state.check()


def test_a_closed_process_is_not_killed() -> None:
    state = PoolState(PoolConfig(size=1))
    add_ready(state, 1)
    taken = lease(state)
    state.discard(taken.process)
    state.kill(taken.process, "it filled its disk space")
    assert taken.process.kill_reason is None
    (other,) = add_ready(state, 2)
    state.kill(other, "it filled its disk space")
    assert (other.kill_reason, other.ended, other.closed) == (
        "it filled its disk space",
        True,
        False,
    )


def test_the_first_reason_of_a_kill_stays() -> None:
    state = PoolState(PoolConfig(size=1))
    add_ready(state, 1)
    process = lease(state).process
    state.kill(process, "it filled its disk space")
    state.kill(process, "it broke the connection to its pool")
    assert process.kill_reason == "it filled its disk space"


WAITS: dict[str, Callable[[PoolState], object]] = {
    "for a claim": lambda state: state.claim(None),
    "for a process": lambda state: state.take_ready(None),
    "for ready kernels": lambda state: state.wait_ready(1, None),
}
ENDS: dict[str, Callable[[PoolState], object]] = {
    "closed": lambda state: state.begin_close(),
    "no memory": lambda state: state.fail(OSError("no memory")),
}


@pytest.mark.parametrize("wait", WAITS)
@pytest.mark.parametrize("end", ENDS)
def test_closing_and_failing_end_every_wait(wait: str, end: str) -> None:
    state = PoolState(PoolConfig(size=1))
    state.claim(None)
    errors: list[str] = []

    def run() -> None:
        try:
            WAITS[wait](state)
        except SandboxError as error:
            errors.append(str(error))

    thread = threading.Thread(target=run)
    thread.start()
    ENDS[end](state)
    thread.join(30)
    assert len(errors) == 1
    assert end in errors[0]


def test_closing_leaves_no_process() -> None:
    state = PoolState(PoolConfig(size=2))
    processes = add_ready(state, 1, 2, 3)
    leased = lease(state)
    state.claim(None)
    state.pause(0)
    assert state.begin_close() == [leased]
    assert state.begin_close() is None
    state.pause(600)  # it ends at once
    leased.release()
    state.close_processes()
    state.finish_close()
    assert all(process.closed for process in processes)
    assert state.stats()["pids"] == []
    state.drop_claim()  # the wake pipe is closed, which is no error
    state.check()


def test_the_invariants_hold_after_random_actions() -> None:
    for seed in range(20):
        dice = random.Random(seed)
        state = PoolState(PoolConfig(size=3, spares=1, reset=dice.choice(["fork", "soft"])))
        leases: list[FakeLease] = []
        for step in range(200):
            action = dice.choice(
                ["start", "start", "lease", "lease", "end", "lose", "kill", "fail"]
            )
            if action == "start" and state.missing(0):
                add_ready(state, step)
            elif action == "lease" and state.stats()["ready"] and len(leases) < 3:
                leases.append(lease(state))
            elif action == "end" and leases:
                gone = leases.pop(dice.randrange(len(leases)))
                state.close_lease(gone, gone.process, keep=state.keeps_kernels())
            elif action == "lose" and leases and state.stats()["ready"]:
                one = dice.choice(leases)
                state.discard(one.process)
                one.process = state.take_ready(None)
            elif action == "fail" and dice.random() < 0.1:
                state.close_ready()
            state.check()
            assert state.stats()["leased"] == len(leases)
        open_leases = state.begin_close()
        assert open_leases is not None
        for one in open_leases:
            one.release()
        state.close_processes()
        assert state.stats()["leased"] == 0
        state.check()


def test_ready_kernels_are_retired_only_while_none_is_leased() -> None:
    state = PoolState(PoolConfig(size=2))
    first, second = add_ready(state, 1, 2)
    leased = lease(state)
    assert not state.retire_ready()
    assert not second.closed
    leased.release()
    assert state.retire_ready()
    assert first.closed
    assert second.closed
    with pytest.raises(TimeoutError):
        state.take_ready(time.monotonic())


def test_a_port_that_stays_taken_ends_a_wait_without_a_deadline(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(pool_state, "PORT_SECONDS", 0.0)
    state = PoolState(PoolConfig(size=1))
    state.claim(None)
    state.report_outage(PortTakenError("port 7 is in use"))
    with pytest.raises(SandboxOutageError, match="port 7 is in use"):
        state.take_ready(None)
    state.report_outage(OSError("the disk is full"))  # which may pass, so that a lease waits
    with pytest.raises(SandboxOutageError, match="the disk is full"):
        state.take_ready(time.monotonic() + 0.01)
    add_ready(state, 1)
    assert state.take_ready(None).pid == 1
