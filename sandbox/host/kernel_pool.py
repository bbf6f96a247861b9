"""The pool of kernels: keeps kernels ready, leases them, and replaces those that were used.

Module state: each open pool has one function registered with `atexit`, so that the kernels of a
pool that nobody closed end with the program. `KernelPool.close` unregisters it.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import threading
import time
import weakref
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

from ..pool_config import PoolConfig
from ..sandbox_errors import PermanentError
from .kernel_starter import KernelStarter
from .leased_kernel import Kernel
from .limit_monitor import INTERVAL, LimitMonitor
from .pool_state import PoolState, deadline_after

RETRY_SECONDS = 0.2  # pause after a failure to start; it doubles with each further one
MAX_RETRY_SECONDS = 5.0
FAILURES_OF_A_TEMPLATE = 3  # failures in a row after which a template is replaced, though it lives


class KernelPool(AbstractContextManager["KernelPool"]):
    """Up to `config.size` leased Jupyter kernels, each a fresh fork of a warm template.

    The constructor starts everything in the background and returns at once, so that a model can be
    loaded meanwhile. `lease` and `wait_ready` wait for kernels; if none comes in time, they raise
    what went wrong. The pool itself tries on for as long as it is open.

    Args:
        config: the pool's settings.
    """

    def __init__(self, config: PoolConfig | None = None) -> None:
        self.config = config or PoolConfig()
        self._state = PoolState(self.config)
        self._starter = KernelStarter(self._state)
        self._owner = os.getpid()
        self._thread = threading.Thread(target=self._run, name="kernel-pool", daemon=True)
        self._at_exit = _close_at_exit(self)
        self._thread.start()

    def __exit__(self, *error: object) -> None:
        self.close()

    def lease(self, timeout: float | None = None) -> Kernel:
        """Return a kernel that nobody has used before.

        The kernel is a context manager; without ``with``, call its `release`.

        Args:
            timeout: seconds to wait for a kernel; None waits as long as it takes.

        Raises:
            TimeoutError: no kernel was free within `timeout`.
            SandboxOutageError: the same, because kernels cannot be made at present.
            SandboxError: the pool is closed, or lacks protections that `strict` demands.
        """
        deadline = deadline_after(timeout)
        self._state.claim(deadline)
        try:
            return self._state.open_lease(self._state.take_ready(deadline), Kernel)
        except BaseException:
            self._state.drop_claim()
            raise

    def wait_ready(self, count: int | None = None, timeout: float | None = None) -> None:
        """Wait until kernels are ready to be leased.

        Args:
            count: number of kernels to wait for; None means the pool's size.
            timeout: seconds to wait; None waits as long as it takes.

        Raises:
            TimeoutError: too few kernels were ready within `timeout`.
            SandboxOutageError: the same, because kernels cannot be made at present.
            SandboxError: the pool is closed, or lacks protections that `strict` demands.
        """
        wanted = self.config.size if count is None else count
        self._state.wait_ready(wanted, deadline_after(timeout))

    def stats(self) -> dict[str, Any]:
        """Return counts of kernels, how they start, and the protections of the latest one."""
        template = self._starter.template
        return {
            **self._state.stats(),
            "start": template.mode if template else None,
            "start_note": template.start_note if template else None,
            "template_pid": template.pid if template else None,
            "folder": str(template.root) if template else None,
        }

    def close(self) -> None:
        """End all kernels and the template, and remove their folders. Safe to call twice."""
        if os.getpid() != self._owner:  # a fork of this process has no part in the pool
            return
        leases = self._state.begin_close()
        if leases is None:
            return
        atexit.unregister(self._at_exit)
        self._thread.join()
        for lease in leases:
            lease.release()
        self._state.close_processes()
        self._starter.close()
        self._state.finish_close()

    def _run(self) -> None:
        """Start kernels and enforce their limits; runs in the pool's own thread.

        Whatever fails is tried again for as long as the pool is open: causes such as a full disk
        pass.
        """
        state, starter = self._state, self._starter
        failures = started = 0
        retry_at = 0.0
        try:
            monitor = LimitMonitor(state)
            while not state.closing:
                try:
                    if time.monotonic() >= retry_at:
                        starter.step(INTERVAL)
                    else:
                        state.pause(min(INTERVAL, retry_at - time.monotonic()))
                    monitor.enforce()
                    if state.started > started:
                        failures, started = 0, state.started
                except Exception as error:
                    failures += 1
                    # A template is replaced only while no lease would lose its kernel.
                    force = failures % FAILURES_OF_A_TEMPLATE == 0 and state.retire_ready()
                    with contextlib.suppress(OSError):
                        starter.restart(force=force)
                    if isinstance(error, PermanentError):
                        state.fail(error)
                        return
                    state.report_outage(error)
                    pause = RETRY_SECONDS * 2 ** min(failures - 1, 10)
                    retry_at = time.monotonic() + min(pause, MAX_RETRY_SECONDS)
        except BaseException as error:
            state.fail(error)
            raise
        finally:
            starter.abandon()


def _close_at_exit(pool: KernelPool) -> Callable[[], None]:
    """Close the pool when the program ends, without keeping it alive until then."""
    reference = weakref.ref(pool)

    def close() -> None:
        alive = reference()
        if alive is not None:
            alive.close()

    atexit.register(close)
    return close
