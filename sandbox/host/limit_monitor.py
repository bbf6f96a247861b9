"""The eye on what kernels take that no limit of the operating system covers: sums over many."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

from eightfold.common.host_memory import total_memory

from ..isolation import process_tree
from .process_handles import KernelProcess

if TYPE_CHECKING:
    from .kernel_pool import KernelPool

SECONDS = 0.25  # between two looks
MAX_FILES = 20_000  # files and folders a kernel's scratch folder may hold

TOO_MUCH_DISK = "it filled its disk space"
TOO_MUCH_MEMORY = "its processes used too much memory together"
TOO_MANY_PROCESSES = "it started too many processes"
POOL_MEMORY = "all kernels together used too much memory, and it the most"


class Watch:
    """Kills the kernels that go beyond their limits; used by the pool's thread."""

    def __init__(self, pool: KernelPool) -> None:
        self.pool = pool
        self.limits = pool.config.limits
        self.together = pool.config.memory or total_memory() * 3 // 4
        self._next = 0.0
        self._free = -1  # bytes free on the disk when deleted files were last looked for

    def look(self) -> None:
        """Look at all kernels, where it is time."""
        now = time.monotonic()
        if now < self._next:
            return
        with self.pool._changed:
            # Nothing of a cell runs in those that wait, unless they are used again.
            waiting = self.pool._ready if self.pool.config.reset == "soft" else ()
            processes = [*waiting, *self.pool._taken]
        trees = {process: process_tree.tree_of(process.pid) for process in processes}
        resident: dict[KernelProcess, int] = {}
        deleted = bool(processes) and self._disk_shrank(processes[0].folder)
        for process, pids in trees.items():
            resident[process] = process_tree.resident(pids)
            reason = self._reason(process, pids, resident[process], deleted)
            if reason:
                self._kill(process, reason)
        self._look_together(trees, resident)
        self._next = time.monotonic() + SECONDS

    def _reason(
        self, process: KernelProcess, pids: list[int], resident: int, deleted: bool
    ) -> str | None:
        """Why this kernel must go, if it must."""
        if len(pids) > self.limits.processes:
            return TOO_MANY_PROCESSES
        # Shared pages are counted in every process: most kernels need no closer look.
        most = self.limits.memory
        if resident > most and process_tree.proportional(pids) > most:
            return TOO_MUCH_MEMORY
        size, files = process_tree.folder_usage(process.scratch, MAX_FILES)
        if deleted:
            size += process_tree.deleted_bytes(pids, process.device)
        return TOO_MUCH_DISK if size > self.limits.disk or files > MAX_FILES else None

    def _look_together(
        self, trees: dict[KernelProcess, list[int]], resident: dict[KernelProcess, int]
    ) -> None:
        """Kill the largest kernel where all together hold too much memory."""
        if sum(resident.values()) > self.together:
            held = {process: process_tree.proportional(pids) for process, pids in trees.items()}
            if sum(held.values()) > self.together:
                self._kill(max(held, key=held.__getitem__), POOL_MEMORY)

    def _disk_shrank(self, folder: Path) -> bool:
        """Whether the disk lost more than a kernel may take since this was last so."""
        try:
            status = os.statvfs(folder)
        except OSError:
            return False
        free = status.f_bavail * status.f_frsize
        shrank = self._free - free > self.limits.disk
        if shrank or free > self._free:
            self._free = free
        return shrank

    def _kill(self, process: KernelProcess, reason: str) -> None:
        with self.pool._changed:
            # Else it was closed meanwhile, and its descriptors may be others' by now.
            if process in self.pool._taken or process in self.pool._ready:
                process.death = reason
                process.kill()
