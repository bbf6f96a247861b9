"""An engine in a process of its own, which sees one device alone.

The engine and its kernels use the first device of their process. A process for each device
therefore needs nothing of them, and the engines never wait for one another's Python.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..attempts.engine_loop import EngineLostError
from .child_process import ChildLostError, ChildProcess
from .device_list import device_environment
from .thread_count import limit_threads

if TYPE_CHECKING:
    import torch

    from eightfold.engine import Engine, EngineConfig, Event, SamplingParams


class EngineProcess:
    """An engine with the interface `EngineLike`, whose work is done in a child process.

    The process starts at once; `ready` waits for it.

    Args:
        folder: the model folder.
        config: settings of the engine; the device is that of `device`.
        device: "cpu" or "cuda:N".
        number: number of the engine, from 0, for messages.
    """

    def __init__(self, folder: Path, config: EngineConfig, device: str, number: int) -> None:
        self.config = config
        self._has_work = False
        self._device: torch.device | None = None
        self._child = ChildProcess(
            f"{__name__}:EngineHost",
            folder,
            config,
            environment=device_environment(device),
            name=f"engine {number} on {device}",
        )

    def ready(self) -> None:
        """Wait until the model is loaded.

        Raises:
            eightfold.engine.ModelError: if it cannot be.
            ValueError: if a setting does not suit the device or the model.
            ChildLostError: if the process has ended.
        """
        self._device = self._child.ready()

    @property
    def device(self) -> torch.device:
        """The device, as the engine's own process names it."""
        assert self._device is not None, "ready() comes first"
        return self._device

    @property
    def pid(self) -> int:
        """The id of the process."""
        return self._child.pid

    def submit(self, token_ids: list[int], params: SamplingParams, /) -> int:
        """Queue a prompt and return the number of its sequence."""
        seq: int = self._call("submit", token_ids, params)
        return seq

    def fork(self, seq: int, n: int, seeds: list[int], /) -> list[int]:
        """Return the numbers of `n` new sequences that continue the tokens of `seq`."""
        seqs: list[int] = self._call("fork", seq, n, seeds)
        return seqs

    def resume(self, seq: int, token_ids: list[int], /) -> bool:
        """Append tokens to a paused sequence; return False if it has ended."""
        return bool(self._call("resume", seq, token_ids))

    def rewind(self, seq: int, length: int, /) -> bool:
        """Drop the tokens from `length` on and pause; return False if the sequence has ended."""
        return bool(self._call("rewind", seq, length))

    def cancel(self, seq: int, /) -> bool:
        """End a sequence; return False if it has ended already."""
        return bool(self._call("cancel", seq))

    def tokens(self, seq: int, /) -> list[int]:
        """Return a copy of a live sequence's tokens."""
        ids: list[int] = self._call("tokens", seq)
        return ids

    def has_work(self) -> bool:
        """Return True if `step` has something to do, as of the last call."""
        return self._has_work

    def step(self) -> list[Event]:
        """Run one step and return its events."""
        events: list[Event] = self._call("step")
        return events

    def table(self) -> str:
        """Return a table, for people, of what takes how much memory."""
        return str(self._call("table"))

    def stats(self) -> dict[str, Any]:
        """Return the counters since the start."""
        counters: dict[str, Any] = self._call("stats")
        return counters

    def close(self) -> None:
        """End the process; at once if it still loads the model, and could not be asked to."""
        self._has_work = False
        if self._device is None:
            self._child.kill()
        else:
            self._child.close()

    def _call(self, method: str, *arguments: Any) -> Any:
        try:
            value, self._has_work = self._child.call("call", method, *arguments)
        except ChildLostError as error:
            raise EngineLostError(str(error)) from error
        return value


class EngineHost:
    """The engine within the child process.

    Args:
        folder: the model folder.
        config: settings of the engine.
    """

    def __init__(self, folder: Path, config: EngineConfig) -> None:
        from eightfold.engine import Engine

        limit_threads(folder)
        self._engine: Engine = Engine(folder, config)

    def ready(self) -> torch.device:
        """Return the engine's device."""
        return self._engine.device

    def call(self, method: str, *arguments: Any) -> tuple[Any, bool]:
        """Call a method; return its result, and whether the engine has work then."""
        value = getattr(self._engine, method)(*arguments)
        return value, self._engine.has_work()
