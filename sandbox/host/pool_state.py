"""The state that the parts of a kernel pool share.

`KernelPool`, `Kernel` (a lease), `KernelStarter` and `LimitMonitor` each depend on `PoolState` and
not on one another; only the pool knows the others, because it creates them.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any, Protocol, TypeVar

from eightfold.common.error_text import one_line

from ..pool_config import PoolConfig
from ..sandbox_errors import PortTakenError, SandboxError, SandboxOutageError
from .kernel_process import KernelProcess
from .wake_pipe import WakePipe


class Lease(Protocol):
    """The part of a lease that the state needs."""

    def release(self) -> None:
        """Give the lease's kernel back; safe to call twice."""


AnyLease = TypeVar("AnyLease", bound=Lease)
PORT_SECONDS = 2.0  # wait for a port that is taken; the program that has it may just be ending


def deadline_after(timeout: float | None) -> float | None:
    """Return the time on the monotonic clock in `timeout` seconds, or None for no deadline."""
    return None if timeout is None else time.monotonic() + timeout


class PoolState:
    """The kernel processes of a pool, the claims on them, and the reason why it ended.

    A kernel process is first starting, when only the `KernelStarter` knows it. Then it is ready,
    then leased, and closed when its lease ends. With ``reset="soft"`` it can be ready again.

    A claim is one of the `config.size` leases that may exist at once. It is counted from the moment
    that a caller begins to wait for a kernel. It has no process while it waits for its first one,
    or for a new one after its process was killed.

    All methods may be called from any thread. Deadlines are times on the monotonic clock; None
    means no deadline.

    Args:
        config: the pool's settings.
    """

    def __init__(self, config: PoolConfig) -> None:
        self.config = config
        self._changed = threading.Condition()  # guards everything below
        self._ready: deque[KernelProcess] = deque()
        self._leased: set[KernelProcess] = set()
        self._leases: set[Lease] = set()
        self._claims = 0
        self._started = 0
        self._protections: dict[str, Any] = {}
        self._failure: SandboxError | None = None
        self._outages = 0  # failures to make a kernel so far
        self._outage: str | None = None  # why kernels cannot be made at present
        self._port_taken_at: float | None = None  # time of the first failure for a taken port
        self._closing = False
        self._wake_pipe = WakePipe()
        # Held while a text is made, so that the copies which this takes exist once and not for
        # each of many kernels that fill their pages.
        self.text_lock = threading.Lock()

    @property
    def closing(self) -> bool:
        """True once `begin_close` was called."""
        return self._closing

    @property
    def started(self) -> int:
        """Number of kernels that have become ready since the pool was created."""
        return self._started

    def stats(self) -> dict[str, Any]:
        """Return the counts of kernels and the protections of the one that started last."""
        with self._changed:
            return {
                "ready": len(self._ready),
                "leased": self._claims,
                "started": self._started,
                "pids": [process.pid for process in (*self._ready, *self._leased)],
                "active": dict(self._protections),
                "outage": self._outage,
                "failures": self._outages,
            }

    def check(self) -> None:
        """Assert the invariants."""
        with self._changed:
            assert len(set(self._ready)) == len(self._ready)
            assert self._leased.isdisjoint(self._ready)
            assert 0 <= self._claims <= self.config.size
            assert len(self._leased) <= self._claims
            assert len(self._leases) <= self._claims
            assert len(self._ready) + len(self._leased) <= self._started

    # Claims and leases.

    def claim(self, deadline: float | None) -> None:
        """Wait until fewer than `config.size` kernels are claimed, then claim one.

        Raises:
            TimeoutError: the deadline has passed.
            SandboxError: the pool is closed or has failed.
        """
        with self._changed:
            while self._claims >= self.config.size:
                self._check_usable()
                self._wait(deadline, "All kernels are leased.")
            self._claims += 1

    def drop_claim(self) -> None:
        """Give up a claim that has become no lease."""
        with self._changed:
            self._claims -= 1
            self._changed.notify_all()

    def take_ready(self, deadline: float | None) -> KernelProcess:
        """Wait for a ready kernel process and return it; it counts as leased from then on.

        Raises:
            TimeoutError: the deadline has passed.
            SandboxError: the pool is closed or has failed.
        """
        with self._changed:
            while True:
                self._check_usable()
                while self._ready:
                    process = self._ready.popleft()
                    if process.alive():
                        self._leased.add(process)
                        self._wake_pipe.wake()
                        return process
                    process.close()
                self._wake_pipe.wake()
                self._wait(deadline, "No kernel became ready in time.")

    def open_lease(
        self, process: KernelProcess, make: Callable[[PoolState, KernelProcess], AnyLease]
    ) -> AnyLease:
        """Make and register the lease of a process that `take_ready` returned.

        This is one step under the lock, so `begin_close` either sees the lease or prevents it.
        On failure the process is closed.

        Raises:
            SandboxError: the pool is closed or has failed.
        """
        with self._changed:
            try:
                self._check_usable()
                lease = make(self, process)
            except BaseException:
                self.discard(process)
                raise
            self._leases.add(lease)
        return lease

    def close_lease(self, lease: Lease, process: KernelProcess | None, *, keep: bool) -> None:
        """End a lease and its claim.

        Args:
            lease: the lease.
            process: its process, or None if it has lost it.
            keep: return the process to the ready ones instead of closing it. It is closed anyway
                if the pool is closing.
        """
        with self._changed:
            self._leases.discard(lease)
            if process is not None:
                if keep and not self._closing:
                    self._leased.discard(process)
                    self._ready.append(process)
                else:
                    self.discard(process)
            self._claims -= 1
            self._changed.notify_all()
            self._wake_pipe.wake()

    def discard(self, process: KernelProcess) -> None:
        """Close a leased process; its claim remains, without a process."""
        with self._changed:
            self._leased.discard(process)
            process.close()
            self._wake_pipe.wake()

    def keeps_kernels(self) -> bool:
        """Return whether a kernel is reset and kept when its lease ends."""
        return self.config.reset == "soft" and not self._closing

    def wait_ready(self, count: int, deadline: float | None) -> None:
        """Wait until `count` kernels are ready.

        Raises:
            TimeoutError: the deadline has passed.
            SandboxError: the pool is closed or has failed.
        """
        with self._changed:
            while len(self._ready) < count:
                self._check_usable()
                self._wait(deadline, f"{len(self._ready)} of {count} kernels are ready.")

    def _check_usable(self) -> None:
        if self._closing:
            raise SandboxError("The kernel pool is closed.")
        if self._failure is not None:
            raise self._failure

    def _wait(self, deadline: float | None, message: str) -> None:
        now = time.monotonic()
        left = None if deadline is None else deadline - now
        hindered = self._port_taken_at is not None and now - self._port_taken_at > PORT_SECONDS
        if hindered or (left is not None and left <= 0):
            if self._outage is not None:
                raise SandboxOutageError(f"{message} {self._outage}")
            raise TimeoutError(message)
        self._changed.wait(left)

    # Starting kernels.

    @property
    def wake_fd(self) -> int:
        """A descriptor that becomes readable when more kernels may be needed, or at the end."""
        return self._wake_pipe.fileno()

    def clear_wake(self) -> None:
        """Make `wake_fd` unreadable until the next change."""
        self._wake_pipe.clear()

    def missing(self, starting: int) -> int:
        """Return how many more kernels to start if `starting` are on their way.

        Enough are wanted for every claim that waits for a process, and for every lease that could
        still be claimed, but at least `config.spares` beyond those that wait.
        """
        with self._changed:
            wanted = max(self.config.size - self._claims, self.config.spares)
            waiting = self._claims - len(self._leased)
            return max(0, wanted + waiting - len(self._ready) - starting)

    def add_ready(self, process: KernelProcess) -> None:
        """Make a kernel that has started available."""
        with self._changed:
            self._started += 1
            self._outage = self._port_taken_at = None
            self._protections = process.protections
            self._ready.append(process)
            self._changed.notify_all()

    def close_ready(self) -> None:
        """Close the ready kernels, for example because their template has ended."""
        with self._changed:
            while self._ready:
                self._ready.popleft().close()

    def retire_ready(self) -> bool:
        """Close the ready kernels if none is leased; return whether that was so.

        One step, so that nobody leases a kernel whose template is about to be replaced.
        """
        with self._changed:
            if not self._leased:
                self.close_ready()
            return not self._leased

    def fail(self, error: BaseException) -> None:
        """Let every later request for a kernel raise `error`, as a `SandboxError`."""
        if not isinstance(error, SandboxError):
            error = SandboxError(f"The sandbox cannot make kernels: {error!r}.")
        with self._changed:
            self._failure = error
            self._changed.notify_all()

    def report_outage(self, error: BaseException) -> None:
        """Note why no kernel could be made, for those who wait until their time is up."""
        text = str(error) if isinstance(error, SandboxError) else one_line(error)
        with self._changed:
            self._outage = text
            self._outages += 1
            if not isinstance(error, PortTakenError):
                self._port_taken_at = None
            elif self._port_taken_at is None:
                self._port_taken_at = time.monotonic()
            self._changed.notify_all()

    def pause(self, seconds: float) -> None:
        """Wait for `seconds`, or until the pool is closed."""
        with self._changed:
            self._changed.wait_for(lambda: self._closing, seconds)

    # Enforcing limits.

    def monitored(self) -> list[KernelProcess]:
        """Return the processes in which something that a cell started may be running.

        Ready kernels are among them only if kernels are used again (``reset="soft"``).
        """
        with self._changed:
            ready = self._ready if self.config.reset == "soft" else ()
            return [*ready, *self._leased]

    def kill(self, process: KernelProcess, reason: str) -> None:
        """Kill a process, unless it was closed meanwhile.

        The descriptors of a closed process may already be those of another one.

        Args:
            process: the process.
            reason: the reason that the cell's text gives, as in "it filled its disk space".
        """
        with self._changed:
            if process in self._leased or process in self._ready:
                process.kill_reason = process.kill_reason or reason  # the first is the cause
                process.kill()

    # Closing, in this order.

    def begin_close(self) -> list[Lease] | None:
        """Refuse further requests; return the open leases, or None if called before."""
        with self._changed:
            if self._closing:
                return None
            self._closing = True
            self._changed.notify_all()
            self._wake_pipe.wake()
            return list(self._leases)

    def close_processes(self) -> None:
        """Close the processes that are left."""
        with self._changed:
            self.close_ready()
            while self._leased:
                self._leased.pop().close()

    def finish_close(self) -> None:
        """Close the wake pipe, once no thread polls it."""
        with self._changed:  # another thread may still end a lease, which wakes
            self._wake_pipe.close()
