"""Which files a kernel may touch: Landlock, by ctypes (no package, no privilege needed).

Numbers are those of ``linux/landlock.h``; the system calls have one number on all architectures.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import stat
import struct
from collections.abc import Iterable
from pathlib import Path

_CREATE, _ADD, _RESTRICT = 444, 445, 446
_VERSION = 1
_PATH_BENEATH = 1

EXECUTE, WRITE_FILE, READ_FILE, READ_DIR = 1 << 0, 1 << 1, 1 << 2, 1 << 3
_BY_VERSION = {1: (1 << 13) - 1, 2: 1 << 13, 3: 1 << 14, 5: 1 << 15}
_TRUNCATE = 1 << 14
READ = EXECUTE | READ_FILE | READ_DIR
_FILE_RIGHTS = EXECUTE | WRITE_FILE | READ_FILE | _TRUNCATE | (1 << 15)
_NET_ALL = 0b11  # bind and connect, TCP; version 4
_SCOPE_ALL = 0b11  # abstract unix sockets and signals; version 6

_libc = ctypes.CDLL(None, use_errno=True)


def version() -> int:
    """Landlock's version here; 0 where it is missing or switched off."""
    found: int = _libc.syscall(_CREATE, None, ctypes.c_size_t(0), ctypes.c_uint(_VERSION))
    return max(found, 0)


def all_rights(abi: int) -> int:
    """Every file right that version `abi` knows."""
    return sum(bits for since, bits in _BY_VERSION.items() if since <= abi)


def _check(result: int, what: str) -> int:
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, f"Landlock: {what}: {os.strerror(code)}")
    return result


def restrict(readable: Iterable[Path], writable: Iterable[Path], *, network: bool) -> int:
    """Confine this thread, and what it starts, to these paths; the version used.

    Paths that do not exist are left out. With `network`, TCP is closed as well. Signals and
    abstract sockets reach no process outside, from version 6 on. Raises `OSError`.
    """
    abi = version()
    if abi < 1:
        raise OSError(errno.EOPNOTSUPP, "Landlock is not available")
    rights = all_rights(abi)
    net = _NET_ALL if network and abi >= 4 else 0
    attributes = struct.pack("<QQQ", rights, net, _SCOPE_ALL if abi >= 6 else 0)
    attributes = attributes[: 24 if abi >= 6 else 16 if abi >= 4 else 8]
    size = ctypes.c_size_t(len(attributes))
    ruleset = _check(_libc.syscall(_CREATE, attributes, size, ctypes.c_uint(0)), "create")
    try:
        for paths, allowed in ((readable, READ), (writable, rights)):
            for path in paths:
                _allow(ruleset, path, allowed & rights)
        _check(_libc.syscall(_RESTRICT, ruleset, ctypes.c_uint(0)), "restrict")
    finally:
        os.close(ruleset)
    return abi


def _allow(ruleset: int, path: Path, rights: int) -> None:
    with contextlib.suppress(FileNotFoundError, PermissionError, NotADirectoryError):
        fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
        try:
            if not stat.S_ISDIR(os.fstat(fd).st_mode):
                rights &= _FILE_RIGHTS
            rule = struct.pack("<Qi", rights, fd)
            _check(_libc.syscall(_ADD, ruleset, _PATH_BENEATH, rule, ctypes.c_uint(0)), str(path))
        finally:
            os.close(fd)
