"""The solver: one engine and one kernel pool, on which problems are solved by voting attempts."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from eightfold.common.error_text import one_line

from .attempts.attempt import AttemptLimits, attempt_seed
from .attempts.backend_interfaces import EngineLike, PoolLike
from .attempts.problem_plan import ProblemPlan
from .attempts.problem_progress import Progress
from .attempts.problem_result import Result
from .attempts.problem_run import ProblemRun
from .familiarity import read_familiarity
from .model_defaults import ModelInputs, read_model_inputs
from .solver_config import SolverConfig, SolverError
from .solver_startup import start_parts

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from eightfold.engine import Preload

__all__ = ["Progress", "Result", "Solver"]


class Solver(AbstractContextManager["Solver"]):
    """Solves problems with one model, on one device or several; a context manager.

    `solve` may be called from several threads at the same time.

    Args:
        config: settings; None takes the defaults.
        engine, tokenizer, pool: ready-made parts; missing ones are made from the configuration.
        reading: a `Preload` of the model folder that is in progress; None starts one. It is stopped
            once the engine is made.
        inputs: what `read_model_inputs` returned for `config`; None reads it.

    Attributes:
        config: the settings.
        folder: the model folder; None if engine and tokenizer were given ready-made.
        familiarity: what the folder says about the problems of the model's training, or None.
        loop: the engine's thread, with the engine as `loop.engine`; the first of `loops`.
        loops: the thread of each engine; one unless the configuration names several devices.
        protocol: the model's chat format.
        sampling: sampling parameters of an attempt, its seed apart.
        pool: the pool of Python kernels.

    Raises:
        SolverError: if the configuration, the model folder or its tokenizer cannot be used.
        ProtocolError: if the chat template cannot be used.
        PromptError: if the prompts file cannot be used.
        eightfold.engine.ModelError: if the checkpoint cannot be loaded or its layers cannot be
            paged.
    """

    def __init__(
        self,
        config: SolverConfig | None = None,
        *,
        engine: EngineLike | None = None,
        tokenizer: PreTrainedTokenizerBase | None = None,
        pool: PoolLike | None = None,
        reading: Preload | None = None,
        inputs: ModelInputs | None = None,
    ) -> None:
        self.config = config = config or SolverConfig()
        # OpenMP reads this when torch is imported. Threads that wait must not spin: on few cores
        # they would starve the kernels and each other.
        os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
        if inputs is None:
            inputs = read_model_inputs(config, folder_needed=engine is None or tokenizer is None)
        familiarity = read_familiarity(inputs.folder)
        with ExitStack() as stack:
            self._parts = start_parts(
                config,
                inputs,
                stack,
                engine=engine,
                tokenizer=tokenizer,
                pool=pool,
                reading=reading,
            )
            self._resources = stack.pop_all()
        self._closed = False
        self.folder = inputs.folder
        self.familiarity = familiarity
        self.loops = self._parts.loops
        self.loop = self.loops[0]
        self.protocol = self._parts.protocol
        self.sampling = self._parts.sampling
        self.pool = self._parts.pool

    def __exit__(self, *error: object) -> None:
        self.close()

    @property
    def alive(self) -> bool:
        """True while problems can be solved; False once closed or if all engines' threads ended."""
        return any(loop.alive for loop in self.loops)

    @property
    def on_gpu(self) -> bool:
        """True if the engine runs on a GPU."""
        return self.loop.engine.device.type == "cuda"

    def table(self) -> str:
        """Return a table, for people, of what takes how much memory on each device."""
        if len(self.loops) == 1:
            return self.loop.engine.table()
        return "\n".join(
            f"engine {number}: {loop.engine.table()}"
            for number, loop in enumerate(self.loops)
            if loop.alive
        )

    def close(self) -> None:
        """End the engines' threads and the kernels that the solver started.

        May be called more than once.
        """
        self._closed = True
        self._resources.close()

    def solve(
        self,
        problem: str,
        *,
        key: str | None = None,
        seconds: float | None = None,
        on_progress: Callable[[Progress], None] | None = None,
        on_attempt: Callable[[dict[str, Any]], None] | None = None,
        interval: float = 0.25,
    ) -> Result:
        """Attempt a problem and vote on its answer.

        Args:
            problem: text of the problem.
            key: determines the attempts' seeds together with the run's seed; None takes the text.
            seconds: time for this problem; None takes the configuration's.
            on_progress: called about every `interval` seconds on this thread.
            on_attempt: called with the record of each attempt as it ends, on the engine's thread.
            interval: seconds between two calls of `on_progress`.

        Raises:
            SolverError: if the problem is not text, empty, or longer than the context, if `seconds`
                is not a number, or if the solver is closed.
        """
        if self._closed:
            raise SolverError("The solver is closed; make a new one.")
        if not isinstance(problem, str):
            raise SolverError(f"The problem must be text, not {type(problem).__name__}.")
        if seconds is not None and math.isnan(seconds):
            raise SolverError("seconds must be a number, not nan.")
        text = problem.strip()
        if not text:
            raise SolverError("The problem is empty; give its text.")
        run = ProblemRun(self._plan(text, key, seconds), self._parts, on_attempt)
        try:
            run.start(text)
        except ValueError as error:
            reason = str(error).rstrip(".")
            raise SolverError(f"The problem does not fit the model: {reason}.") from error
        return self._judged(text, run.wait(on_progress, interval))

    def solve_or_nothing(
        self,
        problem: str,
        *,
        key: str | None = None,
        seconds: float | None = None,
        on_progress: Callable[[Progress], None] | None = None,
        on_attempt: Callable[[dict[str, Any]], None] | None = None,
        interval: float = 0.25,
    ) -> Result:
        """Call `solve`, and return a result without an answer if it raises an exception.

        For runs of many problems, which no single problem may end.
        """
        began = time.monotonic()
        try:
            return self.solve(
                problem,
                key=key,
                seconds=seconds,
                on_progress=on_progress,
                on_attempt=on_attempt,
                interval=interval,
            )
        except Exception as error:
            fault = one_line(error, 1000)
            return Result(None, {}, (), time.monotonic() - began, 0, 0, 0, "failed", (fault,))

    def _judged(self, problem: str, result: Result) -> Result:
        """Return the result with how far the problem is from the model's training, if known."""
        if self.familiarity is None:
            return result
        distance = self.familiarity.distance(problem, result.answer, result.attempts)
        note = self.familiarity.note() if distance > 1.0 else ""
        return replace(result, distance=round(distance, 3), note=note)

    def _plan(self, text: str, key: str | None, seconds: float | None) -> ProblemPlan:
        config = self.config
        seeds = tuple(
            attempt_seed(config.seed, text if key is None else key, index)
            for index in range(config.attempts)
        )
        return ProblemPlan(
            seeds=seeds,
            early_stop=config.early_stop,
            rule=config.rule,
            seconds=config.time if seconds is None else seconds,
            tool_timeout=config.tool_timeout,
            limits=AttemptLimits(config.turns, config.low, config.high),
        )
