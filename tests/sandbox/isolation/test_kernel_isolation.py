"""Files, calls and secrets that a kernel cannot reach, and what it still can do. About 5 s."""

import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from eightfold.sandbox import KernelPool, PoolConfig
from eightfold.sandbox.isolation.privilege_drop import interpreter_paths


@pytest.fixture(scope="module")
def pool() -> Iterator[KernelPool]:
    with KernelPool(PoolConfig(size=2, spares=1, timeout=60)) as pool:
        pool.wait_ready(2, timeout=60)
        yield pool


DENIED = {
    "files": [
        "open('/etc/hostname').read()",
        f"open({str(Path(__file__).resolve())!r}).read()",
        f"__import__('os').listdir({str(Path(__file__).resolve().parent)!r})",
        "open(f'/proc/{PARENT}/environ').read()",
        "open(OTHER).read()",
        "open('../zz', 'w')",
        "__import__('os').rename('../' + __import__('os').path.basename(HOME), '../zz')",
        "__import__('os').symlink('/tmp', SOCKETS + '/k-9')",
        "__import__('os').remove(SOCKETS + '/k-1')",
        "__import__('os').rename(SOCKETS + '/k-1', SOCKETS + '/k-9')",
        "open(SOCKETS + '/zz', 'w')",
        "__import__('os').chmod(__import__('numpy').__file__, 0)",
        "open(__import__('numpy').__file__, 'a')",
        "__import__('os').symlink('/etc', 'link'), open('link/hostname').read()",
        "__import__('os').link('/etc/hostname', 'hard')",
    ],
    "gpu": ["open('/dev/ptmx', 'rb')"],  # any device file that is not among _DEVICES
    "network": [
        "__import__('socket').socket()",
        "__import__('urllib.request').request.urlopen('http://127.0.0.1:9')",
        "s = __import__('socket')\ns.socket(s.AF_UNIX).connect(OUTER)",
        "s = __import__('socket')\ns.socket(s.AF_UNIX).connect('\\0eightfold-test')",
        "s = __import__('socket')\ns.socket(s.AF_NETLINK, s.SOCK_RAW)",
        "s = __import__('socket')\ns.socket(s.AF_UNIX, s.SOCK_DGRAM)",
        "s = __import__('socket')\ns.socketpair(s.AF_UNIX, s.SOCK_DGRAM)[0].sendto(b'x', OUTER)",
        "s = __import__('socket')\ns.socketpair()[0].sendmsg([b'x'], [], 0x20000000)",
    ],
    "signals": [
        "__import__('os').kill(PARENT, 0)",
        "__import__('os').kill(SIBLING, 0)",
        "__import__('os').kill(-1, 0)",
        "__import__('os').sched_setscheduler(PARENT, 5, __import__('os').sched_param(0))",
        "__import__('os').sched_setaffinity(PARENT, [0])",
        "__import__('os').setpriority(__import__('os').PRIO_PROCESS, PARENT, 15)",
        "__import__('os').setpriority(__import__('os').PRIO_USER, 0, 15)",
    ],
    "calls": [
        "call('ptrace', 16, PARENT, 0, 0)",  # PTRACE_ATTACH
        "call('ptrace', 16, SIBLING, 0, 0)",
        "call('unshare', 0x10000000)",  # CLONE_NEWUSER, which needs no privilege
        "call('mount', b'none', b'scratch', b'tmpfs', 0, 0)",
        "call('inotify_init')",
        "call('syscall', 206, 100, 0)",  # io_setup, whose contexts all users share
        "__import__('fcntl').fcntl(open(__import__('os').__file__), 1024, 0)",  # F_SETLEASE
    ],
    "processes": ["[__import__('subprocess').Popen(['sleep', '9']) for _ in range(200)]"],
    "limits": ["bytearray(6 << 30)"],
}
NAMES = """\
PARENT, SIBLING, OTHER, OUTER, HOME = {}, {}, {!r}, {!r}, __import__('os').getcwd()
SOCKETS = get_ipython().kernel.shell_stream.socket.LAST_ENDPOINT[len(b'ipc://'):].decode()
SOCKETS = __import__('os').path.dirname(SOCKETS)
def call(name, *arguments):
    import ctypes, os
    if getattr(ctypes.CDLL(None, use_errno=True), name)(*arguments) < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
"""
REFUSALS = (
    *("PermissionError", "FileNotFoundError", "ProcessLookupError", "OSError"),
    *("URLError", "MemoryError", "BlockingIOError", "ConnectionRefusedError"),
)
ALLOWED = [
    "__import__('subprocess').run(['echo', 'x'], capture_output=True).stdout.decode()",
    "open('f', 'w').write('abc'), open('f').read()",
    "__import__('wave').__name__",
    "__import__('tempfile').mkdtemp() != ''",
    "__import__('threading').active_count() > 0",
    "__import__('sqlite3').connect(':memory:').execute('select 7').fetchone()",
]


@pytest.fixture
def outer_socket() -> Iterator[tuple[Path, socket.socket]]:
    """A socket of another program, to which everybody may write."""
    with (
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as outer,
        socket.socket(socket.AF_UNIX) as abstract,  # everybody in this network may connect
        tempfile.TemporaryDirectory(dir="/tmp") as folder,
    ):
        path = Path(folder, "s")
        outer.bind(str(path))
        for each in (path, path.parent):
            each.chmod(0o777)
        outer.setblocking(False)
        abstract.bind("\0eightfold-test")
        abstract.listen()
        yield path, outer


@pytest.mark.parametrize("kind", DENIED)
def test_attempts_to_reach_outside_are_denied(
    pool: KernelPool, outer_socket: tuple[Path, socket.socket], kind: str
) -> None:
    with pool.lease(timeout=60) as kernel, pool.lease(timeout=60) as other:
        active = pool.stats()["active"]
        if kind not in active["protections"]:
            pytest.skip(active["without"][kind])
        outer = str(outer_socket[0])
        names = NAMES.format(os.getpid(), other.pid, str(other.connection_file), outer)
        assert kernel.execute(names).status == "ok"
        for code in DENIED[kind]:
            result = kernel.execute(code)
            assert result.status == "error", (code, result)
            assert result.error in REFUSALS, (code, result)
    with pytest.raises(BlockingIOError):
        outer_socket[1].recv(1)


def test_privileges_are_given_up(pool: KernelPool) -> None:
    with pool.lease(timeout=60) as kernel:
        assert kernel.pid is not None
        lines = Path(f"/proc/{kernel.pid}/status").read_text().splitlines()
        status = dict(line.split(":\t") for line in lines)
        active = pool.stats()["active"]["protections"]
        assert ("privileges" in active) == (status["NoNewPrivs"] == "1")
        assert ("calls" in active) == (status["Seccomp"] == "2")
        if active.get("signals", "").startswith("own user"):
            assert int(status["CapEff"], 16) & ~(1 << 2) == 0  # all but CAP_DAC_READ_SEARCH


def test_locks_and_leases_are_no_channel_between_kernels(pool: KernelPool) -> None:
    lock = "import fcntl, os\nf = open(os.__file__)\nfcntl.flock(f, fcntl.LOCK_EX | fcntl.LOCK_NB)"
    with pool.lease(timeout=60) as kernel, pool.lease(timeout=60) as other:
        if "calls" not in pool.stats()["active"]["protections"]:
            pytest.skip("no seccomp here")
        assert kernel.execute(lock).status == "ok"
        assert other.execute(lock).status == "ok"


def test_a_kernel_cannot_hide_from_its_pool(pool: KernelPool) -> None:
    hide = "import ctypes\nlibc = ctypes.CDLL(None)\nlibc.prctl(4, 0, 0, 0, 0), libc.prctl(3)"
    with pool.lease(timeout=60) as kernel:
        if "calls" not in pool.stats()["active"]["protections"]:
            pytest.skip("no seccomp here")
        assert kernel.execute(hide).text == "(0, 1)"  # PR_SET_DUMPABLE changes nothing


def test_files_below_the_prefix_that_python_does_not_use_are_hidden() -> None:
    paths = [path for path in interpreter_paths() if path in (Path(sys.prefix), Path("/"))]
    assert not paths
    assert not any(Path(sys.prefix, "weights").is_relative_to(one) for one in interpreter_paths())


def test_ordinary_programs_are_allowed(pool: KernelPool) -> None:
    with pool.lease(timeout=60) as kernel:
        for code in ALLOWED:
            result = kernel.execute(code)
            assert result.status == "ok", (code, result)


def test_environment_variables_are_hidden(
    pool: KernelPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EIGHTFOLD_TEST_TOKEN", "secret")
    with KernelPool(PoolConfig(size=1, spares=0)) as other, other.lease(timeout=60) as kernel:
        text = kernel.execute("import os; dict(os.environ), open('/proc/self/environ').read()").text
    assert "secret" not in text


def test_temporary_files_and_shared_memory_are_private(pool: KernelPool) -> None:
    if not pool.stats()["active"]["namespaces"]:
        pytest.skip("no namespaces here")
    write = "for d in ('/tmp', '/dev/shm', '.'): open(d + '/mark', 'w').write('x')"
    look = "import os; [os.path.exists(d + '/mark') for d in ('/tmp', '/dev/shm', '.')]"
    with pool.lease(timeout=60) as kernel, pool.lease(timeout=60) as other:
        assert kernel.execute(write).status == "ok"
        assert kernel.execute(look).text == "[True, True, True]"
        assert other.execute(look).text == "[False, False, False]"
    assert not Path("/tmp/mark").exists()
    assert not Path("/dev/shm/mark").exists()


def test_a_kernel_sees_its_own_processes_only(pool: KernelPool) -> None:
    if not pool.stats()["active"]["namespaces"]:
        pytest.skip("no namespaces here")
    code = (
        "import os, subprocess\n"
        "child = subprocess.run(['cat', '/proc/self/comm'], stdout=-1).stdout.decode().strip()\n"
        "child, os.getpid(), [n for n in os.listdir('/proc') if n.isdigit()]"
    )
    with pool.lease(timeout=60) as kernel:
        assert kernel.execute(code).text == "('cat', 2, ['1', '2'])"


def test_namespaces_are_used_if_the_machine_has_them(pool: KernelPool) -> None:
    tried = subprocess.run(
        ["unshare", "-U", "-r", "-m", "-p", "-n", "-i", "-f", "--mount-proc", "mount"]
        + ["-t", "tmpfs", "none", "/tmp"],
        stderr=subprocess.DEVNULL,
    )
    pool.wait_ready(1, timeout=60)
    assert pool.stats()["active"]["namespaces"] == (tried.returncode == 0)
