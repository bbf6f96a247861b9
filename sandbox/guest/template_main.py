"""The template process: imports the libraries once and forks the kernels from itself.

It is a program of its own, started by the pool, and has one thread, so that its forks are sound. It
talks to the pool over one socket; when that closes, or its parent changes, it ends every kernel,
removes the pool's folder and goes. It is the reaper of all that kernels leave: orphans of a kernel
that has ended become its children, and it kills every child that is no kernel.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from eightfold.common.error_text import one_line

from ..isolation.process_tree import child_pids

PR_SET_CHILD_SUBREAPER = 36
MESSAGE_LIMIT = 1 << 16


@dataclass
class _Child:
    folder: Path
    slot: int
    uid: int | None


class Template:
    """Serves one pool until its socket closes."""

    def __init__(self, control: socket.socket, settings: dict[str, Any]) -> None:
        self.control = control
        self.control.set_inheritable(False)
        self.settings = settings
        self.root = Path(settings["root"])
        self.parent = os.getppid()
        self.children: dict[int, _Child] = {}
        self.namespace: dict[str, Any] | None = None
        self.helpers: set[int] = set()  # programs that remove large folders
        self.count = 0
        self.wake_read, self.wake_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self.lock = os.open(self.root / "lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        fcntl.flock(self.lock, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def run(self) -> None:
        """Warm up, then answer the pool until it goes."""
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
        start, why = self.settings["start"], None
        try:
            if start == "fork":
                from .kernel_main import preload

                self.namespace = preload()
                threads = len(os.listdir("/proc/self/task"))
                if threads != 1:
                    why = f"the libraries start {threads - 1} threads when they are imported"
                    self.namespace, start = None, "plain"
            signal.set_wakeup_fd(self.wake_write, warn_on_full_buffer=False)
            signal.signal(signal.SIGCHLD, lambda *_: None)
            self.send({"ready": start, "why": why})
            self.serve()
        finally:
            self.close()

    def serve(self) -> None:
        poller = select.poll()
        poller.register(self.control, select.POLLIN)
        poller.register(self.wake_read, select.POLLIN)
        while os.getppid() == self.parent:
            ready = dict(poller.poll(1000))
            if self.wake_read in ready:
                with contextlib.suppress(BlockingIOError):
                    os.read(self.wake_read, 4096)
            self.reap()
            if self.control.fileno() in ready and not self.answer():
                return

    def send(self, message: dict[str, Any], fds: tuple[int, ...] = ()) -> None:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            socket.send_fds(self.control, [json.dumps(message).encode()], fds)

    def answer(self) -> bool:
        """One request of the pool; False when the pool is gone or says goodbye."""
        try:
            data, fds, _, _ = socket.recv_fds(self.control, MESSAGE_LIMIT, 4)
        except ConnectionResetError:
            return False
        if not data:
            return False
        request = json.loads(data)
        if request["op"] == "close":
            return False
        if request["op"] == "fork":
            try:
                pid = self.fork(request, fds)
                pidfd = os.pidfd_open(pid)
                folder = str(self.children[pid].folder)
                self.send({"pid": pid, "folder": folder}, (pidfd,))
                os.close(pidfd)
            except OSError as error:
                self.send({"error": f"cannot make a kernel: {error}"})
        for fd in fds:
            os.close(fd)
        return True

    def fork(self, request: dict[str, Any], fds: list[int]) -> int:
        """Fork one kernel; `fds` are its transcript page and its pipe for the report."""
        from ..isolation.kernel_users import private_uid

        used = {child.slot for child in self.children.values()}
        slot = next(i for i in range(len(used) + 1) if i not in used)
        uid = private_uid(os.getpid(), slot) if self.settings["isolate"] else None
        self.count += 1
        folder = self.root / str(self.count)
        spec = {**self.settings, **request, "folder": str(folder)}
        template = os.getpid()
        try:
            _make_folder(folder, uid, _connection(spec, folder, slot))
            pid = os.fork()
        except OSError:
            self.remove(folder)
            raise
        if pid == 0:
            self.become_kernel(spec, fds, uid, template)
        self.children[pid] = _Child(folder, slot, uid)
        return pid

    def become_kernel(
        self, spec: dict[str, Any], fds: list[int], uid: int | None, template: int
    ) -> None:
        """The child's side of the fork; never returns."""
        code = 1
        try:
            from ..isolation import privilege_drop

            os.setsid()
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            privilege_drop.die_with_parent(template)
            self.control.close()
            for fd in (self.wake_read, self.wake_write, self.lock):
                os.close(fd)
            if self.namespace is None:
                from .kernel_main import preload

                self.namespace = preload()
            from .kernel_main import run_kernel

            run_kernel(spec, self.namespace, fds[0], fds[1], uid)
            code = 0
        except BaseException as error:
            with contextlib.suppress(BaseException):
                report = {"error": one_line(error, 500)}
                report["trace"] = traceback.format_exc()[-2000:]
                os.write(fds[1], json.dumps(report).encode())
        finally:
            os._exit(code)

    def reap(self) -> None:
        """Clear away every kernel that has ended, and all that it left behind."""
        ended = False
        while True:
            try:
                info = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            except ChildProcessError:
                break
            if info is None:
                break
            child = self.children.get(info.si_pid)
            if child is not None:
                # While it is a zombie its number names no other process or group.
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.killpg(info.si_pid, signal.SIGKILL)
                ended = True
            os.waitpid(info.si_pid, 0)
            self.helpers.discard(info.si_pid)
            if child is not None:
                del self.children[info.si_pid]
                self.clear(child)
        if not ended:
            self.kill_strays()

    def clear(self, child: _Child) -> None:
        """End what a dead kernel left running, then remove its folder."""
        for _ in range(200):
            if not self.kill_strays():
                break
            if child.uid is not None:
                from ..isolation.kernel_users import kill_all_of

                kill_all_of(child.uid)
            time.sleep(0.001)
        self.remove(child.folder)

    def remove(self, folder: Path) -> None:
        """Have a kernel's folder removed, without waiting: a hostile one takes seconds."""
        # Not shutil.rmtree: on a very deep folder it may close descriptors that are not its own.
        script = 'rm -rf "$1" || { chmod -R u+rwX "$1"; rm -rf "$1"; }'
        with contextlib.suppress(OSError):
            command = ["sh", "-c", script, "sh", str(folder)]
            quiet = [(os.POSIX_SPAWN_OPEN, 2, os.devnull, os.O_WRONLY, 0)]
            self.helpers.add(os.posix_spawnp("sh", command, os.environ, file_actions=quiet))

    def kill_strays(self) -> int:
        """Kill the children that are no kernels: orphans of kernels that have ended."""
        count = 0
        for pid in child_pids(os.getpid()):
            if pid in self.children or pid in self.helpers:
                continue
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
                count += 1
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, os.WNOHANG)
        return count

    def close(self) -> None:
        """End every kernel and remove the pool's folder."""
        for pid in self.children:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        deadline = time.monotonic() + 5
        while self.children and time.monotonic() < deadline:
            self.reap()
            time.sleep(0.002)
        remove_tree(self.root)


def _connection(spec: dict[str, Any], folder: Path, slot: int) -> dict[str, Any]:
    """The content of a kernel's connection file."""
    names = ("shell_port", "iopub_port", "stdin_port", "hb_port", "control_port")
    if spec["transport"] == "ipc":
        ip, ports = str(folder / "run" / "k"), range(1, 6)
    else:
        first = spec["first_port"]
        ip = "127.0.0.1"
        ports = range(first + 5 * slot, first + 5 * slot + 5) if first else range(0, 1)
    info: dict[str, Any] = dict(zip(names, ports, strict=False))
    info = {name: info.get(name, 0) for name in names}
    scheme = {"signature_scheme": "hmac-sha256", "kernel_name": "eightfold"}
    return {**info, **scheme, "transport": spec["transport"], "ip": ip, "key": spec["key"]}


def _make_folder(folder: Path, uid: int | None, connection: dict[str, Any]) -> None:
    for path in (folder, folder / "run", folder / "scratch"):
        path.mkdir(mode=0o700)
    file = folder / "run" / "kernel.json"
    fd = os.open(file, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
    with os.fdopen(fd, "w") as stream:
        json.dump(connection, stream)
    if uid is not None:
        for path in (file, folder / "run", folder / "scratch", folder):
            os.chown(path, uid, uid)


def remove_tree(path: Path) -> None:
    """Remove a folder whatever its owner did to it (no rights, very deep)."""
    # Not shutil.rmtree: on a very deep folder it may close descriptors that are not its own.
    if path.exists():
        for command in (["chmod", "-R", "u+rwX", str(path)], ["rm", "-rf", str(path)]):
            with contextlib.suppress(OSError):
                subprocess.run(command, stderr=subprocess.DEVNULL, check=False)


def main() -> None:
    """``python -c "...main()" SOCKET SETTINGS``."""
    control = socket.socket(fileno=int(sys.argv[1]))
    settings = json.loads(sys.argv[2])
    sys.path.extend(path for path in settings["path"] if path not in sys.path)
    sys.argv[1:] = []
    Template(control, settings).run()
