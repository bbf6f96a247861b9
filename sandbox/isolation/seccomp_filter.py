"""The system calls that a kernel may not make: a seccomp filter, built and installed by ctypes.

Everything is allowed except what is listed, because a mathematical library may call anything. The
filter is installed for all threads at once, after the kernel has opened its own sockets.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import struct

# linux/seccomp.h
SECCOMP_SET_MODE_FILTER = 1
SECCOMP_FILTER_FLAG_TSYNC = 1
_ALLOW = 0x7FFF0000
_ERRNO = 0x00050000
_KILL = 0x80000000
# Offsets into struct seccomp_data; arguments are little-endian u64.
_NUMBER, _ARCHITECTURE, _ARGUMENT_0 = 0, 4, 16
# Opcodes of classic BPF.
_LOAD, _JEQ, _JGE, _JSET, _RET = 0x20, 0x15, 0x35, 0x45, 0x06
_X32 = 0x40000000
_NEW_NAMESPACES = 0x7E020080  # CLONE_NEW{TIME,NS,CGROUP,UTS,IPC,USER,PID,NET}

# Numbers on x86_64 and aarch64; None if the architecture has no such call.
_FORBIDDEN: dict[str, tuple[int | None, int | None]] = {
    # the network, and the sockets of other programs
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
    # ways out of the isolation
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
    # watching files that Landlock hides
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
    # memory that no process need map, so that none is charged with it
    "memfd_create": (319, 279),
    "memfd_secret": (447, 447),
    "shmget": (29, 194),
    "msgget": (68, 186),
    "semget": (64, 190),
    "mq_open": (240, 180),
}
_CLONE, _CLONE3, _KILL_CALL, _SECCOMP = (56, 220), (435, 435), (62, 129), (317, 277)
# Calls that name a process, and the offset of that argument; 0 stands for the caller. Those of the
# scheduler are not among them: libzmq makes them for its own threads by number, and aborts if they
# fail.
_OWN_ONLY = (
    ((302, 261), _ARGUMENT_0),  # prlimit64
    ((141, 140), _ARGUMENT_0 + 8),  # setpriority
)
_ARCHITECTURES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}


class FilterError(OSError):
    """The filter cannot be built or installed on this machine."""


def _step(code: int, value: int, yes: int = 0, no: int = 0) -> bytes:
    """Return one instruction; a jump skips `yes` or `no` of the following ones."""
    return struct.pack("<HBBI", code, yes, no, value)


def build_filter(machine: str) -> bytes:
    """Return the filter's program.

    Args:
        machine: the architecture, as ``platform.machine`` names it.

    Raises:
        FilterError: there is no filter for the architecture.
    """
    if machine not in _ARCHITECTURES:
        raise FilterError(errno.ENOSYS, f"no filter for the architecture {machine}")
    column, architecture = _ARCHITECTURES[machine]
    refuse = _step(_RET, _ERRNO | errno.EPERM)
    program = [
        _step(_LOAD, _ARCHITECTURE),
        _step(_JEQ, architecture, 1, 0),
        _step(_RET, _KILL),
        _step(_LOAD, _NUMBER),
        _step(_JGE, _X32, 0, 1),
        refuse,
        # A filter cannot read clone3's flags, which are in memory; libc falls back on clone.
        _step(_JEQ, _CLONE3[column], 0, 1),
        _step(_RET, _ERRNO | errno.ENOSYS),
        _step(_JEQ, _CLONE[column], 0, 4),
        _step(_LOAD, _ARGUMENT_0),
        _step(_JSET, _NEW_NAMESPACES, 0, 1),
        refuse,
        _step(_RET, _ALLOW),
        # kill(-1, ...) signals everything in reach, which no cell needs.
        _step(_JEQ, _KILL_CALL[column], 0, 4),
        _step(_LOAD, _ARGUMENT_0),
        _step(_JEQ, 0xFFFFFFFF, 0, 1),
        refuse,
        _step(_RET, _ALLOW),
    ]
    # A process may change its own limits and priority, not another's.
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
    """Install the filter in all threads of this process for good; this needs no-new-privileges.

    Raises:
        FilterError: the machine has no seccomp, or there is no filter for its architecture.
    """
    machine = platform.machine()
    instructions = build_filter(machine)
    program = _Program(len(instructions) // 8, instructions)
    libc = ctypes.CDLL(None, use_errno=True)
    number = _SECCOMP[_ARCHITECTURES[machine][0]]
    if libc.syscall(
        number, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_TSYNC, ctypes.byref(program)
    ):
        error = ctypes.get_errno() or errno.EPERM
        raise FilterError(error, f"seccomp: {os.strerror(error)}")
