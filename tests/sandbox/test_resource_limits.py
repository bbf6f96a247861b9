"""What many processes or files together take, and what a machine without a protection gets.

About 35 s.
"""

import json
import os
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from helpers.cell_waits import wait_until

from eightfold import common, sandbox
from eightfold.sandbox import KernelPool, PoolConfig, SandboxError
from eightfold.sandbox.host import limit_monitor
from eightfold.sandbox.isolation import process_tree
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
TOO_MUCH = {
    "memory of several processes": (
        FORKS.format(count=4, size=450 * MIB),
        limit_monitor.TOO_MUCH_MEMORY,
    ),
    "deleted files": (
        "import os, time\nkept = []\nfor i in range(9):\n"
        "    kept.append(open(f'f{i}', 'wb', buffering=0)); os.remove(f'f{i}')\n"
        "    kept[-1].write(bytes(15 << 20))\ntime.sleep(600)",
        limit_monitor.TOO_MUCH_DISK,
    ),
    "files behind a long path": (
        "import os, time\nfor i in range(40): os.mkdir('d' * 200); os.chdir('d' * 200)\n"
        "time.sleep(600)",
        limit_monitor.TOO_MUCH_DISK,
    ),
}


@pytest.mark.parametrize("name", TOO_MUCH)
def test_sums_are_watched(pool: KernelPool, name: str) -> None:
    code, reason = TOO_MUCH[name]
    with pool.lease(timeout=60) as kernel, pool.lease(timeout=60) as other:
        result = kernel.execute(code)
        assert (result.status, result.killed) == ("died", True), result
        assert reason in result.text
        assert kernel.execute("6 * 7").text.endswith("42")
        assert other.execute("6 * 7").text == "42"  # the largest goes, no other


def test_kernels_share_a_bound_of_memory() -> None:
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
        assert last.execute(block.format(550)).status == "ok"  # together too much
        assert not psutil.wait_procs([victim], timeout=60)[1]
        assert small.execute("len(x)").text == str(450 << 20)
        assert last.execute("len(x)").text == str(550 << 20)
        assert (small.pid, last.pid) == pids
        assert "NameError" in large.execute("len(x)").text


def test_memory_that_no_process_maps_is_refused(pool: KernelPool) -> None:
    if "calls" not in pool.stats()["active"]["protections"]:
        pytest.skip("no seccomp here")
    with pool.lease(timeout=60) as kernel:
        assert kernel.execute("__import__('os').memfd_create('x')").error == "PermissionError"


def test_the_process_tree_is_found_without_the_kernels_help() -> None:
    script = "import subprocess, sys\np = subprocess.Popen(['sleep', '60'])\nprint(p.pid)\np.wait()"
    parent = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    try:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        assert process_tree.tree_pids(parent.pid) == [parent.pid, child]
        assert child in process_tree.tree_pids(os.getpid())
        assert (
            0
            < process_tree.proportional_bytes([parent.pid])
            <= process_tree.resident_bytes([parent.pid])
        )
    finally:
        for pid in (child, parent.pid):
            os.kill(pid, 9)
        parent.communicate()
    assert process_tree.tree_pids(parent.pid) == [parent.pid]
    assert process_tree.resident_bytes([parent.pid]) == 0


def test_a_folder_that_cannot_be_looked_into_counts_as_full(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "f").write_bytes(b"x" * 10_000)
    size, files = process_tree.folder_usage(tmp_path, 100)
    assert (files, size >= 10_000) == (2, True)
    assert process_tree.folder_usage(tmp_path, 1)[1] > 1
    os.mkfifo(tmp_path / "a" / "pipe")
    (tmp_path / "link").symlink_to("/usr")
    assert process_tree.folder_usage(tmp_path, 100)[1] == 4


# Below this filter the machine lacks some system calls, as an old Linux does.
DOCTOR = """
import ctypes, errno, json, platform, struct, sys
number = {"x86_64": 317, "aarch64": 277}[platform.machine()]
first, last = (444, 446) if sys.argv[1] == "Landlock" else (number, number)
step = lambda code, value, yes=0, no=0: struct.pack("<HBBI", code, yes, no, value)
code = b"".join([step(0x20, 0), step(0x35, first, 0, 2), step(0x35, last + 1, 1, 0),
                 step(0x06, 0x00050000 | errno.ENOSYS), step(0x06, 0x7FFF0000)])
class Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_char_p))
libc = ctypes.CDLL(None, use_errno=True)
libc.prctl(38, 1, 0, 0, 0)
assert libc.syscall(number, 1, 0, ctypes.byref(Program(len(code) // 8, code))) == 0
from eightfold.sandbox import KernelPool, PoolConfig, SandboxError
from eightfold.sandbox.doctor import doctor
rows = {row.name: (row.active, row.tried) for row in doctor()}
try:
    with KernelPool(PoolConfig(size=1, spares=0, strict=True)) as pool:
        pool.lease(timeout=60)
    refusal = None
except SandboxError as error:
    refusal = str(error)
print(json.dumps([rows, refusal]))
"""


def doctor_without(what: str) -> tuple[dict[str, list[object]], str]:
    """The doctor's rows, and how strict=True refuses, on a machine without `what`."""
    run = subprocess.run(
        [sys.executable, "-c", DOCTOR, what], capture_output=True, text=True, check=True
    )
    rows, refusal = json.loads(run.stdout.splitlines()[-1])
    assert refusal.startswith("PoolConfig.strict is set, and this machine lacks")
    assert not [name for name, (active, tried) in rows.items() if active and tried == "broken"]
    assert rows["limits"] == [True, "held"]
    return rows, refusal


def test_missing_landlock_is_told_and_refused_by_strict() -> None:
    rows, refusal = doctor_without("Landlock")
    assert rows["files"][0] is False
    assert rows["gpu"][0] is False
    assert "can be opened (" in refusal
    assert "Landlock is not available" in refusal


def test_missing_seccomp_is_told_and_refused_by_strict() -> None:
    rows, refusal = doctor_without("seccomp")
    assert rows["network"] == [False, "broken"]
    assert rows["calls"][0] is False
    assert "no socket can be opened, bound or connected (" in refusal
    assert "seccomp: " in refusal


def test_strict_starts_where_nothing_is_missing(pool: KernelPool) -> None:
    missing = pool.stats()["active"]["missing"]
    with KernelPool(PoolConfig(size=1, spares=0, strict=True)) as strict:
        if missing:
            with pytest.raises(SandboxError, match="strict"):
                strict.lease(timeout=60)
        else:
            with strict.lease(timeout=60) as kernel:
                assert kernel.execute("6 * 7", timeout=60).text == "42"


PLAIN_USER = """
import json, os
from eightfold.sandbox import KernelPool, Limits, PoolConfig
from eightfold.sandbox.doctor import doctor
rows = {row.name: (row.active, row.tried) for row in doctor()}
texts = []
with KernelPool(PoolConfig(size=4, spares=1, timeout=30)) as pool:
    kernels = [pool.lease(timeout=60) for _ in range(4)]
    run = "import subprocess; subprocess.run(['echo', 'x'], capture_output=True).stdout"
    texts += [kernel.execute(run).text for kernel in kernels]
    bomb = "import os\\nwhile True:\\n    try: os.fork()\\n    except OSError: pass"
    texts.append(kernels[0].execute(bomb, timeout=5).status)
    texts += [kernels[1].execute(run).text, kernels[0].execute("6 * 7").text]
    other = kernels[1].connection_file
    tries = [f"os.kill({kernels[1].pid}, 0)", f"os.kill({os.getpid()}, 0)", f"open('{other}')",
             f"open('/proc/{os.getpid()}/environ')", "os.listdir(os.environ['HOME'] + '/../..')"]
    texts += [kernels[2].execute("import os; " + code).error for code in tries]
print(json.dumps([os.getuid(), rows, texts]))
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="the other tests run as a plain user already")
def test_a_pool_of_a_plain_user(tmp_path_factory: pytest.TempPathFactory) -> None:
    uid = 65_534
    folder = Path(f"/tmp/eightfold-test-{os.getpid()}")
    python = next(filter(lambda path: runs_as(path, uid), interpreters()), None)
    if python is None:
        pytest.skip("no interpreter with our packages that a plain user could start")
    try:
        (folder / "eightfold").mkdir(parents=True)
        for part in (common, sandbox):
            source = Path(part.__path__[0])
            shutil.copytree(source, folder / "eightfold" / source.name)
        for path in (folder, *folder.rglob("*")):
            os.chown(path, uid, uid)
        paths = [str(folder), *packages()]
        env = {"PATH": os.environ["PATH"], "PYTHONPATH": ":".join(paths), "HOME": str(folder)}
        run = subprocess.run(
            [python, "-c", textwrap.dedent(PLAIN_USER)],
            env={**env, "TMPDIR": str(folder), "PYTHONDONTWRITEBYTECODE": "1"},
            cwd=folder,
            user=uid,
            group=uid,
            extra_groups=[],
            capture_output=True,
            text=True,
            timeout=200,
        )
        assert run.returncode == 0, run.stderr
        found, rows, texts = json.loads(run.stdout.splitlines()[-1])
        assert found == uid
        assert all(tried != "broken" for active, tried in rows.values() if active), rows
        assert rows["processes"][0]
        assert texts[:4] == ["b'x\\n'"] * 4
        assert texts[4] in ("died", "timeout")
        assert texts[5] == "b'x\\n'"
        assert texts[6].endswith("42")
        if rows["files"][0] and rows["signals"][0]:
            assert texts[7:] == ["PermissionError"] * 5
        wait_until(lambda: not list(folder.glob("eightfold-sandbox-*")))
    finally:
        tree_rm = ["rm", "-rf", str(folder)]
        subprocess.run(tree_rm, check=True)


def interpreters() -> list[str]:
    """This interpreter, and the system's of the same version."""
    name = f"python{sys.version_info[0]}.{sys.version_info[1]}"
    return [sys.executable, f"/usr/bin/{name}", f"/usr/local/bin/{name}"]


def runs_as(python: str, uid: int) -> bool:
    """Whether the user may start this interpreter and read what the sandbox imports."""
    try:
        found = subprocess.run(
            [python, "-c", "import zmq, ipykernel, numpy, sympy"],
            env={"PATH": os.environ["PATH"], "PYTHONPATH": ":".join(packages())},
            user=uid,
            group=uid,
            extra_groups=[],
            cwd="/",
            stderr=subprocess.DEVNULL,
        )
    except OSError:
        return False
    return found.returncode == 0


def packages() -> list[str]:
    return [path for path in sys.path if "site-packages" in path]
