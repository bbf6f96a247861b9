"""Jupyter kernels that are forked from a warm template and leased; see docs/sandbox.md.

Importing this package imports neither numpy nor zmq: the pool's thread imports zmq, and only the
template imports numpy.
"""

from .cell_result import Execution
from .host.kernel_pool import KernelPool
from .host.leased_kernel import Kernel
from .pool_config import Limits, PoolConfig
from .sandbox_errors import SandboxError

__all__ = ["Execution", "Kernel", "KernelPool", "Limits", "PoolConfig", "SandboxError"]
