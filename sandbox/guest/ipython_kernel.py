"""The Jupyter kernel that runs cells: ipykernel's, with text made by `cell_text`.

Only the template imports this module.

Module state: `install_hooks` changes three things for the whole process, once, in the template.

- `IOPubThread._setup_pipe_in`, which would open a TCP port in every kernel; ipykernel has no
  option for that. Output of forked children comes by descriptors 1 and 2 instead.
- `threading.excepthook` and `warnings.formatwarning`, which are Python's own hooks for the text of
  errors in threads and of warnings.
- The filter that hides IPython's warning about ``exit``.
"""

from __future__ import annotations

import ast
import asyncio
import codeop
import inspect
import os
import signal
import subprocess
import sys
import threading
import warnings
from collections.abc import Callable, Coroutine
from contextlib import AbstractContextManager, nullcontext
from types import TracebackType
from typing import Any

from ipykernel.compiler import XCachingCompiler
from ipykernel.iostream import IOPubThread
from ipykernel.ipkernel import IPythonKernel
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
from ..text.deep_source import deep_compilation
from ..text.inprocess_cell import leave, no_input
from .cell_streams import CurrentCell, skip_pipe_in
from .display_hooks import CellDisplayHook, CellPublisher
from .nested_loop import CellLoop
from .request_receiver import RequestReceiver
from .state_restorer import StateRestorer

_INTERRUPTS = (KeyboardInterrupt, asyncio.CancelledError)  # as which SIGINT reaches a cell
_ANY_ERROR, _ATTEMPTS = BaseException, range(100)  # also for cells that delete builtins


class CellCompiler(XCachingCompiler):
    """Compiles each cell under a file name of its own, by which tracebacks identify it."""

    def __init__(self) -> None:
        super().__init__()
        # With the interactive flags, messages differ from plain Python's ("incomplete input").
        modes: Any = codeop
        self.flags &= ~(modes.PyCF_DONT_IMPLY_DEDENT | modes.PyCF_ALLOW_INCOMPLETE_INPUT)

    def ast_parse(self, source: str, filename: str = "<unknown>", symbol: str = "exec") -> ast.AST:
        """Parse a source, however long its expressions are."""
        with deep_compilation():
            return super().ast_parse(source, filename, symbol)

    def __call__(self, *args: Any, **options: Any) -> Any:
        """Compile a tree, however deep it is."""
        with deep_compilation():
            return super().__call__(*args, **options)

    def get_code_name(self, raw_code: str, code: str, number: int) -> str:
        """Return the name of the current cell."""
        return CurrentCell.name


class CellShell(ZMQInteractiveShell):
    """The interactive shell, with short plain errors, and commands run as plain subprocesses."""

    displayhook_class = Type(CellDisplayHook)
    display_pub_class = Type(CellPublisher)

    def init_environment(self) -> None:
        """Do nothing: IPython would set variables that give the output of commands colors."""

    def init_display_formatter(self) -> None:
        """Format values as their ``repr``, and as nothing else."""
        super().init_display_formatter()
        self.display_formatter.active_types = ["text/plain"]
        self.display_formatter.formatters["text/plain"].pprint = False

    def init_user_ns(self) -> None:
        """Let ``exit()`` and ``quit()`` end the cell instead of the kernel."""
        super().init_user_ns()
        self.user_ns["exit"] = self.user_ns["quit"] = leave

    def init_hooks(self) -> None:
        """Print what ``name?`` shows, for which a notebook would open a pager."""
        super().init_hooks()
        self.set_hook("show_in_pager", _print_page, 0)

    def _tee(self, channel: str) -> AbstractContextManager[None]:
        # IPython 9 copies all printed text for its history, which is three quarters of the time
        # that a print takes.
        return nullcontext()

    def should_run_async(self, *args: Any, **options: Any) -> bool:
        """Return whether the cell has top-level ``await``."""
        # This compiles the cell, whose warnings would then appear twice.
        with warnings.catch_warnings(), deep_compilation():
            warnings.simplefilter("ignore")
            try:
                return bool(super().should_run_async(*args, **options))
            except (RecursionError, MemoryError):  # the cell's own error, which running it shows
                return False

    def showtraceback(
        self,
        exc_tuple: tuple[Any, BaseException, TracebackType | None] | None = None,
        filename: str | None = None,
        tb_offset: int | None = None,
        exception_only: bool = False,
        running_compiled_code: bool = False,
    ) -> None:
        """Show the traceback of `exc_tuple`, or of the exception being handled."""
        _, error, tb = exc_tuple or sys.exc_info()
        if error is None:
            return
        if isinstance(error, _INTERRUPTS) and CurrentCell.flooded:
            error = CurrentCell.budget.error()
        self._show_error(error, tb)

    def showsyntaxerror(
        self, filename: str | None = None, running_compiled_code: bool = False
    ) -> None:
        """Show a syntax error like any other error."""
        self.showtraceback()

    def showindentationerror(self) -> None:
        """Show an indentation error like any other error."""
        self.showtraceback()

    def _show_error(self, error: BaseException, tb: TracebackType | None) -> None:
        text = escape_surrogates(format_error(error, CurrentCell.name, tb))
        self._last_traceback = [text]
        CurrentCell.show(text)
        if CurrentCell.forked:
            return
        CurrentCell.stream.publish()
        hook: Any = self.displayhook
        content = {
            "traceback": [text],
            "ename": exception_name(error),
            "evalue": escape_surrogates(exception_line(error)),
        }
        topic = hook.topic.replace(b"execute_result", b"error") if hook.topic else None
        hook.session.send(hook.pub_socket, "error", content, hook.parent_header, ident=topic)

    def system_piped(self, cmd: str) -> None:
        """Run ``!cmd``, whose output comes by descriptors 1 and 2."""
        command = self.var_expand(cmd, depth=1)
        code = subprocess.call(command, shell=True, stdin=subprocess.DEVNULL)
        self.user_ns["_exit_code"] = code

    system = system_piped
    system_raw = system_piped

    def getoutput(self, cmd: str, split: bool = True, depth: int = 0) -> Any:
        """Return the output of a command, for ``x = !cmd``."""
        from IPython.utils.text import LSString, SList

        command = self.var_expand(cmd, depth=depth + 1)
        finished = subprocess.run(
            command,
            shell=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            check=False,
        )
        text = finished.stdout.decode("utf-8", "replace")
        return SList(text.splitlines()) if split else LSString(text)


def _print_page(shell: CellShell, page: Any, *_: Any, **__: Any) -> None:
    print(page["text/plain"] if isinstance(page, dict) else page)


class CellKernel(IPythonKernel):
    """The kernel, which runs one cell at a time and answers each."""

    shell_class = Type(CellShell)
    shut_down = False  # True once a client has asked for it
    restorer: StateRestorer
    receiver: RequestReceiver
    reply: dict[str, Any]  # to the latest execute request

    def pre_handler_hook(self) -> None:
        """Leave SIGINT ignored: only `do_execute` is ready for an interrupt, or it has no reply."""

    def post_handler_hook(self) -> None:
        """Do nothing, as `pre_handler_hook` has changed nothing."""

    async def execute_request(self, stream: Any, ident: Any, parent: dict[str, Any]) -> None:
        """Run a cell and reply to the client, or to the pool."""
        receiver = self.receiver  # a cell can delete the attribute
        await super().execute_request(stream, ident, parent)
        receiver.answer(parent["header"]["msg_id"], self.reply)

    async def do_shutdown(self, restart: bool) -> dict[str, Any]:
        """Shut down, as a client has asked."""
        self.shut_down = True
        reply: Any = super().do_shutdown(restart)
        return dict(await reply if inspect.isawaitable(reply) else reply)

    def raw_input(self, prompt: str = "") -> str:
        """Refuse ``input()``."""
        return no_input(prompt)

    def getpass(self, prompt: str = "", stream: Any = None) -> str:
        """Refuse ``getpass()``."""
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
        """Run a cell and return the content of the reply."""
        restorer = self.restorer  # a cell can delete the attribute
        self._forward_input(False)
        error: BaseException | None = None
        late: BaseException | None = None
        try:
            signal.signal(signal.SIGINT, signal.default_int_handler)
            self._begin_cell()
            error = await self._run(code, silent)
        except _ANY_ERROR as raised:  # in IPython's code, not the cell's
            error = late = raised
        if CurrentCell.forked:  # the cell has forked this process, which is no kernel
            os._exit(0 if error is None else 1)
        _stop_interrupts(restorer)
        if late is not None:
            timed = callable(signal.getsignal(signal.SIGALRM))  # which may have raised it
            if not (timed or isinstance(late, (KeyboardInterrupt, OutputLimit))):
                # A cell has broken the shell itself, so no later cell could run either.
                os._exit(1)
            CellShell.showtraceback(self.shell, (type(late), late, late.__traceback__))
        self._restore_input()
        self.reply = self._reply(self._finish_cell(error), user_expressions or {})
        return self.reply

    def _begin_cell(self) -> None:
        CurrentCell.number += 1
        CurrentCell.name = cell_name(CurrentCell.number)
        CurrentCell.page.begin()
        CurrentCell.reader.begin()
        self.shell.user_ns.pop("__warningregistry__", None)  # each cell shows its own warnings

    def _finish_cell(self, error: BaseException | None) -> BaseException | None:
        """Complete the cell's output, and return the error that ended it, if any."""
        CurrentCell.reader.finish()
        if CurrentCell.flooded:
            if error is None:  # it ended before the interrupt came
                error = CurrentCell.budget.error()
                CellShell._show_error(self.shell, error, None)
            elif isinstance(error, _INTERRUPTS):
                error = CurrentCell.budget.error()  # as `showtraceback` has shown it
        CurrentCell.page.end()
        CurrentCell.stream.publish()
        return error

    def _reply(
        self, error: BaseException | None, user_expressions: dict[str, str]
    ) -> dict[str, Any]:
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
            reply["user_expressions"] = shell.user_expressions(user_expressions)
        reply["payload"] = shell.payload_manager.read_payload()
        shell.payload_manager.clear_payload()
        return reply

    async def _run(self, code: str, silent: bool) -> BaseException | None:
        """Run the code and return the exception that ended it, if any."""
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
            result = await _interruptible(shell.run_cell_async(code, **options))
            shell.events.trigger("post_execute")
        else:
            # Called on the class because a cell can replace the instance's attributes.
            with CellLoop.cell():
                result = CellShell.run_cell(shell, code, **options)
        error: BaseException | None = result.error_before_exec or result.error_in_exec
        return error


async def _interruptible(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """Run a cell with top-level ``await``, and let SIGINT end it while it computes or waits.

    With Python's own handler the event loop sleeps on until something else wakes it.

    Raises:
        KeyboardInterrupt: SIGINT came before the cell began.
    """
    loop = asyncio.get_running_loop()
    task: asyncio.Task[Any] | None = None
    interrupted = False

    def interrupt(*_: Any) -> None:
        nonlocal interrupted
        interrupted = True
        if task is not None:
            if asyncio.current_task(loop) is task:
                raise KeyboardInterrupt
            loop.call_soon_threadsafe(task.cancel)

    saved = signal.signal(signal.SIGINT, interrupt)
    try:
        task = asyncio.ensure_future(coroutine)
        if interrupted:
            task.cancel()
        return await task
    except asyncio.CancelledError:
        raise KeyboardInterrupt from None
    finally:
        signal.signal(signal.SIGINT, saved)


def _stop_interrupts(restorer: StateRestorer) -> None:
    """Restore what the kernel needs after a cell, and let no signal interrupt it from then on.

    A signal of the cell may come before the last of these steps, so all are done again after it.
    """
    for _ in _ATTEMPTS:
        try:
            # A timer that a cell has set would end the kernel if it expired in the event loop.
            signal.setitimer(signal.ITIMER_REAL, 0)
            restorer.restore()
            signal.signal(signal.SIGINT, signal.SIG_IGN)
        except _ANY_ERROR:  # the cell has ended, so there is nothing left to stop
            continue
        return
    os._exit(1)


def install_hooks() -> None:
    """Give short texts to warnings and to errors that end a thread; see the module's docstring."""
    IOPubThread._setup_pipe_in = skip_pipe_in

    def show_thread_error(args: threading.ExceptHookArgs) -> None:
        if args.exc_value is not None and not isinstance(args.exc_value, SystemExit):
            text = format_error(args.exc_value, "", args.exc_traceback)
            CurrentCell.stream.write(f"Exception in a thread:\n{text}\n")

    threading.excepthook = show_thread_error
    set_function: Callable[..., None] = warnings.__dict__.__setitem__
    set_function("formatwarning", format_warning)
    warnings.filterwarnings("ignore", message="To exit: use", category=UserWarning)
