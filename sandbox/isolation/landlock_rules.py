"""Landlock: which files a kernel may open. Called by ctypes; needs no package and no privilege.

The numbers are those of ``linux/landlock.h``. The system calls have the same numbers on all
architectures.
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

# Numbers of the system calls.
_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_CREATE_RULESET_VERSION = 1
_RULE_PATH_BENEATH = 1

EXECUTE, WRITE_FILE, READ_FILE, READ_DIR = 1 << 0, 1 << 1, 1 << 2, 1 << 3
_TRUNCATE, _IOCTL_DEVICE = 1 << 14, 1 << 15
_RIGHTS_BY_ABI = {1: (1 << 13) - 1, 2: 1 << 13, 3: _TRUNCATE, 5: _IOCTL_DEVICE}
_MAKE_SOCKET = 1 << 9
READ = EXECUTE | READ_FILE | READ_DIR
_FILE_RIGHTS = EXECUTE | WRITE_FILE | READ_FILE | _TRUNCATE | _IOCTL_DEVICE
_NETWORK_RIGHTS = 0b11  # bind and connect by TCP; ABI 4
_SCOPES = 0b11  # abstract unix sockets and signals; ABI 6

_libc = ctypes.CDLL(None, use_errno=True)


def abi_version() -> int:
    """Return the version of Landlock's ABI, or 0 if Landlock is missing or switched off."""
    found: int = _libc.syscall(
        _CREATE_RULESET, None, ctypes.c_size_t(0), ctypes.c_uint(_CREATE_RULESET_VERSION)
    )
    return max(found, 0)


def all_rights(abi: int) -> int:
    """Return all file rights that an ABI version knows."""
    return sum(bits for since, bits in _RIGHTS_BY_ABI.items() if since <= abi)


def restrict(
    readable: Iterable[Path], writable: Iterable[Path], sockets: Iterable[Path], *, network: bool
) -> int:
    """Confine this thread, and all that it starts, to some files for good.

    From ABI version 6 on, signals and abstract unix sockets reach no process outside either.

    Args:
        readable: files and folders that may be read and executed; missing ones are left out.
        writable: those that may be changed as well.
        sockets: folders in which unix sockets may be made, but not removed or replaced.
        network: forbid TCP too, from ABI version 4 on.

    Returns:
        The ABI version in use.

    Raises:
        OSError: Landlock is not available, or refuses.
    """
    abi = abi_version()
    if abi < 1:
        raise OSError(errno.EOPNOTSUPP, "Landlock is not available")
    rights = all_rights(abi)
    network_rights = _NETWORK_RIGHTS if network and abi >= 4 else 0
    attributes = struct.pack("<QQQ", rights, network_rights, _SCOPES if abi >= 6 else 0)
    attributes = attributes[: 24 if abi >= 6 else 16 if abi >= 4 else 8]
    size = ctypes.c_size_t(len(attributes))
    created = _libc.syscall(_CREATE_RULESET, attributes, size, ctypes.c_uint(0))
    ruleset = _check(created, "create")
    try:
        rules = ((readable, READ), (writable, rights), (sockets, READ_DIR | _MAKE_SOCKET))
        for paths, allowed in rules:
            for path in paths:
                _allow(ruleset, path, allowed & rights)
        _check(_libc.syscall(_RESTRICT_SELF, ruleset, ctypes.c_uint(0)), "restrict")
    finally:
        os.close(ruleset)
    return abi


def _check(result: int, action: str) -> int:
    """Return a system call's result, or raise its error."""
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, f"Landlock: {action}: {os.strerror(code)}")
    return result


def _allow(ruleset: int, path: Path, rights: int) -> None:
    with contextlib.suppress(FileNotFoundError, PermissionError, NotADirectoryError):
        fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
        try:
            if not stat.S_ISDIR(os.fstat(fd).st_mode):
                rights &= _FILE_RIGHTS
            rule = struct.pack("<Qi", rights, fd)
            added = _libc.syscall(_ADD_RULE, ruleset, _RULE_PATH_BENEATH, rule, ctypes.c_uint(0))
            _check(added, str(path))
        finally:
            os.close(fd)
