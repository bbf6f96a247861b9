"""Leases, ways to start kernels, replays and wrong settings. About 15 s."""

import os
import resource
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from eightfold.sandbox import KernelPool, Limits, PoolConfig


@pytest.fixture(scope="module")
def pool() -> Iterator[KernelPool]:
    with KernelPool(PoolConfig(size=2, spares=1, timeout=60)) as pool:
        pool.wait_ready(2, timeout=60)
        yield pool


def test_kernels_draw_different_random_numbers(pool: KernelPool) -> None:
    code = "import random; random.random(), float(np.random.rand())"
    drawn = set()
    for _ in range(3):
        with pool.lease(timeout=60) as kernel:
            drawn.add(kernel.execute(code).text)
    assert len(drawn) == 3


def test_a_plain_start_has_the_same_protections() -> None:
    config = PoolConfig(size=1, spares=0, timeout=60, grace=0.4, start="plain")
    with KernelPool(config) as pool, pool.lease(timeout=60) as kernel:
        code = "mpmath.mp.dps, sympy.isprime(7), numpy.pi > 3"
        assert kernel.execute(code).text == "(64, True, True)"
        assert kernel.execute("sum(range(10**12))", timeout=1).killed
        assert kernel.execute("6 * 7").text.endswith("42")
        assert pool.stats()["start"] == "plain"
        forked = {**pool.stats()["active"]["protections"]}
        with KernelPool(PoolConfig(size=1, spares=0)) as other:
            other.wait_ready(1, timeout=60)
            assert other.stats()["active"]["protections"].keys() == forked.keys()


def test_libraries_that_start_threads_cause_a_plain_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    thread = "threading.Thread(target=time.sleep, args=(600,), daemon=True)"
    (tmp_path / "sitecustomize.py").write_text(f"import threading, time\n{thread}.start()\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with KernelPool(PoolConfig(size=1, spares=0, timeout=60)) as pool:
        with pool.lease(timeout=60) as kernel:
            assert kernel.execute("6 * 7").text == "42"
        stats = pool.stats()
    assert stats["start"] == "plain"
    assert stats["start_note"] == "the libraries start 1 threads when they are imported"


def test_the_caller_may_have_many_open_files() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < 1500:
        pytest.skip("this machine allows too few descriptors")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 1500), hard))
    held = [os.open(os.devnull, os.O_RDONLY) for _ in range(1100)]  # more than select() supports
    try:
        with KernelPool(PoolConfig(size=1, spares=0)) as pool, pool.lease(timeout=60) as kernel:
            assert kernel.execute("6 * 7").text == "42"
            assert kernel.execute("import os; os._exit(0)").status == "died"
            assert kernel.execute("6 * 7").text.endswith("42")
    finally:
        for fd in held:
            os.close(fd)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_lease_waits_for_a_free_kernel(pool: KernelPool) -> None:
    with pool.lease(timeout=60) as one, pool.lease(timeout=60) as two:
        assert one.pid != two.pid
        with pytest.raises(TimeoutError):
            pool.lease(timeout=0.1)
    with pool.lease(timeout=60) as again:
        assert again.execute("1").text == "1"


def test_many_threads_can_share_a_pool(pool: KernelPool) -> None:
    wrong = []

    def work(number: int) -> None:
        for turn in range(3):
            with pool.lease(timeout=60) as kernel:
                kernel.execute(f"x = {number * 100 + turn}")
                if kernel.execute("x").text != str(number * 100 + turn):
                    wrong.append(number)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_a_replay_runs_the_successful_cells_again() -> None:
    config = PoolConfig(size=1, spares=1, timeout=60, replay=True)
    with KernelPool(config) as pool, pool.lease(timeout=60) as kernel:
        kernel.execute("x = 5")
        kernel.execute("x = 1/0")
        kernel.execute("y = x + 1")
        assert kernel.execute("import os; os._exit(0)").status == "died"
        again = kernel.execute("x, y").text
        assert again == "2 earlier successful cells were run again.\n(5, 6)"


@pytest.mark.parametrize(
    "wrong",
    [
        {"size": 0},
        {"spares": -1},
        {"timeout": 0},
        {"start": "spawn"},
        {"reset": "never"},
        {"memory": 1},
        {"transport": "udp"},
        {"first_port": 5000},
        {"strict": True, "isolate": False},
    ],
)
def test_invalid_settings_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"PoolConfig"):
        PoolConfig(**wrong)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="memory"):
        Limits(memory=1)


def test_importing_the_sandbox_imports_no_large_library() -> None:
    code = (
        "import sys, eightfold.sandbox\n"
        "print({'zmq', 'numpy', 'sympy', 'torch'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
