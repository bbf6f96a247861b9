"""The errors that the sandbox raises."""


class SandboxError(RuntimeError):
    """The sandbox cannot do what was asked; the message gives the reason if it is known."""


class SandboxOutageError(SandboxError, TimeoutError):
    """No kernel could be made in time; the pool tries on, so that asking again may help.

    The message gives the cause.
    """
