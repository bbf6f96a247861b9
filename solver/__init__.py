"""Attempts, votes, budgets, traces and the command line.

`from eightfold.solver import Solver, SolverConfig`
"""

from typing import TYPE_CHECKING, Any

from .solver_config import SolverConfig, SolverError

if TYPE_CHECKING:
    from .solver import Result, Solver

__all__ = ["Result", "Solver", "SolverConfig", "SolverError"]


def __getattr__(name: str) -> Any:
    # The command line's --help and the training scripts need none of what the solver imports.
    if name in ("Result", "Solver"):
        from . import solver

        return getattr(solver, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
