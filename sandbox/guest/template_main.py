"""The template process, which imports the libraries once and forks the kernels from itself.

The pool starts it as a program of its own. It has one thread, so that its forks are sound, and
talks to the pool over one socket. When that socket closes, or its parent changes, it ends every
kernel, removes the pool's folder and exits. It also reaps what kernels leave behind: processes that
outlive their parent become its children, and it kills each child that is not a kernel.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import select
import signal
import socket
import sys
import time
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from eightfold.common.error_text import one_line

from ..isolation import namespaces
from ..isolation.kernel_folder import make_kernel_folder, remove_tree, start_removal
from ..isolation.kernel_users import check_room, kill_all_of, private_uid
from ..isolation.process_tree import child_pids
from ..sandbox_errors import PermanentError
from .process_setup import write_interpreter_links

if TYPE_CHECKING:
    from ..isolation.control_group import ControlGroups
    from ..isolation.namespaces import ViewSettings

MAX_REQUEST_BYTES = 1 << 16
POLL_MILLISECONDS = 1000  # between two checks of the parent and of orphans
CLOSE_SECONDS = 5  # longest wait for killed kernels to end
FIRST_PROCESSES = 2  # of a kernel's process namespace, and the kernel
MAX_KILL_ROUNDS = 200  # rounds of killing what a dead kernel has left, a millisecond apart


@dataclass
class _KernelChild:
    """A kernel: its folder, the number that its user and ports derive from, and its own user.

    The control group is None if the machine delegates none.
    """

    folder: Path
    slot: int
    uid: int | None
    group: Path | None


class Template:
    """Serves one pool until the pool's end of the socket closes.

    Args:
        control: the socket to the pool.
        settings: the pool's settings; see `TemplateProcess`.
    """

    def __init__(self, control: socket.socket, settings: dict[str, Any]) -> None:
        self.control = control
        self.control.set_inheritable(False)
        self.settings = {**settings, "template": os.getpid()}
        self.root = Path(settings["root"])
        self.parent = os.getppid()
        self.kernels: dict[int, _KernelChild] = {}
        self.namespace: dict[str, Any] | None = None  # None if each kernel imports by itself
        self.removers: set[int] = set()  # child processes that remove folders
        self.folder_count = 0
        self.view_settings: ViewSettings | None = None  # None if kernels have no namespaces
        self.without_namespaces: str | None = "isolate=False"
        self.groups: ControlGroups | None = None
        self.pidfd = os.pidfd_open(os.getpid())
        self.wake_read, self.wake_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self.lock = os.open(self.root / "lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        fcntl.flock(self.lock, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def run(self) -> None:
        """Import the libraries, then serve the pool until it is gone."""
        namespaces.adopt_orphans()
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
        start, why = self.settings["start"], None
        try:
            check_room()
            write_interpreter_links(self.root / "bin")
            if self.settings["isolate"]:
                self.make_groups()
                self.enter_namespaces()
            if self.view_settings is None:
                self.leave_guardian()
            if start == "fork":
                from .kernel_main import preload

                self.namespace = preload()
                threads = len(os.listdir("/proc/self/task"))
                if threads != 1:
                    why = f"the libraries start {threads - 1} threads when they are imported"
                    self.namespace, start = None, "plain"
            signal.set_wakeup_fd(self.wake_write, warn_on_full_buffer=False)
            signal.signal(signal.SIGCHLD, lambda *_: None)
            self.send({"ready": start, "why": why, "pid": os.getpid()})
            self.serve()
        finally:
            self.close()

    def make_groups(self) -> None:
        """Make a control group for kernels, if the machine delegates one."""
        from ..isolation import control_group

        limits = self.settings["limits"]
        files = [Path("/proc/self", name).read_text() for name in ("mountinfo", "cgroup")]
        try:
            parent = control_group.find_parent(*files)
            processes = limits["processes"] + FIRST_PROCESSES
            self.groups = control_group.ControlGroups(limits["memory"], processes, parent)
        except OSError as error:
            self.settings["without_group"] = getattr(error, "reason", str(error))

    def enter_namespaces(self) -> None:
        """Enter the namespaces that all kernels share, if the machine allows all of them."""
        from ..isolation import privilege_drop

        probe, view = self.root / "probe", self.root / "view"
        for folder in (probe, view):
            folder.mkdir(mode=0o755)
        view_settings = namespaces.ViewSettings(
            view=view,
            readable=privilege_drop.readable_paths(),
            programs=self.root / "bin",
            network=self.settings["transport"] == "tcp",
        )
        disk = self.settings["limits"]["disk"]
        self.without_namespaces = namespaces.probe(view_settings, probe, disk)
        if self.without_namespaces is None:
            namespaces.enter_shared(view_settings)
            self.view_settings = view_settings

    def leave_guardian(self) -> None:
        """Go on in a child of this process, which ends what a killed template leaves running."""
        namespaces.fork_from_guardian((self.control.fileno(), self.lock))
        self.settings["template"] = os.getpid()
        self.parent = os.getppid()
        os.close(self.pidfd)
        self.pidfd = os.pidfd_open(os.getpid())

    def serve(self) -> None:
        """Answer requests and reap children until the pool is gone."""
        poller = select.poll()
        poller.register(self.control, select.POLLIN)
        poller.register(self.wake_read, select.POLLIN)
        while os.getppid() == self.parent:
            ready = dict(poller.poll(POLL_MILLISECONDS))
            if self.wake_read in ready:
                with contextlib.suppress(BlockingIOError):
                    os.read(self.wake_read, 4096)
            self.reap()
            if self.control.fileno() in ready and not self.answer():
                return

    def send(self, message: dict[str, Any], fds: tuple[int, ...] = ()) -> None:
        """Send a message with descriptors to the pool, if it is still there."""
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            socket.send_fds(self.control, [json.dumps(message).encode()], fds)

    def answer(self) -> bool:
        """Answer one request; return False if the pool is gone or asks the template to end."""
        try:
            data, fds, _, _ = socket.recv_fds(self.control, MAX_REQUEST_BYTES, 3)
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
                folder = str(self.kernels[pid].folder)
                self.send({"pid": pid, "folder": folder}, (pidfd,))
                os.close(pidfd)
            except OSError as error:
                self.send({"error": f"The sandbox's template cannot make a kernel: {error}."})
        for fd in fds:
            os.close(fd)
        return True

    def fork(self, request: dict[str, Any], fds: list[int]) -> int:
        """Fork one kernel and return the process id of the new child.

        Args:
            request: the pool's request, with the kernel's ``key``.
            fds: the descriptors that `run_kernel` takes.
        """
        check_room()
        used = {kernel.slot for kernel in self.kernels.values()}
        slot = next(i for i in range(len(used) + 1) if i not in used)
        uid = private_uid(os.getpid(), slot) if self.settings["isolate"] else None
        self.folder_count += 1
        folder = self.root / str(self.folder_count)
        group = None
        try:
            if self.groups is not None:
                group = self.groups.create(folder.name)
            make_kernel_folder(folder, uid, scratch=self.view_settings is None)
            pid = os.fork() if self.view_settings is None else namespaces.fork_first_process()
        except OSError:
            self.remove(folder, group)
            raise
        child = _KernelChild(folder, slot, uid, group)
        if pid == 0:
            self.become_kernel(request, fds, child)
        self.kernels[pid] = child
        return pid

    def become_kernel(self, request: dict[str, Any], fds: list[int], child: _KernelChild) -> None:
        """Run a kernel in the child process; never return."""
        code = 1
        try:
            from ..isolation import control_group, privilege_drop

            for number in (signal.SIGCHLD, signal.SIGTERM):
                signal.signal(number, signal.SIG_DFL)
            signal.set_wakeup_fd(-1)
            signal.pthread_sigmask(signal.SIG_SETMASK, ())
            privilege_drop.die_with_parent(self.pidfd)
            self.control.close()
            if child.group is not None:
                control_group.enter(child.group)
            if self.view_settings is not None:
                self.enter_own_namespaces(fds[1], child)
            for fd in (self.wake_read, self.wake_write, self.lock):
                os.close(fd)
            os.setsid()
            places = privilege_drop.kernel_places(
                child.folder, self.root / "bin", own_root=self.view_settings is not None
            )
            isolation = privilege_drop.Isolation(
                self.settings, places, child.uid, self.without_namespaces
            )
            if self.view_settings is None:
                isolation.parent = self.pidfd
                _send_pidfd(fds[1], os.getpid())
            if self.namespace is None:
                from .kernel_main import preload

                self.namespace = preload()
            from .kernel_app import connection_info
            from .kernel_main import run_kernel

            connection = connection_info({**self.settings, **request}, places.sockets, child.slot)
            spec = {**self.settings, "connection": connection}
            run_kernel(spec, self.namespace, fds, isolation)
            code = 0
        except BaseException as error:
            with contextlib.suppress(BaseException):
                report: dict[str, Any] = {"error": one_line(error, 500)}
                report["trace"] = traceback.format_exc()[-2000:]
                report["errno"] = getattr(error, "errno", None)
                if report["errno"] == errno.EMFILE:
                    report["error"] += "; raise the limit on open files (ulimit -n)"
                report["permanent"] = isinstance(error, PermanentError)
                os.write(fds[1], json.dumps(report).encode())
        finally:
            os._exit(code)

    def enter_own_namespaces(self, report: int, child: _KernelChild) -> None:
        """Enter the kernel's namespaces, and return in a second process, which becomes the kernel.

        This process stays, as the first one of its process namespace.
        """
        from ..isolation.folder_view import leave_old_root

        assert self.view_settings is not None
        uid = os.getuid() if child.uid is None else child.uid
        gid = os.getgid() if child.uid is None else child.uid
        shown = namespaces.SHOWN_UID if child.uid is None else child.uid
        disk = self.settings["limits"]["disk"]
        namespaces.enter_own(self.view_settings, child.folder / "run", disk, uid, gid, shown)
        # A kernel that makes a user namespace must wait for this. Another goes on meanwhile, as it
        # takes a while on a busy machine; the pool gives it no cell before it has the descriptor.
        wait = child.uid is None
        if wait:
            leave_old_root()
        kernel = os.fork()
        if kernel == 0:
            os.chdir("/")
            return
        if not wait:
            leave_old_root()
        _send_pidfd(report, kernel)
        os.closerange(3, namespaces.MAX_INHERITED_FDS)
        namespaces.serve_as_first_process(kernel)

    def reap(self) -> None:
        """Reap every child that has ended; clear away all that an ended kernel has left."""
        kernel_ended = False
        while True:
            try:
                info = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            except ChildProcessError:
                break
            if info is None:
                break
            kernel = self.kernels.get(info.si_pid)
            if kernel is not None:
                # While it is a zombie, no other process or group can have its number.
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.killpg(info.si_pid, signal.SIGKILL)
                kernel_ended = True
            os.waitpid(info.si_pid, 0)
            self.removers.discard(info.si_pid)
            if kernel is not None:
                del self.kernels[info.si_pid]
                self.clear(kernel)
        if not kernel_ended:
            self.kill_orphans()

    def clear(self, kernel: _KernelChild) -> None:
        """End what a dead kernel has left running, then remove its folder."""
        for _ in range(MAX_KILL_ROUNDS):
            if not self.kill_orphans():
                break
            if kernel.uid is not None:
                with contextlib.suppress(OSError):  # too many processes at present
                    kill_all_of(kernel.uid)
            time.sleep(0.001)
        self.remove(kernel.folder, kernel.group)

    def remove(self, folder: Path, group: Path | None) -> None:
        """Remove a kernel's group and, by a program as it may take seconds, its folder."""
        if group is not None:
            from ..isolation import control_group

            control_group.remove(group)
        with contextlib.suppress(OSError):
            self.removers.add(start_removal(folder))

    def kill_orphans(self) -> int:
        """Kill the children that kernels have left behind; return how many."""
        count = 0
        for pid in child_pids(os.getpid()):
            if pid in self.kernels or pid in self.removers:
                continue
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
                count += 1
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, os.WNOHANG)
        return count

    def close(self) -> None:
        """End every kernel and remove the pool's folder."""
        for pid in self.kernels:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        deadline = time.monotonic() + CLOSE_SECONDS
        while self.kernels and time.monotonic() < deadline:
            self.reap()
            time.sleep(0.002)
        if self.groups is not None:
            self.groups.close()
        if self.view_settings is not None:
            from ..isolation.mount_calls import unmount

            unmount(self.view_settings.view)  # what it shows is not to be removed
        remove_tree(self.root)


def _send_pidfd(report: int, kernel: int) -> None:
    """Send the pool a descriptor of the kernel's process."""
    pidfd = os.pidfd_open(kernel)
    with socket.socket(fileno=os.dup(report)) as connected:
        socket.send_fds(connected, [b"{}"], [pidfd])
    os.close(pidfd)


def main() -> None:
    """Run the template: ``python -c "...main()" SOCKET SETTINGS``."""
    control = socket.socket(fileno=int(sys.argv[1]))
    settings = json.loads(sys.argv[2])
    sys.path.extend(path for path in settings["path"] if path not in sys.path)
    sys.argv[1:] = []
    Template(control, settings).run()
    os._exit(0)  # to free what was imported would take longer than all the rest of the end
