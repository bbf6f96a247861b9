"""The pool reads the messages of a kernel that starts: in any order, or none, or of a failure."""

import errno
import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from eightfold.sandbox import SandboxError
from eightfold.sandbox.host.kernel_process import KernelProcess
from eightfold.sandbox.text.shared_text_page import create_page

REPORT = {
    "active": {"namespaces": True},
    "connection": {"transport": "tcp", "ip": "127.0.0.1", "shell_port": 5000},
}

Starting = tuple[KernelProcess, socket.socket]


@contextmanager
def starting_in(folder: Path) -> Iterator[Starting]:
    """Yield a process whose report is still to come, and the socket on which it reports."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    channel, other = socket.socketpair()
    root = os.pidfd_open(os.getpid())
    process = KernelProcess(os.getpid(), root, create_page(), ours, channel, folder, "key")
    # To close the process would kill this one, so each descriptor is closed by itself.
    with ours, theirs, channel, other:
        yield process, theirs


@pytest.fixture
def starting(tmp_path: Path) -> Iterator[Starting]:
    with starting_in(tmp_path) as found:
        yield found


def send_descriptor(connected: socket.socket) -> None:
    pidfd = os.pidfd_open(os.getppid())
    socket.send_fds(connected, [b"{}"], [pidfd])
    os.close(pidfd)


def send_report(connected: socket.socket) -> None:
    connected.send(json.dumps(REPORT).encode())


@pytest.mark.parametrize("steps", [(send_report, send_descriptor), (send_descriptor, send_report)])
def test_a_kernel_is_ready_once_both_messages_came(starting: Starting, steps: tuple) -> None:
    process, connected = starting
    first, second = steps
    first(connected)
    assert process.read_report() is None
    assert process.report_fd >= 0, "the second sender would find a closed socket, and end"
    second(connected)
    assert process.read_report() == REPORT
    assert process.report_fd == -1
    assert process.pid == os.getppid()
    assert json.loads(process.connection_file.read_text())["shell_port"] == 5000


def test_a_failure_after_the_report_is_told(starting: Starting) -> None:
    process, connected = starting
    send_report(connected)
    assert process.read_report() is None
    connected.send(b'{"error": "no old root"}')
    with pytest.raises(SandboxError, match=r"A kernel did not start: no old root\."):
        process.read_report()


def test_a_descriptor_that_is_lost_is_told(starting: Starting) -> None:
    process, connected = starting
    connected.send(b"{}")
    with pytest.raises(SandboxError, match="raise ulimit -n"):
        process.read_report()


def test_the_end_before_the_descriptor_is_told(starting: Starting) -> None:
    process, connected = starting
    send_report(connected)
    assert process.read_report() is None
    connected.close()
    with pytest.raises(SandboxError, match="ended before it was ready"):
        process.read_report()


def test_a_descriptor_of_a_kernel_is_kept_if_it_cannot_be_read(
    starting: Starting, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path) -> str:
        raise OSError(errno.EMFILE, "Too many open files")

    process, connected = starting
    first = process.pidfd
    send_descriptor(connected)
    monkeypatch.setattr(Path, "read_text", refuse)
    with pytest.raises(OSError, match="Too many open files"):
        process.read_report()
    assert process.pidfd != first, "to close the process would not close this descriptor"
    os.close(process.pidfd)


def test_a_kernel_whose_folder_is_gone_can_still_report(tmp_path: Path) -> None:
    with starting_in(tmp_path / "gone") as (process, connected):
        connected.send(b'{"error": "no room"}')
        with pytest.raises(SandboxError, match=r"A kernel did not start: no room\."):
            process.read_report()
