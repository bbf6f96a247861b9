"""Settings of a solver, checked when they are made."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from numbers import Integral, Real
from pathlib import Path
from typing import TYPE_CHECKING

from .answers.boxed_answer import MAX_ANSWER, MIN_ANSWER
from .attempts.voting import DEFAULT_RULE, RULES

if TYPE_CHECKING:
    from eightfold.engine import EngineConfig


MAX_ATTEMPTS = 1024
"""Each attempt may need a thread for its tool."""

MAX_KERNELS = 256

MAX_RUNNING = 64
"""Attempts in one step; more take turns."""

SAMPLING_BOUNDS: dict[str, tuple[float, float]] = {
    "temperature": (0, 100),
    "top_p": (1e-9, 1),
    "top_k": (0, 2**31 - 1),
    "min_p": (0, 1),
}


class SolverError(ValueError):
    """Something the user gave cannot be used; the message is one sentence that says what to do."""


def check_sampling(values: Mapping[str, object], where: str = "") -> None:
    """Raises `SolverError` where a value is out of `SAMPLING_BOUNDS`; None is left alone.

    `where` says in front of the message where the values come from.
    """
    for name, (lowest, highest) in SAMPLING_BOUNDS.items():
        value = values.get(name)
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if value is not None and not (number and lowest <= value <= highest):  # type: ignore[operator]
            raise SolverError(
                f"{where}{name} must be from {lowest:g} to {highest:.10g}, not {value!r}."
            )


@dataclass(frozen=True)
class SolverConfig:
    """How problems are solved.

    Attributes:
        model: folder of a Hugging Face causal language model; None takes the bundled one.
        attempts: attempts at a problem, all at once.
        early_stop: equal answers that end a problem; 0 lets every attempt end by itself.
        turns: rounds of tool calls an attempt may make.
        time: seconds a problem may take.
        seed: of the run; attempts' seeds follow from it (`attempt_seed`).
        temperature, top_p, top_k, min_p: None takes the checkpoint's generation_config.json, and
            where that is silent 1, 1, 0 (all) and 0.
        rule: how votes are weighed, a key of `vote.RULES`.
        low, high: range of answers.
        tool_timeout: seconds a tool call may take.
        output_limit: characters of a tool's output that reach the model.
        kernels: Python kernels that can be in use at once.
        prompts: TOML file with the sentences said to the model; None takes the model's own.
        entropy: record each token's entropy, which two of the rules need.
        max_tokens: tokens an attempt may write in all; None bounds it by the context alone.
        problems: problems that are to be in work at once, which sizes the engine.
        engine: settings of the engine; None: those that attempts and problems ask for.
    """

    model: str | Path | None = None
    attempts: int = 8
    early_stop: int = 4
    turns: int = 128
    time: float = 900.0
    seed: int = 0
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    rule: str = DEFAULT_RULE
    low: int = MIN_ANSWER
    high: int = MAX_ANSWER
    tool_timeout: float = 6.0
    output_limit: int = 6000
    kernels: int = 16
    prompts: str | Path | None = None
    entropy: bool = True
    max_tokens: int | None = None
    problems: int = 1
    engine: EngineConfig | None = None

    def __post_init__(self) -> None:
        whole = (
            "attempts",
            "early_stop",
            "turns",
            "seed",
            "low",
            "high",
            "output_limit",
            "kernels",
            "problems",
        )
        _check_types(self, whole, Integral, "a whole number")
        _check_types(self, ("time", "tool_timeout"), Real, "a number of seconds")
        if self.max_tokens is not None:
            _check_types(self, ("max_tokens",), Integral, "a whole number or None")
        least = {"attempts": 1, "early_stop": 0, "turns": 0, "seed": 0, "kernels": 1, "problems": 1}
        for name, bound in least.items():
            if getattr(self, name) < bound:
                raise SolverError(f"{name} must be at least {bound}, not {getattr(self, name)}.")
        for name in ("time", "tool_timeout"):
            value = getattr(self, name)
            if not 0 < value < math.inf:
                raise SolverError(f"{name} must be a positive number of seconds, not {value}.")
        most = {"attempts": MAX_ATTEMPTS, "kernels": MAX_KERNELS}
        for name, bound in most.items():
            if getattr(self, name) > bound:
                raise SolverError(f"{name} must be at most {bound}, not {getattr(self, name)}.")
        check_sampling({name: getattr(self, name) for name in SAMPLING_BOUNDS})
        if self.low > self.high:
            raise SolverError(f"low ({self.low}) must not exceed high ({self.high}).")
        if self.rule not in RULES:
            raise SolverError(f"rule must be one of {', '.join(RULES)}, not {self.rule!r}.")
        if self.max_tokens is not None and self.max_tokens < 1:
            raise SolverError(f"max_tokens must be at least 1, not {self.max_tokens}.")
        if self.output_limit < 200:
            raise SolverError(f"output_limit must be at least 200, not {self.output_limit}.")

    @property
    def running(self) -> int:
        """Sequences that one step of the engine advances: pages are set aside for no more."""
        return min(MAX_RUNNING, self.attempts * self.problems)


def _check_types(config: SolverConfig, names: tuple[str, ...], kind: type, what: str) -> None:
    for name in names:
        value = getattr(config, name)
        if not isinstance(value, kind) or isinstance(value, bool):
            raise SolverError(f"{name} must be {what}, not {value!r}.")
