"""The Jupyter kernel that runs cells: ipykernel's, with its text made by `output`.

Imported by the template only. A cell's text goes two ways: to the pool, by the transcript page, and
to any attached Jupyter client, by iopub. stdout and stderr are one stream, so their order is true.
"""

from __future__ import annotations

import asyncio
import builtins
import codeop
import fcntl
import os
import signal
import struct
import subprocess
import sys
import termios
import threading
import time
import warnings
from collections.abc import Callable
from contextlib import nullcontext
from types import TracebackType
from typing import Any

from ipykernel.compiler import XCachingCompiler
from ipykernel.iostream import IOPubThread, OutStream
from ipykernel.ipkernel import IPythonKernel
from ipykernel.kernelapp import IPKernelApp
from ipykernel.zmqshell import ZMQDisplayPublisher, ZMQInteractiveShell, ZMQShellDisplayHook
from traitlets import Type

from .inprocess import leave, no_input
from .output import (
    Budget,
    block,
    cell_name,
    encodable,
    exception_line,
    format_error,
    format_warning,
)
from .transcript import PageWriter

DRAIN_SECONDS = 0.25  # waited at most for what a cell's subprocesses left in the pipe


class Cell:
    """What belongs to the cell now running; one for the process, set by `child.run_kernel`."""

    page: PageWriter
    budget = Budget()
    name = ""
    number = 0
    stream: CellStream
    main_thread = 0
    interrupted = False  # a flood from outside Python stopped this cell


class CellStream(OutStream):
    """stdout and stderr of cells, within the cell's budget."""

    def __init__(self, session: Any, pub_thread: Any, name: str, **_: Any) -> None:
        super().__init__(session, pub_thread, "stdout", watchfd=False)

    def write(self, string: str) -> int:
        if not isinstance(string, str):
            raise TypeError(f"write() argument must be str, not {type(string).__name__}")
        if os.getpid() != self._master_pid:
            data = string.encode("utf-8", "backslashreplace")
            while data:
                data = data[os.write(1, data) :]
            return len(string)
        allowed = Cell.budget.take(string)
        if allowed:
            Cell.page.append(allowed)
            super().write(allowed)
        if Cell.budget.exhausted and threading.get_ident() == Cell.main_thread:
            raise Cell.budget.error()
        return len(string)

    def fileno(self) -> int:
        return 1

    def flush(self) -> None:
        # A forked child has no I/O thread to wait for.
        if os.getpid() == self._master_pid:
            super().flush()


class PipeReader:
    """Descriptors 1 and 2, as subprocesses and C code write them, read into the cell's stream."""

    def __init__(self) -> None:
        self._read, write = os.pipe()
        os.dup2(write, 1)
        os.dup2(write, 2)
        os.close(write)
        self._lock = threading.Lock()
        threading.Thread(target=self._run, name="pipe", daemon=True).start()

    def waiting(self) -> int:
        """Bytes not yet read."""
        return int(struct.unpack("i", fcntl.ioctl(self._read, termios.FIONREAD, b"\0\0\0\0"))[0])

    def _run(self) -> None:
        import codecs
        import select

        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        poller = select.poll()
        poller.register(self._read, select.POLLIN)
        while True:
            poller.poll()
            with self._lock:
                data = os.read(self._read, 65536)
                if not data:
                    return
                Cell.stream.write(decoder.decode(data))
            if Cell.budget.exhausted:
                if not Cell.interrupted:
                    Cell.interrupted = True
                    os.killpg(0, signal.SIGINT)
                time.sleep(0.01)

    def drain(self) -> None:
        """Wait until what the cell's subprocesses wrote has been read."""
        deadline = time.monotonic() + DRAIN_SECONDS
        while time.monotonic() < deadline:
            with self._lock:
                if not self.waiting():
                    return
            time.sleep(0.0005)


class CellDisplayHook(ZMQShellDisplayHook):
    """Echoes the last expression's value as its ``repr``."""

    msg: dict[str, Any] | None

    def quiet(self) -> bool:
        return False

    def compute_format_data(self, result: Any) -> tuple[dict[str, str], dict[str, Any]]:
        text = Cell.budget.charge(repr(result))
        Cell.page.append(block(text))
        if Cell.budget.exhausted:
            raise Cell.budget.error()
        return {"text/plain": text}, {}

    def update_user_ns(self, result: Any) -> None:
        self.shell.user_ns["_"] = result

    def fill_exec_result(self, result: Any) -> None:
        pass

    def log_output(self, format_dict: Any) -> None:
        pass

    def finish_displayhook(self) -> None:
        Cell.stream.flush()
        if self.msg and self.msg["content"]["data"] and self.session:
            self.session.send(self.pub_socket, self.msg, ident=self.topic)
        self.msg = None


class CellPublisher(ZMQDisplayPublisher):
    """``display()``: its plain text, within the cell's budget."""

    def _flush_streams(self) -> None:
        Cell.stream.flush()

    def publish(self, data: Any, metadata: Any = None, **options: Any) -> None:
        text = data.get("text/plain") if isinstance(data, dict) else None
        text = Cell.budget.charge(text if isinstance(text, str) else "[no text]")
        Cell.page.append(block(text))
        if Cell.budget.exhausted:
            raise Cell.budget.error()
        super().publish({"text/plain": text}, {}, **options)


class CellCompiler(XCachingCompiler):
    """Compiles each cell under its own name, by which tracebacks know it."""

    def __init__(self) -> None:
        super().__init__()
        # Interactive flags give other messages ("incomplete input") than plain Python.
        modes: Any = codeop
        self.flags &= ~(modes.PyCF_DONT_IMPLY_DEDENT | modes.PyCF_ALLOW_INCOMPLETE_INPUT)

    def get_code_name(self, raw_code: str, code: str, number: int) -> str:
        return Cell.name


class CellShell(ZMQInteractiveShell):
    """The interactive shell: plain short errors, commands by plain subprocesses."""

    displayhook_class = Type(CellDisplayHook)
    display_pub_class = Type(CellPublisher)

    def init_environment(self) -> None:
        pass

    def init_display_formatter(self) -> None:
        super().init_display_formatter()
        self.display_formatter.active_types = ["text/plain"]
        self.display_formatter.formatters["text/plain"].pprint = False

    def init_user_ns(self) -> None:
        super().init_user_ns()
        self.user_ns["exit"] = self.user_ns["quit"] = leave

    def should_run_async(self, *args: Any, **options: Any) -> bool:
        # It compiles the cell to find out, and would so give its warnings twice.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return bool(super().should_run_async(*args, **options))

    def showtraceback(
        self,
        exc_tuple: tuple[Any, BaseException, TracebackType | None] | None = None,
        filename: str | None = None,
        tb_offset: int | None = None,
        exception_only: bool = False,
        running_compiled_code: bool = False,
    ) -> None:
        _, error, tb = exc_tuple or sys.exc_info()
        if error is None:
            return
        if isinstance(error, KeyboardInterrupt) and Cell.interrupted:
            error = Cell.budget.error()
        self._show(error, tb)

    def showsyntaxerror(
        self, filename: str | None = None, running_compiled_code: bool = False
    ) -> None:
        self.showtraceback()

    def showindentationerror(self) -> None:
        self.showtraceback()

    def _show(self, error: BaseException, tb: TracebackType | None) -> None:
        text = encodable(format_error(error, Cell.name, tb))
        self._last_traceback = [text]
        Cell.page.append(block(text))
        Cell.stream.flush()
        hook: Any = self.displayhook
        content = {
            "traceback": [text],
            "ename": type(error).__name__,
            "evalue": encodable(exception_line(error)),
        }
        topic = hook.topic.replace(b"execute_result", b"error") if hook.topic else None
        hook.session.send(hook.pub_socket, "error", content, hook.parent_header, ident=topic)

    def system_piped(self, cmd: str) -> None:
        """``!cmd``; its output comes by the pipe of descriptors 1 and 2."""
        command = self.var_expand(cmd, depth=1)
        code = subprocess.call(command, shell=True, stdin=subprocess.DEVNULL)
        self.user_ns["_exit_code"] = code

    system = system_piped
    system_raw = system_piped

    def getoutput(self, cmd: str, split: bool = True, depth: int = 0) -> Any:
        """``x = !cmd``."""
        from IPython.utils.text import LSString, SList

        command = self.var_expand(cmd, depth=depth + 1)
        done = subprocess.run(
            command,
            shell=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            check=False,
        )
        text = done.stdout.decode("utf-8", "replace")
        return SList(text.splitlines()) if split else LSString(text)


class Restorer:
    """Puts back what a cell may have broken and the next one needs; needs no builtins itself."""

    def __init__(self) -> None:
        self._builtins = builtins.__dict__
        self._saved = tuple(builtins.__dict__.items())
        self._setdefault = builtins.__dict__.setdefault
        self._sys = sys

    def restore(self) -> None:
        setdefault = self._setdefault
        for name, value in self._saved:
            setdefault(name, value)
        if self._sys.stdout is not Cell.stream or self._sys.stderr is not Cell.stream:
            self._sys.stdout = self._sys.stderr = Cell.stream


class CellKernel(IPythonKernel):
    """The kernel: one cell at a time, every one answered."""

    shell_class = Type(CellShell)
    compiler_class = Type(CellCompiler)
    reader: PipeReader
    restorer: Restorer

    def raw_input(self, prompt: str = "") -> str:
        return no_input(prompt)

    def getpass(self, prompt: str = "", stream: Any = None) -> str:
        return no_input(prompt)

    async def do_execute(
        self,
        code: str,
        silent: bool,
        store_history: bool = True,
        user_expressions: dict[str, str] | None = None,
        allow_stdin: bool = False,
        *,
        cell_meta: Any = None,
        cell_id: str | None = None,
    ) -> dict[str, Any]:
        restorer = self.restorer
        self._forward_input(False)
        Cell.budget.reset()
        Cell.interrupted = False
        Cell.number += 1
        Cell.name = cell_name(Cell.number)
        Cell.page.begin()
        self.shell.user_ns.pop("__warningregistry__", None)
        try:
            error = await self._run(code, silent)
        finally:
            restorer.restore()
            # A late interrupt must not cost the reply.
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            self._restore_input()
            self.reader.drain()
            Cell.page.end()
        shell: Any = self.shell
        reply: dict[str, Any] = {"status": "ok", "execution_count": shell.execution_count - 1}
        if error is not None:
            reply.update(
                status="error",
                ename=type(error).__name__,
                evalue=encodable(exception_line(error)),
                traceback=shell._last_traceback or [],
                user_expressions={},
            )
        else:
            reply["user_expressions"] = shell.user_expressions(user_expressions or {})
        reply["payload"] = shell.payload_manager.read_payload()
        shell.payload_manager.clear_payload()
        return reply

    async def _run(self, code: str, silent: bool) -> BaseException | None:
        shell: Any = self.shell
        failure = None
        try:
            transformed = shell.transform_cell(code)
        except Exception:
            transformed, failure = code, sys.exc_info()
        options: dict[str, Any] = {"store_history": False, "silent": silent}
        if shell.should_run_async(
            code, transformed_cell=transformed, preprocessing_exc_tuple=failure
        ):
            options |= {"transformed_cell": transformed, "preprocessing_exc_tuple": failure}
            future = asyncio.ensure_future(shell.run_cell_async(code, **options))
            guard = getattr(self, "_cancel_on_sigint", lambda _: nullcontext())
            with guard(future):
                result = await future
            shell.events.trigger("post_execute")
        else:
            # By the class: a cell can spoil the instance's attributes.
            result = CellShell.run_cell(shell, code, **options)
        error: BaseException | None = result.error_before_exec or result.error_in_exec
        return error


class CellApp(IPKernelApp):
    """The application that holds a kernel's sockets."""

    kernel_class = Type(CellKernel)

    def parse_command_line(self, argv: Any = None) -> None:
        pass

    def load_config_file(self, suppress_errors: Any = None) -> None:
        pass

    def init_config_files(self) -> None:
        pass

    def init_blackhole(self) -> None:
        pass

    def init_io(self) -> None:
        super().init_io()
        # One stream for both: only so is their order kept.
        sys.stderr = sys.stdout
        Cell.stream = sys.stdout  # type: ignore[assignment]

    def init_crash_handler(self) -> None:
        pass

    def init_gui_pylab(self) -> None:
        pass

    def init_extensions(self) -> None:
        pass

    def init_pdb(self) -> None:
        pass


def no_pipe_in(self: Any) -> None:
    """In place of `IOPubThread`'s TCP listener for forked children: they write to descriptor 1."""
    self._pipe_flag = False


def set_hooks() -> None:
    """Short texts for warnings and for errors that end a thread; done once, in the template."""
    IOPubThread._setup_pipe_in = no_pipe_in

    def thread_error(args: threading.ExceptHookArgs) -> None:
        if args.exc_value is not None and not isinstance(args.exc_value, SystemExit):
            text = format_error(args.exc_value, "", args.exc_traceback)
            Cell.stream.write(f"Exception in a thread:\n{text}\n")

    threading.excepthook = thread_error
    set_format: Callable[..., None] = warnings.__dict__.__setitem__
    set_format("formatwarning", format_warning)
    warnings.filterwarnings("ignore", message="To exit: use", category=UserWarning)
