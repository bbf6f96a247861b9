"""Measures what steps cost on this machine, by their rows."""

import time
from typing import TYPE_CHECKING

from ..engine_config import EngineConfig
from ..execution.runner_limits import MAX_DRAFT_STEP_ROWS
from ..sampling_params import SamplingParams
from ..scheduling.draft_tree import DraftTree
from ..scheduling.scheduled_step import ScheduledTokens, StepPlan
from ..scheduling.sequence import Sequence
from ..speculation.step_costs import StepCosts

if TYPE_CHECKING:
    from .dummy_step import Runner

CONTEXT = 256  # tokens of each sequence
WARMUP_STEPS, STEPS, CPU_STEPS = 1, 3, 2
STRIDE = 7919  # between the tokens of a step's rows, a prime
MAX_CPU_ROWS = 32  # where more rows never pay


def measure_step_costs(
    runner: "Runner", config: EngineConfig, max_context: int, vocabulary: int
) -> StepCosts:
    """Time steps of 1, 2, 4, ... rows: first of more sequences, then of more drafts for each.

    The rows are different tokens: equal ones would all go to the same experts of a mixture.

    Args:
        max_context: most tokens that a sequence can hold.
        vocabulary: number of tokens.
    """
    plans: dict[int, StepPlan] = {}
    most = min(
        MAX_DRAFT_STEP_ROWS, config.max_step_tokens, config.max_running * (1 + config.max_drafts)
    )
    if runner.device.type == "cpu":
        most = min(most, MAX_CPU_ROWS)
    rows = 1
    while rows <= most:
        sequences = min(rows, 1 << (config.max_running.bit_length() - 1))
        each = rows // sequences
        if each <= min(1 + config.max_drafts, max_context - 1):
            plans[rows] = _draft_step(runner, sequences, each, max_context, vocabulary)
        rows *= 2
    if runner.device.type == "cpu":
        return StepCosts(_fastest(runner, plans))
    return StepCosts({rows: _seconds(runner, plan) for rows, plan in plans.items()})


def _draft_step(
    runner: "Runner", sequences: int, rows: int, max_context: int, vocabulary: int
) -> StepPlan:
    """Make a plan on the null page, of ``rows`` rows for each sequence."""
    start = max(0, min(CONTEXT, max_context - rows))
    scheduled = []
    for index in range(sequences):
        tokens = [(index * rows + row) * STRIDE % vocabulary for row in range(rows)]
        drafts = DraftTree.line(tokens[1:])
        known = [0] * start + tokens[:1]
        seq = Sequence(-1 - index, known, 1, SamplingParams(), frozenset())
        pages = -(-(start + rows) // runner.cache.page_size)
        seq.tables = [[0] * pages for _ in runner.cache.windows]
        scheduled.append(ScheduledTokens(seq, start, rows, True, False, 0, drafts))
    return StepPlan(scheduled)


def _fastest(runner: "Runner", plans: dict[int, StepPlan]) -> dict[int, float]:
    """Return the seconds of the fastest of a few steps of each kind on a CPU.

    Other processes disturb steps, mostly several in a row, so that the kinds take turns.
    """
    for plan in plans.values():
        runner.launch(plan).wait()
    turns = [
        {rows: _timed(runner, plan, 1) for rows, plan in plans.items()} for _ in range(CPU_STEPS)
    ]
    return {rows: min(turn[rows] for turn in turns) for rows in plans}


def _seconds(runner: "Runner", plan: StepPlan) -> float:
    """Return the seconds of a step that is launched behind another on a GPU."""
    for _ in range(WARMUP_STEPS):
        runner.launch(plan).wait()
    return _timed(runner, plan, STEPS)


def _timed(runner: "Runner", plan: StepPlan, steps: int) -> float:
    began = time.perf_counter()
    for _ in range(steps):
        step = runner.launch(plan)
    step.wait()
    return (time.perf_counter() - began) / steps
