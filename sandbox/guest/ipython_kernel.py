"""The Jupyter kernel that runs cells: ipykernel's, with its text made by `output`.

Imported by the template only.
"""

from __future__ import annotations

import asyncio
import builtins
import codeop
import os
import signal
import subprocess
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from types import TracebackType
from typing import Any

from ipykernel.compiler import XCachingCompiler
from ipykernel.iostream import IOPubThread
from ipykernel.ipkernel import IPythonKernel
from ipykernel.kernelapp import IPKernelApp
from ipykernel.zmqshell import ZMQInteractiveShell
from traitlets import Type

from eightfold.common.valid_text import escape_surrogates

from ..text.cell_text import (
    OutputLimit,
    cell_name,
    exception_line,
    exception_name,
    format_error,
    format_warning,
)
from ..text.inprocess_cell import leave, no_input
from .cell_streams import Cell, no_pipe_in
from .display_hooks import CellDisplayHook, CellPublisher


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

    def init_hooks(self) -> None:
        super().init_hooks()
        # ``name?`` and the like: printed, where a notebook would open a pager.
        self.set_hook("show_in_pager", _print_page, 0)

    def _tee(self, channel: str) -> AbstractContextManager[None]:
        # IPython 9 keeps all that is printed for its history: three quarters of a print's time.
        return nullcontext()

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
        text = escape_surrogates(format_error(error, Cell.name, tb))
        self._last_traceback = [text]
        Cell.show(text)
        Cell.stream.publish()
        hook: Any = self.displayhook
        content = {
            "traceback": [text],
            "ename": exception_name(error),
            "evalue": escape_surrogates(exception_line(error)),
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


def _print_page(shell: CellShell, page: Any, *_: Any, **__: Any) -> None:
    print(page["text/plain"] if isinstance(page, dict) else page)


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
        except (KeyboardInterrupt, OutputLimit) as late:  # it met IPython's code, not the cell's
            error = late
            CellShell.showtraceback(self.shell, (type(late), late, late.__traceback__))
        except BaseException:
            # An earlier cell broke the shell itself: no later one would be run.
            os._exit(1)
        finally:
            # A timer is for the cell that set it: in the event loop it would end the kernel.
            signal.setitimer(signal.ITIMER_REAL, 0)
            restorer.restore()
            # A late interrupt must not cost the reply.
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            self._restore_input()
            Cell.reader.finish()
            Cell.page.end()
            Cell.stream.publish()
        shell: Any = self.shell
        reply: dict[str, Any] = {"status": "ok", "execution_count": shell.execution_count - 1}
        if error is not None:
            reply.update(
                status="error",
                ename=exception_name(error),
                evalue=escape_surrogates(exception_line(error)),
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
            task = asyncio.ensure_future(shell.run_cell_async(code, **options))
            with _interruptible(task):
                result = await task
            shell.events.trigger("post_execute")
        else:
            # By the class: a cell can spoil the instance's attributes.
            result = CellShell.run_cell(shell, code, **options)
        error: BaseException | None = result.error_before_exec or result.error_in_exec
        return error


@contextmanager
def _interruptible(task: asyncio.Task[Any]) -> Iterator[None]:
    """Let SIGINT end a cell with top-level ``await``, whether it computes or waits.

    ipykernel's own way leaves the event loop asleep until something else wakes it.
    """
    loop = task.get_loop()

    def interrupt(*_: Any) -> None:
        if asyncio.current_task(loop) is task:
            raise KeyboardInterrupt
        loop.call_soon_threadsafe(task.cancel)

    saved = signal.signal(signal.SIGINT, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, saved)


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

    def init_control(self, context: Any) -> None:
        super().init_control(context)
        # ipykernel 7 hands every message through one more thread, for subshells.
        thread: Any = getattr(self, "shell_channel_thread", None)
        if thread is not None:
            thread.io_loop.close()
            self.shell_channel_thread = None

    def init_crash_handler(self) -> None:
        pass

    def init_gui_pylab(self) -> None:
        pass

    def init_extensions(self) -> None:
        pass

    def init_pdb(self) -> None:
        pass


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
