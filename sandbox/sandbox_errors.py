"""The errors that the sandbox raises."""


class SandboxError(RuntimeError):
    """The sandbox cannot do what was asked; the message gives the reason if it is known."""


class SandboxOutageError(SandboxError, TimeoutError):
    """No kernel could be made in time; the pool tries on, so that asking again may help.

    The message gives the cause.
    """


class PermanentError(SandboxError):
    """No kernel can be made on this machine with these settings, however often it is tried."""


class PortTakenError(SandboxError):
    """Another program listens on a port that `PoolConfig.first_port` asks for."""
