"""A process tree as /proc shows it: its members, their memory and the deleted files they hold."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterable
from pathlib import Path

MAX_PROCESSES = 2048  # processes listed; a fork bomb may make more
_COUNTED = (b"VmRSS:", b"VmPTE:", b"VmSwap:")  # what of a process's memory counts, in its status
# Linux lists children only if it was built with CONFIG_PROC_CHILDREN.
_LISTS_CHILDREN = os.path.exists(f"/proc/self/task/{os.getpid()}/children")


def _read(path: str) -> bytes:
    """Return the content of a small file; many are read, and pathlib takes three times as long."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.read(fd, 1 << 16)
    finally:
        os.close(fd)


def child_pids(pid: int) -> list[int]:
    """Return the processes whose parent is `pid`."""
    found: list[int] = []
    with contextlib.suppress(OSError):  # the process, or one of its threads, has ended
        if not _LISTS_CHILDREN:
            return [child for child, parent in _all_parents() if parent == pid]
        for task in os.listdir(f"/proc/{pid}/task"):
            found += map(int, _read(f"/proc/{pid}/task/{task}/children").split())
    return found


def _all_parents() -> Iterable[tuple[int, int]]:
    """Yield each process with its parent."""
    for name in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError, ValueError, IndexError):
            yield int(name), int(_read(f"/proc/{name}/stat").rpartition(b")")[2].split()[1])


def tree_pids(pid: int) -> list[int]:
    """Return `pid` and its descendants, nearest first, at most `MAX_PROCESSES`."""
    found = [pid]
    for each in found:  # the list grows during the loop
        found += child_pids(each)
        if len(found) >= MAX_PROCESSES:
            break
    return found[:MAX_PROCESSES]


def thread_count(pids: Iterable[int]) -> int:
    """Return the number of threads of the processes."""
    count = 0
    for pid in pids:
        with contextlib.suppress(OSError):
            count += os.stat(f"/proc/{pid}/task").st_nlink - 2
    return count


def resident_bytes(pids: Iterable[int]) -> int:
    """Return the memory of the processes with their page tables and what is swapped out.

    Pages that they share count once for each (RSS).
    """
    return sum(sum(_status_bytes(pid)) for pid in pids)


def _status_bytes(pid: int) -> list[int]:
    """Return the bytes of `_COUNTED`; all are 0 for a process that has ended."""
    found = [0, 0, 0]
    with contextlib.suppress(OSError):
        text = _read(f"/proc/{pid}/status")
        for place, name in enumerate(_COUNTED):
            head = text.partition(name)[2].split(maxsplit=1)[:1]
            found[place] = int(head[0]) * 1024 if head else 0
    return found


def proportional_bytes(pids: Iterable[int]) -> int:
    """Return the same with each shared page divided among its users (PSS).

    This is slower than `resident_bytes`, which is used for processes whose PSS cannot be read.
    """
    total = 0
    for pid in pids:
        try:
            text = _read(f"/proc/{pid}/smaps_rollup")
            total += int(text.partition(b"\nPss:")[2].split(maxsplit=1)[0]) * 1024
            total += sum(_status_bytes(pid)[1:])
        except (OSError, ValueError, IndexError):
            total += resident_bytes([pid])
    return total


def socket_count(pid: int) -> int:
    """Return the number of sockets in a process's network namespace; 0 if that cannot be read."""
    try:
        return int(_read(f"/proc/{pid}/net/sockstat").split(maxsplit=3)[2])
    except (OSError, ValueError, IndexError):
        return 0


def deleted_file_bytes(pids: Iterable[int], device: int) -> int:
    """Return the size on `device` of the deleted files that the processes keep open."""
    found: dict[int, int] = {}
    for pid in pids:
        with contextlib.suppress(OSError):
            for fd in os.listdir(f"/proc/{pid}/fd"):
                with contextlib.suppress(OSError):
                    status = os.stat(f"/proc/{pid}/fd/{fd}")
                    deleted = stat.S_ISREG(status.st_mode) and not status.st_nlink
                    if deleted and status.st_dev == device:
                        found[status.st_ino] = status.st_blocks * 512
    return sum(found.values())


def folder_usage(folder: Path, max_entries: int) -> tuple[int, int]:
    """Return the bytes on disk and the number of entries below `folder`.

    Counting ends soon after `max_entries`. A folder that cannot be listed, for lack of permission
    or because its path is too long, counts as too many entries: anything could be hidden in it.
    """
    size = entries = 0
    stack = [str(folder)]
    while stack and entries <= max_entries:
        try:
            with os.scandir(stack.pop()) as listed:
                for entry in listed:
                    entries += 1
                    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
                        size += entry.stat(follow_symlinks=False).st_blocks * 512
                        if entry.is_dir(follow_symlinks=False):
                            stack.append(entry.path)
                    if entries > max_entries:
                        break
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError:
            return size, max_entries + 1
    return size, entries
