"""The system calls that a kernel may not make: a seccomp filter, built and installed by ctypes.

Everything is allowed but what is listed: a maths library may call anything odd, so this is no
allow-list. Installed for all threads at once, after the kernel's own sockets are open.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import struct

SECCOMP_SET_MODE_FILTER = 1
SECCOMP_FILTER_FLAG_TSYNC = 1
_ALLOW = 0x7FFF0000
_ERRNO = 0x00050000
_KILL = 0x80000000
# Offsets into struct seccomp_data; arguments are little-endian u64.
_NR, _ARCH, _ARG0 = 0, 4, 16
# Classic BPF opcodes.
_LOAD, _JEQ, _JGE, _JSET, _RET = 0x20, 0x15, 0x35, 0x45, 0x06
_X32 = 0x40000000
_NEW_NAMESPACES = 0x7E020080  # CLONE_NEW{TIME,NS,CGROUP,UTS,IPC,USER,PID,NET} in clone's flags

# name: (x86_64, aarch64); None where the architecture has no such call.
_FORBIDDEN: dict[str, tuple[int | None, int | None]] = {
    # no network, no new servers, no reaching of other programs' sockets
    "socket": (41, 198),
    "connect": (42, 203),
    "bind": (49, 200),
    "listen": (50, 201),
    # other processes
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "process_madvise": (440, 440),
    "kcmp": (312, 272),
    "pidfd_getfd": (438, 438),
    "perf_event_open": (298, 241),
    # ways around the walls
    "unshare": (272, 97),
    "setns": (308, 268),
    "mount": (165, 40),
    "umount2": (166, 39),
    "pivot_root": (155, 41),
    "chroot": (161, 51),
    "open_tree": (428, 428),
    "move_mount": (429, 429),
    "fsopen": (430, 430),
    "fsmount": (432, 432),
    "mount_setattr": (442, 442),
    "open_by_handle_at": (304, 265),
    "io_uring_setup": (425, 425),
    "bpf": (321, 280),
    "userfaultfd": (323, 282),
    "keyctl": (250, 219),
    "add_key": (248, 217),
    "request_key": (249, 218),
    # who reads, writes and names what, behind Landlock's back
    "inotify_init": (253, None),
    "inotify_init1": (294, 26),
    "fanotify_init": (300, 262),
    # the machine
    "init_module": (175, 105),
    "finit_module": (313, 273),
    "delete_module": (176, 106),
    "kexec_load": (246, 104),
    "reboot": (169, 142),
    "swapon": (167, 224),
    "swapoff": (168, 225),
    "syslog": (103, 116),
    "acct": (163, 89),
    "quotactl": (179, 60),
    "settimeofday": (164, 170),
    "clock_settime": (227, 112),
    "adjtimex": (159, 171),
    "iopl": (172, None),
    "ioperm": (173, None),
    # memory that no process needs to have mapped, and so none is charged with
    "memfd_create": (319, 279),
    "memfd_secret": (447, 447),
    "shmget": (29, 194),
    "msgget": (68, 186),
    "semget": (64, 190),
    "mq_open": (240, 180),
}
_CLONE, _CLONE3, _KILL_CALL, _SECCOMP = (56, 220), (435, 435), (62, 129), (317, 277)
# Calls that name a process by an argument (its offset), where 0 is the caller. Not the scheduler's:
# libzmq makes them for its own threads by number, and aborts when they fail.
_OWN_ONLY = (
    ((302, 261), _ARG0),  # prlimit64
    ((141, 140), _ARG0 + 8),  # setpriority
)
_ARCHES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}


class FilterError(OSError):
    """The filter cannot be built or installed here."""


def _step(code: int, value: int, yes: int = 0, no: int = 0) -> bytes:
    return struct.pack("<HBBI", code, yes, no, value)


def build_filter(machine: str) -> bytes:
    """The filter's program for `machine` (as ``platform.machine`` names it)."""
    if machine not in _ARCHES:
        raise FilterError(errno.ENOSYS, f"no filter for the architecture {machine}")
    column, arch = _ARCHES[machine]
    refuse = _step(_RET, _ERRNO | errno.EPERM)
    program = [
        _step(_LOAD, _ARCH),
        _step(_JEQ, arch, 1, 0),
        _step(_RET, _KILL),
        _step(_LOAD, _NR),
        _step(_JGE, _X32, 0, 1),
        refuse,
        # Its flags lie in memory, where a filter cannot look: the C library falls back on clone.
        _step(_JEQ, _CLONE3[column], 0, 1),
        _step(_RET, _ERRNO | errno.ENOSYS),
        _step(_JEQ, _CLONE[column], 0, 4),
        _step(_LOAD, _ARG0),
        _step(_JSET, _NEW_NAMESPACES, 0, 1),
        refuse,
        _step(_RET, _ALLOW),
        # kill(-1, ...) reaches whatever it may: never meant well here.
        _step(_JEQ, _KILL_CALL[column], 0, 4),
        _step(_LOAD, _ARG0),
        _step(_JEQ, 0xFFFFFFFF, 0, 1),
        refuse,
        _step(_RET, _ALLOW),
    ]
    # Only a process's own limits and place, never another's.
    for own, argument in _OWN_ONLY:
        program += [
            _step(_JEQ, own[column], 0, 4),
            _step(_LOAD, argument),
            _step(_JEQ, 0, 1, 0),
            refuse,
            _step(_RET, _ALLOW),
        ]
    for numbers in _FORBIDDEN.values():
        number = numbers[column]
        if number is not None:
            program += [_step(_JEQ, number, 0, 1), refuse]
    return b"".join([*program, _step(_RET, _ALLOW)])


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_char_p))


def install() -> None:
    """Put the filter up for every thread of this process, for good.

    Needs no-new-privileges. Raises `FilterError` where the machine has no seccomp.
    """
    machine = platform.machine()
    code = build_filter(machine)
    program = _Program(len(code) // 8, code)
    libc = ctypes.CDLL(None, use_errno=True)
    number = _SECCOMP[_ARCHES[machine][0]]
    if libc.syscall(
        number, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_TSYNC, ctypes.byref(program)
    ):
        code_ = ctypes.get_errno() or errno.EPERM
        raise FilterError(code_, f"seccomp: {os.strerror(code_)}")
