"""The settings of one problem, and the parts of a solver that all problems share."""

from __future__ import annotations

from concurrent.futures import Executor
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..chat.chat_protocol import ChatProtocol
from .attempt import AttemptLimits
from .backend_interfaces import PoolLike
from .engine_loop import EngineLoop

if TYPE_CHECKING:
    from eightfold.engine import SamplingParams


@dataclass(frozen=True)
class ProblemPlan:
    """Settings of one problem.

    Attributes:
        seeds: a seed for each attempt.
        early_stop: number of equal answers that end the problem; 0 awaits every attempt.
        rule: name of the vote's rule.
        seconds: time that the problem may take.
        tool_timeout: seconds that a tool call may take.
        limits: limits of each attempt.
    """

    seeds: tuple[int, ...]
    early_stop: int
    rule: str
    seconds: float
    tool_timeout: float
    limits: AttemptLimits


@dataclass(frozen=True)
class SharedParts:
    """Parts of a solver that all of its problems share.

    Attributes:
        loops: the thread of each engine; a problem's attempts are dealt out to them in turn.
        protocol: chat format of the model.
        pool: pool of Python kernels.
        executor: threads for tool calls, at least one for each attempt.
        sampling: sampling parameters of all attempts; each attempt replaces the seed.
    """

    loops: tuple[EngineLoop, ...]
    protocol: ChatProtocol
    pool: PoolLike
    executor: Executor
    sampling: SamplingParams
