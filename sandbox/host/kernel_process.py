"""The host's handle on the process of one kernel."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import select
import signal
import time
from pathlib import Path
from typing import Any

from ..sandbox_errors import SandboxError
from ..text.shared_text_page import clear_page, read_page
from .jupyter_messages import MAX_MESSAGE_BYTES, JupyterMessageCodec

PIDFD_SIGNAL_PROCESS_GROUP = 4  # linux/pidfd.h
MAX_DROPPED = 1000  # messages looked at in one call of `receive_reply`


class KernelProcess:
    """The end, the shared text page and the shell channel of one kernel process.

    Args:
        pid: the process id.
        pidfd: a descriptor that is readable once the process has ended.
        page: the descriptor of its shared text page.
        report_fd: a pipe on which the process reports once it has started.
        folder: the kernel's folder, with ``run`` (connection file, sockets) and ``scratch``.
        key: the key with which its messages are signed.

    Attributes:
        created_at: time on the monotonic clock at which it was forked.
        protections: the process's own account of its protections, after `read_report`.
        kill_reason: the reason why the pool killed it, or None.
        device: number of the device that holds its folder.
    """

    def __init__(
        self, pid: int, pidfd: int, page: int, report_fd: int, folder: Path, key: str
    ) -> None:
        self.pid = pid
        self.pidfd = pidfd
        self.report_fd = report_fd
        self.folder = folder
        self.created_at = time.monotonic()
        self.protections: dict[str, Any] = {}
        self.kill_reason: str | None = None
        self.device = folder.stat().st_dev
        self._page = page
        self._report = b""
        self._key = key
        self._codec = JupyterMessageCodec(key)
        self._connection: dict[str, Any] = {}
        self._shell: Any = None

    @property
    def connection_file(self) -> Path:
        """The Jupyter connection file, for any Jupyter client; cells can overwrite it."""
        return self.folder / "run" / "kernel.json"

    @property
    def scratch(self) -> Path:
        """The folder in which cells run and may write."""
        return self.folder / "scratch"

    @property
    def connection_info(self) -> dict[str, Any]:
        """The content of the connection file as the kernel reported it before its first cell."""
        return {**self._connection, "key": self._key, "signature_scheme": "hmac-sha256"}

    def read_report(self) -> dict[str, Any] | None:
        """Read what has come of the kernel's report; call this when `report_fd` is readable.

        Returns:
            The report, or None if it is not complete yet.

        Raises:
            SandboxError: the kernel failed or ended instead of starting.
        """
        data = os.read(self.report_fd, 1 << 16)
        self._report += data
        if data:
            return None
        try:
            report = json.loads(self._report)
        except ValueError:
            report = {"error": "it ended before it was ready"}
        if "error" in report:
            failure = SandboxError(f"A kernel did not start: {report['error']}.")
            failure.add_note(report.get("trace", ""))
            raise failure
        self.protections = report["active"]
        self._connection = report["connection"]
        return dict(report)

    def connect(self, context: Any) -> None:
        """Open the shell channel of a kernel that has reported, in a ``zmq.Context``."""
        import zmq

        to = self._connection
        separator = "-" if to["transport"] == "ipc" else ":"
        self._shell = context.socket(zmq.DEALER)
        self._shell.linger = 0
        self._shell.setsockopt(zmq.MAXMSGSIZE, MAX_MESSAGE_BYTES)
        self._shell.connect(f"{to['transport']}://{to['ip']}{separator}{to['shell_port']}")

    @property
    def shell_socket(self) -> Any:
        """The shell channel's ``zmq.Socket``, for polling."""
        return self._shell

    def send_request(self, message_type: str, content: dict[str, Any]) -> str:
        """Send a request on the shell channel and return its message id."""
        import zmq

        message_id, frames = self._codec.encode(message_type, content)
        with contextlib.suppress(zmq.Again):  # the kernel has stopped reading
            self._shell.send_multipart(frames, zmq.NOBLOCK)
        return message_id

    def receive_reply(self, message_id: str) -> dict[str, Any] | None:
        """Return the content of the reply to `message_id`, or None if it has not come.

        Other messages are dropped.
        """
        import zmq

        for _ in range(MAX_DROPPED):
            try:
                frames = self._shell.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                return None
            message = self._codec.decode(frames)
            if message and message.parent_id == message_id and message.type.endswith("_reply"):
                return message.content
        return None

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
        """Kill the process and its group.

        The template then ends what has left the group, and removes the folder.
        """
        if self.pidfd >= 0:
            self._signal_group(signal.SIGKILL)
            with contextlib.suppress(ProcessLookupError):  # a new fork has no group of its own yet
                signal.pidfd_send_signal(self.pidfd, signal.SIGKILL)

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
        if self._shell is not None:
            self._shell.close(0)
            self._shell = None
        for name in ("pidfd", "_page", "report_fd"):
            fd = getattr(self, name)
            if fd >= 0:
                os.close(fd)
                setattr(self, name, -1)
