"""The settings of a solver, and the error for wrong input."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from numbers import Integral, Real
from pathlib import Path
from typing import TYPE_CHECKING

from .answers.boxed_answer import MAX_ANSWER, MIN_ANSWER
from .attempts.voting import DEFAULT_RULE, RULES
from .chat.template_options import EFFORTS

if TYPE_CHECKING:
    from eightfold.engine import EngineConfig

MAX_ATTEMPTS = 1024
"""Each attempt may need a thread for its tool."""

MAX_KERNELS = 256

MAX_RUNNING = 64
"""Largest number of attempts that one step of the engine advances; more take turns."""

MIN_OUTPUT_LIMIT = 200

MAX_DEVICES = 64

DEVICE = re.compile(r"cpu|cuda:\d+")
"""Name of a device."""

SAMPLING_BOUNDS: dict[str, tuple[float, float]] = {
    "temperature": (0, 100),
    "top_p": (1e-9, 1),
    "top_k": (0, 2**31 - 1),
    "min_p": (0, 1),
}


class SolverError(ValueError):
    """The user's input cannot be used; the message is a sentence that says what to do."""


def check_sampling(values: Mapping[str, object], source: str = "") -> None:
    """Check sampling values against `SAMPLING_BOUNDS`; None and missing values are skipped.

    Args:
        values: sampling values by name; other names are ignored.
        source: text in front of the message that names where the values come from.

    Raises:
        SolverError: if a value is out of bounds.
    """
    for name, (lowest, highest) in SAMPLING_BOUNDS.items():
        value = values.get(name)
        valid = value is None or (
            isinstance(value, int | float)
            and not isinstance(value, bool)
            and lowest <= value <= highest
        )
        if not valid:
            raise SolverError(
                f"{source}{name} must be from {lowest:g} to {highest:.10g}, not {value!r}."
            )


@dataclass(frozen=True)
class SolverConfig:
    """Settings of a solver, checked when they are made.

    Attributes:
        model: folder of a Hugging Face causal language model, or, as text, an id `org/name` or
            `org/name@revision` of one; None takes the bundled one.
        attempts: number of attempts at a problem, which all run at the same time.
        early_stop: number of equal answers that end a problem; 0 awaits every attempt.
        tool: let the attempts run Python; False takes the prompt `plain` and runs nothing.
        turns: rounds of tool calls that an attempt may make.
        time: seconds that a problem may take.
        seed: seed of the run, from which the attempts' seeds follow (see `attempt_seed`).
        temperature, top_p, top_k, min_p: sampling values; None takes the checkpoint's
            generation_config.json, and 1, 1, 0 (all) and 0 if a value is missing there.
        rule: name of the vote's rule, a key of `voting.RULES`.
        low, high: range of answers.
        tool_timeout: seconds that a tool call may take.
        output_limit: characters of a tool's output that reach the model.
        kernels: number of Python kernels that can be in use at the same time.
        reasoning_effort: "low", "medium" or "high", for models whose chat template knows it
            (gpt-oss); None takes high for these, and is all that other models accept.
        prompts: TOML file with the texts sent to the model; None takes the model's own.
        entropy: record the entropy of each token, which two of the rules need.
        max_tokens: tokens that an attempt may write in all; None leaves only the context as limit.
        problems: number of problems solved at the same time, for the size of the engine.
        devices: "auto" spreads the attempts over one engine for each GPU, a list such as
            ("cuda:0", "cuda:1") over one for each of these; each engine has a process of its own.
            None takes one engine, in this process.
        speculate: what drafts tokens for the engine to verify, as in `EngineConfig`; no token
            depends on it. Not read if `engine` is given.
        engine: settings of the engine; None derives them from attempts and problems. With several
            devices they share its `max_running`.

    Raises:
        SolverError: if a value has the wrong type or is out of range.
    """

    model: str | Path | None = None
    attempts: int = 8
    early_stop: int = 4
    tool: bool = True
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
    reasoning_effort: str | None = None
    prompts: str | Path | None = None
    entropy: bool = True
    max_tokens: int | None = None
    problems: int = 1
    devices: str | tuple[str, ...] | None = None
    speculate: str = "off"
    engine: EngineConfig | None = None

    def __post_init__(self) -> None:
        self._check_types()
        self._check_ranges()
        check_sampling({name: getattr(self, name) for name in SAMPLING_BOUNDS})
        self._check_devices()
        if self.low > self.high:
            raise SolverError(f"low ({self.low}) must not exceed high ({self.high}).")
        if self.rule not in RULES:
            raise SolverError(f"rule must be one of {', '.join(RULES)}, not {self.rule!r}.")
        if self.reasoning_effort not in (None, *EFFORTS):
            raise SolverError(
                f"reasoning_effort must be None or one of {', '.join(EFFORTS)}, not "
                f"{self.reasoning_effort!r}."
            )

    @property
    def running(self) -> int:
        """Number of sequences that one step of the engine advances."""
        return min(MAX_RUNNING, self.attempts * self.problems)

    def for_problems(self, count: int) -> SolverConfig:
        """Return the settings for so many problems at the same time, with kernels for all."""
        kernels = max(self.kernels, min(MAX_KERNELS, self.attempts * count))
        return replace(self, problems=count, kernels=kernels)

    def _check_types(self) -> None:
        whole = (
            *("attempts", "early_stop", "turns", "seed", "low", "high", "output_limit", "kernels"),
            "problems",
        )
        self._check_type(whole, Integral, "a whole number")
        self._check_type(("time", "tool_timeout"), Real, "a number of seconds")
        known = self.speculate in ("auto", "off", "ngram")
        if not known and not (self.speculate and Path(str(self.speculate)).is_dir()):
            raise SolverError(
                "speculate must be 'auto', 'off', 'ngram' or a drafter's folder, not "
                f"{self.speculate!r}."
            )
        if not isinstance(self.tool, bool):
            raise SolverError(f"tool must be True or False, not {self.tool!r}.")
        if self.max_tokens is not None:
            self._check_type(("max_tokens",), Integral, "a whole number or None")

    def _check_type(self, names: tuple[str, ...], kind: type, description: str) -> None:
        for name in names:
            value = getattr(self, name)
            if not isinstance(value, kind) or isinstance(value, bool):
                raise SolverError(f"{name} must be {description}, not {value!r}.")

    def _check_devices(self) -> None:
        if self.devices is None or self.devices == "auto":
            return
        names = [] if isinstance(self.devices, str) else list(self.devices)
        if not 1 <= len(names) <= MAX_DEVICES or not all(
            isinstance(name, str) and DEVICE.fullmatch(name) for name in names
        ):
            raise SolverError(
                f"devices must be None, 'auto' or a list of up to {MAX_DEVICES} of cpu, cuda:0, "
                f"cuda:1 and so on, not {self.devices!r}."
            )
        if len({name.partition(":")[0] for name in names}) > 1:
            raise SolverError(
                "devices must be all CPUs or all GPUs; attempts are dealt out evenly."
            )

    def _check_ranges(self) -> None:
        least = {"attempts": 1, "early_stop": 0, "turns": 0, "seed": 0, "kernels": 1, "problems": 1}
        least |= {"output_limit": MIN_OUTPUT_LIMIT}
        least |= {} if self.max_tokens is None else {"max_tokens": 1}
        for name, bound in least.items():
            if getattr(self, name) < bound:
                raise SolverError(f"{name} must be at least {bound}, not {getattr(self, name)}.")
        for name, bound in {"attempts": MAX_ATTEMPTS, "kernels": MAX_KERNELS}.items():
            if getattr(self, name) > bound:
                raise SolverError(f"{name} must be at most {bound}, not {getattr(self, name)}.")
        for name in ("time", "tool_timeout"):
            value = getattr(self, name)
            if not 0 < value < math.inf:
                raise SolverError(f"{name} must be a positive number of seconds, not {value}.")
