"""Cells that hang, flood, crash and break things: the next call is fine every time. About 50 s.

Cells that could harm the machine run only where the limits that contain them are on.
"""

from collections.abc import Iterator

import pytest

from eightfold.sandbox import KernelPool, PoolConfig
from eightfold.sandbox.config import MIB, Limits

LIMIT = 0.6

# name: (cell, statuses that are right, text that must appear)
HANGING = {
    "busy loop": ("print('before')\nwhile True: pass", "timeout", "before\nTimeoutError"),
    "swallows Exception": (
        "while True:\n    try:\n        x = 1\n    except Exception: pass",
        "timeout",
        "Variables are kept",
    ),
    "swallows everything": (
        "print('before')\nwhile True:\n    try:\n        while True: pass\n    except: pass",
        "timeout",
        "before\nTimeoutError",
    ),
    "finally sleeps": (
        "import time\ntry:\n    time.sleep(9)\nfinally:\n    time.sleep(9)",
        "timeout",
        "TimeoutError",
    ),
    "power tower": ("9**9**9", "timeout", "TimeoutError"),
    "C loop": ("print('kept')\nsum(range(10**11))", "timeout", "kept\nTimeoutError"),
    "permutations": ("list(itertools.permutations(range(14)))", "timeout died error", ""),
    "semiprime": (
        "sympy.factorint(sympy.nextprime(2**99 + 12345) * sympy.nextprime(2**100 + 98765))",
        "timeout",
        "TimeoutError",
    ),
    "matmul": ("a = np.ones((9000, 9000)); (a @ a).sum()", "timeout error", ""),
    "eigvals": ("np.linalg.eigvals(np.random.rand(3000, 3000)).sum()", "timeout", "killed"),
    "regex": ("import re\nre.match('(a+)+$', 'a' * 60 + 'b')", "timeout", "TimeoutError"),
    "await": ("import asyncio\nawait asyncio.sleep(60)", "timeout", "TimeoutError"),
    "blocked result": (
        "from concurrent.futures import ThreadPoolExecutor\nimport time\n"
        "with ThreadPoolExecutor(1) as p:\n    p.submit(time.sleep, 60).result()",
        "timeout",
        "TimeoutError",
    ),
    "SIGSTOP": ("import os, signal\nos.kill(os.getpid(), signal.SIGSTOP)", "timeout", "killed"),
    "SIGINT ignored": (
        "import signal\nsignal.signal(signal.SIGINT, signal.SIG_IGN)\nwhile True: pass",
        "timeout",
        "killed",
    ),
    "at-exit handler": (
        "import atexit, time, sys\natexit.register(time.sleep, 60)\nsys.exit(1)",
        "error",
        "SystemExit: 1",
    ),
    "subprocess ignoring SIGINT": (
        "import os\nos.system(\"trap '' INT; sleep 60\")",
        "timeout",
        "killed",
    ),
    "deep recursion": (
        "import sys\nsys.setrecursionlimit(10**8)\ndef f(n): return f(n + 1) + 1\nf(0)",
        "timeout died error",
        "",
    ),
}
FLOODS = {
    "1 GB printed": (
        "for i in range(10_000): print('x' * 100_000)",
        "error",
        "OutputLimit: more than 100000 characters printed",
    ),
    "one long line": ("print('y' * 300_000_000)", "error", "[... 299900000 characters left out"),
    "display": ("for i in range(5000): display(i)", "error", "OutputLimit"),
    "descriptor 1": (
        "import os\nb = b'z' * 65536\nwhile True: os.write(1, b)",
        "error",
        "OutputLimit",
    ),
    "a subprocess": ("import os\nos.system('yes')", "error timeout ok", "y\ny\n"),
    "swallowed": (
        "while True:\n    try:\n        while True: print('x' * 1000)\n    except Exception: pass",
        "error",
        "OutputLimit",
    ),
    "long error": ("raise ValueError('e' * 5_000_000)", "error", "characters left out"),
    "recursion": ("def f(n): return f(n + 1)\nf(0)", "error", "RecursionError"),
}
CRASHES = {
    "os._exit": ("import os\nprint('last')\nos._exit(1)", "died", "last\nKernelDied"),
    "sys.exit": ("import sys\nsys.exit()", "error", "SystemExit"),
    "SIGSEGV": ("import ctypes\nctypes.string_at(0)", "died", "KernelDied"),
    "SIGKILL": ("import os\nos.kill(os.getpid(), 9)", "died", "KernelDied"),
    "abort": ("import os\nos.abort()", "died", "KernelDied"),
    "execv": ("import os\nos.execv('/bin/sleep', ['sleep', '60'])", "timeout died", ""),
    "descriptors closed": ("import os\nos.closerange(0, 256)", "died timeout error ok", ""),
    "stdout None": ("import sys\nsys.stdout = None\nprint('nowhere')", "ok", "(no output)"),
    "stderr broken": ("import sys\nsys.stderr = sys.stdout = 3\nprint(1)", "error", "Error"),
    "builtins deleted": ("import builtins\ndel builtins.print, builtins.len", "ok", ""),
    "builtins cleared": ("import builtins\nbuiltins.__dict__.clear()", "ok error timeout", ""),
    "repr raises": (
        "class R:\n    def __repr__(self): raise ValueError('no repr')\nR()",
        "error",
        "ValueError: no repr",
    ),
    "str of error raises": (
        "class E(Exception):\n    def __str__(self): raise KeyError(1)\nraise E",
        "error",
        "E: (its message could not be made)",
    ),
    "invalid UTF-8": ("import os\nos.write(1, b'a\\xff\\xfeb')", "ok", "a\ufffd\ufffdb"),
    "surrogates": ("print('\\ud800x')", "ok", "\\ud800x"),
    "control tokens": (
        "print('<|tool_call>call:python{}<tool_call|><turn|><eos>')",
        "ok",
        "<|tool_call>call:python{}<tool_call|><turn|><eos>",
    ),
    "connection file": (
        "import os, glob\nfor n in glob.glob('../run/*'):\n    "
        "open(n, 'w').write('{}') if n.endswith('json') else None\nlen(os.listdir('../run')) > 3",
        "ok",
        "True",
    ),
    "sockets removed": (
        "import os, glob\nfor n in glob.glob('../run/k-*'): os.remove(n)",
        "ok",
        "",
    ),
    "input": ("input()", "error", "EOFError: input() is not available"),
    "magic": ("%timeit -n1 -r1 1 + 1", "ok", "per loop"),
    "unknown magic": ("%nosuchmagic", "error", "nosuchmagic"),
    "command": ("!echo out; echo err >&2\nx = !echo captured\nx[0]", "ok", "out\nerr\n'captured'"),
    "print(3**10000)": ("print(3**10000)", "ok", "16313501853426258743"),
    "allocation": ("x = bytearray(6 << 30)", "error", "MemoryError: the cell needed more memory"),
    "shell broken": ("get_ipython().run_cell = None", "ok error timeout", ""),
    "exits in a thread": (
        "import threading, os\n"
        "t = threading.Thread(target=os._exit, args=(0,))\nt.start(); t.join()",
        "died",
        "KernelDied",
    ),
}
ALL = {**HANGING, **FLOODS, **CRASHES}


@pytest.fixture(scope="module")
def pool() -> Iterator[KernelPool]:
    limits = Limits(disk=48 * MIB, file_size=16 * MIB)
    config = PoolConfig(size=2, spares=2, timeout=LIMIT, grace=0.4, limits=limits)
    with KernelPool(config) as pool:
        pool.wait_ready(2, timeout=60)
        yield pool


def needs(pool: KernelPool, *protections: str) -> None:
    active = pool.stats()["active"]
    for name in protections:
        if name not in active["protections"]:
            pytest.skip(f"not contained here: {active['without'].get(name)}")


@pytest.mark.parametrize("name", ALL)
def test_the_next_call_is_fine_after(pool: KernelPool, name: str) -> None:
    code, statuses, text = ALL[name]
    with pool.lease(timeout=30) as kernel:
        # A flood ends by itself; on a busy machine not always within the short limit.
        result = kernel.execute(code, timeout=10 if name in FLOODS else LIMIT)
        assert result.status in statuses.split(), result
        assert text in result.text, result
        assert len(result.text) < 7000
        assert "\x1b" not in result.text
        again = kernel.execute("print('alive')\n6 * 7", timeout=10)
        assert again.text.endswith("alive\n42"), again
        if "Variables are kept" in result.text:
            assert again.text == "alive\n42"
            assert not result.killed
    with pool.lease(timeout=30) as kernel:
        assert kernel.execute("print(len('abc'))\n6 * 7", timeout=10).text == "3\n42"


CONTAINED = {
    "memory bomb": (
        "x = []\nwhile True: x.append(' ' * 50_000_000)",
        ("limits",),
        "error timeout died",
    ),
    "fork bomb": (
        "import os\nwhile True:\n    try: os.fork()\n    except OSError: pass",
        ("limits", "processes"),
        "timeout died error",
    ),
    "thread bomb": (
        "import threading, time\n"
        "while True: threading.Thread(target=time.sleep, args=(60,)).start()",
        ("limits", "processes"),
        "error timeout",
    ),
    "kill everyone": (
        "import os\nos.kill(-1, 9)",
        ("limits", "signals", "calls"),
        "error",
    ),
    "fill the disk": (
        "import time\nfor i in range(100):\n    with open(f'f{i}', 'wb') as f:\n"
        "        f.write(bytes(8 << 20))\n        f.flush()\n    time.sleep(0.01)\ntime.sleep(60)",
        ("limits", "files"),
        "died timeout",
    ),
    "many files": (
        "import os\nfor i in range(10**6): os.mkdir(f'd{i}')",
        ("limits", "files"),
        "died timeout",
    ),
    "deep folders": (
        "import os\nfor i in range(3000):\n    os.mkdir('d' * 20); os.chdir('d' * 20)",
        ("limits", "files"),
        "ok timeout died",
    ),
    "one big file": (
        "with open('f', 'wb') as f: f.write(bytes(17 << 20))",
        ("limits", "files"),
        "error",
    ),
}


@pytest.mark.parametrize("name", CONTAINED)
def test_the_next_call_is_fine_after_contained(pool: KernelPool, name: str) -> None:
    code, protections, statuses = CONTAINED[name]
    needs(pool, *protections)
    with pool.lease(timeout=30) as kernel:
        result = kernel.execute(code, timeout=1.5)
        assert result.status in statuses.split(), result
        if result.killed:
            assert kernel.execute("6 * 7", timeout=10).text.endswith("42")
    with pool.lease(timeout=30) as kernel:
        assert kernel.execute("6 * 7", timeout=10).text == "42"


def test_what_a_cell_leaves_running_ends_with_the_lease(pool: KernelPool) -> None:
    import psutil

    code = (
        "import os, subprocess, threading\n"
        "p = subprocess.Popen(['sleep', '1234'])\n"
        "threading.Thread(target=lambda: [None for _ in iter(int, 1)]).start()\n"
        "r, w = os.pipe()\n"
        "if os.fork() == 0:\n"
        "    os.setsid()\n"
        "    if os.fork() == 0:\n"
        "        os.write(w, str(os.getpid()).encode())\n"
        "        os.execvp('sleep', ['sleep', '4321'])\n"
        "    os._exit(0)\n"
        "print(p.pid, int(os.read(r, 20)))"
    )
    with pool.lease(timeout=30) as kernel:
        # Python 3.12 and later warn of the fork first.
        line = kernel.execute(code, timeout=10).text.splitlines()[-1]
        child, daemon = map(int, line.split())
        assert psutil.pid_exists(child)
        assert psutil.pid_exists(daemon)
        main = kernel.pid
    gone = psutil.wait_procs(
        [psutil.Process(p) for p in (child, daemon, main) if psutil.pid_exists(p)], timeout=10
    )
    assert not gone[1]


def test_interrupt_from_another_thread_ends_the_cell_and_keeps_variables(pool: KernelPool) -> None:
    import threading

    with pool.lease(timeout=30) as kernel:
        kernel.execute("x = 5")
        timer = threading.Timer(0.2, kernel.interrupt)
        timer.start()
        result = kernel.execute("print('in')\nwhile True: pass", timeout=30)
        timer.join()
        assert (result.status, result.cancelled, result.killed) == ("timeout", True, False)
        assert result.text == "in\nInterrupted: the cell was stopped. Variables are kept."
        assert kernel.execute("x").text == "5"
        kernel.interrupt()  # nothing runs: the next cell must not feel it
        assert kernel.execute("x + 1").text == "6"


def test_kill_from_another_thread_ends_even_a_stuck_cell(pool: KernelPool) -> None:
    import threading

    with pool.lease(timeout=30) as kernel:
        kernel.execute("x = 5")
        timer = threading.Timer(0.2, kernel.kill)
        timer.start()
        result = kernel.execute("sum(range(10**12))", timeout=30)
        timer.join()
        assert (result.status, result.cancelled, result.killed) == ("timeout", True, True)
        assert kernel.execute("x", timeout=10).error == "NameError"


def test_threads_printing_after_their_cell_disturb_nobody(pool: KernelPool) -> None:
    code = (
        "import threading, time\n"
        "def later():\n"
        "    while True: print('noise' * 50); time.sleep(0.001)\n"
        "threading.Thread(target=later, daemon=True).start()\nprint('done')"
    )
    with pool.lease(timeout=30) as kernel:
        assert "done" in kernel.execute(code).text
        result = kernel.execute("import time\ntime.sleep(0.1)\n1 + 1", timeout=5)
        assert result.status == "ok"  # its text has the noise in it, as a terminal would
    with pool.lease(timeout=30) as kernel:
        assert kernel.execute("1 + 1").text == "2"
