"""The pool's settings."""

from __future__ import annotations

from dataclasses import dataclass, field

from .text.cell_text import TEXT_LIMIT

MIB = 1 << 20


@dataclass(frozen=True)
class Limits:
    """What one kernel may use. Sizes in bytes, times in seconds."""

    memory: int = 4096 * MIB  # address space of each process, and what all of them hold
    cpu: int = 1800  # processor time of a kernel's whole life
    file_size: int = 64 * MIB  # one file
    disk: int = 256 * MIB  # the whole scratch folder, deleted but open files included
    open_files: int = 256
    processes: int = 48  # processes and threads a kernel may have
    nice: int = 5

    def __post_init__(self) -> None:
        if self.memory < 1024 * MIB:
            raise ValueError(
                "Limits.memory must be at least 1 GiB: numpy and sympy alone map 0.8 GiB"
            )
        if self.cpu < 1 or self.file_size < MIB or self.disk < MIB:
            raise ValueError("Limits: cpu must be at least 1 s, file_size and disk at least 1 MiB")
        if self.open_files < 128 or self.processes < 24:
            raise ValueError("Limits: a kernel needs open_files >= 128 and processes >= 24")


@dataclass(frozen=True)
class PoolConfig:
    """Settings of a `KernelPool`."""

    size: int = 16  # kernels that can be leased at once
    spares: int = 2  # kernels kept ready while all are leased
    timeout: float = 6.0  # seconds a cell may run unless execute() says otherwise
    grace: float = 1.0  # seconds an interrupted cell has before its kernel is killed
    text_limit: int = TEXT_LIMIT  # characters of a cell's text
    replay: bool = False  # after a kill, run the lease's successful cells again
    reset: str = "fork"  # a lease's kernel is replaced; "soft": kept, after %reset -f (it leaks)
    start: str = "fork"  # "fork" from a warm template, or "plain": each kernel imports by itself
    transport: str = "ipc"  # "ipc" or "tcp" (127.0.0.1)
    first_port: int = 0  # tcp: kernel in slot i takes first_port + 5 i ...; 0: any free ports
    isolate: bool = True  # uid, Landlock, seccomp where the machine allows; False: limits only
    strict: bool = False  # refuse to start where a protection cannot be had
    memory: int = 0  # bytes all kernels together may hold; 0: three quarters of the machine's
    preamble: str = ""  # code run in every kernel after the standard preamble
    start_timeout: float = 60.0  # seconds the template, and a kernel, may need to come up
    limits: Limits = field(default_factory=Limits)

    def __post_init__(self) -> None:
        if not 1 <= self.size <= 256:
            raise ValueError(f"PoolConfig.size must be from 1 to 256, not {self.size}")
        if not 0 <= self.spares <= 16:
            raise ValueError(f"PoolConfig.spares must be from 0 to 16, not {self.spares}")
        if self.timeout <= 0 or self.grace <= 0 or self.start_timeout <= 0:
            raise ValueError("PoolConfig: timeout, grace and start_timeout must be positive")
        if self.text_limit < 200:
            raise ValueError("PoolConfig.text_limit must be at least 200 characters")
        if self.reset not in ("fork", "soft"):
            raise ValueError(f"PoolConfig.reset is 'fork' or 'soft', not {self.reset!r}")
        if self.memory and self.memory < self.limits.memory:
            raise ValueError("PoolConfig.memory must be 0 or at least Limits.memory")
        if self.start not in ("fork", "plain"):
            raise ValueError(f"PoolConfig.start is 'fork' or 'plain', not {self.start!r}")
        if self.transport not in ("ipc", "tcp"):
            raise ValueError(f"PoolConfig.transport is 'ipc' or 'tcp', not {self.transport!r}")
        if self.first_port and self.transport != "tcp":
            raise ValueError("PoolConfig.first_port is for transport='tcp'")
        if self.first_port and not 1024 <= self.first_port <= 65535 - 5 * (self.size + self.spares):
            raise ValueError("PoolConfig.first_port leaves no room for five ports a kernel")
        if self.strict and not self.isolate:
            raise ValueError("PoolConfig: strict=True needs isolate=True")
