"""Files, calls and secrets that a kernel cannot reach, and what it still can do. About 5 s."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from eightfold.sandbox import KernelPool, PoolConfig


@pytest.fixture(scope="module")
def pool() -> Iterator[KernelPool]:
    with KernelPool(PoolConfig(size=2, spares=1, timeout=60)) as pool:
        pool.wait_ready(2, timeout=60)
        yield pool


DENIED = {
    "files": [
        "open('/etc/hostname').read()",
        f"open({str(Path(__file__).resolve())!r}).read()",
        "__import__('os').listdir('/tmp')",
        "open(f'/proc/{PARENT}/environ').read()",
        "open(OTHER).read()",
        "open('/dev/shm/zz', 'w')",
        "open(__import__('numpy').__file__, 'a')",
        "__import__('os').symlink('/etc', 'link'), open('link/hostname').read()",
        "__import__('os').link('/etc/hostname', 'hard')",
    ],
    "gpu": ["open('/dev/ptmx', 'rb')"],  # any device file that is not among _DEVICES
    "network": [
        "__import__('socket').socket()",
        "__import__('urllib.request').request.urlopen('http://127.0.0.1:9')",
        "__import__('socket').socket(__import__('socket').AF_UNIX)",
    ],
    "signals": [
        "__import__('os').kill(PARENT, 0)",
        "__import__('os').kill(SIBLING, 0)",
        "__import__('os').kill(-1, 0)",
    ],
    "calls": [
        "call('ptrace', 16, PARENT, 0, 0)",  # PTRACE_ATTACH
        "call('ptrace', 16, SIBLING, 0, 0)",
        "call('unshare', 0x10000000)",  # CLONE_NEWUSER, which needs no privilege
        "call('mount', b'none', b'scratch', b'tmpfs', 0, 0)",
        "call('inotify_init')",
    ],
    "processes": ["[__import__('subprocess').Popen(['sleep', '9']) for _ in range(200)]"],
    "limits": ["bytearray(6 << 30)"],
}
NAMES = """\
PARENT, SIBLING, OTHER = {}, {}, {!r}
def call(name, *arguments):
    import ctypes, os
    if getattr(ctypes.CDLL(None, use_errno=True), name)(*arguments) < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
"""
ALLOWED = [
    "__import__('subprocess').run(['echo', 'x'], capture_output=True).stdout.decode()",
    "open('f', 'w').write('abc'), open('f').read()",
    "__import__('wave').__name__",
    "__import__('tempfile').mkdtemp() != ''",
    "__import__('threading').active_count() > 0",
    "__import__('sqlite3').connect(':memory:').execute('select 7').fetchone()",
]


@pytest.mark.parametrize("kind", DENIED)
def test_attempts_to_reach_outside_are_denied(pool: KernelPool, kind: str) -> None:
    with pool.lease(timeout=60) as kernel, pool.lease(timeout=60) as other:
        active = pool.stats()["active"]
        if kind not in active["protections"]:
            pytest.skip(active["without"][kind])
        kernel.execute(NAMES.format(os.getpid(), other.pid, str(other.connection_file)))
        for code in DENIED[kind]:
            result = kernel.execute(code)
            assert result.status == "error", (code, result)
            assert result.error in ("PermissionError", "URLError", "MemoryError", "BlockingIOError")


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
