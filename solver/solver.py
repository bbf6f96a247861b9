"""The solver: one engine, one kernel pool, and problems solved on them by voting attempts."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from textwrap import shorten
from typing import Any

from eightfold.common.error_text import one_line
from eightfold.engine.loading.model_folder import end_token_ids

from .attempts.attempt import Attempt, AttemptLimits, Ending, attempt_record, attempt_seed
from .attempts.engine_loop import EngineLoop
from .attempts.problem_run import ProblemPlan, ProblemRun, Progress
from .attempts.voting import vote
from .chat.chat_protocol import ChatProtocol
from .chat.format_registry import load_protocol
from .chat.prompt_texts import prompts_for
from .model_defaults import resolve_model_folder, sampling_values
from .solver_config import MAX_ATTEMPTS, SolverConfig, SolverError

RELEASE_SECONDS = 3.0
"""How long a problem waits for its kernels to be given back before it ends without them."""
SMALL_MODEL = 256 << 20
"""Bytes of weights."""


@dataclass(frozen=True)
class Result:
    """What came of a problem.

    Attributes:
        answer: the vote's winner, None where no attempt answered.
        votes: attempts per answer, the winner first.
        attempts: a JSON-ready record of each attempt (see `attempt_record`).
        seconds, tokens: wall-clock time and sampled tokens of all attempts.
        calls, errors: tool calls and those that failed.
        stopped: why no further attempt was awaited: "agreement", "lead", "all ended", "time", ...
        faults: what went wrong in engine or solver meanwhile.
        prompt: token ids of the prompt.
    """

    answer: int | None
    votes: dict[int, int]
    attempts: tuple[dict[str, Any], ...]
    seconds: float
    tokens: int
    calls: int
    errors: int
    stopped: str
    faults: tuple[str, ...] = ()
    prompt: tuple[int, ...] = field(default=(), repr=False)


class Solver(AbstractContextManager["Solver"]):
    """Solves problems; a context manager. `solve` may be called from several threads at once.

    The kernel pool starts in processes of its own while the model loads here.

    Args:
        config: see `SolverConfig`.
        engine, tokenizer, pool: ready-made parts; those left out are made from the configuration.
        reading: a `Preload` of the model's folder that is under way; None starts one. It is ended
            with the engine made, or with the solver.

    Raises:
        SolverError, ProtocolError, PromptError: the configuration, the model's folder or its
            tokenizer cannot be used.
        eightfold.engine.ModelError: the checkpoint cannot be loaded or paged.
    """

    def __init__(
        self,
        config: SolverConfig | None = None,
        *,
        engine: Any = None,
        tokenizer: Any = None,
        pool: Any = None,
        reading: Any = None,
    ) -> None:
        self.config = config = config or SolverConfig()
        # Read by OpenMP when torch loads: threads that wait must not spin, or on few cores they
        # starve the kernels and each other.
        os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
        ready = engine is not None and tokenizer is not None
        folder = None if ready and config.model is None else resolve_model_folder(config.model)
        self.folder = folder
        prompts = prompts_for(folder, config.prompts)
        self.prompts = prompts.filled(
            low=config.low,
            high=config.high,
            seconds=f"{config.tool_timeout:g}",
            characters=config.output_limit,
        )
        self.sampling_values = sampling_values(folder, config)
        self._closers: list[Callable[[], None]] = []
        try:
            if reading is None and engine is None:
                reading = self._start_reading(folder)
            if reading is not None:
                self._closers.append(reading.stop)
            self.pool = pool if pool is not None else self._start_pool()
            self._executor = ThreadPoolExecutor(MAX_ATTEMPTS, thread_name_prefix="tool")
            self._closers.append(lambda: self._executor.shutdown(wait=False))
            self.protocol = self._make_protocol(tokenizer, folder)
            self.loop = EngineLoop(engine if engine is not None else self._start_engine(folder))
            self._closers.append(self.loop.close)
            if reading is not None:
                reading.stop()  # the engine has read what it needs
            self._sampling = self._make_sampling()
        except BaseException:
            self.close()
            raise

    def __exit__(self, *error: object) -> None:
        self.close()

    @property
    def alive(self) -> bool:
        """Whether problems can be solved: False once closed, or where the engine's thread died."""
        return self.loop.alive

    @property
    def on_gpu(self) -> bool:
        """Whether the engine runs on a GPU."""
        return bool(self.loop.engine.device.type == "cuda")

    def close(self) -> None:
        """Ends the engine's thread and the kernels it started; safe to call twice."""
        while self._closers:
            self._closers.pop()()

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
        """Attempts the problem and votes.

        Args:
            key: what the attempts' seeds derive from beside the run's seed; None: the text.
            seconds: time for this problem; None: the configuration's.
            on_progress: called about every `interval` seconds on this thread.
            on_attempt: called with the record of each attempt as it ends, on the engine thread.

        Raises:
            SolverError: the problem is no text, empty, or longer than the context; `seconds` is no
                number; or the solver is closed.
        """
        if not self._closers:
            raise SolverError("The solver is closed; make a new one.")
        if not isinstance(problem, str):
            raise SolverError(f"The problem must be text, not {type(problem).__name__}.")
        if seconds is not None and math.isnan(seconds):
            raise SolverError("seconds must be a number, not nan.")
        text = problem.strip()
        if not text:
            raise SolverError("The problem is empty; give its text.")
        run = self._make_run(text, key, seconds, on_attempt)
        try:
            run.start(text)
        except ValueError as error:
            raise SolverError(f"The problem does not fit the model: {error}.") from error
        try:
            while not run.done.wait(interval):
                if on_progress is not None:
                    on_progress(run.progress())
                if not self.loop.alive:
                    run.abandon(Ending.ENGINE, f"the engine's thread ended: {self.loop.error!r}")
        except BaseException:
            run.abandon(Ending.INTERRUPTED)
            raise
        if not run.release(RELEASE_SECONDS):
            run.faults.append(f"kernels were not given back within {RELEASE_SECONDS:g} s")
        if on_progress is not None:
            on_progress(run.progress())
        return self._result(run)

    def solve_or_nothing(self, problem: str, **options: Any) -> Result:
        """As `solve`, but a fault of the solver itself becomes a result without an answer.

        For runs of many problems, which no single one may end.
        """
        began = time.monotonic()
        try:
            return self.solve(problem, **options)
        except Exception as error:
            fault = one_line(error, 1000)
            return Result(None, {}, (), time.monotonic() - began, 0, 0, 0, "failed", (fault,))

    def _make_run(
        self,
        text: str,
        key: str | None,
        seconds: float | None,
        on_attempt: Callable[[dict[str, Any]], None] | None,
    ) -> ProblemRun:
        config = self.config
        seeds = tuple(
            attempt_seed(config.seed, text if key is None else key, index)
            for index in range(config.attempts)
        )
        limits = AttemptLimits(config.turns, config.low, config.high)
        time_limit = config.time if seconds is None else seconds
        plan = ProblemPlan(
            seeds, config.early_stop, config.rule, time_limit, config.tool_timeout, limits
        )
        on_end: Callable[[Attempt], None] | None = None
        if on_attempt is not None:

            def on_end(attempt: Attempt) -> None:
                on_attempt(attempt_record(attempt))

        return ProblemRun(
            self.loop, self.protocol, self.pool, self._executor, plan, self._sampling, on_end
        )

    def _result(self, run: ProblemRun) -> Result:
        outcome = vote(run.signals(), self.config.rule)
        records: Sequence[dict[str, Any]] = [attempt_record(attempt) for attempt in run.attempts]
        return Result(
            outcome.answer,
            outcome.votes,
            tuple(records),
            run.now(),
            sum(record["tokens"] for record in records),
            sum(record["calls"] for record in records),
            sum(record["errors"] for record in records),
            run.stopped,
            tuple(run.faults),
            tuple(run.prompt),
        )

    def _start_reading(self, folder: Path | None) -> Any:
        """Fills the page cache while libraries are imported and kernels start."""
        from eightfold.engine.loading.file_preload import Preload

        assert folder is not None
        return Preload(folder)

    def _start_pool(self) -> Any:
        from eightfold.sandbox import KernelPool, PoolConfig

        config = PoolConfig(
            size=self.config.kernels,
            timeout=self.config.tool_timeout,
            text_limit=self.config.output_limit,
        )
        pool = KernelPool(config)
        self._closers.append(pool.close)
        return pool

    def _make_protocol(self, tokenizer: Any, folder: Path | None) -> ChatProtocol:
        if tokenizer is None:
            assert folder is not None
            tokenizer = load_tokenizer(folder)
        ends = sorted(end_token_ids(folder)) if folder is not None else ()
        return load_protocol(tokenizer, self.prompts, ends)

    def _start_engine(self, folder: Path | None) -> Any:
        from eightfold.engine import Engine, EngineConfig, ModelError

        assert folder is not None
        _spare_threads(folder)
        try:
            config = self.config.engine or EngineConfig(max_running=self.config.running)
            return Engine(folder, config)
        except ModelError:
            raise
        except ValueError as error:  # a setting that this machine or model cannot have
            raise SolverError(str(error)) from error

    def _make_sampling(self) -> Any:
        from eightfold.engine import SamplingParams

        return SamplingParams(
            **self.sampling_values,
            max_new_tokens=self.config.max_tokens,
            pause_token_ids=self.protocol.pause_token_ids,
            stop_token_ids=(),
            entropy=self.config.entropy,
        )


def _spare_threads(folder: Path) -> None:
    """One thread for a small model, unless OMP_NUM_THREADS says otherwise.

    Its layers are too short to be shared: on two cores a second thread made a step slower, and the
    Python kernels want that core (docs/log.md).
    """
    import torch

    size = sum(file.stat().st_size for file in folder.glob("*.safetensors"))
    if size < SMALL_MODEL and "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(1)


def load_tokenizer(folder: Path) -> Any:
    """The tokenizer in a model folder.

    Raises:
        SolverError: it cannot be loaded.
    """
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except Exception as error:  # the readers of transformers raise whatever they meet
        reason = shorten(str(error), 300, placeholder=" ...").rstrip(".") or type(error).__name__
        raise SolverError(f"The tokenizer in {folder} cannot be loaded: {reason}.") from error
