"""The pool: keeps kernels ready, leases them, and replaces each one that was used."""

from __future__ import annotations

import atexit
import contextlib
import os
import threading
import time
import weakref
from collections import deque
from contextlib import AbstractContextManager
from typing import Any

from ..pool_config import PoolConfig
from ..sandbox_errors import SandboxError
from .leased_kernel import Kernel
from .process_handles import KernelProcess, TemplateProcess

MAX_FAILURES = 3  # starts that may fail in a row before the pool gives up


class KernelPool(AbstractContextManager["KernelPool"]):
    """Up to `config.size` leased Jupyter kernels, each a fresh fork of a warm template.

    The constructor starts everything in the background and returns at once, so that a model can
    load meanwhile; `lease` waits for a kernel. What goes wrong at the start is raised there.
    """

    def __init__(self, config: PoolConfig | None = None) -> None:
        self.config = config or PoolConfig()
        self._changed = threading.Condition()
        self._ready: deque[KernelProcess] = deque()
        self._leases: set[Kernel] = set()
        self._taken: set[KernelProcess] = set()  # processes of leases
        self._claims = 0  # leases given or being given
        self._failure: SandboxError | None = None
        self._failures = 0
        self._closing = False
        self._owner = os.getpid()
        self._wake_read, self._wake_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._template: TemplateProcess | None = None
        self._context: Any = None
        self._started = 0  # kernels that came up
        self._active: dict[str, Any] = {}  # the protections of the latest kernel
        self._thread = threading.Thread(target=self._run, name="kernel-pool", daemon=True)
        self._at_exit = _close_at_exit(self)
        self._thread.start()

    def __exit__(self, *error: object) -> None:
        self.close()

    def lease(self, timeout: float | None = None) -> Kernel:
        """A kernel that nobody used before; wait for one at most `timeout` seconds.

        A context manager; outside of ``with``, call its `release`. Raises `TimeoutError`, or
        `SandboxError` where the pool is closed or cannot make kernels.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        with self._changed:
            while self._claims >= self.config.size:
                self._check()
                self._wait(deadline, "all kernels are leased")
            self._claims += 1
        try:
            process = self._take(None if deadline is None else deadline - time.monotonic())
            return self._lend(process)
        except BaseException:
            with self._changed:
                self._claims -= 1
                self._changed.notify_all()
            raise

    def _lend(self, process: KernelProcess) -> Kernel:
        with self._changed:
            try:
                self._check()  # after this close() sees the lease
                kernel = Kernel(self, process)
            except BaseException:
                self._taken.discard(process)
                process.close()
                raise
            self._leases.add(kernel)
        return kernel

    def keeps(self) -> bool:
        """Whether the kernel of a lease that ends is cleared and kept."""
        return self.config.reset == "soft" and not self._closing

    def wait_ready(self, count: int | None = None, timeout: float | None = None) -> None:
        """Wait until `count` kernels (all of the pool's size where None) are ready to be leased."""
        wanted = self.config.size if count is None else count
        deadline = None if timeout is None else time.monotonic() + timeout
        with self._changed:
            while len(self._ready) < wanted:
                self._check()
                self._wait(deadline, f"{len(self._ready)} of {wanted} kernels are ready")

    def stats(self) -> dict[str, Any]:
        """Counts of kernels, how they are started, and the protections of the latest one."""
        with self._changed:
            template = self._template
            return {
                "ready": len(self._ready),
                "leased": self._claims,
                "started": self._started,
                "start": template.mode if template else None,
                "start_note": template.why if template else None,
                "template_pid": template.pid if template else None,
                "pids": [process.pid for process in (*self._ready, *self._taken)],
                "folder": str(template.root) if template else None,
                "active": dict(self._active),
            }

    def close(self) -> None:
        """End all kernels and the template and remove their folders. Safe to call twice."""
        if os.getpid() != self._owner:
            return
        with self._changed:
            if self._closing:
                return
            self._closing = True
            self._changed.notify_all()
            leases = list(self._leases)
        atexit.unregister(self._at_exit)
        self._wake()
        self._thread.join()
        for kernel in leases:
            kernel.release()
        with self._changed:
            for process in (*self._ready, *self._taken):
                process.close()
            self._ready.clear()
            self._taken.clear()
            template, self._template = self._template, None
        if template is not None:
            template.close()
        if self._context is not None:
            self._context.destroy(linger=0)
        with self._changed:  # a lease may still be given back, by another thread
            os.close(self._wake_read)
            os.close(self._wake_write)
            self._wake_read = self._wake_write = -1

    # For `Kernel`.

    def _take(self, timeout: float | None) -> KernelProcess:
        """A ready process, for a lease."""
        deadline = None if timeout is None else time.monotonic() + timeout
        with self._changed:
            while True:
                self._check()
                while self._ready:
                    process = self._ready.popleft()
                    if process.alive():
                        self._taken.add(process)
                        self._wake()
                        return process
                    process.close()
                self._wake()
                self._wait(deadline, "no kernel became ready")

    def _replaced(self, process: KernelProcess | None) -> None:
        """A lease's process is lost; the lease goes on."""
        with self._changed:
            if process is not None:
                self._taken.discard(process)
                process.close()
        self._wake()

    def _give_back(self, kernel: Kernel, process: KernelProcess | None, *, kept: bool) -> None:
        """A lease ends; its process is thrown away, or kept for the next one."""
        with self._changed:
            self._leases.discard(kernel)
            self._claims -= 1
            if kept and process is not None and not self._closing:
                self._taken.discard(process)
                self._ready.append(process)
                process = None
            self._changed.notify_all()
        self._replaced(process)

    def _check(self) -> None:
        if self._closing:
            raise SandboxError("the kernel pool is closed")
        if self._failure is not None:
            raise self._failure

    def _wait(self, deadline: float | None, what: str) -> None:
        left = None if deadline is None else deadline - time.monotonic()
        if left is not None and left <= 0:
            raise TimeoutError(what)
        self._changed.wait(left)

    def _wake(self) -> None:
        with self._changed, contextlib.suppress(BlockingIOError):
            if self._wake_write >= 0:
                os.write(self._wake_write, b"x")

    # The pool's own thread.

    def _run(self) -> None:
        from .kernel_starter import Starter

        starter = Starter(self)
        try:
            while not self._closing:
                try:
                    starter.step()
                    self._failures = 0 if starter.came_up() else self._failures
                except (SandboxError, OSError) as error:
                    self._failures += 1
                    starter.restart()
                    if self._failures >= MAX_FAILURES or starter.hopeless:
                        self._fail(error)
                        return
                    with self._changed:  # what is lacking may be back: descriptors, processes
                        self._changed.wait_for(lambda: self._closing, 0.2 * self._failures)
        except BaseException as error:
            self._fail(error)
            raise
        finally:
            starter.close()

    def _fail(self, error: BaseException) -> None:
        if not isinstance(error, SandboxError):
            error = SandboxError(f"the sandbox cannot make kernels: {error!r}")
        with self._changed:
            self._failure = error
            self._changed.notify_all()


def _close_at_exit(pool: KernelPool) -> Any:
    reference = weakref.ref(pool)

    def close() -> None:
        alive = reference()
        if alive is not None:
            alive.close()

    atexit.register(close)
    return close
