"""State that `%reset -f` is known to leak, none of which reaches the next lease. About 8 s."""

from eightfold.sandbox import KernelPool, PoolConfig

# Name: (change, probe). In the next lease the probe must give what it gave in a fresh kernel.
LEAKS = {
    "math.pi": ("import math; math.pi = 3", "math.pi"),
    "builtins": ("import builtins; builtins.sum = lambda *a: 42", "sum([1])"),
    "sympy patch": ("sympy.isprime = lambda n: True", "sympy.isprime(9)"),
    "mpmath": ("mpmath.iv.dps = 5; mpmath.mp.pretty = True; mpmath.mp.dps = 9", "mpmath.mp.dps"),
    "recursion": (
        "import sys; sys.setrecursionlimit(200000)",
        "__import__('sys').getrecursionlimit()",
    ),
    "digits": ("import sys; sys.set_int_max_str_digits(1000)", "len(str(3**10000))"),
    "sys.path": ("import sys; sys.path.append('/zz')", "'/zz' in __import__('sys').path"),
    "environment": ("import os; os.environ['ANSWER'] = '17'", "__import__('os').getenv('ANSWER')"),
    "print options": ("np.set_printoptions(precision=2)", "np.array([1.23456])"),
    "seterr": ("np.seterr(all='raise')", "np.geterr()['divide']"),
    "decimal": (
        "import decimal; decimal.getcontext().prec = 3",
        "__import__('decimal').getcontext().prec",
    ),
    "gc": ("import gc; gc.disable()", "__import__('gc').isenabled()"),
    "rlimit": (
        "import resource as r; r.setrlimit(r.RLIMIT_NOFILE, (64, 256))",
        "__import__('resource').getrlimit(7)[0]",
    ),
    "modules": ("import sys; sys.modules['zz'] = 17", "'zz' in __import__('sys').modules"),
    "hooks": (
        "ip = get_ipython(); ip.input_transformers_post.append(lambda l: ['8'])",
        "7",
    ),
    "stdout": ("import sys; sys.stdout = open('/dev/null', 'w')", "print(1)"),
    "alarm": ("import signal; signal.alarm(1)", "__import__('signal').alarm(0)"),
    "warnings": ("import warnings; warnings.simplefilter('error')", "np.array([1.0]) / 0"),
    "files": ("open('left', 'w').write('x')", "__import__('os').listdir('.')"),
    "variable": ("answer = 17", "'answer' in globals()"),
    "last value": ("12345", "globals().get('_') == 12345"),
    "mpmath context": (
        "mpmath.iv.dps = 5; mpmath.mp.pretty = True",
        "mpmath.iv.dps, mpmath.mp.pretty",
    ),
    "current folder": ("import os; os.chdir('/usr')", "__import__('os').getcwd()[-8:]"),
    "threads": (
        "import threading, time; threading.Thread(target=time.sleep, args=(99,)).start()",
        "__import__('threading').active_count()",
    ),
    "busy thread": (
        "import threading\n"
        "threading.Thread(target=lambda: [0 for _ in iter(int, 1)], name='busy').start()",
        "'busy' in [t.name for t in __import__('threading').enumerate()]",
    ),
    "descriptors": (
        "kept = [open('/dev/null') for _ in range(90)]",
        "len(__import__('os').listdir('/proc/self/fd'))",
    ),
    "random": (
        "import random; random.seed(1)",
        "round(__import__('random').random(), 6) == 0.134364",
    ),
    "numpy random": ("np.random.seed(1)", "round(float(np.random.rand()), 6) == 0.417022"),
    "printing": (
        "sympy.printing.printer.Printer.set_global_settings(full_prec=True)",
        "sympy.Symbol('y') + 0.5",
    ),
    "history": ("secret = 4711", "'4711' in str(vars(get_ipython().history_manager))"),
    "cell hook": (
        "get_ipython().events.register('post_run_cell', lambda r: print('hooked'))",
        "5",
    ),
    "SIGINT handler": (
        "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)",
        "str(__import__('signal').getsignal(2))[:30]",
    ),
    "children": (
        "import subprocess; subprocess.Popen(['sleep', '99'])",
        "__import__('glob').glob('/proc/self/task/*/children') and "
        "[t for t in __import__('os').listdir('/proc/self/task') "
        "if open(f'/proc/self/task/{t}/children').read()]",
    ),
    "sympy cache": (
        "[sympy.factor(sympy.Symbol(f'z{i}') ** 2 - 1) for i in range(50)]",
        "sum(c.cache_info().currsize for c in sympy.core.cache.CACHE) > 100",
    ),
}
# Changes that %reset -f undoes; the others remain in a kernel that is kept (docs/sandbox.md).
SOFT = (
    *("mpmath", "digits", "stdout", "alarm", "variable", "last value", "descriptors"),
    *("history", "SIGINT handler"),
)
# Changes that even the next cell of the same lease does not see.
UNDONE = ("stdout", "alarm", "history", "SIGINT handler")


def test_nothing_of_a_lease_reaches_the_next() -> None:
    with KernelPool(PoolConfig(size=1, spares=2, timeout=60)) as pool:
        with pool.lease(timeout=60) as kernel:
            fresh = {name: kernel.execute(probe).text for name, (_, probe) in LEAKS.items()}
        for name, (change, probe) in LEAKS.items():
            with pool.lease(timeout=60) as kernel:
                kernel.execute(change)
                persisted = kernel.execute(probe).text != fresh[name]
                assert persisted == (name not in UNDONE), name
            with pool.lease(timeout=60) as kernel:
                assert kernel.execute(probe).text == fresh[name], name


def test_a_soft_reset_keeps_the_process_and_clears_the_variables() -> None:
    config = PoolConfig(size=1, spares=0, timeout=10, reset="soft", preamble="extra = 11")
    with KernelPool(config) as pool:
        with pool.lease(timeout=60) as kernel:
            before = {name: kernel.execute(LEAKS[name][1]).text for name in SOFT}
            pid = kernel.pid
        with pool.lease(timeout=60) as kernel:
            assert kernel.pid == pid
            for name in SOFT:
                kernel.execute(LEAKS[name][0])
            kernel.execute("extra = math = None; import numpy; numpy.pi = 3")
        with pool.lease(timeout=60) as kernel:
            assert kernel.pid == pid
            assert {name: kernel.execute(LEAKS[name][1]).text for name in SOFT} == before
            assert kernel.execute("extra, math.sqrt(4), np.pi").text == "(11, 2.0, 3)"
            assert kernel.execute("while True: pass", timeout=0.2).status == "timeout"
            kernel.execute("get_ipython().reset = None")  # it cannot be reset, so it is replaced
        with pool.lease(timeout=60) as kernel:
            assert kernel.pid != pid
            assert kernel.execute("np.pi > 3").text == "True"
        assert pool.stats()["leased"] == 0
