"""Jupyter kernels forked from a warm template, leased to attempts; see docs/sandbox.md.

Importing this package imports neither numpy nor zmq: the pool's thread does, when it starts.
"""

from .config import Limits, PoolConfig
from .errors import SandboxError
from .kernel import Execution, Kernel
from .pool import KernelPool

__all__ = ["Execution", "Kernel", "KernelPool", "Limits", "PoolConfig", "SandboxError"]
