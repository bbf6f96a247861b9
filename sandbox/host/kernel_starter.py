"""The work of the pool's thread: template up, kernels up, an eye on what they use."""

from __future__ import annotations

import contextlib
import os
import time
from typing import TYPE_CHECKING

from ..sandbox_errors import SandboxError
from .limit_monitor import SECONDS, Watch
from .process_handles import KernelProcess, TemplateProcess

if TYPE_CHECKING:
    from .kernel_pool import KernelPool


class Starter:
    """Brings kernels up, many at a time, without waiting for any single one."""

    def __init__(self, pool: KernelPool) -> None:
        self.pool = pool
        self.config = pool.config
        self.hopeless = False  # trying again cannot help
        self._reporting: dict[int, KernelProcess] = {}  # forked; their report is awaited
        self._answering: dict[KernelProcess, str] = {}  # reported; their first reply is awaited
        self._successes = 0
        self._watch = Watch(pool)

    def came_up(self) -> bool:
        """Whether any kernel came up since the last call."""
        count, self._successes = self._successes, 0
        return count > 0

    def step(self) -> None:
        """Do what can be done now, then wait for the next event."""
        pool = self.pool
        if pool._context is None:
            import zmq

            pool._context = zmq.Context()
        template = pool._template
        if template is None:
            template = TemplateProcess(self.config)
            with pool._changed:
                pool._template = template
        if template.mode is None and not self._await_template(template):
            return
        for _ in range(self._missing()):
            process = template.fork(self.config.start_timeout)
            self._reporting[process.report_fd] = process
        self._poll(template)
        self._watch.look()

    def _await_template(self, template: TemplateProcess) -> bool:
        """Wait for the template to be warm, in short turns so that close() is not held up."""
        deadline = time.monotonic() + self.config.start_timeout
        while not self.pool._closing:
            turn = min(0.1, deadline - time.monotonic())
            try:
                message, _ = template.receive(max(turn, 0))
            except SandboxError:
                if template.alive() and turn > 0:
                    continue
                raise
            template.mode, template.why = message["ready"], message["why"]
            return True
        return False

    def _missing(self) -> int:
        pool = self.pool
        with pool._changed:
            wanted = max(self.config.size - pool._claims, self.config.spares)
            waiting = pool._claims - len(pool._taken)  # leases without a process
            coming = len(pool._ready) + len(self._reporting) + len(self._answering)
        return max(0, wanted + waiting - coming)

    def _poll(self, template: TemplateProcess) -> None:
        import zmq

        poller = zmq.Poller()
        poller.register(self.pool._wake_read, zmq.POLLIN)
        poller.register(template.fileno(), zmq.POLLIN)
        for fd in self._reporting:
            poller.register(fd, zmq.POLLIN)
        for process in self._answering:
            poller.register(process.shell, zmq.POLLIN)
            poller.register(process.pidfd, zmq.POLLIN)
        ready = dict(poller.poll(SECONDS * 1000))
        if self.pool._wake_read in ready:
            with contextlib.suppress(BlockingIOError):
                os.read(self.pool._wake_read, 4096)
        for fd in [fd for fd in self._reporting if fd in ready]:
            self._report(self._reporting[fd])
        for process in [p for p in self._answering if p.shell in ready or p.pidfd in ready]:
            self._answer(process)
        if template.fileno() in ready:
            template.receive(0)  # it says nothing unasked: this raises
        self._expire()

    def _report(self, process: KernelProcess) -> None:
        fd = process.report_fd
        try:
            report = process.read_report()
        except SandboxError:
            del self._reporting[fd]
            process.close()
            raise
        if report is None:
            return
        del self._reporting[fd]
        missing = report["active"].get("missing", [])
        if self.config.strict and missing:
            process.close()
            self.hopeless = True
            raise SandboxError(
                "strict=True, and this machine does not allow: " + "; ".join(missing)
            )
        process.connect(self.pool._context, self.config.transport, report["ports"])
        self._answering[process] = process.request("kernel_info_request", {})

    def _answer(self, process: KernelProcess) -> None:
        if process.reply(self._answering[process]) is None:
            if process.alive():
                return
            del self._answering[process]
            process.close()
            raise SandboxError("a kernel ended before its first answer")
        del self._answering[process]
        self._successes += 1
        pool = self.pool
        with pool._changed:
            pool._started += 1
            pool._active = process.active
            pool._ready.append(process)
            pool._changed.notify_all()

    def _expire(self) -> None:
        oldest = time.monotonic() - self.config.start_timeout
        for process in (*self._reporting.values(), *self._answering):
            if process.born < oldest:
                self._reporting.pop(process.report_fd, None)
                self._answering.pop(process, None)
                process.close()
                raise SandboxError(f"a kernel was not ready in {self.config.start_timeout:g} s")

    def restart(self) -> None:
        """After a failure: begin with a new template unless this one is sound."""
        pool = self.pool
        template = pool._template
        if template is not None and template.alive() and template.mode is not None:
            return
        self.close()
        with pool._changed:
            pool._template = None
            gone = [*pool._ready]
            pool._ready.clear()
        for process in gone:
            process.close()
        if template is not None:
            template.close()

    def close(self) -> None:
        """Give up the kernels that are on their way."""
        for process in (*self._reporting.values(), *self._answering):
            process.close()
        self._reporting.clear()
        self._answering.clear()
