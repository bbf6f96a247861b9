"""Programs with several processes or threads, each with its right output. About 10 s."""

from collections.abc import Iterator

import pytest
from helpers.cell_programs import check_program

from eightfold.sandbox import KernelPool, PoolConfig

PARALLEL = {  # name: (cells, text of the last one)
    "multiprocessing.Pool": (
        ("import multiprocessing as mp\nwith mp.Pool(4) as p: print(p.map(abs, range(-4, 0)))",),
        "[4, 3, 2, 1]",
    ),
    "a spawned pool": (
        (
            "import multiprocessing as mp\n"
            "with mp.get_context('spawn').Pool(2) as p: print(p.map(abs, [-1, -2]))",
        ),
        "[1, 2]",
    ),
    "ProcessPoolExecutor": (
        (
            "from concurrent.futures import ProcessPoolExecutor\ndef f(x): return x * x\n"
            "with ProcessPoolExecutor(4) as p: print(list(p.map(f, range(5))))",
        ),
        "[0, 1, 4, 9, 16]",
    ),
    "Queue and Value": (
        (
            "import multiprocessing as mp\nq, v = mp.Queue(), mp.Value('i', 0)\n"
            "def f():\n    with v.get_lock(): v.value += 1\n    q.put(v.value)",
            "ps = [mp.Process(target=f) for _ in range(4)]\nfor p in ps: p.start()\n"
            "got = sorted(q.get() for _ in ps)\nfor p in ps: p.join()\ngot, v.value",
        ),
        "([1, 2, 3, 4], 4)",
    ),
    "a manager": (
        (
            "import multiprocessing as mp\nm = mp.Manager()\nd, l = m.dict(), m.list()\n"
            "def f(i): d[i] = i * i; l.append(i)",
            "ps = [mp.Process(target=f, args=(i,)) for i in range(3)]\nfor p in ps: p.start()\n"
            "for p in ps: p.join()\ndict(d) == {0: 0, 1: 1, 2: 4}, sorted(l)",
        ),
        "(True, [0, 1, 2])",
    ),
    "an array and a barrier": (
        (
            "import multiprocessing as mp\na, b = mp.Array('i', 3), mp.Barrier(3)\n"
            "def f(i): b.wait(30); a[i] = i + 1\n"
            "ps = [mp.Process(target=f, args=(i,)) for i in range(3)]\nfor p in ps: p.start()",
            "for p in ps: p.join()\na[:]",
        ),
        "[1, 2, 3]",
    ),
    "imap, starmap and errors of workers": (
        (
            "import multiprocessing as mp, math\nwith mp.Pool(2) as p:\n"
            "    r = [list(p.imap_unordered(abs, [-1, -1])), p.starmap(pow, [(2, 3), (3, 2)])]\n"
            "    try: p.map(math.sqrt, [4, -1])\n    except ValueError: r.append(0)\n"
            "r[0], r[1], len(r)",
        ),
        "([1, 1], [8, 9], 3)",
    ),
    "a pipe": (
        (
            "import multiprocessing as mp\na, b = mp.Pipe()\n"
            "p = mp.Process(target=lambda: b.send(b.recv() * 2)); p.start()\n"
            "a.send([1, 2]); x = a.recv(); p.join(); x, p.exitcode",
        ),
        "([1, 2, 1, 2], 0)",
    ),
    "shared memory": (
        (
            "from multiprocessing import Process, shared_memory\n"
            "s = shared_memory.SharedMemory(create=True, size=10)\n"
            "def f():\n    t = shared_memory.SharedMemory(s.name); t.buf[0] = 7; t.close()",
            "p = Process(target=f); p.start(); p.join(); x = s.buf[0]; s.close(); s.unlink(); x",
        ),
        "7",
    ),
    "joined threads and a pool of threads": (
        (
            "from concurrent.futures import ThreadPoolExecutor\n"
            "with ThreadPoolExecutor(64) as p: print(sum(p.map(lambda n: n * n, range(100))))",
        ),
        "328350",
    ),
    "locks, events and a time limit": (
        (
            "import multiprocessing as mp, queue\ne, s = mp.Event(), mp.BoundedSemaphore(1)\n"
            "p = mp.Process(target=e.set); p.start(); p.join()\nr = [e.is_set(), s.acquire()]\n"
            "r.append(s.acquire(timeout=0.01)); s.release()\ntry: s.release()\n"
            "except ValueError: r.append('bounded')\ntry: mp.Queue().get(timeout=0.01)\n"
            "except queue.Empty: r.append('empty')\n"
            "l = mp.RLock()\nwith l:\n    with l: r.append(1)\nr",
        ),
        "[True, True, False, 'bounded', 'empty', 1]",
    ),
    "a database": (
        (
            "import sqlite3\nc = sqlite3.connect('a.db')\nc.execute('create table t (x)')\n"
            "c.execute('insert into t values (3)'); c.commit()\n"
            "c.execute('select x from t').fetchall()",
        ),
        "[(3,)]",
    ),
}


@pytest.fixture(scope="module")
def pool() -> Iterator[KernelPool]:
    with KernelPool(PoolConfig(size=1, spares=1, timeout=60)) as pool:
        yield pool


@pytest.mark.parametrize("name", PARALLEL)
def test_processes_compute_together(pool: KernelPool, name: str) -> None:
    if name in ("a manager", "shared memory") and not pool.stats()["active"]["namespaces"]:
        pytest.skip("no namespaces here, so that kernels share the machine's sockets and memory")
    check_program(pool, *PARALLEL[name])


def test_the_own_semaphores_do_what_those_of_python_do(pool: KernelPool) -> None:
    install = "from eightfold.sandbox.guest import semaphores; semaphores.install()"
    for name, (cells, text) in PARALLEL.items():
        # A new interpreter has Python's own semaphores, and these names need namespaces.
        if name in ("a spawned pool", "a manager", "shared memory"):
            continue
        with pool.lease(timeout=60) as kernel:
            assert kernel.execute(install).status == "ok"
            for cell in cells:
                result = kernel.execute(cell)
            assert result.text == text, name


def test_a_solver_may_have_many_workers(pool: KernelPool) -> None:
    pytest.importorskip("ortools")
    code = (
        "from ortools.sat.python import cp_model\nm = cp_model.CpModel()\n"
        "x, y = m.new_int_var(0, 100, 'x'), m.new_int_var(0, 100, 'y')\n"
        "m.add(3 * x + 2 * y <= 77); m.maximize(5 * x + 3 * y)\ns = cp_model.CpSolver()\n"
        "s.parameters.num_workers = 64\nd = s.solve(m)\ns.objective_value"
    )
    with pool.lease(timeout=60) as kernel:
        assert kernel.execute(code).text == "128.0"
