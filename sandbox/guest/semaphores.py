"""Semaphores of `multiprocessing` in memory that a process shares with its children alone.

Python's own ones lie in ``/dev/shm``, which a kernel without its own file system must not reach:
all programs of the machine share it.

Module state: `install` replaces the classes and functions that `multiprocessing` uses, once, in a
kernel.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import importlib
import mmap
import os
import tempfile
import threading
import time
from typing import Any

_SIZE = mmap.PAGESIZE  # of the memory; sem_t takes 32 bytes of it
RECURSIVE_MUTEX = 0
_libc = ctypes.CDLL(None, use_errno=True)


class _TimeSpec(ctypes.Structure):
    _fields_ = (("seconds", ctypes.c_long), ("nanoseconds", ctypes.c_long))


def _path(name: str) -> str:
    """Return the file behind a named semaphore, which processes that are not forked open."""
    return os.path.join(tempfile.gettempdir(), f"sem{name.replace('/', '.')}")


class SemLock:
    """A semaphore or recursive lock, with the interface of ``_multiprocessing.SemLock``.

    Args:
        kind: `RECURSIVE_MUTEX`, or another number for a semaphore.
        value: the initial value.
        maxvalue: the greatest value.
        name: name under which other processes can open it.
        unlink: no process will open it by its name.

    Attributes:
        handle: address of the semaphore.
    """

    SEM_VALUE_MAX = 2**31 - 1

    def __init__(self, kind: int, value: int, maxvalue: int, name: str, unlink: bool) -> None:
        self._attach(kind, maxvalue, name, None if unlink else os.O_CREAT | os.O_EXCL)
        _libc.sem_init(self._semaphore, 1, ctypes.c_uint(value))

    def _attach(self, kind: int, maxvalue: int, name: str, flags: int | None) -> None:
        self.kind, self.maxvalue, self.name = kind, maxvalue, name
        self._held = 0
        self._owner = 0
        if flags is None:
            self._memory = mmap.mmap(-1, _SIZE)
        else:
            fd = os.open(_path(name), os.O_RDWR | os.O_CLOEXEC | flags, 0o600)
            try:
                if flags:
                    os.ftruncate(fd, _SIZE)
                self._memory = mmap.mmap(fd, _SIZE)
            finally:
                os.close(fd)
        self._bytes = (ctypes.c_char * _SIZE).from_buffer(self._memory)
        self.handle = ctypes.addressof(self._bytes)
        self._semaphore = ctypes.c_void_p(self.handle)

    @classmethod
    def _rebuild(cls, handle: int, kind: int, maxvalue: int, name: str) -> SemLock:
        lock = cls.__new__(cls)
        lock._attach(kind, maxvalue, name, 0)
        return lock

    def acquire(self, block: bool = True, timeout: float | None = None) -> bool:
        """Take one, and wait for it if `block`; return whether it was taken."""
        if self.kind == RECURSIVE_MUTEX and self._is_mine():
            self._held += 1
            return True
        limit = None
        if block and timeout is not None:
            nanoseconds = time.time_ns() + int(max(timeout, 0.0) * 1e9)
            limit = ctypes.byref(_TimeSpec(*divmod(nanoseconds, 10**9)))
        while True:  # until no signal interrupts it
            if not block:
                result = _libc.sem_trywait(self._semaphore)
            elif limit is None:
                result = _libc.sem_wait(self._semaphore)
            else:
                result = _libc.sem_timedwait(self._semaphore, limit)
            if result == 0:
                self._held += 1
                self._owner = threading.get_ident()
                return True
            if ctypes.get_errno() != errno.EINTR:
                return False

    def release(self) -> None:
        """Give one back.

        Raises:
            AssertionError: another thread holds the recursive lock.
            ValueError: it has its greatest value already.
        """
        if self.kind == RECURSIVE_MUTEX:
            if not self._is_mine():
                raise AssertionError("attempt to release recursive lock not owned by thread")
            if self._held > 1:
                self._held -= 1
                return
        elif self._get_value() >= self.maxvalue:
            raise ValueError("semaphore or lock released too many times")
        self._held -= 1
        _libc.sem_post(self._semaphore)

    __enter__ = acquire

    def __exit__(self, *error: object) -> None:
        self.release()

    def _count(self) -> int:
        return self._held

    def _is_mine(self) -> bool:
        return self._held > 0 and self._owner == threading.get_ident()

    def _get_value(self) -> int:
        value = ctypes.c_int()
        _libc.sem_getvalue(self._semaphore, ctypes.byref(value))
        return value.value

    def _is_zero(self) -> bool:
        return self._get_value() == 0

    def _after_fork(self) -> None:
        self._held = 0


def _unlink(name: str) -> None:
    """Remove the file of a named semaphore, unless it has none."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(_path(name))


def install() -> None:
    """Let `multiprocessing` use these semaphores, and temporary files for shared values."""
    native: Any = importlib.import_module("_multiprocessing")
    synchronize: Any = importlib.import_module("multiprocessing.synchronize")
    heap: Any = importlib.import_module("multiprocessing.heap")
    native.SemLock = SemLock
    synchronize.sem_unlink = _unlink
    heap.Arena._dir_candidates = []
