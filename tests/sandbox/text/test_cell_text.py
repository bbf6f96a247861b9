"""The text of cells, which is the same from a real kernel and from `run_cell`. About 6 s."""

import time
from collections.abc import Iterator

import pytest

from eightfold.sandbox import Kernel, KernelPool, PoolConfig
from eightfold.sandbox.text import cell_text, shared_text_page
from eightfold.sandbox.text.inprocess_cell import new_namespace, run_cell

# These run in this order in one kernel and in one namespace.
CELLS = [
    "1+1",
    "x = 5",
    "x",
    "x;",
    "print('a'); 7",
    "print('a', end=''); 7",
    "print()",
    "None",
    "print(1)\nundefined",
    "def f(n):\n    return 1 / n\n\nf(0)",
    "f(0)",
    "f(4)",
    "x = = 3",
    "if x:\nprint(1)",
    "print(1)\nreturn 4",
    "'abc",
    "(1,",
    "\n\n1/0",
    "  y = 3\n  y",
    "def g(n):\n    return g(n + 1)\ng(0)",
    "def a(): b()\ndef b(): c()\ndef c(): d()\ndef d(): e()\ndef e(): h()\ndef h(): 1/0\na()",
    "print(len(str(3**10000)))",
    "raise KeyError(3)",
    "raise ValueError",
    "raise ValueError('two\\nlines')",
    "try:\n    1/0\nexcept ZeroDivisionError as e:\n    raise TypeError('other') from e",
    "class A:\n    def __repr__(self): raise ValueError('no')\nA()",
    "class B(Exception):\n    def __str__(self): raise ValueError('no')\nraise B",
    "class C(Exception):\n    pass\nraise C('own')",
    "assert x == 6, 'x is not six'",
    "import sys\nfor n in range(3): print('o', n); print('e', n, file=sys.stderr)",
    "sys.exit()",
    "exit(3)",
    "input('? ')",
    "sys.stdin.read()",
    "numpy.array([1.0, 2.0]) / 0",
    "np.arange(2000)",
    "x is 5",
    "numpy.array([1.0, 2.0]) / 0",
    "import warnings\nwarnings.warn('old', DeprecationWarning)",
    "sympy.solve('x**2 - 2')",
    "sympy.Rational(3, 7) + sympy.sqrt(2)",
    "mpmath.mpf(1) / 3",
    "mpmath.findroot(lambda t: t * t + 1, 0)",
    "sympy.solve('x +')",
    "itertools.count(3), collections.Counter('aab'), math.gcd(12, 18)",
    "{'b': 1, 'a': [1, 2]}, {3, 1}, 'text', 1.5",
    "list(range(3000))",
    "print('\\x1b[31mred\\x1b[0m', 'nul\\x00', '\\ud800', 'bar\\r')",
    "print('a\\x1b]b\\nc', 'd\\x1b]0;title\\x07e', 'f\\x1b[2Kg', 'h\\x1b')",
    "print('\\x07\\x08\\x0b\\x0c\\x85\\x9b')",
    "for i in range(300): print(f'\\rprogress {i}', end='')",
    "print('one\\rtwo\\r\\nthree\\r\\r\\nfour\\r', end=''); 5",
    "raise ValueError('a\\rb\\x00c\\x1b[31md')",
    "print('\\x00block')\n'\\x00'",
    "sys.stdout.close(); print('still')",
    "b = sys.stdout.buffer; n = b.write(b'\\xc3'); n = b.write(b'\\xa9\\n')",
    "sys.stdout.reconfigure(line_buffering=True)",
    "print('original', file=sys.__stderr__)",
    "'+'.join(['1'] * 3)",
    "print('<|tool_call>call:x{}<tool_call|><turn|>')",
    "print('x' * 300_000)",
    "for i in range(10**9): print(i)",
    "raise ValueError('m' * 5_000_000)",
    "raise MemoryError",
    "_",
    "x = 9\n_",
    "import threading\nt = threading.Thread(target=lambda: 1/0)\nt.start()\nt.join()",
    "import warnings\nwarnings.warn('careful')",
    "eval('1/0')",
    "exec('def q():\\n    return 1/0\\nq()')",
    "__name__",
    "print(C)",
    "print('x' * 9000)",
    "sys.stdout.write('no newline')",
    "print(1, file=sys.stdout, flush=True)",
    "sys.stdout.write(3)",
    "import nothing_of_this_name",
    "[1, 2, 3][7]",
    "int('abc')",
    "math.comb(3, -1)",
    "lambda: 1 +",
    "# only a comment",
    "",
    "for k in range(3):\n    print(k)\nelse:\n    print('end')",
    "z = [i * i\n     for i in range(3)]\nz[\n  5]",
]


@pytest.fixture(scope="module")
def kernel() -> Iterator[Kernel]:
    with (
        KernelPool(PoolConfig(size=1, spares=0, timeout=60)) as pool,
        pool.lease(timeout=60) as kernel,
    ):
        yield kernel


def test_the_kernel_and_run_cell_give_the_same_text(kernel: Kernel) -> None:
    namespace = new_namespace()
    different = []
    for code in CELLS:
        live, plain = kernel.execute(code).text, run_cell(code, namespace)
        if live != plain:
            different.append((code, live[:600], plain[:600]))
    assert not different


CLEANED = {  # text: what is left of it
    "a\x1b]b": "a\\x1b]b",
    "a\x1b[31mred\x1b[0m": "ared",
    "\x1b]8;;https://x\x1b\\link\x1b]8;;\x1b\\": "link",
    "a\x1bPb\x1b_c": "a\\x1bPb\\x1b_c",
    "a\x1b[b": "a\\x1b[b",
    "\x1b[2Jx\x1b[?25l": "x",
    "bell\x07 back\x08 nul\x00 del\x7f csi\x9b": "bell\\x07 back\\x08 nul\\x00 del\\x7f csi\\x9b",
    "\r10 %\r20 %\r": "20 %",
    "a\r\nb\r\r\nc": "a\nb\nc",
    "x\ny\rz\n\r": "x\nz\n",
    "tab\tline\n": "tab\tline\n",
}


@pytest.mark.parametrize("text", CLEANED)
def test_only_complete_escape_sequences_are_removed(text: str) -> None:
    assert cell_text.clean(text) == CLEANED[text]


def test_output_of_every_kind_is_read_in_its_true_order(kernel: Kernel) -> None:
    code = (
        "import os, subprocess, sys\nprint(1)\nos.write(1, b'2\\n')\nprint(3, file=sys.stderr)\n"
        "os.system('echo 4')\nprint(5)\n!echo 6 >&2\ndisplay(7)\n"
        "subprocess.run(['echo', '8'])\nsys.stdout.write('9\\n')\nos.write(2, b'10\\n')\n11"
    )
    for _ in range(30):
        assert kernel.execute(code).text.split() == [str(n) for n in range(1, 12)]


def test_an_incomplete_character_does_not_reach_the_next_cell(kernel: Kernel) -> None:
    assert kernel.execute("import os\nn = os.write(1, b'a\\xf0\\x9f')").text == "a\ufffd"
    assert kernel.execute("print('b')").text == "b"


def test_run_cell_returns_the_documented_format() -> None:
    namespace = new_namespace()
    assert run_cell("print('a')\n2 + 2", namespace) == "a\n4"
    assert run_cell("x = 1", namespace) == cell_text.NO_OUTPUT
    assert run_cell("def f(n):\n    return 1 / n\n\nf(0)", namespace) == (
        "Traceback (most recent call last):\n"
        "  line 4: f(0)\n"
        "  line 2, in f: return 1 / n\n"
        "ZeroDivisionError: division by zero"
    )
    assert run_cell("mpmath.mp.dps, np.__name__", namespace) == "(64, 'numpy')"


def test_a_keyboard_interrupt_of_the_caller_is_passed_on() -> None:
    with pytest.raises(KeyboardInterrupt):
        run_cell("raise KeyboardInterrupt", new_namespace())


def test_truncate_keeps_both_ends_and_counts_what_is_left_out() -> None:
    text = "".join(chr(97 + i % 26) for i in range(10_000))
    short = cell_text.truncate(text, 1000)
    head, _, rest = short.partition("\n[... 9000 characters left out ...]\n")
    assert (len(head), len(rest)) == (600, 400)
    assert text.startswith(head)
    assert text.endswith(rest)
    assert cell_text.truncate(text, 10_000) == text


@pytest.mark.parametrize(
    "piece", ["\r", "\r\n", "a\r", "\x01", "\x1b", "\x1b[", "\x1b]1;", "\x1b[1;", "\x00a", "\u2028"]
)
def test_no_text_takes_long_to_render(piece: str) -> None:
    raw = piece * (shared_text_page.MAX_CHARACTERS // len(piece)) + "x"
    began = time.process_time()
    text = cell_text.render(raw)
    assert time.process_time() - began < 5  # seconds; what is not linear takes minutes
    assert len(text) <= cell_text.TEXT_LIMIT + 50
    assert text.endswith("x")


def test_long_text_is_escaped_where_it_is_shown_and_counted_as_a_whole() -> None:
    raw = "ab\x01\x1b[31mc\r\n\x7f" * 3000
    text = cell_text.render(raw, 100)
    assert text == cell_text.truncate(cell_text.clean(raw), 100)


def test_a_recursion_error_shows_the_first_and_last_three_frames() -> None:
    text = run_cell("def g(n):\n    return g(n + 1)\ng(0)", new_namespace())
    lines = text.splitlines()
    assert lines[0] == cell_text.TRACEBACK_HEADER
    assert lines[4] == "  ..."
    assert len(lines) == 9
    assert lines[-1].startswith("RecursionError: maximum recursion depth exceeded")


def test_messages_are_single_lines() -> None:
    for line in (
        cell_text.timeout_line(6, killed=False, location="line 3: while True: pass"),
        cell_text.timeout_line(6, killed=False),
        cell_text.timeout_line(6, killed=True),
        cell_text.cancelled_line(killed=True),
        cell_text.died_line("signal 11"),
        cell_text.replayed_line(3),
    ):
        assert line
        assert "\n" not in line


def test_printed_text_cannot_forge_a_block() -> None:
    budget = cell_text.OutputBudget()
    assert cell_text.BLOCK_MARK not in budget.charge_printed(f"a{cell_text.BLOCK_MARK}b")
    assert cell_text.join_blocks("a" + cell_text.block("v") + "b") == "a\nv\nb"
    assert cell_text.join_blocks("a\n" + cell_text.block("v") + cell_text.block("w")) == "a\nv\nw\n"
