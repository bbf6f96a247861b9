"""Jupyter kernels that are forked from a warm template and leased; see docs/sandbox.md.

Importing this package imports neither numpy nor zmq: the pool's thread imports zmq, and only the
template imports numpy. The pool is imported on first use, which needs Linux.
"""

from typing import TYPE_CHECKING

from .cell_result import Execution
from .platform_support import check_platform
from .pool_config import Limits, PoolConfig
from .sandbox_errors import SandboxError, SandboxOutageError

if TYPE_CHECKING:
    from .host.kernel_pool import KernelPool
    from .host.leased_kernel import Kernel

__all__ = [
    "Execution",
    "Kernel",
    "KernelPool",
    "Limits",
    "PoolConfig",
    "SandboxError",
    "SandboxOutageError",
]


def __getattr__(name: str) -> object:
    if name in ("Kernel", "KernelPool"):
        check_platform()
        from .host import kernel_pool

        return getattr(kernel_pool, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
