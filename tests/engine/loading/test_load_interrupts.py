"""Interrupts at rare moments and failing thread starts leave nothing running or open."""

import io
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from eightfold.engine import worker_thread
from eightfold.engine.loading import file_preload, os_page_cache
from eightfold.engine.worker_thread import WorkerThread
from eightfold.solver.cli import command_line

MIB = 1 << 20


@pytest.fixture
def interrupts_enabled() -> Iterator[None]:
    # A shell makes its background processes ignore interrupts.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def interrupt_main_thread() -> None:
    signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)


@pytest.mark.usefixtures("interrupts_enabled")
def test_a_thread_whose_start_is_interrupted_can_be_joined(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(worker_thread, "START_TIMEOUT_SECONDS", 60.0)
    ended = threading.Event()

    class LateThread(WorkerThread):
        def _bootstrap(self) -> None:  # the first code that the new thread runs
            interrupt_main_thread()
            time.sleep(0.3)  # meanwhile the starting thread is interrupted
            super()._bootstrap()  # type: ignore[misc]

    worker = LateThread(target=ended.set)
    with pytest.raises(KeyboardInterrupt):
        worker.start()
    assert worker.ident is not None
    worker.join()
    assert ended.is_set()
    with pytest.raises(RuntimeError, match="once"):
        worker.start()


def test_a_preload_interrupted_while_its_threads_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "f").write_bytes(bytes(20 * MIB))
    started_threads = []

    class InterruptedThread(WorkerThread):
        def start(self) -> None:
            super().start()
            started_threads.append(self)
            if len(started_threads) == 3:
                raise KeyboardInterrupt

    def endless(fd: int, views: list[memoryview], at: int) -> int:
        time.sleep(0.01)
        return 1

    monkeypatch.setattr(file_preload, "WorkerThread", InterruptedThread)
    monkeypatch.setattr(
        os_page_cache, "_residency_is_known", lambda fd: False
    )  # so that everything is read
    monkeypatch.setattr(os, "preadv", endless)
    before = set(threading.enumerate())
    with pytest.raises(KeyboardInterrupt):
        file_preload.Preload(tmp_path, file_preload.PreloadConfig(threads=8, chunk_bytes=MIB))
    assert len(started_threads) == 3
    assert set(threading.enumerate()) == before


def test_a_file_is_closed_if_its_residency_check_is_interrupted(tmp_path: Path) -> None:
    file = tmp_path / "f"
    file.write_bytes(b"x")

    def interrupt(frame: object, event: str, function: object) -> None:
        if event == "c_return" and function in (os.open, io.open):
            sys.setprofile(None)
            raise KeyboardInterrupt

    before = len(os.listdir("/proc/self/fd"))
    sys.setprofile(interrupt)
    try:
        with pytest.raises(KeyboardInterrupt):
            os_page_cache.resident_bytes(file)
    finally:
        sys.setprofile(None)
    assert len(os.listdir("/proc/self/fd")) == before


def test_an_interrupt_while_commands_are_imported_exits_with_130(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(command_line, "make_parser", interrupted)
    assert command_line.main(["preload", "."]) == 130
    assert capsys.readouterr().err == "Interrupted.\n"


def test_threads_that_cannot_be_started_are_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "f").write_bytes(bytes(20 * MIB))
    real, started_threads = threading.Thread.start, []

    def start(thread: threading.Thread) -> None:
        if len(started_threads) == 2:
            raise RuntimeError("can't start new thread")
        started_threads.append(thread)
        real(thread)

    monkeypatch.setattr(threading.Thread, "start", start)
    before = set(threading.enumerate())
    assert command_line.main(["preload", str(tmp_path), "--chunk", "1"]) == 2
    assert capsys.readouterr().err == (
        "eightfold preload: A thread cannot be started (can't start new thread); allow the process "
        "more threads and memory.\n"
    )
    assert len(started_threads) == 2
    assert set(threading.enumerate()) == before
