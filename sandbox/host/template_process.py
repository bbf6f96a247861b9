"""The host's handle on the template, the process from which all kernels of a pool are forked."""

from __future__ import annotations

import contextlib
import dataclasses
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

from ..isolation.kernel_folder import remove_tree
from ..pool_config import PoolConfig
from ..sandbox_errors import SandboxError
from ..text.shared_text_page import create_page
from .kernel_process import KernelProcess

SOCKET_PATH_LIMIT = 70  # characters of a pool's folder; a unix socket's path has at most 107
CLOSE_SECONDS = 10.0  # for the template to end its kernels and remove their folders
REPLY_SECONDS = 15.0  # longest wait for the template, which replies at once unless it is stopped
STALE_SECONDS = 60  # age below which a pool's folder is left alone: its template may be starting
_PREFIX = "eightfold-sandbox-"
_PASSED_ON = ("PATH", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "LD_LIBRARY_PATH", "PYTHONPATH")
_BOOT = (
    "import json, sys; sys.path.extend(p for p in json.loads(sys.argv[2])['path'] "
    "if p not in sys.path); from eightfold.sandbox.guest.template_main import main; main()"
)


def make_root() -> Path:
    """Create the folder of a new pool, after removing those of pools that were killed."""
    base = Path(tempfile.gettempdir()).resolve()
    if len(str(base)) > SOCKET_PATH_LIMIT - 30:
        base = Path("/tmp")
    remove_stale_roots(base)
    root = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=base))
    root.chmod(0o711)  # kernels of other users can reach their folders but cannot list this one
    return root


def remove_stale_roots(base: Path) -> None:
    """Remove the folders of pools whose template is gone; a running template locks its folder."""
    import fcntl

    for root in base.glob(_PREFIX + "*"):
        with contextlib.suppress(OSError):
            status = root.stat()
            age = time.time() - status.st_mtime
            if status.st_uid != os.geteuid() or age < STALE_SECONDS:
                continue
            fd = os.open(root / "lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                remove_tree(root)
            finally:
                os.close(fd)


def kernel_environment() -> dict[str, str]:
    """Return the environment variables for kernels: no keys, no tokens, no GPU."""
    env = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
    for name in ("OPENBLAS", "OMP", "MKL", "NUMEXPR"):
        env[f"{name}_NUM_THREADS"] = "1"
    # Threads that allocate would otherwise map 64 MiB each.
    env.update(MALLOC_ARENA_MAX="4")
    env.update(PYTHONHASHSEED="0", PYTHONNOUSERSITE="1", PYTHONIOENCODING="utf-8", PYTHONUTF8="1")
    env.update(CUDA_VISIBLE_DEVICES="", PYDEVD_DISABLE_FILE_VALIDATION="1")
    return env


class TemplateProcess:
    """The running template. Only one thread may make requests.

    Args:
        config: settings of the pool.

    Attributes:
        root: the pool's folder, which holds one folder for each kernel.
        mode: "fork" or "plain", the way in which kernels start; None until the template is warm.
        start_note: the reason why `mode` differs from `PoolConfig.start`, or None.

    Raises:
        SandboxError: the process cannot be started.
    """

    def __init__(self, config: PoolConfig) -> None:
        self.root = make_root()
        self.mode: str | None = None
        self.start_note: str | None = None
        self._ended = False
        self._pid = 0  # known once it is warm: it may be a child of the process that is started
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        settings = {
            "root": str(self.root),
            "start": config.start,
            "transport": config.transport,
            "first_port": config.first_port,
            "isolate": config.isolate,
            "strict": config.strict,
            "preamble": config.preamble,
            "limits": dataclasses.asdict(config.limits),
            "kernels": config.size + config.spares,
            "path": [path for path in sys.path if path and os.path.isdir(path)],
        }
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-c", _BOOT, str(theirs.fileno()), json.dumps(settings)],
                pass_fds=(theirs.fileno(),),
                env=kernel_environment(),
                cwd="/",
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                start_new_session=True,
            )
        except OSError as error:
            self._control.close()
            remove_tree(self.root)
            raise SandboxError(
                f"The sandbox's template process cannot be started: {error}."
            ) from error
        finally:
            theirs.close()

    @property
    def pid(self) -> int:
        """The id of the template; until it is warm, that of the process that was started."""
        return self._pid or self._process.pid

    def alive(self) -> bool:
        """Return whether the template can still answer."""
        return not self._ended and self._process.poll() is None

    def fileno(self) -> int:
        """Return a descriptor that is readable when the template has sent a message or ended."""
        return self._control.fileno()

    def await_warm(self, timeout: float) -> bool:
        """Return whether the template becomes warm within `timeout` seconds.

        Raises:
            SandboxError: the template has ended.
        """
        if not self._readable(timeout):
            return False
        message, _ = self._receive()
        self.mode, self.start_note = message["ready"], message["why"]
        self._pid = message["pid"]
        return True

    def fork_kernel(self, timeout: float) -> KernelProcess:
        """Have the template fork a kernel, which is still starting when this returns.

        Args:
            timeout: seconds to wait for the template's reply. A template that does not reply in
                time is not used again: its late reply would be taken for that to the next request.

        Returns:
            The new process; `KernelProcess.read_report` tells when it is up.

        Raises:
            SandboxError: the template has ended, did not reply, or could not fork.
        """
        key = uuid.uuid4().hex
        # What is ours is closed unless a process takes it; a kernel that is left alone then ends.
        with contextlib.ExitStack() as ours, contextlib.ExitStack() as theirs:
            page = create_page()
            ours.callback(os.close, page)
            ends = []
            for kind in (socket.SOCK_SEQPACKET, socket.SOCK_STREAM):
                own, other = socket.socketpair(socket.AF_UNIX, kind)
                ends.append((ours.enter_context(own), theirs.enter_context(other)))
            passed = [page, *(end.fileno() for _, end in ends)]
            reply, fds = self._request_fork(key, passed, timeout)
            for fd in fds:
                ours.callback(os.close, fd)
            if "error" in reply:
                raise SandboxError(str(reply["error"]))
            if not fds:
                raise SandboxError("This process cannot open another file; raise ulimit -n.")
            (report, _), (channel, _) = ends
            folder = Path(reply["folder"])
            process = KernelProcess(reply["pid"], fds[0], page, report, channel, folder, key)
            ours.pop_all()
            return process

    def _request_fork(
        self, key: str, fds: list[int], timeout: float
    ) -> tuple[dict[str, Any], list[int]]:
        """Ask the template for a kernel; return its reply and the descriptors that came with it."""
        try:
            socket.send_fds(self._control, [json.dumps({"op": "fork", "key": key}).encode()], fds)
        except OSError as error:
            raise self._ended_error() from error
        if not self._readable(timeout):
            self._ended = True
            raise SandboxError(f"The sandbox's template did not answer within {timeout:g} s.")
        return self._receive()

    def check_running(self) -> None:
        """Raise `SandboxError` if the template has ended; call this only when it is readable."""
        self._receive()

    def _readable(self, timeout: float) -> bool:
        poller = select.poll()
        poller.register(self._control, select.POLLIN)
        return bool(poller.poll(max(0, int(timeout * 1000))))

    def _receive(self) -> tuple[dict[str, Any], list[int]]:
        """Return the next message and its descriptors; raise `SandboxError` if there is no more."""
        try:
            data, fds, _, _ = socket.recv_fds(self._control, 1 << 16, 4)
        except ConnectionResetError:
            data, fds = b"", []
        if not data:
            self._ended = True  # noticed before the process can be waited for
            raise self._ended_error()
        return json.loads(data), list(fds)

    def _ended_error(self) -> SandboxError:
        words = self._last_words()
        last = words.rpartition("\n")[2].rstrip(".") or "no message"  # that of an exception
        error = SandboxError(f"The sandbox's template ended: {last}.")
        error.add_note(words)
        return error

    def _last_words(self) -> str:
        """Return the end of what the template wrote to stderr."""
        stream = self._process.stderr
        if stream is None:
            return ""
        os.set_blocking(stream.fileno(), False)
        with contextlib.suppress(OSError):
            return (stream.read() or b"").decode("utf-8", "replace")[-2000:].strip()
        return ""

    def _kill(self) -> None:
        """Kill the template and, if it does not end with it, the process that was started."""
        for pid in (self.pid, self._process.pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(CLOSE_SECONDS)
                return
        self._process.wait()

    def close(self) -> None:
        """End the template with all its kernels, and remove the pool's folder."""
        with contextlib.suppress(OSError):
            self._control.send(b'{"op": "close"}')
        self._control.close()
        try:
            self._process.wait(0 if self._ended else CLOSE_SECONDS)
        except subprocess.TimeoutExpired:
            self._kill()
        if self._process.stderr is not None:
            self._process.stderr.close()
        if self.root.exists():
            remove_tree(self.root)
