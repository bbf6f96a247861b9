"""The files that kernels with namespaces see: a root of their own with what they may read.

The template builds the view once, as a mount of its own mount namespace. Each kernel adds a file
system in memory of a fixed size, which holds all that its cells write, and makes the view its root.
"""

from __future__ import annotations

import os
from pathlib import Path

from .mount_calls import (
    MS_BIND,
    MS_NODEV,
    MS_NOEXEC,
    MS_NOSUID,
    MS_PRIVATE,
    MS_RDONLY,
    MS_REC,
    MS_REMOUNT,
    bind,
    change_root,
    mount,
    unmount,
)

HOME = Path("/home/user")  # where cells run
TEMPORARY = Path("/tmp")
SHARED_MEMORY = Path("/dev/shm")
SOCKETS = Path("/run/kernel")  # the kernel's channels for Jupyter clients
PROGRAMS = Path("/run/bin")  # python and python3
MAX_FILES = 20_000
_DEVICES = ("null", "zero", "full", "random", "urandom")
_LINKS = {"fd": "/proc/self/fd", "stdin": "fd/0", "stdout": "fd/1", "stderr": "fd/2"}
# What cells write lies in one file system, below the home folders: place and folder in it.
_PARTS = {HOME: HOME.name, TEMPORARY: ".tmp", SHARED_MEMORY: ".shm"}
_PASSWD = "root:x:0:0:root:/root:/bin/sh\nuser:x:{uid}:{gid}:user:/home/user:/bin/sh\n"


def build_view(view: Path, readable: list[Path], programs: Path) -> None:
    """Build the part of the view that all kernels share.

    Args:
        view: an empty folder, which becomes a mount.
        readable: files and folders to show, at their own places; missing ones are left out.
        programs: folder of the programs ``python`` and ``python3``.

    Raises:
        OSError: the system refuses a mount.
    """
    mount("none", Path("/"), None, MS_REC | MS_PRIVATE)
    mount("tmpfs", view, "tmpfs", MS_NOSUID | MS_NODEV, "size=4m,mode=755")
    own = (HOME.parent, TEMPORARY, SHARED_MEMORY, SOCKETS, PROGRAMS, Path("/proc"), Path("/etc"))
    for path in own:
        _inside(view, path).mkdir(mode=0o755, parents=True, exist_ok=True)
    _inside(view, Path("/etc/passwd")).touch(0o644)
    for name in _DEVICES:
        _show(view, Path("/dev", name), devices=True)
    for name, target in _LINKS.items():
        _inside(view, Path("/dev", name)).symlink_to(target)
    bind(programs, _inside(view, PROGRAMS))
    _show_all(view, [path for path in readable if not _is_covered(path)])


def _show_all(view: Path, paths: list[Path]) -> None:
    """Show paths, except those within others."""
    shown: list[Path] = [Path("/etc/passwd")]
    for path in sorted(paths, key=lambda path: len(path.parts)):
        if not any(path == one or path.is_relative_to(one) for one in shown):
            shown += _show(view, path)


def _is_covered(path: Path) -> bool:
    """Return whether a kernel's own files cover the place of `path`."""
    return any(path.is_relative_to(cover) for cover in (HOME.parent, TEMPORARY, SHARED_MEMORY))


def _inside(view: Path, path: Path) -> Path:
    return view / path.relative_to("/")


def _show(view: Path, path: Path, *, devices: bool = False) -> list[Path]:
    """Show a path, or a link as a link; return what is shown now."""
    target = _inside(view, path)
    if path.is_symlink() and not path.parent.is_symlink():
        target.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        if not target.is_symlink():
            target.symlink_to(os.readlink(path))
        aim = Path(os.path.normpath(path.parent / os.readlink(path)))
        return [path, *(_show(view, aim) if not os.path.lexists(_inside(view, aim)) else [])]
    if not path.exists():
        return []
    if path.is_dir():
        target.mkdir(mode=0o755, parents=True, exist_ok=True)
    else:
        target.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        target.touch(0o644)
    bind(path, target, devices=devices)
    return [path]


def enter_view(
    view: Path,
    readable: list[Path],
    sockets: Path,
    disk: int,
    uid: int,
    gid: int,
    shown_uid: int,
) -> None:
    """Complete the view for one kernel and make it this mount namespace's root.

    The caller is the first process of a process namespace, and has a mount namespace of its own. It
    must then call `leave_old_root`.

    Args:
        view: the shared part, as `build_view` has left it.
        readable: what was shown there; what the kernel's own files cover is shown again.
        sockets: folder for the kernel's sockets, which is shown at `SOCKETS`.
        disk: bytes that the kernel's files may take together.
        uid: user id of the kernel, which owns these files.
        gid: group id of the kernel.
        shown_uid: user id of the kernel as it sees itself.

    Raises:
        OSError: the system refuses a mount.
    """
    written = _inside(view, HOME.parent)
    size = f"size={disk},nr_inodes={MAX_FILES},mode=755"
    mount("tmpfs", written, "tmpfs", MS_NOSUID | MS_NODEV, size)
    for path, part in _PARTS.items():
        folder = written / part
        folder.mkdir(mode=0o700)
        os.chown(folder, uid, gid)
        if path != HOME:
            mount(str(folder), _inside(view, path), None, MS_BIND)
    _show_all(view, [path for path in readable if _is_covered(path)])
    passwd = written / ".passwd"
    passwd.write_text(_PASSWD.format(uid=shown_uid, gid=shown_uid))
    passwd.chmod(0o644)
    bind(passwd, _inside(view, Path("/etc/passwd")))
    mount(str(sockets), _inside(view, SOCKETS), None, MS_BIND)
    mount("proc", _inside(view, Path("/proc")), "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC)
    change_root(view)
    mount("none", Path("/"), None, MS_REMOUNT | MS_BIND | MS_RDONLY | MS_NOSUID | MS_NODEV)


def leave_old_root() -> None:
    """Put what lies outside the view out of reach for good.

    Raises:
        OSError: the system refuses.
    """
    unmount(Path("."))
