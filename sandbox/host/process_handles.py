"""The pool's handles on its processes: the template, and one kernel."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import json
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from pathlib import Path
from typing import Any

from ..guest.template_main import remove_tree
from ..pool_config import PoolConfig
from ..sandbox_errors import SandboxError
from ..text.shared_text_page import clear_page, create_page, read_page
from .jupyter_messages import MAX_FRAME, Wire

SOCKET_PATH_LIMIT = 70  # characters of the pool's folder: a unix socket's path has 107 at most
PIDFD_SIGNAL_GROUP = 4
_PREFIX = "eightfold-sandbox-"
_PASSED = ("PATH", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "LD_LIBRARY_PATH", "PYTHONPATH")
_BOOT = (
    "import json, sys; sys.path.extend(p for p in json.loads(sys.argv[2])['path'] "
    "if p not in sys.path); from eightfold.sandbox.guest.template_main import main; main()"
)


def make_root() -> Path:
    """A new folder for a pool, after clearing away those of pools that were killed."""
    base = Path(tempfile.gettempdir()).resolve()
    if len(str(base)) > SOCKET_PATH_LIMIT - 30:
        base = Path("/tmp")
    sweep(base)
    root = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=base))
    root.chmod(0o711)  # kernels of other users reach their folders but cannot list this one
    return root


def sweep(base: Path) -> None:
    """Remove folders of pools whose template is gone: a template holds a lock while it lives."""
    import fcntl

    for root in base.glob(_PREFIX + "*"):
        with contextlib.suppress(OSError):
            status = root.stat()
            if status.st_uid != os.geteuid() or time.time() - status.st_mtime < 60:
                continue
            fd = os.open(root / "lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                remove_tree(root)
            finally:
                os.close(fd)


def clean_environment() -> dict[str, str]:
    """What of this process's environment a kernel may see: no keys, no tokens, no GPU."""
    env = {name: os.environ[name] for name in _PASSED if name in os.environ}
    for name in ("OPENBLAS", "OMP", "MKL", "NUMEXPR"):
        env[f"{name}_NUM_THREADS"] = "1"
    env.update(PYTHONHASHSEED="0", PYTHONNOUSERSITE="1", PYTHONIOENCODING="utf-8", PYTHONUTF8="1")
    env.update(CUDA_VISIBLE_DEVICES="", PYDEVD_DISABLE_FILE_VALIDATION="1")
    return env


class TemplateProcess:
    """The running template. Requests are made by one thread."""

    def __init__(self, config: PoolConfig) -> None:
        self.root = make_root()
        self.mode: str | None = None  # "fork" or "plain", once it is warm
        self.why: str | None = None  # why not as asked
        self._ended = False
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        settings = {
            "root": str(self.root),
            "start": config.start,
            "transport": config.transport,
            "first_port": config.first_port,
            "isolate": config.isolate,
            "preamble": config.preamble,
            "limits": dataclasses.asdict(config.limits),
            "kernels": config.size + config.spares,
            "path": [path for path in sys.path if path and os.path.isdir(path)],
        }
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-c", _BOOT, str(theirs.fileno()), json.dumps(settings)],
                pass_fds=(theirs.fileno(),),
                env=clean_environment(),
                cwd="/",
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                start_new_session=True,
            )
        except OSError as error:
            self._control.close()
            remove_tree(self.root)
            raise SandboxError(f"cannot start the sandbox's template process: {error}") from error
        finally:
            theirs.close()

    @property
    def pid(self) -> int:
        return self._process.pid

    def alive(self) -> bool:
        return not self._ended and self._process.poll() is None

    def fileno(self) -> int:
        """Readable when the template has said something or ended."""
        return self._control.fileno()

    def receive(self, timeout: float) -> tuple[dict[str, Any], list[int]]:
        """The template's next message; `SandboxError` when there is none within `timeout`."""
        poller = select.poll()
        poller.register(self._control, select.POLLIN)
        if not poller.poll(max(0, int(timeout * 1000))):
            # No further use: a late answer would be taken for that to the next request.
            self._ended = self.mode is not None
            raise SandboxError(f"the sandbox's template did not answer within {timeout:g} s")
        try:
            data, fds, _, _ = socket.recv_fds(self._control, 1 << 16, 4)
        except ConnectionResetError:
            data, fds = b"", []
        if not data:
            self._ended = True  # known before the process can be waited for
            raise SandboxError(f"the sandbox's template ended: {self._last_words()}")
        return json.loads(data), list(fds)

    def _last_words(self) -> str:
        stream = self._process.stderr
        if stream is None:
            return ""
        os.set_blocking(stream.fileno(), False)
        with contextlib.suppress(OSError):
            return (stream.read() or b"").decode("utf-8", "replace")[-2000:].strip()
        return ""

    def fork(self, timeout: float) -> KernelProcess:
        """Ask for one kernel; it is on its way when this returns (see `KernelProcess.report`)."""
        key = uuid.uuid4().hex
        page = create_page()
        read, write = os.pipe2(os.O_CLOEXEC)
        try:
            request = json.dumps({"op": "fork", "key": key}).encode()
            try:
                socket.send_fds(self._control, [request], [page, write])
            except OSError as error:
                raise SandboxError(f"the sandbox's template ended: {self._last_words()}") from error
            reply, fds = self.receive(timeout)
            if "error" in reply:
                raise SandboxError(str(reply["error"]))
        except BaseException:
            os.close(page)
            os.close(read)
            raise
        finally:
            os.close(write)
        return KernelProcess(reply["pid"], fds[0], page, read, Path(reply["folder"]), key)

    def close(self) -> None:
        """End the template, with all its kernels, and remove the pool's folder."""
        with contextlib.suppress(OSError):
            self._control.send(b'{"op": "close"}')
        self._control.close()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if self._process.stderr is not None:
            self._process.stderr.close()
        if self.root.exists():
            remove_tree(self.root)


class KernelProcess:
    """One kernel's process: its death, its page and its shell channel."""

    def __init__(
        self, pid: int, pidfd: int, page: int, report: int, folder: Path, key: str
    ) -> None:
        self.pid = pid
        self.pidfd = pidfd
        self.folder = folder
        self.born = time.monotonic()
        self.active: dict[str, Any] = {}  # the protections that are on
        self.death: str | None = None  # why the pool killed it, where it did
        self.device = folder.stat().st_dev  # the disk it writes to
        self._page = page
        self.report_fd = report
        self._report = b""
        self._wire = Wire(key)
        self._shell: Any = None

    @property
    def connection_file(self) -> Path:
        """The Jupyter connection file, for any Jupyter client."""
        return self.folder / "run" / "kernel.json"

    @property
    def scratch(self) -> Path:
        return self.folder / "scratch"

    def read_report(self) -> dict[str, Any] | None:
        """What the kernel said of itself when it came up; None while it has not finished.

        Raises `SandboxError` when it ended instead.
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
            failure = SandboxError(f"a kernel did not start: {report['error']}")
            failure.add_note(report.get("trace", ""))
            raise failure
        self.active = report["active"]
        return dict(report)

    def connect(self, context: Any, transport: str, ports: dict[str, int]) -> None:
        """Open the shell channel."""
        import zmq

        address = (
            f"ipc://{self.folder / 'run' / 'k'}-{ports['shell_port']}"
            if transport == "ipc"
            else f"tcp://127.0.0.1:{ports['shell_port']}"
        )
        self._shell = context.socket(zmq.DEALER)
        self._shell.linger = 0
        self._shell.setsockopt(zmq.MAXMSGSIZE, MAX_FRAME)
        self._shell.connect(address)

    @property
    def shell(self) -> Any:
        """The shell channel's socket, for polling."""
        return self._shell

    def request(self, kind: str, content: dict[str, Any]) -> str:
        """Send a request; its id."""
        import zmq

        message_id, frames = self._wire.pack(kind, content)
        with contextlib.suppress(zmq.Again):  # only where the kernel reads nothing any more
            self._shell.send_multipart(frames, zmq.NOBLOCK)
        return message_id

    def reply(self, message_id: str) -> dict[str, Any] | None:
        """The content of the reply to `message_id` if it has come; other messages are dropped."""
        import zmq

        for _ in range(1000):
            try:
                frames = self._shell.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                return None
            message = self._wire.unpack(frames)
            if message and message[1] == message_id and message[0].endswith("_reply"):
                return message[2]
        return None

    def text(self) -> str:
        """The transcript of the cell, as far as it has come."""
        return read_page(self._page)

    def clear_text(self) -> None:
        clear_page(self._page)

    def alive(self) -> bool:
        """Whether the process has not ended."""
        return not self.wait(0)

    def interrupt(self) -> None:
        """SIGINT to the kernel and what it started, as Jupyter does it."""
        self._signal(signal.SIGINT)

    def kill(self) -> None:
        """Kill the process and its group; its template ends what is left and the folder."""
        if self.pidfd >= 0:
            self._signal(signal.SIGKILL)
            with contextlib.suppress(ProcessLookupError):  # its group is not made at once
                signal.pidfd_send_signal(self.pidfd, signal.SIGKILL)

    def _signal(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            try:
                signal.pidfd_send_signal(self.pidfd, number, None, PIDFD_SIGNAL_GROUP)
            except OSError as error:
                if error.errno != errno.EINVAL:  # Linux before 6.9
                    raise
                if self.alive():
                    os.killpg(self.pid, number)

    def wait(self, timeout: float) -> bool:
        """Whether the process has ended within `timeout` seconds."""
        poller = select.poll()
        poller.register(self.pidfd, select.POLLIN)
        return bool(poller.poll(max(0, int(timeout * 1000))))

    def close(self) -> None:
        """Kill it and give back every descriptor."""
        self.kill()
        if self._shell is not None:
            self._shell.close(0)
            self._shell = None
        for name in ("pidfd", "_page", "report_fd"):
            fd = getattr(self, name)
            if fd >= 0:
                os.close(fd)
                setattr(self, name, -1)
