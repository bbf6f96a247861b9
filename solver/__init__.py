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
    from .problem_set import Columns
    from .scale.batch_solver import BatchSolver
    from .scale.ray_evaluation import evaluate_on_ray
    from .solver import Result, Solver

__all__ = [
    "BatchSolver",
    "Columns",
    "RecordedRun",
    "Result",
    "Solver",
    "SolverConfig",
    "SolverError",
    "evaluate_on_ray",
    "live_view",
]

_MODULES = {
    "BatchSolver": "scale.batch_solver",
    "Columns": "problem_set",
    "RecordedRun": "evaluation.recorded_run",
    "Result": "solver",
    "Solver": "solver",
    "evaluate_on_ray": "scale.ray_evaluation",
    "live_view": "display.notebook_view",
}
"""Modules of the names that are imported when they are first used."""


def __getattr__(name: str) -> object:
    # The solver imports much that --help and the training scripts do not need.
    if name in _MODULES:
        return getattr(import_module(f".{_MODULES[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
