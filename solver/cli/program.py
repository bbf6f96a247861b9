"""The program `eightfold`: runs a command, and ends the process with its exit code."""

from __future__ import annotations

import atexit
import os
import signal
import sys
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, NoReturn

from .command_line import main

if TYPE_CHECKING:
    from sys import UnraisableHookArgs

RETRY_SECONDS = 0.05
"""Seconds until an interrupt that Python has dropped is sent again."""


def run() -> NoReturn:
    """Run the command that the process was started with, and end the process.

    The interpreter is not torn down. Threads that still load a model would abort the process then,
    and an interrupt that the command has handled can make Python end by SIGINT after all.
    """
    code = 1  # of a defect, whose traceback Python prints

    def end() -> None:
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError, ValueError):
                stream.flush()
        os._exit(code)

    atexit.register(end)  # the first to be registered is the last to be called
    sys.unraisablehook = _send_again
    code = int(main())
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # nothing is left to be interrupted
    sys.exit(code)


def _send_again(dropped: UnraisableHookArgs) -> None:
    """Report an exception that nobody can catch, but send an interrupt again.

    Python drops a KeyboardInterrupt that comes while it calls a finalizer.
    """
    if dropped.exc_type is not KeyboardInterrupt:
        sys.__unraisablehook__(dropped)
        return
    main_thread = threading.main_thread().ident
    again = threading.Timer(RETRY_SECONDS, signal.pthread_kill, (main_thread, signal.SIGINT))
    again.daemon = True
    again.start()
