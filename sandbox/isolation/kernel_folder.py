"""The folder of a kernel in the pool's folder, which a hostile kernel makes hard to remove."""

from __future__ import annotations

import contextlib
import os
import subprocess
from pathlib import Path


def make_kernel_folder(folder: Path, uid: int | None, *, scratch: bool) -> None:
    """Create a kernel's folder: in it the kernel's user owns the sockets and the scratch folder."""
    folder.mkdir(mode=0o711)
    for name in ("run", "scratch") if scratch else ("run",):
        (folder / name).mkdir(mode=0o700)
        if uid is not None:
            os.chown(folder / name, uid, uid)


# None of these is shutil.rmtree, which may close descriptors that are not its own in a very deep
# folder.


def start_removal(folder: Path) -> int:
    """Start a program that removes a kernel's folder, and return its process id.

    Raises:
        OSError: the machine lacks processes or memory.
    """
    script = 'rm -rf "$1" || { chmod -R u+rwX "$1"; rm -rf "$1"; }'
    command = ["sh", "-c", script, "sh", str(folder)]
    quiet = [(os.POSIX_SPAWN_OPEN, 2, os.devnull, os.O_WRONLY, 0)]
    return os.posix_spawnp("sh", command, os.environ, file_actions=quiet)


def remove_tree(path: Path) -> None:
    """Remove a folder whatever its owner did to it: very deep, or without permissions."""
    if path.exists():
        for command in (["chmod", "-R", "u+rwX", str(path)], ["rm", "-rf", str(path)]):
            with contextlib.suppress(OSError):
                subprocess.run(command, stderr=subprocess.DEVNULL, check=False)
