"""Starts the template and, from it, the kernels of a pool."""

from __future__ import annotations

import time
from typing import Any

from ..sandbox_errors import SandboxError
from .kernel_process import KernelProcess
from .pool_state import PoolState
from .template_process import TemplateProcess

TEMPLATE_POLL_SECONDS = 0.1  # between two looks at whether the pool is being closed


class KernelStarter:
    """Starts many kernels at a time without waiting for any single one.

    Only the pool's own thread may call its methods, except `close`, which follows that thread's
    end, and the property `template`.

    Args:
        state: the pool's state, which says how many kernels are missing and takes the new ones.

    Attributes:
        hopeless: True if starting again cannot help.
    """

    def __init__(self, state: PoolState) -> None:
        self.hopeless = False
        self._state = state
        self._config = state.config
        self._template: TemplateProcess | None = None
        self._context: Any = None  # zmq.Context
        self._reporting: dict[int, KernelProcess] = {}  # report_fd: a kernel yet to report
        self._answering: dict[KernelProcess, str] = {}  # has reported; id of its first request

    @property
    def template(self) -> TemplateProcess | None:
        """The template, if there is one."""
        return self._template

    def step(self, max_wait: float) -> None:
        """Do what can be done now, then wait at most `max_wait` seconds for the next event.

        Raises:
            SandboxError: the template or a kernel did not start.
            OSError: the machine lacks processes, descriptors or memory.
        """
        if self._context is None:
            import zmq

            self._context = zmq.Context()
        template = self._template
        if template is None:
            template = self._template = TemplateProcess(self._config)
        if template.mode is None and not self._await_template(template):
            return
        for _ in range(self._state.missing(len(self._reporting) + len(self._answering))):
            process = template.fork_kernel(self._config.start_timeout)
            self._reporting[process.report_fd] = process
        self._poll(template, max_wait)

    def _await_template(self, template: TemplateProcess) -> bool:
        """Wait until the template is warm; return False if the pool is closed first."""
        limit = self._config.start_timeout
        deadline = time.monotonic() + limit
        while not self._state.closing:
            left = deadline - time.monotonic()
            if template.await_warm(min(TEMPLATE_POLL_SECONDS, max(left, 0))):
                return True
            if left <= 0 or not template.alive():
                raise SandboxError(f"The sandbox's template was not ready within {limit:g} s.")
        return False

    def _poll(self, template: TemplateProcess, max_wait: float) -> None:
        import zmq

        poller = zmq.Poller()
        poller.register(self._state.wake_fd, zmq.POLLIN)
        poller.register(template.fileno(), zmq.POLLIN)
        for fd in self._reporting:
            poller.register(fd, zmq.POLLIN)
        for process in self._answering:
            poller.register(process.shell_socket, zmq.POLLIN)
            poller.register(process.pidfd, zmq.POLLIN)
        ready = dict(poller.poll(max_wait * 1000))
        if self._state.wake_fd in ready:
            self._state.clear_wake()
        for fd in [fd for fd in self._reporting if fd in ready]:
            self._read_report(self._reporting[fd])
        for process in list(self._answering):
            if process.shell_socket in ready or process.pidfd in ready:
                self._read_answer(process)
        if template.fileno() in ready:
            template.check_running()  # it sends nothing without a request
        self._expire()

    def _read_report(self, process: KernelProcess) -> None:
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
        if self._config.strict and missing:
            process.close()
            self.hopeless = True
            raise SandboxError(
                "PoolConfig.strict is set, and this machine lacks these protections: "
                f"{'; '.join(missing)}."
            )
        process.connect(self._context)
        self._answering[process] = process.send_request("kernel_info_request", {})

    def _read_answer(self, process: KernelProcess) -> None:
        if process.receive_reply(self._answering[process]) is None:
            if process.alive():
                return
            del self._answering[process]
            process.close()
            raise SandboxError("A kernel ended before its first answer.")
        del self._answering[process]
        self._state.add_ready(process)

    def _expire(self) -> None:
        """Close a kernel that takes too long to start, and raise `SandboxError`."""
        oldest = time.monotonic() - self._config.start_timeout
        for process in (*self._reporting.values(), *self._answering):
            if process.created_at < oldest:
                self._reporting.pop(process.report_fd, None)
                self._answering.pop(process, None)
                process.close()
                raise SandboxError(
                    f"A kernel was not ready within {self._config.start_timeout:g} s."
                )

    def restart(self) -> None:
        """After a failure, give up the template and all it has forked unless it still works."""
        template = self._template
        if template is not None and template.alive() and template.mode is not None:
            return
        self.abandon()
        self._template = None
        self._state.close_ready()
        if template is not None:
            template.close()

    def abandon(self) -> None:
        """Close the kernels that are starting."""
        for process in (*self._reporting.values(), *self._answering):
            process.close()
        self._reporting.clear()
        self._answering.clear()

    def close(self) -> None:
        """End the template, which ends its kernels; close the sockets that are left."""
        template, self._template = self._template, None
        if template is not None:
            template.close()
        if self._context is not None:
            self._context.destroy(linger=0)
