"""Programs that people and models write, each with its right output. About 15 s."""

import sys
from collections.abc import Iterator

import pytest
from helpers.cell_programs import check_program

from eightfold.sandbox import KernelPool, PoolConfig
from eightfold.sandbox.guest.process_setup import RECURSION
from eightfold.sandbox.text.inprocess_cell import new_namespace, run_cell

ELIF = "".join(f"elif x == {i}: y = {i}\n" for i in range(1, 3000))
LONG_SOURCES = {  # name: (cell, text)
    "sum": ("x=" + "+".join(["1"] * 3000) + "\nx", "3000"),
    "chain of elif": (f"x = 2999\nif x == 0: y = 0\n{ELIF}y", "2999"),
    "unary minus": ("-" * 3000 + "1", "1"),
    "polynomial": ("x = 1\n" + "+".join(f"{i}*x**{i}" for i in range(3000)), "4498500"),
}
PROGRAMS = {  # name: (cells, text of the last one)
    "own module": (("open('helper.py', 'w').write('v=42')\nimport helper; helper.v",), "42"),
    "own package": (
        (
            "import os; os.mkdir('pk'); open('pk/__init__.py', 'w').write('v = 43')",
            "from pk import v; v",
        ),
        "43",
    ),
    "module after a failed import": (
        (
            "try: import late\nexcept ImportError: open('late.py', 'w').write('v = 5')",
            "import late; late.v",
        ),
        "5",
    ),
    "%%writefile": (
        (
            "%%writefile written.py\ndef f(): return 7",
            "import written; written.f()",
        ),
        "7",
    ),
    "asyncio.run": (
        (
            "import asyncio\nasync def f():\n    await asyncio.sleep(0.001); return 5",
            "asyncio.run(f()), asyncio.run(f())",
        ),
        "(5, 5)",
    ),
    "asyncio.run, then await": (
        (
            "import asyncio\nasync def f(): return 5\nx = asyncio.run(f())",
            "x + await f()",
        ),
        "10",
    ),
    "a new event loop": (
        (
            "import asyncio\nasync def f(): return 5",
            "asyncio.new_event_loop().run_until_complete(f())",
        ),
        "5",
    ),
    "the current event loop": (
        (
            "import asyncio\nasync def f():\n    await asyncio.sleep(0.001); return 5",
            "loop = asyncio.get_event_loop()\nt = loop.create_task(f())",
            "loop.run_until_complete(t), loop.run_until_complete(f())",
        ),
        "(5, 5)",
    ),
    "a loop within a coroutine": (
        (
            "import asyncio\nasync def f(): return 5\nasync def g(): asyncio.run(f())",
            (
                "import warnings; warnings.simplefilter('ignore')\ntry: asyncio.run(g())\n"
                "except RuntimeError as e: print(str(e)[:16])"
            ),
        ),
        "asyncio.run() ca",
    ),
    "exit in an awaited task": (
        (
            "import asyncio\nasync def f(): raise SystemExit\nx = 3",
            "await asyncio.gather(f())",
            "x",
        ),
        "3",
    ),
    "exit in a background task": (
        (
            "import asyncio\nasync def f(): exit()\nx = 4\nt = asyncio.ensure_future(f())",
            "await asyncio.sleep(0.01)\nasyncio.get_running_loop().call_soon(exit)\nx",
            "await asyncio.sleep(0.01)\nx",
        ),
        "4",
    ),
    "a stopped loop": (
        (
            "import asyncio\nx = 6\nasyncio.get_event_loop().stop()",
            "asyncio.get_running_loop().call_soon(asyncio.get_running_loop().stop)",
            "await asyncio.sleep(0.01)\nx",
        ),
        "6",
    ),
    "a recurrence with a memory": (
        (
            (
                "memo = {1: 1, 2: 1}\n"
                "def a(n):\n"
                "    if n not in memo:\n"
                "        memo[n] = a(a(n - 1)) + a(n - a(n - 1))\n"
                "    return memo[n]\n"
                "a(4096)"
            ),
        ),
        "2048",
    ),
    "recursion through lru_cache": (
        (
            (
                "import functools, sys\nsys.setrecursionlimit(10**6)\n"
                "@functools.lru_cache(None)\ndef f(n): return n and f(n - 1) + 1\nf(20000)"
            ),
        ),
        "20000",
    ),
    "recursion through max": (
        (
            (
                "import sys\nsys.setrecursionlimit(10**6)\n"
                "def f(n): return n and max([n], key=lambda _: f(n - 1))\nf(30000)"
            ),
        ),
        "30000",
    ),
    "chain of maps": (("x = iter([1])\nfor _ in range(100000): x = map(int, x)\nnext(x)",), "1"),
    "endless recursion": (
        (
            "import functools, sys\nsys.setrecursionlimit(10**9)\nkept = 1",
            "@functools.lru_cache(None)\ndef f(n): return f(n + 1)",
            "try: f(0)\nexcept RecursionError: print('RecursionError', kept)",
        ),
        "RecursionError 1",
    ),
    "progress bar": (
        ("for i in range(300): print(f'\\rprogress {i}', end='')\n9",),
        "progress 299\n9",
    ),
    "python by name": (
        (
            "open('one.py', 'w').write('import sys, numpy; print(sys.argv[1], numpy.pi > 3)')",
            "!python one.py a; python3 one.py b",
        ),
        "a True\nb True",
    ),
    "the same interpreter": (
        (
            (
                "import subprocess, sys\n"
                "code = 'import sys; print(sys.executable)'\n"
                "run = lambda name: subprocess.run([name, '-c', code], stdout=-1).stdout"
            ),
            "run('python3') == run(sys.executable)",
        ),
        "True",
    ),
    "C output without a flush": (
        ("import ctypes\nn = ctypes.CDLL(None).printf(b'%d ', 5); print('there')",),
        "5 there",
    ),
    "user": (
        (("import getpass, os\ngetpass.getuser(), os.path.isdir(os.path.expanduser('~'))"),),
        "('user', True)",
    ),
    "64 threads": (
        (
            (
                "import threading\ndone = []\nbarrier = threading.Barrier(64)\n"
                "work = lambda: (barrier.wait(30), done.append(1))\n"
                "ts = [threading.Thread(target=work) for _ in range(64)]\n"
                "for t in ts: t.start()\nfor t in ts: t.join()\nlen(done)"
            ),
        ),
        "64",
    ),
    "a file of 100 MB": (
        (
            (
                "with open('big', 'wb') as f:\n"
                "    for _ in range(100): f.write(bytes(10**6))\n"
                "import os; os.path.getsize('big')"
            ),
        ),
        "100000000",
    ),
    "bytes on stdout": (("import sys\nn = sys.stdout.buffer.write(b'\\xc3\\xa9\\n')",), "é"),
    "original stdout": (("import sys\nprint('x', file=sys.__stdout__)",), "x"),
    "captured output": (
        (
            "%%capture out\nprint('x')\ndisplay(8)",
            "out.stdout, len(out.outputs)",
        ),
        "('x\\n', 1)",
    ),
}


@pytest.fixture(scope="module")
def pool() -> Iterator[KernelPool]:
    with KernelPool(PoolConfig(size=1, spares=1, timeout=60)) as pool:
        yield pool


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_program_gives_its_output(pool: KernelPool, name: str) -> None:
    check_program(pool, *PROGRAMS[name])


@pytest.mark.parametrize("name", LONG_SOURCES)
def test_a_long_source_runs(pool: KernelPool, name: str) -> None:
    code, text = LONG_SOURCES[name]
    with pool.lease(timeout=60) as kernel:
        assert kernel.execute(code).text == text
        assert kernel.execute("import sys; sys.getrecursionlimit()").text == str(RECURSION)
    assert run_cell(code, new_namespace()) == text


def test_a_source_that_is_too_deep_fails_and_keeps_the_kernel(pool: KernelPool) -> None:
    for code in ("+".join(["1"] * 35_000), "-" * 35_000 + "1", "(" * 10_000 + ")" * 10_000):
        with pool.lease(timeout=60) as kernel:
            kernel.execute("x = 5")
            result = kernel.execute(code)
            assert result.status == "error" or sys.version_info >= (3, 12), result
            assert not result.killed
            assert kernel.execute("x").text == "5"


FORKS = {  # name: (cell, text): children neither replace the parent's text nor become kernels
    "an error in the child": (
        "import os\nprint('before')\nif os.fork() == 0: raise ValueError('child')\n"
        "s = os.wait()\nprint('after', s[1] != 0)",
        "before\nTraceback (most recent call last):\n"
        "  line 3: if os.fork() == 0: raise ValueError('child')\n"
        "ValueError: child\nafter True",
    ),
    "output of the child": (
        "import os\nprint('a')\nif os.fork() == 0:\n    print('child')\nelse:\n"
        "    s = os.wait(); print('b', s[1])",
        "a\nchild\nb 0",
    ),
    "many children": (
        "import os\nfor i in range(10):\n    print(i)\n    if os.fork() == 0: os._exit(i)\n"
        "    s = os.wait()\nprint('end')",
        "\n".join([*map(str, range(10)), "end"]),
    ),
}


@pytest.mark.parametrize("name", FORKS)
def test_forked_children_do_not_disturb_the_text(pool: KernelPool, name: str) -> None:
    code, text = FORKS[name]
    with pool.lease(timeout=60) as kernel:
        for _ in range(10):
            assert kernel.execute(code).text == text


def test_what_a_cell_breaks_swallows_no_later_output(pool: KernelPool) -> None:
    breaks = (
        "import sys; sys.stdout.close()",
        "import sys; sys.stderr.close(); sys.stdout.detach()",
        "import sys, io; sys.stdout = io.StringIO()",
        "import sys; sys.stdout = sys.__stdout__ = None",
        "get_ipython().display_pub.publish = lambda *a, **k: None",
        "get_ipython().display_pub = None",
        "get_ipython().displayhook.compute_format_data = lambda v: ({}, {})",
        "get_ipython().display_pub.register_hook(lambda message: None)",
        "import sys; sys.displayhook = lambda v: None",
    )
    with pool.lease(timeout=60) as kernel:
        for code in breaks:
            kernel.execute(code)
            assert kernel.execute("print('a')\ndisplay(3)\n5").text == "a\n3\n5", code


def test_a_plot_is_made_without_noise(pool: KernelPool) -> None:
    pytest.importorskip("matplotlib")
    code = "import matplotlib.pyplot as plt, os\nx = plt.plot([1, 2, 3]); plt.show()\n"
    with pool.lease(timeout=60) as kernel:
        result = kernel.execute(code + "plt.savefig('a.png'); os.path.getsize('a.png') > 999")
        assert result.text == "True"
