"""Attempts, votes, budgets, traces and the command line.

`from eightfold.solver import Solver, SolverConfig`
"""

from typing import TYPE_CHECKING, Any

from eightfold.solver.config import SolverConfig, SolverError

if TYPE_CHECKING:
    from eightfold.solver.solver import Result, Solver

__all__ = ["Result", "Solver", "SolverConfig", "SolverError"]


def __getattr__(name: str) -> Any:
    # The command line's --help and the training scripts need none of what the solver imports.
    if name in ("Result", "Solver"):
        from eightfold.solver import solver

        return getattr(solver, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
