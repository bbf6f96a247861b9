"""Limits on what kernels use together, which the operating system's own limits cannot express."""

from __future__ import annotations

import os
import time
from pathlib import Path
from weakref import WeakKeyDictionary

from eightfold.common.host_memory import total_memory

from ..isolation import folder_view, process_tree
from .kernel_process import KernelProcess
from .pool_state import PoolState

INTERVAL = 0.25  # seconds between two checks
FIRST_PROCESSES = 2  # in a process namespace, and of a user: they are no cell's
SCAN_PAUSE = 40  # times as long as a look at a kernel's folder took, no other follows
MAX_ENTRIES = 20_000  # files and folders that a kernel's scratch folder may hold
SOCKET_BYTES = 256 << 10  # what a socket can hold, with Linux's usual buffers of 208 KiB

# Reasons that the text of a killed cell gives.
TOO_MUCH_DISK = "it filled its disk space"
TOO_MUCH_MEMORY = "its processes used too much memory together"
TOO_MANY_PROCESSES = "it started too many processes"
POOL_MEMORY = "all kernels together used too much memory, and it the most"


class LimitMonitor:
    """Kills kernels that exceed a limit on sums over processes, files or kernels.

    Rlimits bound single processes and files. This class bounds the memory of each kernel (that of
    its process tree, its files and what its sockets can hold), the number of its processes, the
    content of its scratch folder with the deleted files that it keeps open, and the memory of all
    kernels. Only the pool's own thread may use it.

    Args:
        state: the pool's state, which holds the limits and the processes.
    """

    def __init__(self, state: PoolState) -> None:
        self._state = state
        self._limits = state.config.limits
        self._pool_memory = state.config.memory or total_memory() * 3 // 4
        self._next_check = 0.0
        # Many files must not cost the pool's process more than a small share of its time.
        self._next_scan: WeakKeyDictionary[KernelProcess, float] = WeakKeyDictionary()
        self._free_disk = -1  # bytes free when deleted files were last looked for

    def enforce(self) -> None:
        """Check all kernels, unless the last check was less than `INTERVAL` ago."""
        if time.monotonic() < self._next_check:
            return
        processes = self._state.monitored()
        trees = {process: process_tree.tree_pids(process.root_pid) for process in processes}
        resident: dict[KernelProcess, int] = {}
        count_deleted = bool(processes) and self._disk_shrank(processes[0].folder)
        for process, pids in trees.items():
            resident[process] = process_tree.resident_bytes(pids) + self._uncharged(process)
            reason = self._excess(process, pids, resident[process], count_deleted)
            if reason:
                self._state.kill(process, reason)
        self._enforce_pool_memory(trees, resident)
        self._next_check = time.monotonic() + INTERVAL

    def _excess(
        self, process: KernelProcess, pids: list[int], resident: int, count_deleted: bool
    ) -> str | None:
        """Return the reason why this kernel must be killed, or None."""
        if process_tree.thread_count(pids) > self._limits.processes + FIRST_PROCESSES:
            return TOO_MANY_PROCESSES
        # `resident` counts shared pages in every process; most kernels are below the limit even so.
        limit = self._limits.memory
        if (
            resident > limit
            and process_tree.proportional_bytes(pids) + self._uncharged(process) > limit
        ):
            return TOO_MUCH_MEMORY
        if process.scratch is None:  # its files are on a file system of a fixed size
            return None
        began = time.monotonic()
        if began < self._next_scan.get(process, 0.0) and not count_deleted:
            return None
        size, entries = process_tree.folder_usage(process.scratch, MAX_ENTRIES)
        ended = time.monotonic()
        self._next_scan[process] = ended + SCAN_PAUSE * (ended - began)
        if count_deleted:
            size += process_tree.deleted_file_bytes(pids, process.device)
        return TOO_MUCH_DISK if size > self._limits.disk or entries > MAX_ENTRIES else None

    def _enforce_pool_memory(
        self, trees: dict[KernelProcess, list[int]], resident: dict[KernelProcess, int]
    ) -> None:
        """Kill the kernel that uses the most memory if all together use too much."""
        if sum(resident.values()) <= self._pool_memory:
            return
        used = {
            process: process_tree.proportional_bytes(pids) + self._uncharged(process)
            for process, pids in trees.items()
        }
        if sum(used.values()) > self._pool_memory:
            self._state.kill(max(used, key=used.__getitem__), POOL_MEMORY)

    def _uncharged(self, process: KernelProcess) -> int:
        """Return the bytes of memory for which no process of a kernel is charged."""
        if not process.has_namespaces:
            return 0
        own_network = self._state.config.transport == "ipc"
        sockets = process_tree.socket_count(process.pid) if own_network else 0
        return _memory_of_files(process) + sockets * SOCKET_BYTES

    def _disk_shrank(self, folder: Path) -> bool:
        """Return whether the disk has lost more than one kernel's limit since this last held.

        Deleted files are looked for only then: finding them means reading all descriptors.
        """
        try:
            status = os.statvfs(folder)
        except OSError:
            return False
        free = status.f_bavail * status.f_frsize
        shrank = self._free_disk - free > self._limits.disk
        if shrank or free > self._free_disk:
            self._free_disk = free
        return shrank


def _memory_of_files(process: KernelProcess) -> int:
    """Return the bytes that a kernel's files take of the memory.

    All that it writes lies in one file system, whose use includes deleted files.
    """
    try:
        status = os.statvfs(f"/proc/{process.pid}/root{folder_view.TEMPORARY}")
    except OSError:  # it has ended
        return 0
    return (status.f_blocks - status.f_bfree) * status.f_frsize
