"""The parts of an engine and of a kernel pool that the solver uses.

`eightfold.engine.Engine` and `eightfold.sandbox.KernelPool` implement them, and so do the scripted
ones of the tests.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import torch

    from eightfold.engine import Event, SamplingParams


class EngineLike(Protocol):
    """An inference engine; see `eightfold.engine.Engine` for each method."""

    @property
    def device(self) -> torch.device:
        """The device of the model."""

    def submit(self, token_ids: list[int], params: SamplingParams, /) -> int:
        """Queue a prompt and return the number of its sequence."""

    def fork(self, seq: int, n: int, seeds: list[int], /) -> list[int]:
        """Return the numbers of `n` new sequences that continue the tokens of `seq`."""

    def resume(self, seq: int, token_ids: list[int], /) -> bool:
        """Append tokens to a paused sequence; return False if it has ended."""

    def rewind(self, seq: int, length: int, /) -> bool:
        """Drop the tokens from `length` on and pause; return False if the sequence has ended."""

    def cancel(self, seq: int, /) -> bool:
        """End a sequence; return False if it has ended already."""

    def tokens(self, seq: int, /) -> list[int]:
        """Return a copy of a live sequence's tokens."""

    def has_work(self) -> bool:
        """Return True if `step` has something to do."""

    def step(self) -> list[Event]:
        """Run one step and return its events."""

    def table(self) -> str:
        """Return a table, for people, of what takes how much memory."""

    def stats(self) -> dict[str, Any]:
        """Return the counters since the start."""


class ExecutionLike(Protocol):
    """The outcome of a cell; see `eightfold.sandbox.Execution` for each field."""

    @property
    def status(self) -> str:
        """One of "ok", "error", "timeout" and "died"."""

    @property
    def text(self) -> str:
        """The output that the model reads."""

    @property
    def seconds(self) -> float:
        """The run time of the cell."""

    @property
    def error(self) -> str | None:
        """The name of the exception that ended the cell, or None."""


class KernelLike(Protocol):
    """A leased Python kernel; see `eightfold.sandbox.Kernel` for each method."""

    def execute(self, code: str, timeout: float) -> ExecutionLike:
        """Run a cell for at most `timeout` seconds."""

    def kill(self) -> None:
        """Stop the running cell, if any, by killing its process."""

    def release(self) -> None:
        """Give the kernel back."""


class PoolLike(Protocol):
    """A pool of Python kernels; see `eightfold.sandbox.KernelPool`."""

    def lease(self, timeout: float | None = None) -> KernelLike:
        """Return a fresh kernel; raise TimeoutError if there is none within `timeout` seconds."""
