"""A child process answers calls, reports what it raises, and never outlives its parent (4 s)."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from eightfold.solver.devices.child_process import (
    ChildLostError,
    ChildProcess,
    ForeignError,
    serve,
)


class UnpicklableError(Exception):
    """An exception that pickle cannot make again."""

    def __init__(self, first: str, second: str) -> None:
        super().__init__(f"{first} {second}")


class Counter:
    """The object that the children of these tests hold."""

    def __init__(self, start: int) -> None:
        if start < 0:
            raise ValueError("start must not be negative.")
        self.value = start

    def ready(self) -> str:
        """Return what `ChildProcess.ready` returns."""
        print("printed by the child")
        return f"{self.value} in {os.environ.get('COUNTED', 'no environment')}"

    def add(self, number: int) -> int:
        """Return the new value."""
        self.value += number
        return self.value

    def fail(self) -> None:
        """Raise an exception that cannot be sent."""
        raise UnpicklableError("not", "here")

    def sleep(self, seconds: float) -> None:
        """Answer late."""
        time.sleep(seconds)


FACTORY = f"{__name__}:Counter"


def is_running(pid: int) -> bool:
    """Return whether a process exists and is no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_calls_are_answered_and_errors_are_raised_here(capfd: pytest.CaptureFixture[str]) -> None:
    child = ChildProcess(FACTORY, 3, environment={"COUNTED": "a test"}, name="counter")
    assert child.ready() == "3 in a test"
    assert [child.call("add", number) for number in (1, 10)] == [4, 14]
    with pytest.raises(ForeignError, match="UnpicklableError: not here") as caught:
        child.call("fail")
    assert caught.value.kind == "UnpicklableError"
    with pytest.raises(AttributeError):
        child.call("nothing")
    assert child.call("add", 0) == 14, "an error ends nothing"
    child.close()
    child.close()
    assert not is_running(child.pid)
    written = capfd.readouterr()
    assert (written.out, "printed by the child" in written.err) == ("", True)
    silent = ChildProcess(FACTORY, 1, silent=True)
    silent.ready()
    silent.close()
    assert "printed by the child" not in capfd.readouterr().err


def test_what_cannot_be_made_is_told_by_ready() -> None:
    child = ChildProcess(FACTORY, -1)
    with pytest.raises(ValueError, match="must not be negative"):
        child.ready()
    child.close()


def test_a_child_that_dies_or_hangs_is_told() -> None:
    child = ChildProcess(FACTORY, 0, name="counter")
    child.ready()
    os.kill(child.pid, signal.SIGINT)
    assert child.call("add", 1) == 1, "Ctrl-C is for the parent"
    os.kill(child.pid, signal.SIGKILL)
    with pytest.raises(ChildLostError, match=r"The process of counter has ended \(signal 9\)"):
        child.call("add", 1)
    child.close()
    child = ChildProcess(FACTORY, 0)
    child.ready(60)
    with pytest.raises(ChildLostError, match="did not answer"):
        child.call("sleep", 100, timeout=0.2)
    assert not is_running(child.pid)


def test_a_terminals_interrupt_does_not_reach_a_child_that_starts() -> None:
    child = ChildProcess(FACTORY, 0)
    assert os.getpgid(child.pid) == child.pid != os.getpgid(0)
    child.kill()


def test_a_child_whose_parent_is_gone_before_it_reads_ends_without_an_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(signal, "signal", lambda number, handler: None)
    ours, theirs = socket.socketpair()
    ours.close()
    serve(theirs.detach())


def test_a_child_ends_with_its_parent() -> None:
    program = (
        f"import sys; sys.path[:] = {sys.path!r}\n"
        "from eightfold.solver.devices.child_process import ChildProcess\n"
        f"child = ChildProcess({FACTORY!r}, 0); child.ready(); print(child.pid, flush=True)\n"
        "import time; time.sleep(100)"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        assert is_running(pid)
        parent.kill()
    deadline = time.monotonic() + 60
    while is_running(pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not is_running(pid)
