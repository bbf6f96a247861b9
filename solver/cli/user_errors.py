"""The exceptions that the command line reports in one sentence, and their exit codes."""

from __future__ import annotations

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
