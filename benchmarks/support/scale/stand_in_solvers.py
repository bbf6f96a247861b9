"""Solvers that cost nothing, or a fixed number of tokens, to measure what is around them."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

from eightfold.solver import Result, SolverConfig

ATTEMPTS = 8
PROMPT, CONTEXT = 300, 4096


class InstantSolver:
    """Answers every problem at once, with records as small as they can be."""

    def __init__(self, config: SolverConfig) -> None:
        self.config = config
        self.alive = True

    def solve_or_nothing(self, text: str, **options: Any) -> Result:
        """Return the answer 42, from eight attempts."""
        records = tuple(self._record(index) for index in range(self.config.attempts))
        for record in records:
            options["on_attempt"](record)
        return Result(42, {42: len(records)}, records, 0.0, 0, 0, 0, "all ended")

    def close(self) -> None:
        """Do nothing."""

    def _record(self, index: int) -> dict[str, Any]:
        return {
            "attempt": index, "seed": index, "ending": "answered", "detail": "", "answer": 42,
            "tokens": 0, "calls": 0, "errors": 0, "error_kinds": [], "entropy": None, "ended": 0.0,
            "code": 0, "turns": [],
        }  # fmt: skip


def instant_solver(config: SolverConfig) -> InstantSolver:
    """Return a solver that answers at once."""
    return InstantSolver(config)


class ShapeSolver(InstantSolver):
    """Decodes a fixed number of tokens for each attempt, with random weights in a model's shapes.

    Args:
        config: `model` is a key of `SHAPES`, `max_tokens` the tokens of an attempt.
    """

    def __init__(self, config: SolverConfig) -> None:
        import torch
        from support.random_model import random_model

        from eightfold.engine import Engine, EngineConfig, SamplingParams

        super().__init__(replace(config, model=None))
        began = time.monotonic()
        model = random_model(str(config.model), torch.device("cuda"))
        engine = EngineConfig(max_running=config.attempts, max_context=CONTEXT)
        self._engine = Engine(model, engine)
        self._params = SamplingParams(max_new_tokens=config.max_tokens or 512, stop_token_ids=())
        self.start_seconds = time.monotonic() - began

    def solve_or_nothing(self, text: str, **options: Any) -> Result:
        """Decode the attempts' tokens."""
        began = time.monotonic()
        engine, count = self._engine, self.config.attempts
        prompt = [1000 + (7919 * i) % 5000 for i in range(PROMPT)]
        first = engine.submit(prompt, self._params)
        engine.fork(first, count - 1, list(range(1, count)))
        tokens = 0
        while engine.has_work():
            tokens += sum(len(event.tokens) for event in engine.step())
        seconds = time.monotonic() - began
        records = tuple({**self._record(i), "tokens": tokens // count} for i in range(count))
        for record in records:
            options["on_attempt"](record)
        return Result(42, {42: count}, records, seconds, tokens, 0, 0, "all ended")


def shape_solver(config: SolverConfig) -> ShapeSolver:
    """Return a solver over random weights."""
    return ShapeSolver(config)
