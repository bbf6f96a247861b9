"""What /proc tells of a process and all below it: which they are, their memory, deleted files."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterable
from pathlib import Path

MAX_PROCESSES = 2048  # processes listed; a fork bomb may make more
_PAGE = os.sysconf("SC_PAGE_SIZE")
_LISTED = os.path.exists(f"/proc/self/task/{os.getpid()}/children")  # CONFIG_PROC_CHILDREN


def _read(path: str) -> bytes:
    """A small file of /proc; pathlib takes three times as long, and many are read."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.read(fd, 1 << 16)
    finally:
        os.close(fd)


def child_pids(pid: int) -> list[int]:
    """The processes whose parent is `pid`."""
    found: list[int] = []
    with contextlib.suppress(OSError):  # it or one of its threads has ended
        if not _LISTED:
            return [child for child, parent in _parents() if parent == pid]
        for task in os.listdir(f"/proc/{pid}/task"):
            found += map(int, _read(f"/proc/{pid}/task/{task}/children").split())
    return found


def _parents() -> Iterable[tuple[int, int]]:
    """Every process with its parent."""
    for name in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError, ValueError, IndexError):
            yield int(name), int(_read(f"/proc/{name}/stat").rpartition(b")")[2].split()[1])


def tree_pids(pid: int) -> list[int]:
    """`pid` and all its descendants, at most `MAX_PROCESSES`.

    The list grows while it is walked: nearest first.
    """
    found = [pid]
    for one in found:
        found += child_pids(one)
        if len(found) >= MAX_PROCESSES:
            break
    return found[:MAX_PROCESSES]


def resident_bytes(pids: Iterable[int]) -> int:
    """Bytes of memory that the processes have mapped and filled, shared pages counted in each."""
    pages = 0
    for pid in pids:
        with contextlib.suppress(OSError, ValueError, IndexError):
            pages += int(_read(f"/proc/{pid}/statm").split()[1])
    return pages * _PAGE


def proportional_bytes(pids: Iterable[int]) -> int:
    """The same with each shared page counted in parts (PSS); slower.

    Where that may not be read, `resident_bytes` stands for it.
    """
    total = 0
    for pid in pids:
        try:
            text = _read(f"/proc/{pid}/smaps_rollup")
            total += int(text.partition(b"\nPss:")[2].split(maxsplit=1)[0]) * 1024
        except (OSError, ValueError, IndexError):
            total += resident_bytes([pid])
    return total


def deleted_file_bytes(pids: Iterable[int], device: int) -> int:
    """Bytes on `device` of files that the processes hold open and that no folder names any more."""
    found: dict[int, int] = {}
    for pid in pids:
        with contextlib.suppress(OSError):
            for fd in os.listdir(f"/proc/{pid}/fd"):
                with contextlib.suppress(OSError):
                    status = os.stat(f"/proc/{pid}/fd/{fd}")
                    nameless = stat.S_ISREG(status.st_mode) and not status.st_nlink
                    if nameless and status.st_dev == device:
                        found[status.st_ino] = status.st_blocks * 512
    return sum(found.values())


def folder_usage(folder: Path, max_entries: int) -> tuple[int, int]:
    """Bytes on disk and number of entries below `folder`, counted no further than `max_entries`.

    What cannot be looked into (no right to read, a path too long) counts as too many: it would
    otherwise hide what lies in it.
    """
    size = files = 0
    stack = [str(folder)]
    while stack and files <= max_entries:
        try:
            with os.scandir(stack.pop()) as entries:
                for entry in entries:
                    files += 1
                    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
                        size += entry.stat(follow_symlinks=False).st_blocks * 512
                        if entry.is_dir(follow_symlinks=False):
                            stack.append(entry.path)
                    if files > max_entries:
                        break
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError:
            return size, max_entries + 1
    return size, files
