"""The process of one kernel, from the fork to the running Jupyter kernel.

`preload` runs in the template, or in the kernel itself with ``start="plain"``; `run_kernel` runs in
the fork.

Module state: `preload` marks debugpy as not importable, and empties the module ``__main__`` so that
cells find nothing of the template's program there. `run_kernel` sets the attributes of
`cell_streams.CurrentCell`.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import importlib
import json
import os
import random
import signal
import socket
import sys
from typing import TYPE_CHECKING, Any

from ..text.preamble import PREAMBLE

if TYPE_CHECKING:
    from ..isolation.privilege_drop import Isolation

_WARMUP = """\
_x = sympy.Symbol("x")
sympy.simplify((_x**2 - 1) / (_x - 1)), sympy.factorint(360360)
sympy.integrate(_x * sympy.sin(_x), _x)
sympy.solve(_x**2 - 5 * _x + 6, _x), sympy.isprime(10**9 + 7), mpmath.quad(mpmath.sin, [0, 1])
str(sympy.expand((_x + 1) ** 5)), numpy.arange(10).reshape(2, 5) @ numpy.ones((5, 2))
"""

# Modules that the kernel or common cells import late, for which each fork would pay again.
_LATE_IMPORTS = (
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
    "multiprocessing.synchronize",
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

USER_NAME = "user"


def preload() -> dict[str, Any]:
    """Import all that a kernel needs and run its usual code once.

    Returns:
        The namespace with which a kernel starts.
    """
    # debugpy is most of a kernel's startup time, and starts threads, which a fork would lose.
    sys.modules["debugpy"] = None  # type: ignore[assignment]
    sys.modules["__main__"].__dict__.clear()
    sys.modules["__main__"].__dict__["__name__"] = "__main__"
    namespace: dict[str, Any] = {}
    exec(PREAMBLE, namespace)
    exec(_WARMUP, dict(namespace))
    for name in _LATE_IMPORTS:
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    from ..isolation import privilege_drop
    from . import ipython_kernel, nested_loop, process_setup

    for name in ("kernel_app", "request_receiver", "semaphores"):
        importlib.import_module(f".{name}", __package__)

    ipython_kernel.install_hooks()
    nested_loop.install()
    process_setup.install()
    for enter in (True, False):
        privilege_drop.readable_by_all(enter=enter)  # the answer is cached for all forks
    importlib.import_module("sympy.core.cache").clear_cache()
    namespace.pop("__builtins__", None)
    gc.collect()
    gc.freeze()
    return namespace


def run_kernel(
    spec: dict[str, Any], namespace: dict[str, Any], fds: list[int], isolation: Isolation
) -> None:
    """Turn this process into a kernel; return when it is shut down.

    Args:
        spec: the pool's settings, with the kernel's ``connection``.
        namespace: the cells' first namespace.
        fds: descriptors of the shared text page, of the socket on which to report, as JSON, once
            the kernel can answer, and of the channel for requests.
        isolation: takes the kernel's privileges.
    """
    from ..text import shared_text_page
    from . import cell_streams, process_setup, request_receiver, semaphores

    page, report, channel = fds
    places = isolation.places
    cell_streams.CurrentCell.page = shared_text_page.PageWriter(page)
    os.close(page)
    null = os.open(os.devnull, os.O_RDWR)
    for fd in (0, 1, 2):
        os.dup2(null, fd)
    os.close(null)
    process_setup.enlarge_stack()
    isolation.apply_before_start()
    if isolation.without_namespaces:
        semaphores.install()
    os.chdir(places.home)
    os.environ.update(
        HOME=str(places.home),
        TMPDIR=str(places.temporary),
        IPYTHONDIR=str(places.temporary / ".ipython"),
        JUPYTER_RUNTIME_DIR=str(places.temporary),
        MPLCONFIGDIR=str(places.temporary / ".matplotlib"),
        MPLBACKEND="Agg",
        CUDA_VISIBLE_DEVICES="",
        TERM="dumb",
        USER=USER_NAME,
        LOGNAME=USER_NAME,
        PATH=f"{places.programs}:{os.environ.get('PATH', os.defpath)}",
    )
    process_setup.search_working_folders(places.home, places.temporary)
    _reseed()
    app = _start_app(spec["connection"], namespace)
    if spec.get("preamble"):
        app.shell.run_cell(spec["preamble"], store_history=False, silent=True)
    gc.freeze()
    receiver = request_receiver.RequestReceiver(app.kernel, socket.socket(fileno=channel))
    active = isolation.apply_after_start()
    ports = {f"{name}_port": port for name, port in app._ports.items()}
    connection = {"transport": app.transport, "ip": app.ip, **ports}

    def report_start() -> None:
        receiver.start(asyncio.get_running_loop())
        with socket.socket(fileno=report) as connected:
            connected.send(json.dumps({"active": active, "connection": connection}).encode())

    asyncio.get_event_loop().call_soon(report_start)
    app.start()


def _reseed() -> None:
    """Seed the random generators, or all forks of a template would draw the same numbers."""
    random.seed(os.urandom(32))
    numpy = sys.modules.get("numpy")
    if numpy is not None:
        numpy.random.seed(list(os.urandom(16)))


def _start_app(connection: dict[str, Any], namespace: dict[str, Any]) -> Any:
    """Open the kernel's sockets and prepare its shell."""
    import threading

    from . import cell_streams, ipython_kernel, kernel_app, state_restorer

    asyncio.set_event_loop(asyncio.new_event_loop())
    app = kernel_app.CellApp.instance(
        user_ns=dict(namespace),
        outstream_class="eightfold.sandbox.guest.cell_streams.CellStream",
        log_level=50,
        quiet=True,
    )
    app.connection = connection
    app.config.HistoryManager.enabled = False
    app.config.InteractiveShell.colors = "nocolor"
    app.config.InteractiveShell.cache_size = 0
    app.config.CellKernel._execute_sleep = 0.0  # a pause for iopub, which the pool does not read
    cell_streams.CurrentCell.reader = cell_streams.PipeReader()
    cell_streams.CurrentCell.main_thread = threading.get_ident()
    cell_streams.unbuffer_c_output()
    os.register_at_fork(after_in_child=cell_streams.CurrentCell.enter_fork)
    app.initialize(argv=[])
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    kernel = app.kernel
    # Set here because ipykernel 6 has no option for the compiler's class.
    app.shell.compile = ipython_kernel.CellCompiler()
    transforms = app.shell.input_transformer_manager.cleanup_transforms
    # Empty lines at the beginning are kept: tracebacks count lines as the model wrote them.
    with contextlib.suppress(IndexError):
        if transforms[0].__name__ == "leading_empty_lines":
            del transforms[0]
    kernel.restorer = state_restorer.StateRestorer(app.shell)
    return app
