"""Leases, clients, transports, starts, isolation. About 30 s."""

import json
import os
import resource
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil
import pytest
from helpers.cell_waits import RUNNING, wait_until, when_running
from jupyter_client import BlockingKernelClient

from eightfold.sandbox import KernelPool, Limits, PoolConfig, SandboxError


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
    "gpu": ["open('/dev/ptmx', 'rb')"],  # any device file but those of _DEVICES
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
def test_what_is_denied(pool: KernelPool, kind: str) -> None:
    with pool.lease(timeout=60) as kernel, pool.lease(timeout=60) as other:
        active = pool.stats()["active"]
        if kind not in active["protections"]:
            pytest.skip(active["without"][kind])
        kernel.execute(NAMES.format(os.getpid(), other.pid, str(other.connection_file)))
        for code in DENIED[kind]:
            result = kernel.execute(code)
            assert result.status == "error", (code, result)
            assert result.error in ("PermissionError", "URLError", "MemoryError", "BlockingIOError")


def test_privileges_are_given_up_for_good(pool: KernelPool) -> None:
    with pool.lease(timeout=60) as kernel:
        assert kernel.pid is not None
        lines = Path(f"/proc/{kernel.pid}/status").read_text().splitlines()
        status = dict(line.split(":\t") for line in lines)
        active = pool.stats()["active"]["protections"]
        assert ("privileges" in active) == (status["NoNewPrivs"] == "1")
        assert ("calls" in active) == (status["Seccomp"] == "2")
        if active.get("signals", "").startswith("own user"):
            assert int(status["CapEff"], 16) & ~(1 << 2) == 0  # all but CAP_DAC_READ_SEARCH


def test_what_is_allowed(pool: KernelPool) -> None:
    with pool.lease(timeout=60) as kernel:
        for code in ALLOWED:
            result = kernel.execute(code)
            assert result.status == "ok", (code, result)


def test_no_secret_of_the_environment_is_seen(
    pool: KernelPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EIGHTFOLD_TEST_TOKEN", "secret")
    with KernelPool(PoolConfig(size=1, spares=0)) as other, other.lease(timeout=60) as kernel:
        text = kernel.execute("import os; dict(os.environ), open('/proc/self/environ').read()").text
    assert "secret" not in text


def test_any_jupyter_client_can_attach(pool: KernelPool) -> None:
    with pool.lease(timeout=60) as kernel:
        file = kernel.connection_file
        assert file is not None
        assert file.stat().st_mode & 0o777 == 0o600
        assert file.parent.stat().st_mode & 0o777 == 0o700
        assert len(json.loads(file.read_text())["key"]) == 32
        kernel.execute("x = 20")
        with attached(file) as client:
            for _ in range(5):  # printed text must never come after the cell's "idle"
                assert shown(client, "print('out'); x + 1") == [
                    ("stream", "out\n"),
                    ("execute_result", "21"),
                ]
            assert shown(client, "print(1)\ndisplay(2)\n!echo 3\nprint(4)\n1 / 0") == [
                ("stream", "1\n"),
                ("display_data", "2"),
                ("stream", "3\n4\n"),
                ("error", "ZeroDivisionError"),
            ]
            assert shown(client, "input()") == [("error", "EOFError")]
            client.control_channel.send(client.session.msg("kernel_info_request"))
            assert client.get_control_msg(timeout=60)["content"]["status"] == "ok"
        assert kernel.execute("x").text == "20"


@contextmanager
def attached(file: Path) -> Iterator[BlockingKernelClient]:
    client = BlockingKernelClient(connection_file=str(file))
    client.load_connection_file()
    client.start_channels()
    try:
        client.wait_for_ready(timeout=60)  # needs its heartbeat, its reply and iopub
        yield client
    finally:
        client.stop_channels()


def shown(client: BlockingKernelClient, code: str) -> list[tuple[str, str]]:
    """What the client is shown of a cell; printed pieces that follow each other are joined."""
    seen: list[tuple[str, str]] = []

    def look(message: dict[str, Any]) -> None:
        kind, content = message["msg_type"], message["content"]
        if kind == "stream":
            text = content["text"]
            if seen and seen[-1][0] == kind:
                text = seen.pop()[1] + text
            seen.append((kind, text))
        elif kind == "error":
            seen.append((kind, content["ename"]))
        elif "data" in content:
            seen.append((kind, content["data"]["text/plain"]))

    client.execute_interactive(code, timeout=60, output_hook=look)
    return seen


def test_a_kernel_gives_a_connected_jupyter_client(pool: KernelPool) -> None:
    with pool.lease(timeout=60) as kernel:
        kernel.execute("x = 20")
        kernel.execute("open('../run/kernel.json', 'w').write('{}')")  # no cell can redirect it
        client = kernel.blocking_client(timeout=60)
        try:
            assert isinstance(client, BlockingKernelClient)
            assert shown(client, "print('out'); x + 1") == [
                ("stream", "out\n"),
                ("execute_result", "21"),
            ]
            assert client.complete("x.bit_le", reply=True, timeout=60)["content"]["matches"]
            assert kernel.execute("print('mine')\nx").text == "mine\n20"
            while (message := client.get_iopub_msg(timeout=60))["msg_type"] != "execute_result":
                pass
            assert message["content"]["data"]["text/plain"] == "20"  # it hears the lease's cells
            assert kernel.execute("import os; os._exit(0)").status == "died"
            with pytest.raises(SandboxError, match="process has ended"):
                kernel.blocking_client()
        finally:
            client.stop_channels()
        kernel.execute("y = 1")
        again = kernel.blocking_client(timeout=60)
        try:
            assert shown(again, "y") == [("execute_result", "1")]
        finally:
            again.stop_channels()
    with pytest.raises(SandboxError, match="released"):
        kernel.blocking_client()


def test_a_client_cannot_be_made_while_a_cell_runs(pool: KernelPool) -> None:
    with pool.lease(timeout=60) as kernel:
        errors: list[BaseException] = []

        def attach() -> None:
            try:
                kernel.blocking_client()
            except BaseException as error:
                errors.append(error)
            kernel.kill()

        thread = when_running(kernel, attach)
        assert kernel.execute(RUNNING + "while True: pass").killed
        thread.join()
        assert [type(error) for error in errors] == [RuntimeError]


def test_a_kernel_that_does_not_answer_gives_no_client(pool: KernelPool) -> None:
    with pool.lease(timeout=60) as kernel:
        stop = "import os, signal, threading\n"
        stop += "threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGSTOP)).start()"
        assert kernel.execute(stop).status == "ok"
        assert kernel.pid is not None
        process = psutil.Process(kernel.pid)
        wait_until(lambda: process.status() == psutil.STATUS_STOPPED)
        with pytest.raises(SandboxError, match="does not answer"):
            kernel.blocking_client(timeout=0.5)


def free_ports(count: int) -> int:
    """The first of `count` ports that nobody listens on, below those given out by themselves."""
    for first in range(10_000 + os.getpid() % 1000 * 20, 32_000, count):
        with ExitStack() as stack, suppress(OSError):
            for port in range(first, first + count):
                one = stack.enter_context(socket.socket())
                one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                one.bind(("127.0.0.1", port))
            return first
    raise AssertionError("no free ports")


@pytest.mark.parametrize("start", ["fork", "plain"])
def test_tcp_uses_the_ports_asked_for(start: str) -> None:
    first = free_ports(10)
    config = PoolConfig(
        size=1, spares=1, timeout=60, transport="tcp", first_port=first, start=start
    )
    with KernelPool(config) as pool, pool.lease(timeout=60) as kernel:
        pool.wait_ready(1, timeout=60)  # the spare takes the next five
        assert kernel.execute("6 * 7").text == "42"
        assert kernel.connection_file is not None
        info = json.loads(kernel.connection_file.read_text())
        ports = sorted(value for name, value in info.items() if name.endswith("_port"))
        assert ports in [list(range(at, at + 5)) for at in (first, first + 5)]
        open_now = psutil.Process(kernel.pid).net_connections("tcp")
        listening = {c.laddr for c in open_now if c.status == psutil.CONN_LISTEN}
        assert listening == {("127.0.0.1", port) for port in ports}
        assert pool.stats()["start"] == start
        with attached(kernel.connection_file) as client:
            assert shown(client, "print(7)\n8") == [("stream", "7\n"), ("execute_result", "8")]
        taken = f"in use.*127.0.0.1:({first}|{first + 5})"
        with KernelPool(config) as second, pytest.raises(SandboxError, match=taken):
            second.lease(timeout=60)


def test_a_plain_start_contains_and_recovers_as_well() -> None:
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


def test_libraries_that_start_threads_lead_to_the_plain_start(
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


def test_many_open_files_of_the_caller_are_no_hindrance() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < 1500:
        pytest.skip("this machine allows too few descriptors")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 1500), hard))
    held = [os.open(os.devnull, os.O_RDONLY) for _ in range(1100)]  # beyond what select() takes
    try:
        with KernelPool(PoolConfig(size=1, spares=0)) as pool, pool.lease(timeout=60) as kernel:
            assert kernel.execute("6 * 7").text == "42"
            assert kernel.execute("import os; os._exit(0)").status == "died"
            assert kernel.execute("6 * 7").text.endswith("42")
    finally:
        for fd in held:
            os.close(fd)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_leases_are_limited_and_waited_for(pool: KernelPool) -> None:
    with pool.lease(timeout=60) as one, pool.lease(timeout=60) as two:
        assert one.pid != two.pid
        with pytest.raises(TimeoutError):
            pool.lease(timeout=0.1)
    with pool.lease(timeout=60) as again:
        assert again.execute("1").text == "1"


def test_many_threads_share_a_pool(pool: KernelPool) -> None:
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


def test_replay_runs_the_successful_cells_again() -> None:
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
def test_wrong_settings_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"PoolConfig"):
        PoolConfig(**wrong)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="memory"):
        Limits(memory=1)


def test_importing_the_sandbox_is_light() -> None:
    code = (
        "import sys, eightfold.sandbox\n"
        "print({'zmq', 'numpy', 'sympy', 'torch'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
