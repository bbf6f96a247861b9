"""Clients of jupyter_client that attach to leased kernels, and the ports of these. About 15 s."""

import json
import os
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil
import pytest
from helpers.cell_waits import RUNNING, wait_until, when_running
from jupyter_client import BlockingKernelClient

from eightfold.sandbox import KernelPool, PoolConfig, SandboxError


@pytest.fixture(scope="module")
def pool() -> Iterator[KernelPool]:
    with KernelPool(PoolConfig(size=2, spares=1, timeout=60)) as pool:
        pool.wait_ready(2, timeout=60)
        yield pool


def test_any_jupyter_client_can_attach(pool: KernelPool) -> None:
    with pool.lease(timeout=60) as kernel:
        file = kernel.connection_file
        assert file is not None
        assert file.stat().st_mode & 0o777 == 0o600
        assert file.parent.stat().st_mode & 0o777 == 0o700
        assert len(json.loads(file.read_text())["key"]) == 32
        kernel.execute("x = 20")
        with attached(file) as client:
            for _ in range(5):  # no printed text may come after the cell's "idle"
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
    """Attach a client by means of a connection file."""
    client = BlockingKernelClient(connection_file=str(file))
    client.load_connection_file()
    client.start_channels()
    try:
        client.wait_for_ready(timeout=60)  # needs the heartbeat, a reply and iopub
        yield client
    finally:
        client.stop_channels()


def shown(client: BlockingKernelClient, code: str) -> list[tuple[str, str]]:
    """Run a cell and return what the client receives; adjacent printed pieces are joined."""
    seen: list[tuple[str, str]] = []

    def collect(message: dict[str, Any]) -> None:
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

    client.execute_interactive(code, timeout=60, output_hook=collect)
    return seen


def test_a_kernel_gives_a_connected_jupyter_client(pool: KernelPool) -> None:
    with pool.lease(timeout=60) as kernel:
        kernel.execute("x = 20")
        kernel.execute(
            "open('../run/kernel.json', 'w').write('{}')"
        )  # cells cannot redirect the client
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
            assert message["content"]["data"]["text/plain"] == "20"  # from the lease's own cell
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
    """Return the first of `count` free ports in a row, below the range of ephemeral ports."""
    for first in range(10_000 + os.getpid() % 1000 * 20, 32_000, count):
        with ExitStack() as stack, suppress(OSError):
            for port in range(first, first + count):
                one = stack.enter_context(socket.socket())
                one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                one.bind(("127.0.0.1", port))
            return first
    raise AssertionError("no free ports")


@pytest.mark.parametrize("start", ["fork", "plain"])
def test_tcp_uses_the_requested_ports(start: str) -> None:
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
        if start == "plain":
            return  # the rest does not depend on it
        taken = f"in use.*127.0.0.1:({first}|{first + 5})"
        with KernelPool(config) as second, pytest.raises(SandboxError, match=taken):
            second.lease()  # which does not wait for ever
