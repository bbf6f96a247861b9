"""Pools on machines that lack a protection, and a plain user's pool. About 20 s."""

import json
import os
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from helpers.cell_waits import wait_until
from helpers.missing_calls import REFUSE_CALLS
from helpers.open_interpreters import SOURCES, interpreters, package_folders, runs_as

from eightfold import common, sandbox
from eightfold.sandbox import KernelPool, PoolConfig, SandboxError

DOCTOR = (
    REFUSE_CALLS
    + """
import json, os, sys
refuse_calls(*sys.argv[1:])
from eightfold.sandbox import KernelPool, PoolConfig, SandboxError
from eightfold.sandbox.doctor import doctor
checks = {check.name: (check.active, check.tried) for check in doctor()}
cells, attacks = json.loads(sys.stdin.read())
def state(folder):
    own = os.getpriority(0, 0), os.sched_getscheduler(0), os.sched_getaffinity(0)
    return *own, os.stat(folder).st_mode, os.stat(os.__file__).st_mtime
def run(strict):
    config = PoolConfig(size=1, spares=0, timeout=30, strict=strict)
    with KernelPool(config) as pool, pool.lease(timeout=60) as kernel:
        folder = pool.stats()["folder"]
        before = state(folder)
        for attack in attacks:
            kernel.execute(attack.format(os.getpid(), folder))
        assert state(folder) == before
        return [kernel.execute(code).text for code in cells], pool.stats()["active"]["namespaces"]
try:
    (texts, namespaces), refusal = run(True), None
except SandboxError as error:
    (texts, namespaces), refusal = run(False), str(error)
print(json.dumps([checks, refusal, namespaces, texts]))
"""
)
CELLS = [
    "6 * 7",
    "import multiprocessing as mp\nwith mp.Pool(2) as pool: print(pool.map(abs, [-1, -2]))",
    "open('f', 'w').write('abc'), open('f').read()",
    "import shutil; shutil.copy2('f', 'g')",
    "import asyncio\nasync def f(): return 5\nasyncio.run(f())",
    "import os; os.getuid() != 0 and 'CapEff:\\t' + '0' * 16 in open('/proc/self/status').read()",
]
ATTACKS = [  # on the pool's process, which is {}, and its folder, which is {}
    "import os; os.chmod('../..', 0)",
    "import os; os.chmod({1!r}, 0)",
    "import os; os.setpriority(os.PRIO_PROCESS, {0}, 15)",
    "import os; os.setpriority(os.PRIO_USER, 0, 15)",
    "import os; os.sched_setscheduler({0}, os.SCHED_IDLE, os.sched_param(0))",
    "import os; os.sched_setaffinity({0}, [0])",
    "import os; os.utime(os.__file__)",
]
TEXTS = ["42", "[1, 2]", "(3, 'abc')", "'g'", "5", "True"]


def run_without(python: str, *protections: str) -> subprocess.CompletedProcess[str]:
    """Run `DOCTOR` with an interpreter."""
    paths = [SOURCES, *package_folders()]
    return subprocess.run(
        [python, "-c", DOCTOR, *protections],
        input=json.dumps([CELLS, ATTACKS]),
        env={**os.environ, "PYTHONPATH": ":".join(paths), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
    )


def doctor_without(*protections: str) -> tuple[dict[str, list[object]], str | None, bool]:
    """Return the doctor's checks, the error of strict=True, and whether kernels had namespaces."""
    python = next(filter(lambda path: runs_as(path, 65_534), interpreters()), None)
    if python is None:
        pytest.skip("no interpreter that has the packages is open to every user")
    run = run_without(python, *protections)
    assert run.returncode == 0, run.stderr
    checks, refusal, namespaces, texts = json.loads(run.stdout.splitlines()[-1])
    assert not [name for name, (active, tried) in checks.items() if active and tried == "broken"]
    assert checks["limits"] == [True, "held"]
    assert texts == TEXTS
    return checks, refusal, namespaces


def test_missing_landlock_is_reported_and_refused_by_strict() -> None:
    checks, refusal, namespaces = doctor_without("namespaces", "Landlock")
    assert not namespaces
    assert checks["files"][0] is False
    assert checks["gpu"][0] is False
    assert refusal is not None
    assert refusal.startswith("PoolConfig.strict is set, and this machine lacks")
    assert "can be opened (" in refusal
    assert "Landlock is not available" in refusal


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has an interpreter of its own")
def test_no_kernel_gets_the_rights_of_root() -> None:
    if runs_as(sys.executable, 65_534):
        pytest.skip("every user may read this interpreter")
    run = run_without(sys.executable, "namespaces", "Landlock")
    assert run.returncode == 1
    assert "install Python in a folder that every user may enter" in run.stderr


def test_namespaces_protect_without_landlock() -> None:
    checks, refusal, namespaces = doctor_without("Landlock")
    if not namespaces:
        pytest.skip("no namespaces here")
    assert checks["files"][0]
    assert refusal is None


def test_missing_seccomp_is_reported_and_refused_by_strict() -> None:
    checks, refusal, _ = doctor_without("seccomp")
    assert checks["network"][0] is False
    assert checks["calls"][0] is False
    assert refusal is not None
    assert "no socket reaches another program (" in refusal
    assert "seccomp: " in refusal


def test_a_container_that_refuses_namespaces_has_the_other_protections() -> None:
    checks, refusal, namespaces = doctor_without("namespaces")
    assert not namespaces
    missing = [name for name, (active, _) in checks.items() if not active]
    assert (refusal is None) == (not missing)


def test_strict_starts_if_nothing_is_missing() -> None:
    with KernelPool(PoolConfig(size=1, spares=0)) as pool:
        pool.wait_ready(1, timeout=60)
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
checks = {check.name: (check.active, check.tried) for check in doctor()}
texts = []
with KernelPool(PoolConfig(size=4, spares=1, timeout=30)) as pool:
    kernels = [pool.lease(timeout=60) for _ in range(4)]
    run = "import subprocess; subprocess.run(['echo', 'x'], capture_output=True).stdout"
    texts += [kernel.execute(run).text for kernel in kernels]
    bomb = "import os\\nwhile True:\\n    try: os.fork()\\n    except OSError: pass"
    texts.append(kernels[0].execute(bomb, timeout=2).status)
    texts += [kernels[1].execute(run).text, kernels[0].execute("6 * 7").text]
    other = kernels[1].connection_file
    tries = [f"os.kill({kernels[1].pid}, 0)", f"os.kill({os.getpid()}, 0)", f"open('{other}')",
             f"open('/proc/{os.getpid()}/environ')", f"os.listdir('{other.parent.parent}')"]
    texts += [kernels[2].execute("import os; " + code).error for code in tries]
print(json.dumps([os.getuid(), checks, texts]))
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="the other tests run as a plain user anyway")
def test_a_pool_of_a_plain_user(tmp_path_factory: pytest.TempPathFactory) -> None:
    uid = 65_534
    folder = Path(f"/tmp/eightfold-test-{os.getpid()}")
    python = next(filter(lambda path: runs_as(path, uid), interpreters()), None)
    if python is None:
        pytest.skip("a plain user can start no interpreter that has the packages")
    try:
        (folder / "eightfold").mkdir(parents=True)
        for part in (common, sandbox):
            source = Path(part.__path__[0])
            shutil.copytree(source, folder / "eightfold" / source.name)
        for path in (folder, *folder.rglob("*")):
            os.chown(path, uid, uid)
        paths = [str(folder), *package_folders()]
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
        found, checks, texts = json.loads(run.stdout.splitlines()[-1])
        assert found == uid
        assert all(tried != "broken" for active, tried in checks.values() if active), checks
        assert checks["processes"][0]
        assert texts[:4] == ["b'x\\n'"] * 4
        assert texts[4] in ("died", "timeout")
        assert texts[5] == "b'x\\n'"
        assert texts[6].endswith("42")
        if checks["files"][0] and checks["signals"][0]:
            denied = ("PermissionError", "FileNotFoundError", "ProcessLookupError")
            assert all(text in denied for text in texts[7:]), texts
        wait_until(lambda: not list(folder.glob("eightfold-sandbox-*")))
    finally:
        subprocess.run(["rm", "-rf", str(folder)], check=True)
