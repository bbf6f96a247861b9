"""Cells that hang, flood, crash or break things, each followed by a call that works. About 60 s.

Cells that could harm the machine run only if the limits that contain them are active.
"""

from collections.abc import Iterator

import pytest

from eightfold.sandbox import KernelPool, PoolConfig
from eightfold.sandbox.pool_config import MIB, Limits

LIMIT = 0.7  # seconds for cells that do not end by themselves

# Cells that an interrupt ends. Name: (cell, text that must appear)
KEPT = {
    "busy loop": ("print('before')\nwhile True: pass", "before\nTimeoutError"),
    "swallows Exception": (
        "while True:\n    try:\n        x = 1\n    except Exception: pass",
        "TimeoutError",
    ),
    "power tower": ("9**9**9", "(line 1: 9**9**9)"),
    "semiprime": (
        "sympy.factorint(sympy.nextprime(2**99 + 12345) * sympy.nextprime(2**100 + 98765))",
        "TimeoutError",
    ),
    "regex": ("import re\nre.match('(a+)+$', 'a' * 60 + 'b')", "(line 2: re.match"),
    "await": ("import asyncio\nawait asyncio.sleep(600)", "(line 2: await"),
    "await and compute": (
        "import asyncio\nawait asyncio.sleep(0)\nprint('in')\nwhile True: pass",
        "in\nTimeoutError",
    ),
    "looping finalizer": (
        "class A:\n    def __del__(self):\n        while True: pass\nx = A(); del x",
        "TimeoutError",
    ),
    "looping trace function": (
        "import sys\ndef t(*_):\n    while True: pass\nsys.settrace(t)\n(lambda: 1)()",
        "TimeoutError",
    ),
    "looping repr": (
        "class R:\n    def __repr__(self):\n        while True: pass\nR()",
        "(line 3, in __repr__: while True: pass)",
    ),
}
# Name: (cell, allowed statuses, text that must appear)
HANGING = {
    "swallows everything": (
        # An interrupt at the jump back to the inner `try` is swallowed by the outer one.
        "print('before')\nwhile True:\n    try:\n        while True:\n            try:\n"
        "                while True: pass\n            except: pass\n    except: pass",
        "timeout",
        "before\nTimeoutError",
    ),
    "finally sleeps": (
        "import time\ntry:\n    time.sleep(600)\nfinally:\n    time.sleep(600)",
        "timeout",
        "TimeoutError",
    ),
    "C loop": ("print('kept')\nsum(range(10**11))", "timeout", "kept\nTimeoutError"),
    "permutations": ("list(itertools.permutations(range(14)))", "timeout died error", ""),
    "matmul": ("a = np.ones((9000, 9000)); (a @ a).sum()", "timeout error ok", ""),
    "eigvals": ("np.linalg.eigvals(np.random.rand(3000, 3000)).sum()", "timeout", "killed"),
    "await that swallows": (
        "import asyncio\nasync def f():\n    while True:\n        try: await asyncio.sleep(600)\n"
        "        except BaseException: pass\nawait f()",
        "timeout",
        "killed",
    ),
    "blocked result": (
        "from concurrent.futures import ThreadPoolExecutor\nimport time\n"
        "with ThreadPoolExecutor(1) as p:\n    p.submit(time.sleep, 600).result()",
        "timeout",
        "TimeoutError",
    ),
    "SIGSTOP": ("import os, signal\nos.kill(os.getpid(), signal.SIGSTOP)", "timeout", "killed"),
    "SIGINT ignored": (
        "import signal\nsignal.signal(signal.SIGINT, signal.SIG_IGN)\nwhile True: pass",
        "timeout",
        "killed",
    ),
    "all signals caught": (
        "import signal\nfor s in set(signal.Signals) - {signal.SIGKILL, signal.SIGSTOP}:\n"
        "    signal.signal(s, lambda *_: None)\nwhile True: pass",
        "timeout",
        "killed",
    ),
    "at-exit handler": (
        "import atexit, time, sys\natexit.register(time.sleep, 600)\nsys.exit(1)",
        "error",
        "SystemExit: 1",
    ),
    "descriptors closed": ("import os\nos.closerange(0, 256)", "died timeout error ok", ""),
    "execv": ("import os\nos.execv('/bin/sleep', ['sleep', '600'])", "timeout died", ""),
    "builtins cleared": (
        "import builtins\nbuiltins.__dict__.clear()",
        "ok error timeout died",
        "",
    ),
    "subprocess ignoring SIGINT": (
        "import os\nos.system(\"trap '' INT; sleep 600\")",
        "timeout",
        "killed",
    ),
    "deep recursion": (
        "import sys\nsys.setrecursionlimit(10**8)\ndef f(n): return f(n + 1) + 1\nf(0)",
        "timeout died error",
        "",
    ),
    "signed answers withheld": (
        "get_ipython().kernel.session.key = b'another'",
        "ok timeout",
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
    "stdout None": ("import sys\nsys.stdout = None\nprint('nowhere')", "ok", "(no output)"),
    "stderr broken": ("import sys\nsys.stderr = sys.stdout = 3\nprint(1)", "error", "Error"),
    "builtins deleted": ("import builtins\ndel builtins.print, builtins.len", "ok", ""),
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
    "sockets removed": (
        "import os, glob\nfor n in (*glob.glob('../run/*'), *glob.glob('/run/kernel/*')):\n"
        "    try: os.remove(n)\n    except OSError: pass",
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
    "descriptor 1 replaced": (
        "import os\nos.dup2(os.open('/dev/null', os.O_WRONLY), 1)\nprint('still')",
        "ok",
        "still",
    ),
    "long exception name": ("raise type('E' * 5_000_000, (Exception,), {})", "error", "EEE"),
    "exception without a name": (
        "class M(type):\n    __name__ = property(lambda cls: 1 / 0)\n"
        "class E(Exception, metaclass=M): pass\nraise E('x')",
        "error",
        "E: x",
    ),
    "deep display data": (
        "d = []\nfor _ in range(100_000): d = [d]\n"
        "get_ipython().display_pub.publish({'application/json': d, 'text/plain': 'deep'})",
        "ok",
        "deep",
    ),
    "sparse file": ("open('f', 'wb').truncate(1 << 40)", "error", "File too large"),
    "alarm left": (
        "import signal\nsignal.signal(signal.SIGALRM, lambda *_: 1 / 0)\n"
        "signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)\nwhile True: pass",
        "error",
        "ZeroDivisionError",
    ),
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
    config = PoolConfig(size=2, spares=2, timeout=60, grace=0.4, limits=limits)
    with KernelPool(config) as pool:
        yield pool


@pytest.fixture(scope="module")
def patient() -> Iterator[KernelPool]:
    """A pool with a long grace period, for a busy machine; no cell here needs all of it."""
    with KernelPool(PoolConfig(size=1, spares=2, timeout=60, grace=60)) as pool:
        yield pool


def skip_without(pool: KernelPool, *protections: str) -> None:
    active = pool.stats()["active"]
    for name in protections:
        if name not in active["protections"]:
            pytest.skip(f"{name} is not limited here: {active['without'].get(name)}")


@pytest.mark.parametrize("name", KEPT)
def test_an_interrupt_keeps_the_variables(patient: KernelPool, name: str) -> None:
    code, text = KEPT[name]
    with patient.lease(timeout=60) as kernel:
        kernel.execute("kept = 11")
        result = kernel.execute(code, timeout=LIMIT)
        assert (result.status, result.killed) == ("timeout", False), result
        assert text in result.text, result
        assert result.text.endswith("Variables are kept.")
        assert kernel.execute("print('alive')\nkept").text == "alive\n11"


@pytest.mark.parametrize("name", ALL)
def test_the_next_call_works(pool: KernelPool, name: str) -> None:
    code, statuses, text = ALL[name]
    with pool.lease(timeout=60) as kernel:
        kernel.execute("1")  # the first cell after a fork is slow
        result = kernel.execute(code, timeout=LIMIT if name in HANGING else None)
        assert result.status in statuses.split(), result
        assert text in result.text, result
        assert len(result.text) < 7000
        assert "\x1b" not in result.text
        again = kernel.execute("print('alive')\n6 * 7")
        assert again.text.endswith("alive\n42"), again
    with pool.lease(timeout=60) as kernel:
        assert kernel.execute("print(len('abc'))\n6 * 7").text == "3\n42"


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
        "error died timeout",
    ),
    "many files": (
        "import os\nfor i in range(10**6): os.mkdir(f'd{i}')",
        ("limits", "files"),
        "error died timeout",
    ),
    "deep folders": (
        "import os\nfor i in range(3000):\n    os.mkdir('d' * 20); os.chdir('d' * 20)",
        ("limits", "files"),
        "ok error timeout died",
    ),
    "one big file": (
        "with open('f', 'wb') as f: f.write(bytes(17 << 20))",
        ("limits", "files"),
        "error",
    ),
}


@pytest.mark.parametrize("name", CONTAINED)
def test_the_next_call_works_after_a_contained_cell(pool: KernelPool, name: str) -> None:
    code, protections, statuses = CONTAINED[name]
    skip_without(pool, *protections)
    with pool.lease(timeout=60) as kernel:
        result = kernel.execute(code, timeout=1.5)
        assert result.status in statuses.split(), result
        if result.killed:
            assert kernel.execute("6 * 7").text.endswith("42")
    with pool.lease(timeout=60) as kernel:
        assert kernel.execute("6 * 7").text == "42"


def test_threads_that_print_after_their_cell_do_not_disturb_the_next(pool: KernelPool) -> None:
    code = (
        "import threading, time\n"
        "def later():\n"
        "    while True: print('noise' * 50); time.sleep(0.001)\n"
        "threading.Thread(target=later, daemon=True).start()\nprint('done')"
    )
    with pool.lease(timeout=60) as kernel:
        assert "done" in kernel.execute(code).text
        result = kernel.execute("import time\ntime.sleep(0.1)\n1 + 1")
        assert result.status == "ok"  # its text contains the noise, as on a terminal
    with pool.lease(timeout=60) as kernel:
        assert kernel.execute("1 + 1").text == "2"
