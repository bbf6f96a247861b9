"""Starts the template and, from it, the kernels of a pool."""

from __future__ import annotations

import errno
import os
import select
import time
from collections.abc import Callable

from ..sandbox_errors import PermanentError, SandboxError
from ..text.shared_text_page import create_page
from .kernel_process import KernelProcess
from .pool_state import PoolState
from .template_process import REPLY_SECONDS, TemplateProcess

TEMPLATE_POLL_SECONDS = 0.1  # between two looks at whether the pool is being closed


class KernelStarter:
    """Starts many kernels at a time without waiting for any single one.

    Only the pool's own thread may call its methods, except `close`, which follows that thread's
    end, and the property `template`.

    Args:
        state: the pool's state, which says how many kernels are missing and takes the new ones.
    """

    def __init__(self, state: PoolState) -> None:
        self._state = state
        self._config = state.config
        self._template: TemplateProcess | None = None
        self._reporting: dict[int, KernelProcess] = {}  # report_fd: a kernel yet to report

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
        template = self._template
        if template is None:
            self._check_calls()
            template = self._template = TemplateProcess(self._config)
        if template.mode is None and not self._await_template(template):
            return
        for _ in range(self._state.missing(len(self._reporting))):
            process = template.fork_kernel(min(self._config.start_timeout, REPLY_SECONDS))
            self._reporting[process.report_fd] = process
        self._poll(template, max_wait)

    def _check_calls(self) -> None:
        """Try the system calls without which there are no kernels.

        Raises:
            PermanentError: the machine lacks one of them.
            OSError: the machine has too few descriptors at present.
        """
        calls: dict[str, Callable[[], int]] = {
            "memfd_create": create_page,
            "pidfd_open": lambda: os.pidfd_open(os.getpid()),
        }
        for name, call in calls.items():
            try:
                os.close(call())
            except OSError as error:
                if error.errno not in (errno.ENOSYS, errno.EPERM):
                    raise
                raise PermanentError(
                    f"The Python kernels need the system call {name}, which this machine refuses "
                    f"({error.strerror}); use Linux 5.3 or newer and a container that allows it."
                ) from error

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
        poller = select.poll()
        for fd in (self._state.wake_fd, template.fileno(), *self._reporting):
            poller.register(fd, select.POLLIN)
        ready = dict(poller.poll(max_wait * 1000))
        if self._state.wake_fd in ready:
            self._state.clear_wake()
        for fd in [fd for fd in self._reporting if fd in ready]:
            self._read_report(self._reporting[fd])
        if template.fileno() in ready:
            template.check_running()  # it sends nothing without a request
        self._expire()

    def _read_report(self, process: KernelProcess) -> None:
        fd = process.report_fd
        try:
            report = process.read_report()
        except (SandboxError, OSError):
            del self._reporting[fd]
            process.close()
            raise
        if report is None:
            return
        del self._reporting[fd]
        missing = report["active"].get("missing", [])
        if self._config.strict and missing:
            process.close()
            raise PermanentError(
                "PoolConfig.strict is set, and this machine lacks these protections: "
                f"{'; '.join(missing)}."
            )
        self._state.add_ready(process)

    def _expire(self) -> None:
        """Close a kernel that takes too long to start, and raise `SandboxError`."""
        oldest = time.monotonic() - self._config.start_timeout
        for fd, process in self._reporting.items():
            if process.created_at < oldest:
                del self._reporting[fd]
                process.close()
                raise SandboxError(
                    f"A kernel was not ready within {self._config.start_timeout:g} s."
                )

    def restart(self, *, force: bool) -> None:
        """After a failure, give up the template and all it has forked unless it still works.

        Args:
            force: give it up even so; kernels that are leased then end as well.
        """
        template = self._template
        if not force and template is not None and template.alive() and template.mode is not None:
            return
        self.abandon()
        self._template = None
        self._state.close_ready()
        if template is not None:
            template.close()

    def abandon(self) -> None:
        """Close the kernels that are starting."""
        for process in self._reporting.values():
            process.close()
        self._reporting.clear()

    def close(self) -> None:
        """End the template, which ends its kernels."""
        template, self._template = self._template, None
        if template is not None:
            template.close()
