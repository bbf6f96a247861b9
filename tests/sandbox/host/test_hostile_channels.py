"""Kernels that send the pool what no kernel sends, or too much of it. About 15 s."""

import threading
import time
from collections.abc import Iterator

import psutil
import pytest

from eightfold.sandbox import Execution, Kernel, KernelPool, PoolConfig
from eightfold.sandbox.host import request_channel
from eightfold.sandbox.pool_config import MIB

# The kernel's own end of the channel.
CHANNEL = (
    "import json, os, struct, threading, time\nc = get_ipython().kernel.receiver._connection\n"
)
REPLY = "m = json.dumps({'id': %s, 'status': 'ok'}).encode(); m = struct.pack('<I', len(m)) + m\n"


@pytest.fixture(scope="module")
def pool() -> Iterator[KernelPool]:
    with KernelPool(PoolConfig(size=2, spares=1, timeout=60)) as pool:
        pool.wait_ready(2, timeout=60)
        yield pool


BREAKS = {  # cells after which the pool gives up their process, and only that
    "endless length": "c.sendall(struct.pack('<I', 2**32 - 1)); time.sleep(600)",
    "no JSON": "c.sendall(struct.pack('<I', 4) + b'{{{{'); time.sleep(600)",
    "deep JSON": "c.sendall(struct.pack('<I', 4000) + b'[' * 4000); time.sleep(600)",
    "no object": "c.sendall(struct.pack('<I', 1) + b'7'); time.sleep(600)",
    "other replies": REPLY % "0" + "while True: c.sendall(m)",
    "zeros": "b = bytes(1 << 20)\nwhile True: c.sendall(b)",
    "byte by byte": (
        "c.sendall(struct.pack('<I', 4096))\nwhile True: c.sendall(b' '); time.sleep(0.0001)"
    ),
    "closed": "c.close(); time.sleep(600)",
    "shut down": "c.shutdown(2); time.sleep(600)",
}


@pytest.mark.parametrize("name", BREAKS)
def test_a_kernel_that_breaks_the_channel_is_replaced(pool: KernelPool, name: str) -> None:
    with pool.lease(timeout=60) as kernel, pool.lease(timeout=60) as other:
        result = kernel.execute(CHANNEL + BREAKS[name], timeout=30)
        assert (result.status, result.killed) == ("died", True), result
        assert kernel.execute("6 * 7").text.endswith("42")
        assert other.execute("6 * 7").text == "42"


def test_a_forged_reply_harms_only_its_own_lease(pool: KernelPool) -> None:
    forge = CHANNEL + REPLY % "2" + "c.sendall(m)\nwhile True: pass"
    with pool.lease(timeout=60) as kernel:
        assert kernel.execute("1").text == "1"
        assert kernel.execute(forge, timeout=20).status == "ok"  # the forged reply is believed
        assert kernel.execute("6 * 7", timeout=1).status in ("timeout", "died")
        assert kernel.execute("6 * 7").text.endswith("42")
    with pool.lease(timeout=60) as kernel:
        assert kernel.execute("6 * 7").text == "42"


def test_the_fields_of_an_execution_are_bounded(pool: KernelPool) -> None:
    name = "m = json.dumps({'id': 1, 'status': 'error', 'ename': '\\x1b' * %d}).encode()\n"
    send = "c.sendall(struct.pack('<I', len(m)) + m); time.sleep(600)"
    with pool.lease(timeout=60) as kernel:
        result = kernel.execute(CHANNEL + name % 600 + send)
        assert result.status == "error"
        assert result.error is not None
        assert len(result.error) < 1000
        assert "\x1b" not in result.error
    with pool.lease(timeout=60) as kernel:
        assert kernel.execute(CHANNEL + name % 1_000_000 + send).status == "died"
    fill = (
        "import os\nfrom eightfold.sandbox.guest.cell_streams import CurrentCell\n"
        "m = CurrentCell.page._page\n"
        "m[8:] = %s * (len(m) - 8); m[:8] = b'\\xff' * 8\nos._exit(0)"
    )
    for content in ("b'\\0'", "b'\\r'", "b'\\x1b'", "b'\\xff'", "b'\\n'"):
        with pool.lease(timeout=60) as kernel:
            result = kernel.execute(fill % content)
            assert result.status == "died"
            assert len(result.text) < 8000


def test_floods_on_every_channel_cost_the_parent_neither_memory_nor_time() -> None:
    # Large messages to all clients and to the pool, and to any descriptor that is a socket.
    flood = (
        CHANNEL + "k = get_ipython().kernel\nb = b'x' * (7 << 20)\n"
        "s = k.shell_stream.socket\ndef shell():\n    while True:\n"
        "        try: s.send_multipart([b'i', b])\n"
        "        except Exception: pass\n"
        "def descriptors():\n    while True:\n        for fd in range(3, 256):\n"
        "            try: os.write(fd, b)\n            except OSError: pass\n"
        "for f in (shell, descriptors): threading.Thread(target=f, daemon=True).start()\n"
        "while True: k.iopub_socket.send(b)"
    )
    me = psutil.Process()
    with KernelPool(PoolConfig(size=4, spares=0, timeout=60, grace=0.4)) as pool:
        kernels = [pool.lease(timeout=60) for _ in range(4)]
        before = me.memory_info().rss
        results: list[tuple[Execution, float]] = []

        def run(kernel: Kernel) -> None:
            began = time.monotonic()
            result = kernel.execute(flood, timeout=1.5)
            results.append((result, time.monotonic() - began))

        cpu = sum(me.cpu_times()[:2])
        threads = [threading.Thread(target=run, args=(kernel,)) for kernel in kernels]
        for thread in threads:
            thread.start()
        highest = before
        while any(thread.is_alive() for thread in threads):
            highest = max(highest, me.memory_info().rss)
            time.sleep(0.02)
        assert highest - before < 16 * MIB
        assert sum(me.cpu_times()[:2]) - cpu < 1.0
        assert all(result.killed for result, _ in results), results
        assert all(seconds < 60 for _, seconds in results)  # a generous limit for a hang


def test_a_channel_reads_no_more_than_its_bounds_allow() -> None:
    assert request_channel.MAX_REPLY_BYTES * request_channel.MAX_STRAY_REPLIES <= 1 << 16
