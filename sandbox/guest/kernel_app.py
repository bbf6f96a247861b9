"""The application around the kernel: its sockets, its streams and its event loop."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path
from typing import Any

from ipykernel.kernelapp import IPKernelApp
from tornado.ioloop import IOLoop
from traitlets import Type

from .cell_streams import CurrentCell
from .ipython_kernel import CellKernel


def connection_info(spec: dict[str, Any], sockets: Path, slot: int) -> dict[str, Any]:
    """Return a kernel's Jupyter connection; a port of 0 lets the kernel choose.

    Args:
        spec: the pool's settings, with the kernel's ``key``.
        sockets: the folder of its sockets, as it sees it.
        slot: its number, from which its ports derive.
    """
    names = ("shell_port", "iopub_port", "stdin_port", "hb_port", "control_port")
    if spec["transport"] == "ipc":
        ip, ports = str(sockets / "k"), range(1, 6)
    else:
        first = spec["first_port"]
        ip = "127.0.0.1"
        ports = range(first + 5 * slot, first + 5 * slot + 5) if first else range(0, 1)
    info: dict[str, Any] = dict(zip(names, ports, strict=False))
    info = {name: info.get(name, 0) for name in names}
    scheme = {"signature_scheme": "hmac-sha256", "kernel_name": "eightfold"}
    return {**info, **scheme, "transport": spec["transport"], "ip": ip, "key": spec["key"]}


class CellApp(IPKernelApp):
    """The application, which holds the kernel's sockets; it reads no options and no files.

    Attributes:
        connection: what a Jupyter connection file contains; a port of 0 is chosen freely.
    """

    kernel_class = Type(CellKernel)
    connection: dict[str, Any]

    def parse_command_line(self, argv: Any = None) -> None:
        """Do nothing: `kernel_main` passes all settings."""

    def load_config_file(self, suppress_errors: Any = None) -> None:
        """Do nothing: files of the user must not change a kernel."""

    def init_config_files(self) -> None:
        """Do nothing, for the same reason."""

    def init_connection_file(self) -> None:
        """Take the connection from `connection`; there is no file that a cell could replace."""
        self.load_connection_info(self.connection)

    def write_connection_file(self, **_: Any) -> None:
        """Do nothing: the pool writes the file."""

    def init_blackhole(self) -> None:
        """Do nothing: none of stdout and stderr is to be discarded."""

    def init_io(self) -> None:
        """Make stderr the same stream as stdout, which keeps the order of what is written."""
        super().init_io()
        stream: Any = sys.stdout
        sys.stderr = sys.__stdout__ = sys.__stderr__ = stream  # type: ignore[misc]
        CurrentCell.stream = sys.stdout  # type: ignore[assignment]

    def init_control(self, context: Any) -> None:
        """Remove the thread through which ipykernel 7 passes every message, for subshells."""
        super().init_control(context)
        thread: Any = getattr(self, "shell_channel_thread", None)
        if thread is not None:
            thread.io_loop.close()
            self.shell_channel_thread = None

    def init_crash_handler(self) -> None:
        """Do nothing: `template_main` reports what goes wrong."""

    def init_gui_pylab(self) -> None:
        """Do nothing: a kernel has no display."""

    def init_extensions(self) -> None:
        """Do nothing: no extension is loaded."""

    def init_pdb(self) -> None:
        """Do nothing: nobody could answer a debugger."""

    def start(self) -> None:
        """Serve until the kernel is shut down."""
        self.kernel.start()
        self.io_loop = IOLoop.current()
        while not self.kernel.shut_down:
            # A task or a callback of a cell may stop the loop, or call exit(). asyncio hands that
            # to whoever awaits the task, and lets it end the loop as well.
            with contextlib.suppress(SystemExit, KeyboardInterrupt):
                self.io_loop.start()
