"""Pools whose kernels cannot be made for a while, and machines that have little. About 30 s."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from helpers.cell_waits import wait_until
from helpers.missing_calls import REFUSE_CALLS
from helpers.open_interpreters import SOURCES, interpreters, package_folders, runs_as

from eightfold.sandbox import KernelPool, PoolConfig, SandboxError
from eightfold.sandbox.host import kernel_pool
from eightfold.sandbox.host.template_process import TemplateProcess
from eightfold.sandbox.sandbox_errors import SandboxOutageError


def test_a_lease_waits_until_the_cause_has_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    works = sys.executable
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    with KernelPool(PoolConfig(size=1, spares=0)) as pool:
        with pytest.raises(SandboxOutageError, match=r"template process .*No such file"):
            pool.lease(timeout=1.5)
        with pytest.raises(TimeoutError, match="No such file"):
            pool.wait_ready(1, timeout=0.1)
        assert pool.stats()["failures"] > 1
        assert "No such file" in pool.stats()["outage"]
        monkeypatch.setattr(sys, "executable", works)
        with pool.lease(timeout=60) as kernel:
            assert kernel.execute("6 * 7").text == "42"
        assert pool.stats()["outage"] is None


def test_the_pauses_grow_to_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    monkeypatch.setattr(kernel_pool, "RETRY_SECONDS", 0.01)
    monkeypatch.setattr(kernel_pool, "MAX_RETRY_SECONDS", 0.05)
    with KernelPool(PoolConfig(size=1, spares=0)) as pool:
        wait_until(lambda: pool.stats()["failures"] >= 12)
    assert kernel_pool.RETRY_SECONDS < kernel_pool.MAX_RETRY_SECONDS


def test_starting_kernels_may_be_killed_any_number_of_times() -> None:
    with KernelPool(PoolConfig(size=2, spares=0, start_timeout=20)) as pool:
        pool.wait_ready(2, timeout=60)
        stop = threading.Event()

        def kill() -> None:
            until = time.monotonic() + 1.5
            while time.monotonic() < until and not stop.is_set():
                template = pool.stats()["template_pid"]
                if template is not None:
                    for pid in children(template):
                        os.kill(pid, signal.SIGKILL)
                time.sleep(0.02)

        thread = threading.Thread(target=kill)
        thread.start()
        thread.join()
        with pool.lease(timeout=60) as kernel:
            assert kernel.execute("6 * 7").text.endswith("42")
        assert pool.stats()["outage"] is None or pool.stats()["ready"] == 0


def children(pid: int) -> list[int]:
    """Return the child processes of `pid`."""
    try:
        text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    except OSError:
        return []
    return [int(child) for child in text.split()]


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_a_template_that_is_killed_or_stopped_is_replaced(
    number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    from eightfold.sandbox.host import kernel_starter

    monkeypatch.setattr(kernel_starter, "REPLY_SECONDS", 0.5)
    with KernelPool(PoolConfig(size=1, spares=0)) as pool:
        pool.wait_ready(1, timeout=60)
        first = pool.stats()["template_pid"]
        os.kill(first, number)
        for _ in range(2):  # the first one may be a kernel that was ready
            with pool.lease(timeout=60) as kernel:
                kernel.execute("1")
        wait_until(lambda: pool.stats()["template_pid"] not in (None, first))
        with pool.lease(timeout=60) as kernel:
            assert kernel.execute("6 * 7").text == "42"
    wait_until(lambda: not Path(f"/proc/{first}").exists())


def test_an_execution_during_an_outage_names_the_cause(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    config = PoolConfig(size=1, spares=0)
    with KernelPool(config) as pool, pool.lease(timeout=60) as kernel:
        monkeypatch.setattr(kernel, "_config", dataclasses.replace(config, start_timeout=0.5))
        monkeypatch.setattr(TemplateProcess, "fork_kernel", fail)
        assert kernel.execute("import os; os._exit(0)").status == "died"
        with pytest.raises(SandboxOutageError, match="No space left on device"):
            kernel.execute("1")
        monkeypatch.undo()
        wait_until(lambda: pool.stats()["outage"] is None)
        assert kernel.execute("6 * 7").text.endswith("42")


ODD = (
    REFUSE_CALLS
    + """
import json, os, resource, signal, sys
what = sys.argv[1]
if what == "SIGINT blocked":
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT, signal.SIGTERM, signal.SIGCHLD])
elif what == "SIGINT ignored":
    signal.signal(signal.SIGINT, signal.SIG_IGN)
elif what.startswith("RLIMIT"):
    name, value = what.split()
    resource.setrlimit(getattr(resource, name), (int(value), int(value)))
elif what.startswith("root without "):
    numbers = what.removeprefix("root without ")
    for number in range(41) if numbers == "any" else map(int, numbers.split()):
        ctypes.CDLL(None).prctl(24, number, 0, 0, 0)  # PR_CAPBSET_DROP, which exec obeys
    os.execv(sys.executable, [*sys.orig_argv[:-1], "nothing"])
elif what.startswith("no "):
    refuse_calls(what.removeprefix("no "))
from eightfold.sandbox import KernelPool, PoolConfig
try:
    with KernelPool(PoolConfig(size=1, spares=0)) as pool:
        kernel = None
        while kernel is None:
            try:
                kernel = pool.lease(timeout=0.1)
            except TimeoutError:
                if pool.stats()["failures"]:
                    raise
        texts = [kernel.execute("kept = 6 * 7; kept").text]
        stopped = kernel.execute("while True: pass", timeout=0.5)
        texts += [stopped.killed, kernel.execute("print('next')\\nkept").text]
        kernel.release()
    assert not open(f"/proc/self/task/{os.getpid()}/children").read()
    print(json.dumps(texts))
except Exception as error:
    print(json.dumps(str(error)))
"""
)


def on_odd_machine(what: str, python: str = sys.executable, uid: int | None = None) -> object:
    """Return the texts of three cells, or the error, on a machine with a peculiarity."""
    run = subprocess.run(
        [python, "-c", ODD, what],
        user=uid,
        env={**os.environ, "PYTHONPATH": ":".join([SOURCES, *package_folders()])},
        cwd="/",
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout.splitlines()[-1])


@pytest.mark.parametrize("what", ["SIGINT blocked", "SIGINT ignored", "RLIMIT_NOFILE 64"])
def test_an_odd_process_can_make_a_pool(what: str) -> None:
    assert on_odd_machine(what) == ["42", False, "next\n42"]


@pytest.mark.parametrize("call", ["pidfd_open", "memfd_create"])
def test_a_missing_call_is_named(call: str) -> None:
    message = on_odd_machine(f"no {call}")
    assert isinstance(message, str)
    assert call in message
    assert message.count(". ") == 0


@pytest.mark.parametrize(
    ("limit", "name"),
    [
        ("RLIMIT_NOFILE 10", "open files"),
        ("RLIMIT_NOFILE 24", "ulimit -n"),
        ("RLIMIT_NPROC 4", "ulimit -u"),
        ("RLIMIT_NPROC 12", "ulimit -u"),
    ],
)
def test_a_limit_that_is_too_low_is_named(limit: str, name: str) -> None:
    messages = [on_odd_machine(limit)]
    python = next(filter(lambda path: runs_as(path, 65_533), interpreters()), None)
    if limit == "RLIMIT_NPROC 12" and os.geteuid() == 0 and python is not None:
        messages.append(on_odd_machine(limit, python, 65_533))
    for message in messages:
        assert isinstance(message, str)
        assert name in message
        assert "\n" not in message


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has capabilities")
@pytest.mark.parametrize("missing", ["5", "0 6 7 21", "any"])  # KILL; CHOWN, SETID, ADMIN
def test_root_without_capabilities_can_make_a_pool(missing: str) -> None:
    assert on_odd_machine(f"root without {missing}") == ["42", False, "next\n42"]


def test_a_closed_pool_is_no_outage() -> None:
    pool = KernelPool(PoolConfig(size=1, spares=0))
    pool.close()
    with pytest.raises(SandboxError, match="closed") as caught:
        pool.lease()
    assert not isinstance(caught.value, SandboxOutageError)
