"""Attempts, votes, budgets, traces and the command line.

from eightfold.solver import Solver, SolverConfig

with Solver(SolverConfig()) as solver:
    print(solver.solve("What is 6 times 7?").answer)
"""

from importlib import import_module
from typing import TYPE_CHECKING

from .solver_config import SolverConfig, SolverError

if TYPE_CHECKING:
    from .display.notebook_view import live_view
    from .evaluation.recorded_run import RecordedRun
    from .solver import Result, Solver

__all__ = ["RecordedRun", "Result", "Solver", "SolverConfig", "SolverError", "live_view"]

_MODULES = {
    "RecordedRun": "evaluation.recorded_run",
    "Result": "solver",
    "Solver": "solver",
    "live_view": "display.notebook_view",
}
"""Modules of the names that are imported when they are first used."""


def __getattr__(name: str) -> object:
    # The solver imports much that --help and the training scripts do not need.
    if name in _MODULES:
        return getattr(import_module(f".{_MODULES[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
