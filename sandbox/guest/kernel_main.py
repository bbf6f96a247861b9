"""One kernel's process: from the fork to the running Jupyter kernel.

`preload` runs in the template (or, with start="plain", in the kernel); `run_kernel` in the fork.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import os
import random
import signal
import sys
from pathlib import Path
from typing import Any

from ..text.preamble import PREAMBLE

_WARM_UP = """\
_x = sympy.Symbol("x")
sympy.simplify((_x**2 - 1) / (_x - 1)), sympy.factorint(360360)
sympy.integrate(_x * sympy.sin(_x), _x)
sympy.solve(_x**2 - 5 * _x + 6, _x), sympy.isprime(10**9 + 7), mpmath.quad(mpmath.sin, [0, 1])
str(sympy.expand((_x + 1) ** 5)), numpy.arange(10).reshape(2, 5) @ numpy.ones((5, 2))
"""

# Modules that the kernel or usual cells import late: each fork would pay for them again.
_LATE = (
    "asyncio",
    "bdb",
    "concurrent.futures.thread",
    "decimal",
    "faulthandler",
    "fractions",
    "functools",
    "heapq",
    "IPython.core.completer",
    "IPython.core.completerlib",
    "IPython.core.magics",
    "IPython.core.oinspect",
    "ipykernel.debugger",
    "multiprocessing.pool",
    "numpy.linalg",
    "numpy.random",
    "pstats",
    "statistics",
    "subprocess",
    "tornado.gen",
    "tornado.locks",
    "tornado.platform.asyncio",
    "tornado.queues",
    "zmq.eventloop.zmqstream",
)


def preload() -> dict[str, Any]:
    """Import all that a kernel needs and walk its usual paths once: the namespace to start from."""
    # debugpy costs most of a kernel's start and starts threads, which a fork would lose.
    sys.modules["debugpy"] = None  # type: ignore[assignment]
    sys.modules["__main__"].__dict__.clear()
    sys.modules["__main__"].__dict__["__name__"] = "__main__"
    namespace: dict[str, Any] = {}
    exec(PREAMBLE, namespace)
    exec(_WARM_UP, dict(namespace))
    for name in _LATE:
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    from ..isolation import privilege_drop
    from . import ipython_kernel

    ipython_kernel.set_hooks()
    privilege_drop.open_to_all()  # found out once, for all forks
    importlib.import_module("sympy.core.cache").clear_cache()
    namespace.pop("__builtins__", None)
    gc.collect()
    gc.freeze()
    return namespace


def run_kernel(
    spec: dict[str, Any], namespace: dict[str, Any], page: int, ready: int, root_uid: int | None
) -> None:
    """Become the kernel that `spec` describes; returns when it is shut down.

    `page` is its transcript page and `ready` the pipe to which it reports once it can answer.
    """
    from ..isolation import privilege_drop
    from ..text import shared_text_page
    from . import cell_streams

    folder = Path(spec["folder"])
    scratch = folder / "scratch"
    cell_streams.Cell.page = shared_text_page.PageWriter(page)
    os.close(page)
    null = os.open(os.devnull, os.O_RDWR)
    for fd in (0, 1, 2):
        os.dup2(null, fd)
    os.close(null)
    guard = privilege_drop.Isolation(spec, folder, root_uid)
    guard.before_start()
    os.chdir(scratch)
    os.environ.update(
        HOME=str(scratch),
        TMPDIR=str(scratch),
        IPYTHONDIR=str(folder / "run" / "ipython"),
        JUPYTER_RUNTIME_DIR=str(folder / "run"),
        MPLCONFIGDIR=str(scratch),
        MPLBACKEND="Agg",
        CUDA_VISIBLE_DEVICES="",
        TERM="dumb",
    )
    _reseed()
    app = _start_app(spec, folder, namespace)
    if spec.get("preamble"):
        app.shell.run_cell(spec["preamble"], store_history=False, silent=True)
    gc.freeze()
    active = guard.after_start()
    ports = {f"{name}_port": port for name, port in app._ports.items()}
    connection = {"transport": app.transport, "ip": app.ip, **ports}
    report = json.dumps({"active": active, "connection": connection})
    os.write(ready, report.encode())
    os.close(ready)
    app.start()


def _reseed() -> None:
    """Without this, all kernels of a template would draw the same random numbers."""
    random.seed(os.urandom(32))
    numpy = sys.modules.get("numpy")
    if numpy is not None:
        numpy.random.seed(list(os.urandom(16)))


def _start_app(spec: dict[str, Any], folder: Path, namespace: dict[str, Any]) -> Any:
    import asyncio
    import threading

    from . import cell_streams, ipython_kernel

    run = folder / "run"
    connection = run / "kernel.json"
    asyncio.set_event_loop(asyncio.new_event_loop())
    app = ipython_kernel.CellApp.instance(
        connection_file=str(connection),
        user_ns=dict(namespace),
        outstream_class="eightfold.sandbox.guest.cell_streams.CellStream",
        log_level=50,
        quiet=True,
    )
    app.config.HistoryManager.enabled = False
    app.config.InteractiveShell.colors = "nocolor"
    app.config.InteractiveShell.cache_size = 0
    app.config.CellKernel._execute_sleep = 0.0  # the pool does not read iopub
    cell_streams.Cell.reader = cell_streams.PipeReader()
    cell_streams.Cell.main_thread = threading.get_ident()
    app.initialize(argv=[])
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    kernel = app.kernel
    app.shell.compile = ipython_kernel.CellCompiler()  # ipykernel 6 cannot be told which to make
    transforms = app.shell.input_transformer_manager.cleanup_transforms
    # Leading empty lines stay: tracebacks count lines as the model wrote them.
    with contextlib.suppress(IndexError):
        if transforms[0].__name__ == "leading_empty_lines":
            del transforms[0]
    kernel.restorer = ipython_kernel.Restorer()
    return app
