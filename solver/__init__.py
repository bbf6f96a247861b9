"""Attempts, votes, budgets, traces and the command line.

from eightfold.solver import Solver, SolverConfig

with Solver(SolverConfig()) as solver:
    print(solver.solve("What is 6 times 7?").answer)
"""

from typing import TYPE_CHECKING

from .solver_config import SolverConfig, SolverError

if TYPE_CHECKING:
    from .solver import Result, Solver

__all__ = ["Result", "Solver", "SolverConfig", "SolverError"]


def __getattr__(name: str) -> object:
    # The solver imports much that --help and the training scripts do not need.
    if name in ("Result", "Solver"):
        from . import solver

        return getattr(solver, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
