"""Limits on what many processes, files or kernels use together. About 15 s."""

import os
from collections.abc import Iterator

import psutil
import pytest

from eightfold.sandbox import KernelPool, PoolConfig
from eightfold.sandbox.host import limit_monitor
from eightfold.sandbox.pool_config import MIB, Limits

LIMITS = Limits(memory=1536 * MIB, disk=48 * MIB, file_size=16 * MIB)


@pytest.fixture(scope="module")
def pool() -> Iterator[KernelPool]:
    with KernelPool(PoolConfig(size=2, spares=0, timeout=60, limits=LIMITS)) as pool:
        pool.wait_ready(2, timeout=60)
        yield pool


FORKS = """
import os, time
for _ in range({count}):
    if os.fork() == 0:
        block = bytearray({size})
        block[::4096] = b"x" * len(block[::4096])
        time.sleep(600)
time.sleep(600)
"""
TOO_MUCH_DISK = {  # what a cell can write to, other than a file in its own folder
    "files": "for i in range(9): open(f'f{i}', 'wb').write(bytes(15 << 20))",
    "deleted files": (
        "import os\nkept = []\nfor i in range(9):\n"
        "    kept.append(open(f'f{i}', 'wb', buffering=0)); os.remove(f'f{i}')\n"
        "    kept[-1].write(bytes(15 << 20))"
    ),
    "descriptors in flight": (
        "import os, socket\na, b = socket.socketpair()\nfor i in range(9):\n"
        "    f = open(f'f{i}', 'wb', buffering=0); os.remove(f'f{i}')\n"
        "    f.write(bytes(15 << 20)); socket.send_fds(a, [b'x'], [f.fileno()]); f.close()"
    ),
    "the folder for temporary files": (
        "import tempfile\n"
        "for i in range(9): open(tempfile.mkstemp()[1], 'wb').write(bytes(15 << 20))"
    ),
    "allocated space": (
        "import os\nfor i in range(9): os.posix_fallocate(os.open(f'f{i}', 66), 0, 15 << 20)"
    ),
    "mapped files": (
        "import mmap, os\nkept = []\nfor i in range(9):\n"
        "    f = open(f'f{i}', 'w+b'); f.truncate(15 << 20); m = mmap.mmap(f.fileno(), 0)\n"
        "    m[:] = bytes(15 << 20); kept.append(m)"
    ),
    "many files": "for i in range(30_000): open(f'f{i}', 'w').close()",
}


def test_the_memory_of_several_processes_is_limited(pool: KernelPool) -> None:
    with pool.lease(timeout=60) as kernel, pool.lease(timeout=60) as other:
        result = kernel.execute(FORKS.format(count=4, size=450 * MIB))
        assert (result.status, result.killed) == ("died", True), result
        assert limit_monitor.TOO_MUCH_MEMORY in result.text
        assert kernel.execute("6 * 7").text.endswith("42")
        assert other.execute("6 * 7").text == "42"  # only the kernel over the limit is killed


# Linux lets no user have more sockets in flight than a process may have open.
MANY_SOCKETS = (
    "import os, socket, time\nfor _ in range(60):\n    if os.fork() == 0:\n        kept = []\n"
    "        while True:\n            try: kept.append(socket.socketpair())\n"
    "            except OSError: time.sleep(600)\ntime.sleep(600)"
)


def test_the_memory_that_sockets_can_hold_is_limited(pool: KernelPool) -> None:
    if not pool.stats()["active"]["namespaces"]:
        pytest.skip("no namespaces here, so that sockets are not counted")
    with pool.lease(timeout=60) as kernel, pool.lease(timeout=60) as other:
        code = "import socket\na = socket.socketpair()[0]; a.setsockopt(1, 7, 1 << 22)\n"
        size = int(kernel.execute(code + "a.getsockopt(1, 7)").text)
        assert size <= limit_monitor.SOCKET_BYTES
        result = kernel.execute(MANY_SOCKETS)
        assert result.status == "died", result
        assert limit_monitor.TOO_MUCH_MEMORY in result.text
        assert other.execute("6 * 7").text == "42"


@pytest.mark.parametrize("name", TOO_MUCH_DISK)
def test_the_disk_space_is_limited(pool: KernelPool, name: str) -> None:
    with pool.lease(timeout=60) as kernel, pool.lease(timeout=60) as other:
        result = kernel.execute(TOO_MUCH_DISK[name] + "\nimport time; time.sleep(600)")
        if pool.stats()["active"]["namespaces"]:
            assert result.error == "OSError" or result.status == "died", result
            used = os.statvfs(f"/proc/{kernel.pid}/root/tmp") if not result.killed else None
            if used is not None:
                assert used.f_blocks * used.f_frsize == LIMITS.disk
        else:
            assert limit_monitor.TOO_MUCH_DISK in result.text
        assert kernel.execute("6 * 7").text.endswith("42")
        assert other.execute("open('f', 'w').write('x')").text == "1"


def test_the_largest_kernel_is_killed_if_all_use_too_much() -> None:
    config = PoolConfig(size=3, spares=0, timeout=60, memory=1600 * MIB, limits=LIMITS)
    block = "x = bytearray({} << 20)\nx[::4096] = b'x' * len(x[::4096])"
    with KernelPool(config) as pool:
        small, large, last = [pool.lease(timeout=60) for _ in range(3)]
        assert small.execute(block.format(450)).status == "ok"
        assert last.execute("6 * 7").text == "42"
        assert large.execute(block.format(650)).status == "ok"
        pids = small.pid, last.pid
        assert large.pid is not None
        victim = psutil.Process(large.pid)
        assert last.execute(block.format(550)).status == "ok"  # now all use too much
        assert not psutil.wait_procs([victim], timeout=60)[1]
        assert small.execute("len(x)").text == str(450 << 20)
        assert last.execute("len(x)").text == str(550 << 20)
        assert (small.pid, last.pid) == pids
        assert "NameError" in large.execute("len(x)").text


def test_memory_that_no_process_need_map_is_refused(pool: KernelPool) -> None:
    if "calls" not in pool.stats()["active"]["protections"]:
        pytest.skip("no seccomp here")
    with pool.lease(timeout=60) as kernel:
        assert kernel.execute("__import__('os').memfd_create('x')").error == "PermissionError"
