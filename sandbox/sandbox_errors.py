"""What the sandbox raises."""


class SandboxError(RuntimeError):
    """The sandbox cannot do what was asked; the message says what and, where known, why."""
