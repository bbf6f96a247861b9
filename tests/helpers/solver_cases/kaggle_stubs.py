"""A stand-in for the solver of a Kaggle session, and ways to start one and to ask it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import polars as pl

from eightfold.solver.kaggle import predict_endpoint
from eightfold.solver.kaggle.kaggle_config import KaggleConfig
from eightfold.solver.kaggle.kaggle_session import Session, SessionSolver
from eightfold.solver.kaggle.local_gateway import check_prediction
from eightfold.solver.solver import Result

FALLBACK = 123


class StubSolver:
    """Has the faults that the real solver does not have on demand.

    Args:
        act: returns the answer to a problem, given the options of `solve`; None answers 7.
    """

    def __init__(self, act: Callable[[dict[str, Any]], Any] | None = None) -> None:
        self.act = act
        self.alive = True
        self.texts: list[str] = []
        self.seconds: list[float] = []

    def solve(self, text: str, **options: Any) -> Result:
        """Return a result with the answer of `act`."""
        self.texts.append(text)
        self.seconds.append(options["seconds"])
        answer = self.act(options) if self.act else 7
        return Result(answer, {}, (), 0.1, 1, 0, 0, "all ended")

    def close(self) -> None:
        """Note that the solver was closed."""
        self.alive = False


def start_session(make: Callable[[], SessionSolver], **changes: Any) -> Session:
    """Start a session with the fallback answer `FALLBACK`."""
    return predict_endpoint.start(KaggleConfig(**{"fallback": FALLBACK, **changes}), make)


def ask(problem: Any = "p", id_: Any = "a") -> int:
    """Return the answer to a problem, after the checks of the gateway."""
    return check_prediction(predict_endpoint.predict(pl.Series([id_], strict=False), problem))


def fail_for_memory(*_: Any, **__: Any) -> Any:
    """Raise an error with a long message."""
    raise MemoryError("no memory " * 1000)
