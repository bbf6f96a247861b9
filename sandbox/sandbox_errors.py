"""The error that the sandbox raises."""


class SandboxError(RuntimeError):
    """The sandbox cannot do what was asked; the message gives the reason if it is known."""
