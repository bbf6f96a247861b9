"""The host's handle on the process of one kernel."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import select
import signal
import socket
import time
from pathlib import Path
from typing import Any

from ..sandbox_errors import PermanentError, PortTakenError, SandboxError
from ..text.shared_text_page import clear_page, read_page
from .request_channel import RequestChannel

PIDFD_SIGNAL_PROCESS_GROUP = 4  # linux/pidfd.h
MAX_REPORT_BYTES = 1 << 16


class KernelProcess:
    """The end, the shared text page and the request channel of one kernel process.

    Args:
        root_pid: id of the process that the template has forked. With namespaces it is the first
            process of the kernel's own process namespace, else the kernel itself.
        root_pidfd: a descriptor that is readable once that process has ended.
        page: the descriptor of the shared text page.
        report: a socket on which the kernel reports once it has started.
        channel: the connection that carries requests.
        folder: the kernel's folder in the pool's folder.
        key: the key with which its messages for Jupyter clients are signed.

    Attributes:
        channel: the request channel.
        created_at: time on the monotonic clock at which it was forked.
        protections: the process's own account of its protections, after `read_report`.
        kill_reason: the reason why the pool killed it, or None.
        device: number of the device that holds its folder.
        pid: id of the kernel's process.
        pidfd: a descriptor that is readable once the kernel's process has ended.
    """

    def __init__(
        self,
        root_pid: int,
        root_pidfd: int,
        page: int,
        report: socket.socket,
        channel: socket.socket,
        folder: Path,
        key: str,
    ) -> None:
        self.root_pid = root_pid
        self.folder = folder
        self.channel = RequestChannel(channel)
        self.created_at = time.monotonic()
        self.protections: dict[str, Any] = {}
        self.kill_reason: str | None = None
        self.device = folder.parent.stat().st_dev  # of a kernel that failed, this alone is left
        self.pid = root_pid
        self.pidfd = root_pidfd
        self._root_pidfd = root_pidfd
        self._page = page
        self._report = report
        self._key = key
        self._connection: dict[str, Any] = {}
        self._started: dict[str, Any] | None = None  # the kernel's report of its start

    @property
    def connection_file(self) -> Path:
        """The Jupyter connection file, for any Jupyter client; cells cannot reach it."""
        return self.folder / "connection" / "kernel.json"

    @property
    def sockets(self) -> Path:
        """The folder of the kernel's unix sockets."""
        return self.folder / "run"

    @property
    def scratch(self) -> Path | None:
        """The folder in which cells run, if it lies in the pool's folder."""
        return None if self.has_namespaces else self.folder / "scratch"

    @property
    def has_namespaces(self) -> bool:
        """True if the kernel has its own processes and files."""
        return bool(self.protections.get("namespaces"))

    @property
    def connection_info(self) -> dict[str, Any]:
        """The content of the connection file, as the kernel reported it before its first cell."""
        scheme = {"signature_scheme": "hmac-sha256", "kernel_name": "eightfold"}
        return {**self._connection, **scheme, "key": self._key}

    @property
    def report_fd(self) -> int:
        """The descriptor that is readable when the kernel reports; -1 once it is closed."""
        return self._report.fileno()

    def read_report(self) -> dict[str, Any] | None:
        """Read what has come of the kernel's report; call this when `report_fd` is readable.

        The report and the descriptor of the kernel's process come in either order, since the first
        process of its namespace may be the later one to send. The socket is open until both came.

        Returns:
            The report, or None if it is not complete yet.

        Raises:
            SandboxError: the kernel failed or ended instead of starting.
            PermanentError: every other kernel will fail as well.
            PortTakenError: a port that it needs is taken.
        """
        try:
            data, fds, _, _ = socket.recv_fds(self._report, MAX_REPORT_BYTES, 1)
        except ConnectionResetError:
            data, fds = b"", []
        if fds:
            self._take_pidfd(fds[0])
        else:
            self._take_report(data)
        if self._started is None or self.pidfd == self._root_pidfd:
            return None
        self._write_connection_file()
        self._report.close()
        return self._started

    def _take_report(self, data: bytes) -> None:
        """Keep the kernel's report of its start, or raise the error that it tells."""
        try:
            report = json.loads(data)
        except ValueError:
            report = {"error": "it ended before it was ready"}
        if not report:
            report = {"error": "this process cannot open another file; raise ulimit -n"}
        if "error" in report:
            kind = SandboxError
            if report.get("permanent"):
                kind = PermanentError
            elif report.get("errno") == errno.EADDRINUSE:
                kind = PortTakenError
            failure = kind(f"A kernel did not start: {report['error']}.")
            failure.add_note(report.get("trace", ""))
            raise failure
        self._started = report
        self.protections = report["active"]
        self._connection = report["connection"]
        if self._connection["transport"] == "ipc":
            self._connection["ip"] = str(self.sockets / "k")

    def _take_pidfd(self, pidfd: int) -> None:
        """Watch the kernel itself, whose id in this process namespace only its descriptor tells."""
        self.pidfd = pidfd
        for line in Path(f"/proc/self/fdinfo/{pidfd}").read_text().splitlines():
            if line.startswith("Pid:"):
                self.pid = int(line.split()[1])

    def _write_connection_file(self) -> None:
        """Write the file in a folder that is not the kernel's, where no cell can replace it."""
        self.connection_file.parent.mkdir(mode=0o700, exist_ok=True)
        fd = os.open(self.connection_file, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
        with os.fdopen(fd, "w") as stream:
            json.dump(self.connection_info, stream)

    def read_text(self) -> str:
        """Return the raw text of the cell that runs or ran last, as far as it has come."""
        return read_page(self._page)

    def clear_text(self) -> None:
        """Empty the shared text page."""
        clear_page(self._page)

    def alive(self) -> bool:
        """Return whether the process has not ended."""
        return not self.wait(0)

    def wait(self, timeout: float) -> bool:
        """Return whether the process ends within `timeout` seconds."""
        poller = select.poll()
        poller.register(self.pidfd, select.POLLIN)
        return bool(poller.poll(max(0, int(timeout * 1000))))

    def interrupt(self) -> None:
        """Send SIGINT to the process group, as Jupyter does."""
        self._signal_group(signal.SIGINT)

    def kill(self) -> None:
        """Kill the process and its group, and with namespaces all that it has started.

        The template then ends what else it has left, and removes the folder.
        """
        if self._root_pidfd >= 0:
            self._signal_group(signal.SIGKILL)
            for fd in (self._root_pidfd, self.pidfd):  # a new fork has no group of its own yet
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    signal.pidfd_send_signal(fd, signal.SIGKILL)

    def _signal_group(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            try:
                signal.pidfd_send_signal(self.pidfd, number, None, PIDFD_SIGNAL_PROCESS_GROUP)
            except OSError as error:
                if error.errno != errno.EINVAL:  # Linux before 6.9
                    raise
                if self.alive():
                    os.killpg(self.pid, number)

    def close(self) -> None:
        """Kill the process and close all descriptors."""
        self.kill()
        self.channel.close()
        self._report.close()
        for fd in {self.pidfd, self._root_pidfd, self._page} - {-1}:
            os.close(fd)
        self.pidfd = self._root_pidfd = self._page = -1
