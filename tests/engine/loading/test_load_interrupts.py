"""Interrupts at moments that are hard to hit, and no threads: nothing is left running or open."""

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
def interruptible() -> Iterator[None]:
    # What a shell runs in the background ignores interrupts.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def interrupt_main() -> None:
    signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)


@pytest.mark.usefixtures("interruptible")
def test_a_thread_interrupted_before_it_has_a_number_is_waited_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(worker_thread, "START_TIMEOUT_SECONDS", 60.0)
    ended = threading.Event()

    class Late(WorkerThread):
        def _bootstrap(self) -> None:  # where the new thread begins
            interrupt_main()
            time.sleep(0.3)  # the one that starts it is interrupted meanwhile
            super()._bootstrap()  # type: ignore[misc]

    worker = Late(target=ended.set)
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
    begun = []

    class Interrupted(WorkerThread):
        def start(self) -> None:
            super().start()
            begun.append(self)
            if len(begun) == 3:
                raise KeyboardInterrupt

    def endless(fd: int, views: list[memoryview], at: int) -> int:
        time.sleep(0.01)
        return 1

    monkeypatch.setattr(file_preload, "WorkerThread", Interrupted)
    monkeypatch.setattr(
        os_page_cache, "_residency_is_known", lambda fd: False
    )  # so that all is read
    monkeypatch.setattr(os, "preadv", endless)
    before = set(threading.enumerate())
    with pytest.raises(KeyboardInterrupt):
        file_preload.Preload(tmp_path, file_preload.PreloadConfig(threads=8, chunk_bytes=MIB))
    assert len(begun) == 3
    assert set(threading.enumerate()) == before


def test_a_look_at_a_file_interrupted_once_it_is_open(tmp_path: Path) -> None:
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


def test_interrupted_while_the_commands_are_imported(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(command_line, "make_parser", interrupted)
    assert command_line.main(["preload", "."]) == 130
    assert capsys.readouterr().err == "Interrupted.\n"


def test_a_system_that_has_no_threads_to_give(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "f").write_bytes(bytes(20 * MIB))
    real, started = threading.Thread.start, []

    def start(thread: threading.Thread) -> None:
        if len(started) == 2:
            raise RuntimeError("can't start new thread")
        started.append(thread)
        real(thread)

    monkeypatch.setattr(threading.Thread, "start", start)
    before = set(threading.enumerate())
    assert command_line.main(["preload", str(tmp_path), "--chunk", "1"]) == 2
    assert capsys.readouterr().err == (
        "eightfold preload: A thread cannot be started (can't start new thread); allow the process "
        "more threads and memory.\n"
    )
    assert len(started) == 2
    assert set(threading.enumerate()) == before
