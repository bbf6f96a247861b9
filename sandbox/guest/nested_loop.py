"""asyncio for cells: they run in a task of the kernel's event loop, and may still run loops.

Plain Python lets a program call ``asyncio.run``; inside a running loop that is an error. A cell
without top-level ``await`` is such a program, although the kernel's loop runs around it.

Module state: `install` wraps `asyncio.run`, `asyncio.Runner.run` and three methods of asyncio's
loops, for the whole process, once, in the template. `CellLoop` holds the loop around the cells.
"""

from __future__ import annotations

import asyncio
import functools
import threading
from asyncio import events, tasks
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any


class CellLoop:
    """The kernel's event loop, and the task that runs a cell without top-level ``await``.

    Attributes:
        loop: the kernel's loop.
        task: the task, or None while no such cell runs.
    """

    loop: Any = None
    task: asyncio.Task[Any] | None = None

    @classmethod
    @contextmanager
    def cell(cls) -> Iterator[None]:
        """Let the current task's cell run event loops."""
        cls.loop = asyncio.get_running_loop()
        cls.task = asyncio.current_task()
        try:
            yield
        finally:
            cls.task = None

    @classmethod
    def in_cell(cls) -> bool:
        """Return whether the caller is the cell itself, and not a coroutine or another thread."""
        return (
            cls.task is not None
            and threading.current_thread() is threading.main_thread()
            and events._get_running_loop() is cls.loop
            and tasks.current_task(cls.loop) is cls.task
        )


@contextmanager
def _outside() -> Iterator[None]:
    """Hide the kernel's loop while a cell runs another."""
    if not CellLoop.in_cell():
        yield
        return
    events._set_running_loop(None)
    try:
        yield
    finally:
        events._set_running_loop(CellLoop.loop)
        events.set_event_loop(CellLoop.loop)


def _wrap(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def wrapped(*args: Any, **options: Any) -> Any:
        with _outside():
            return function(*args, **options)

    return wrapped


def _run_until_complete(
    original: Callable[[Any, Any], Any],
) -> Callable[[Any, Any], Any]:
    @functools.wraps(original)
    def run_until_complete(self: Any, future: Any) -> Any:
        if self is CellLoop.loop and CellLoop.in_cell():
            return _advance(self, asyncio.ensure_future(future, loop=self))
        with _outside():
            return original(self, future)

    return run_until_complete


def _advance(loop: Any, future: asyncio.Future[Any]) -> Any:
    """Run the kernel's own loop from within one of its tasks until `future` is done."""
    current = asyncio.current_task(loop)
    assert current is not None
    waiting = len(loop._ready)  # the loop's present turn expects to find as many
    tasks._leave_task(loop, current)
    try:
        while not future.done():
            loop._run_once()
    finally:
        tasks._enter_task(loop, current)
        while len(loop._ready) < waiting:
            loop.call_soon(_nothing)
    return future.result()


def _nothing() -> None:
    """Take a place in the loop's queue."""


def install() -> None:
    """Wrap the functions that run event loops."""
    set_attribute: Callable[[Any, str, Any], None] = setattr
    base: Any = asyncio.BaseEventLoop
    wrapped_run = _wrap(asyncio.run)
    set_attribute(asyncio.runners, "run", wrapped_run)
    set_attribute(asyncio, "run", wrapped_run)
    set_attribute(asyncio.Runner, "run", _wrap(asyncio.Runner.run))
    set_attribute(base, "run_forever", _wrap(base.run_forever))
    set_attribute(base, "run_until_complete", _run_until_complete(base.run_until_complete))
