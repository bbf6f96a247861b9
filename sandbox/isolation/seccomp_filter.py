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
_LOAD, _JEQ, _JGE, _JSET, _RET, _AND = 0x20, 0x15, 0x35, 0x45, 0x06, 0x54
_X32 = 0x40000000
_NEW_NAMESPACES = 0x7E020080  # CLONE_NEW{TIME,NS,CGROUP,UTS,IPC,USER,PID,NET}

# Numbers on x86_64 and aarch64; None if the architecture has no such call.
_FORBIDDEN: dict[str, tuple[int | None, int | None]] = {
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
    "fsconfig": (431, 431),
    "fspick": (433, 433),
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
    "io_setup": (206, 0),  # its contexts are counted for all users together
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
# The network, and the sockets of other programs: socket, connect, bind and listen.
_SOCKET, _CONNECTING = (41, 198), ((42, 203), (49, 200), (50, 201))
_CLONE, _CLONE3, _KILL_CALL, _SECCOMP = (56, 220), (435, 435), (62, 129), (317, 277)
_SOCKET_PAIR, _PRCTL, _FCNTL, _FLOCK = (53, 199), (157, 167), (72, 25), (73, 32)
_SENDTO = (44, 206)
# Calls with flags of `send`, and the number of that argument.
_SENDS = ((_SENDTO, 3), ((46, 211), 2), ((307, 269), 3))  # sendto, sendmsg, sendmmsg
_FAST_OPEN = 0x20000000  # connects
# Calls of which some arguments must have one value: a process may change its own limits, priority
# and scheduling of disk access, not those of others, or of all of its user.
_OWN_ONLY = (
    ((302, 261), {0: 0}),  # prlimit64
    ((141, 140), {0: 0, 1: 0}),  # setpriority, with PRIO_PROCESS
    ((251, 30), {0: 1, 1: 0}),  # ioprio_set, with IOPRIO_WHO_PROCESS
)
# Calls that name a process in their first argument: sched_setparam, sched_setscheduler,
# sched_setattr, sched_setaffinity, migrate_pages and move_pages.
_SCHEDULING = ((142, 118), (144, 119), (314, 274), (203, 122), (256, 238), (279, 239))
# chmod, fchmod, fchmodat and fchmodat2; utime, utimes, futimesat and utimensat.
_MODES = ((90, None), (91, 52), (268, 53), (452, 452))
_TIMES = ((132, None), (235, None), (261, None), (280, 88))
# chown, fchown, lchown and fchownat; setxattr, lsetxattr and fsetxattr; removexattr and its kin.
_OWNERS = (
    *((92, None), (93, 55), (94, None), (260, 54), (188, 5), (189, 6), (190, 7)),
    *((197, 14), (198, 15), (199, 16), (463, 463), (466, 466)),
)
_PR_SET_DUMPABLE, _F_SETLEASE, _F_NOTIFY = 4, 1024, 1026
_AF_UNIX, _SOCK_STREAM, _SOCK_SEQPACKET, _SOCK_TYPE_MASK = 1, 1, 5, 0xF
# setsockopt, and its options for larger buffers: SO_SNDBUF, SO_RCVBUF, and both with ...FORCE.
_SETSOCKOPT, _BUFFER_SIZES = (54, 208), (7, 8, 32, 33)
_ARCHITECTURES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}


class FilterError(OSError):
    """The filter cannot be built or installed on this machine."""


def _step(code: int, value: int, yes: int = 0, no: int = 0) -> bytes:
    """Return one instruction; a jump skips `yes` or `no` of the following ones."""
    return struct.pack("<HBBI", code, yes, no, value)


def _argument(number: int, *, high: bool = False) -> bytes:
    """Load the low or high half of an argument."""
    return _step(_LOAD, _ARGUMENT_0 + 8 * number + (4 if high else 0))


def _for_call(number: int | None, rule: list[bytes]) -> list[bytes]:
    """Return the steps that apply `rule`, which must end in a return, to one system call."""
    return [] if number is None else [_step(_JEQ, number, 0, len(rule)), *rule]


def _all_equal(values: dict[int, int], refuse: bytes) -> list[bytes]:
    """Return the rule that arguments have these values."""
    rule: list[bytes] = []
    for argument, value in values.items():
        rule += [_argument(argument), _step(_JEQ, value, 1, 0), refuse]
    return [*rule, _step(_RET, _ALLOW)]


def _streams_only(refuse: bytes) -> list[bytes]:
    """Return the rule that the second argument is a type of connected sockets."""
    rule = [_argument(1), _step(_AND, _SOCK_TYPE_MASK), _step(_JEQ, _SOCK_STREAM, 2, 0)]
    return [*rule, _step(_JEQ, _SOCK_SEQPACKET, 1, 0), refuse, _step(_RET, _ALLOW)]


def _argument_rules(column: int, refuse: bytes, pretend: bytes) -> list[bytes]:
    """Return the rules on arguments that hold in every kernel."""
    allow = _step(_RET, _ALLOW)
    # A filter cannot read clone3's flags, which are in memory; libc falls back on clone.
    program = _for_call(_CLONE3[column], [_step(_RET, _ERRNO | errno.ENOSYS)])
    namespaces = [_argument(0), _step(_JSET, _NEW_NAMESPACES, 0, 1), refuse, allow]
    program += _for_call(_CLONE[column], namespaces)
    # kill(-1, ...) signals everything in reach, which no cell needs.
    everything = [_argument(0), _step(_JEQ, 0xFFFFFFFF, 0, 1), refuse, allow]
    program += _for_call(_KILL_CALL[column], everything)
    # A datagram reaches sockets by their paths, which nothing else guards.
    program += _for_call(_SOCKET_PAIR[column], _streams_only(refuse))
    # What a socket holds is charged to nobody, so that its size is what bounds it.
    sizes = [_argument(2)]
    for left, option in reversed(list(enumerate(reversed(_BUFFER_SIZES)))):
        sizes.append(_step(_JEQ, option, left + 1, 0))
    program += _for_call(_SETSOCKOPT[column], [*sizes, allow, pretend])
    for call, flags in _SENDS:
        rule = [_argument(flags), _step(_JSET, _FAST_OPEN, 0, 1), refuse]
        if call == _SENDTO:
            for high in (False, True):
                rule += [_argument(4, high=high), _step(_JEQ, 0, 1, 0), refuse]
        program += _for_call(call[column], [*rule, allow])
    for call, values in _OWN_ONLY:
        program += _for_call(call[column], _all_equal(values, refuse))
    # The pool reads what is open in a process only while that is dumpable.
    dumpable = [_argument(0), _step(_JEQ, _PR_SET_DUMPABLE, 0, 1), pretend, allow]
    program += _for_call(_PRCTL[column], dumpable)
    # Locks on files that all kernels can read would be a channel between them.
    program += _for_call(_FLOCK[column], [pretend])
    watch = [_argument(1), _step(_JEQ, _F_SETLEASE, 1, 0), _step(_JEQ, _F_NOTIFY, 0, 1)]
    return program + _for_call(_FCNTL[column], [*watch, refuse, allow])


def build_filter(
    machine: str, *, shared_processes: bool, shared_files: bool, shared_network: bool
) -> bytes:
    """Return the filter's program.

    Args:
        machine: the architecture, as ``platform.machine`` names it.
        shared_processes: True if the kernel sees processes other than its own.
        shared_files: True if files that are not its own belong to its user. Their modes and times
            then seem to change, and stay; a filter cannot tell them from the kernel's own.
        shared_network: True if sockets can reach other programs; else unix sockets are allowed.

    Raises:
        FilterError: there is no filter for the architecture.
    """
    if machine not in _ARCHITECTURES:
        raise FilterError(errno.ENOSYS, f"no filter for the architecture {machine}")
    column, architecture = _ARCHITECTURES[machine]
    refuse, pretend = _step(_RET, _ERRNO | errno.EPERM), _step(_RET, _ERRNO)
    program = [
        _step(_LOAD, _ARCHITECTURE),
        _step(_JEQ, architecture, 1, 0),
        _step(_RET, _KILL),
        _step(_LOAD, _NUMBER),
        _step(_JGE, _X32, 0, 1),
        refuse,
        *_argument_rules(column, refuse, pretend),
    ]
    if shared_network:
        for call in (_SOCKET, *_CONNECTING):
            program += _for_call(call[column], [refuse])
    else:
        unix = [_argument(0), _step(_JEQ, _AF_UNIX, 1, 0), refuse, *_streams_only(refuse)]
        program += _for_call(_SOCKET[column], unix)
    if shared_processes:
        # libzmq makes these calls for its own threads by number, and aborts if they fail.
        own = [_argument(0), _step(_JEQ, 0, 1, 0), pretend, _step(_RET, _ALLOW)]
        for scheduling in _SCHEDULING:
            program += _for_call(scheduling[column], own)
    if shared_files:
        for numbers in (*_MODES, *_TIMES):
            program += _for_call(numbers[column], [pretend])
        for numbers in _OWNERS:
            program += _for_call(numbers[column], [refuse])
    for forbidden in _FORBIDDEN.values():
        program += _for_call(forbidden[column], [refuse])
    return b"".join([*program, _step(_RET, _ALLOW)])


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_char_p))


def install(*, shared_processes: bool, shared_files: bool, shared_network: bool) -> None:
    """Install the filter in all threads of this process for good; this needs no-new-privileges.

    The arguments are those of `build_filter`.

    Raises:
        FilterError: the machine has no seccomp, or there is no filter for its architecture.
    """
    machine = platform.machine()
    instructions = build_filter(
        machine,
        shared_processes=shared_processes,
        shared_files=shared_files,
        shared_network=shared_network,
    )
    program = _Program(len(instructions) // 8, instructions)
    libc = ctypes.CDLL(None, use_errno=True)
    number = _SECCOMP[_ARCHITECTURES[machine][0]]
    if libc.syscall(
        number, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_TSYNC, ctypes.byref(program)
    ):
        error = ctypes.get_errno() or errno.EPERM
        raise FilterError(error, f"seccomp: {os.strerror(error)}")
