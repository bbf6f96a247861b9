"""The exceptions that the command line reports in one sentence, and their exit codes."""

from __future__ import annotations

import errno
import os

from .exit_codes import ExitCode


def exit_code_for(error: Exception) -> ExitCode | None:
    """Return the exit code for an error that ends a command, or None for a defect of ours.

    The message of an error that has an exit code is one sentence for the user; any other error
    keeps its traceback. The modules that define the errors are imported here, not at the top:
    `eightfold --help` must not wait for them.
    """
    from eightfold.engine import ModelError
    from eightfold.sandbox.sandbox_errors import SandboxError

    from ..attempts.engine_loop import EngineLostError
    from ..chat.chat_protocol import ProtocolError
    from ..chat.prompt_texts import PromptError
    from ..solver_config import SolverError

    if isinstance(error, (SolverError, ProtocolError, PromptError, ModelError)):
        return ExitCode.WRONG_INPUT
    if isinstance(error, (OSError, MemoryError, SandboxError, EngineLostError)):
        return ExitCode.FAILED
    return None


def message_of(error: Exception) -> str:
    """Return what to tell the user about an error that has an exit code."""
    if isinstance(error, OSError) and error.strerror:
        if error.filename is None:
            full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
            return f"The output cannot be written: {error.strerror}" if full else error.strerror
        return f"{os.fsdecode(error.filename)}: {error.strerror}"
    return str(error) or type(error).__name__
