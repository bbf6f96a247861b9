"""The settings of a kernel pool."""

from __future__ import annotations

from dataclasses import dataclass, field

from .text.cell_text import TEXT_LIMIT

MIB = 1 << 20
MIN_MEMORY = 1024 * MIB  # importing numpy and sympy alone maps 0.8 GiB
MIN_OPEN_FILES, MIN_PROCESSES = 128, 24  # what a kernel itself needs
MIN_TEXT_LIMIT = 200  # characters
MAX_SIZE, MAX_SPARES = 256, 16
PORTS_PER_KERNEL = 5


@dataclass(frozen=True)
class Limits:
    """Resources that one kernel may use.

    Attributes:
        memory: bytes of address space for each process, and of memory for all of them together.
        cpu: seconds of CPU time for each process, over its whole life.
        file_size: bytes of a single file.
        disk: bytes in the scratch folder, including deleted files that are still open.
        open_files: number of open files of each process.
        processes: number of processes and threads.
        nice: how much lower the kernel's scheduling priority is than the pool's.
    """

    memory: int = 4096 * MIB
    cpu: int = 1800
    file_size: int = 256 * MIB
    disk: int = 256 * MIB
    open_files: int = 256
    processes: int = 160
    nice: int = 5

    def __post_init__(self) -> None:
        if self.memory < MIN_MEMORY:
            raise ValueError(
                "Limits.memory must be at least 1 GiB, of which numpy and sympy alone map 0.8 GiB."
            )
        if self.cpu < 1:
            raise ValueError(f"Limits.cpu must be at least 1 s, not {self.cpu}.")
        if self.file_size < MIB or self.disk < MIB:
            raise ValueError("Limits.file_size and Limits.disk must be at least 1 MiB.")
        if self.open_files < MIN_OPEN_FILES:
            raise ValueError(f"Limits.open_files must be at least {MIN_OPEN_FILES}.")
        if self.processes < MIN_PROCESSES:
            raise ValueError(f"Limits.processes must be at least {MIN_PROCESSES}.")


@dataclass(frozen=True)
class PoolConfig:
    """Settings of a `KernelPool`.

    Attributes:
        size: number of kernels that can be leased at once.
        spares: number of kernels that are kept ready even while all are leased.
        timeout: seconds that a cell may run, unless `Kernel.execute` is given another limit.
        grace: seconds that an interrupted cell has to end before its kernel is killed.
        text_limit: characters of a cell's text.
        replay: after a kill, run the lease's successful cells again in the fresh process.
        reset: what becomes of a kernel when its lease ends: "fork" replaces it; "soft" keeps it
            and runs ``%reset -f``, which leaks state (see docs/sandbox.md).
        start: "fork" forks kernels from a warm template; with "plain" each imports the libraries.
        transport: "ipc" (unix sockets) or "tcp" (on 127.0.0.1).
        first_port: with "tcp", kernel number i uses the five ports from `first_port` + 5 i on; 0
            lets each kernel choose free ports.
        isolate: take on a user id, Landlock and seccomp as far as the machine allows; False sets
            limits only.
        strict: refuse to start if any protection is missing.
        memory: bytes that all kernels together may use; 0 means three quarters of the machine's.
        preamble: code that every kernel runs after the standard preamble.
        start_timeout: seconds that the template, and each kernel, may take to start.
        limits: what one kernel may use.
    """

    size: int = 16
    spares: int = 2
    timeout: float = 6.0
    grace: float = 0.8
    text_limit: int = TEXT_LIMIT
    replay: bool = False
    reset: str = "fork"
    start: str = "fork"
    transport: str = "ipc"
    first_port: int = 0
    isolate: bool = True
    strict: bool = False
    memory: int = 0
    preamble: str = ""
    start_timeout: float = 60.0
    limits: Limits = field(default_factory=Limits)

    def __post_init__(self) -> None:
        if not 1 <= self.size <= MAX_SIZE:
            raise ValueError(f"PoolConfig.size must be from 1 to {MAX_SIZE}, not {self.size}.")
        if not 0 <= self.spares <= MAX_SPARES:
            raise ValueError(
                f"PoolConfig.spares must be from 0 to {MAX_SPARES}, not {self.spares}."
            )
        if self.timeout <= 0 or self.grace <= 0 or self.start_timeout <= 0:
            raise ValueError("PoolConfig.timeout, grace and start_timeout must be positive.")
        if self.text_limit < MIN_TEXT_LIMIT:
            raise ValueError(f"PoolConfig.text_limit must be at least {MIN_TEXT_LIMIT} characters.")
        for name, choices in (
            ("reset", ("fork", "soft")),
            ("start", ("fork", "plain")),
            ("transport", ("ipc", "tcp")),
        ):
            value = getattr(self, name)
            if value not in choices:
                raise ValueError(
                    f"PoolConfig.{name} must be {choices[0]!r} or {choices[1]!r}, not {value!r}."
                )
        if self.memory and self.memory < self.limits.memory:
            raise ValueError("PoolConfig.memory must be 0 or at least Limits.memory.")
        if self.strict and not self.isolate:
            raise ValueError("PoolConfig.strict=True needs isolate=True.")
        self._check_ports()

    def _check_ports(self) -> None:
        if self.first_port and self.transport != "tcp":
            raise ValueError("PoolConfig.first_port needs transport='tcp'.")
        ports = PORTS_PER_KERNEL * (self.size + self.spares)
        if self.first_port and not 1024 <= self.first_port <= 65535 - ports:
            raise ValueError(
                f"PoolConfig.first_port must be from 1024 to {65535 - ports}, which leaves five "
                "ports for each kernel."
            )
