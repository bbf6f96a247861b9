"""Reads the tensors of a checkpoint into their places on a GPU, by several threads.

Bytes go through a small page-locked ring, each reader with buffers and a stream of its own; a
second copy of the weights is nowhere. Reads go through the page cache, so that what a preload has
fetched, or is fetching, is not read from the disk again.
"""

import os
import threading
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from ..model_errors import CheckpointError
from ..worker_thread import WorkerThread
from .pinned_ring import Lane
from .read_spans import DTYPES, Span, cut
from .safetensors_headers import StoredTensor

# Bytes that one reader reads in a row. The kernel keeps what is read in a row in larger pieces,
# from which many readers copy faster than from single pages.
RUN = 256 << 20


@dataclass(frozen=True, slots=True)
class LoaderConfig:
    """How to read.

    Args:
        threads: that read at once.
        span_bytes: of one read.
        buffers: of a thread.
    """

    threads: int = 16
    span_bytes: int = 8 << 20
    buffers: int = 2

    def __post_init__(self) -> None:
        if not 1 <= self.threads <= 256:
            raise ValueError(f"threads must be from 1 to 256, not {self.threads}")
        if self.span_bytes < 4096 or self.span_bytes % 4096:
            raise ValueError(f"span_bytes must be a multiple of 4096, not {self.span_bytes}")
        if not 1 <= self.buffers <= 16:
            raise ValueError(f"buffers must be from 1 to 16, not {self.buffers}")


@dataclass(frozen=True, slots=True)
class LoadReport:
    """What was loaded. converted: tensors by (stored type, other type in the model)."""

    tensors: int
    nbytes: int
    seconds: float
    converted: dict[tuple[str, str], int]

    @classmethod
    def of(
        cls,
        pairs: Sequence[tuple[StoredTensor, str]],
        places: dict[str, torch.Tensor],
        seconds: float,
    ) -> "LoadReport":
        """The report on what was stored, by the name of the place that it filled."""
        converted: dict[tuple[str, str], int] = {}
        for tensor, name in pairs:
            if DTYPES[tensor.dtype] != places[name].dtype:
                kinds = (tensor.dtype, str(places[name].dtype).removeprefix("torch."))
                converted[kinds] = converted.get(kinds, 0) + 1
        return cls(len(pairs), sum(tensor.nbytes for tensor, _ in pairs), seconds, converted)

    def __str__(self) -> str:
        rate = self.nbytes / max(self.seconds, 1e-9) / 1e9
        changes = "".join(
            f"; {count} from {old} to {new}" for (old, new), count in self.converted.items()
        )
        return (
            f"{self.tensors} tensors, {self.nbytes / 1e9:.2f} GB in {self.seconds:.2f} s "
            f"({rate:.2f} GB/s){changes}"
        )


def load(
    pairs: Sequence[tuple[StoredTensor, str]],
    places: dict[str, torch.Tensor],
    device: torch.device,
    config: LoaderConfig | None = None,
) -> LoadReport:
    """Fill places from files. When this returns or raises, no thread and no pinned memory is left.

    Args:
        pairs: what is stored, and the name of the place it fills.
        places: contiguous tensors on ``device``, of the stored shapes; a floating-point type is
            converted to the place's as ``Tensor.copy_`` does, to the nearest value.

    Raises:
        CheckpointError: where a file cannot be read to the end.
    """
    began = time.monotonic()
    config = config or LoaderConfig()
    spans = cut(pairs, places, config.span_bytes)
    if spans:
        most = max(span.nbytes for span in spans)
        lanes = [Lane(device, config.buffers, most) for _ in range(min(config.threads, len(spans)))]
        _Readers(spans, lanes).run()
    return LoadReport.of(pairs, places, time.monotonic() - began)


def _runs(spans: list[Span], readers: int) -> list[list[Span]]:
    """Neighbouring spans of one file, as one reader is to read them.

    The last ones are short, so that the readers end together.
    """
    runs: list[list[Span]] = []
    left, room = sum(span.nbytes for span in spans), 0
    for span in spans:
        if runs and runs[-1][0].file == span.file and span.nbytes <= room:
            runs[-1].append(span)
        else:
            room = min(RUN, left // (2 * readers))
            runs.append([span])
        room -= span.nbytes
        left -= span.nbytes
    return runs


class _Readers:
    """Threads that take runs in order until there are none, or one of them fails."""

    def __init__(self, spans: list[Span], lanes: list[Lane]) -> None:
        self._runs = deque(_runs(spans, len(lanes)))
        self._failed = threading.Event()
        self._error: BaseException | None = None
        self._threads = [
            WorkerThread(target=self._main, args=(lane,), name=f"load-{i}")
            for i, lane in enumerate(lanes)
        ]

    def run(self) -> None:
        try:
            for thread in self._threads:
                thread.start()
            for thread in self._threads:
                thread.join()
        finally:
            self._failed.set()
            for thread in self._threads:
                if thread.ident is not None:
                    thread.join()
        if self._error is not None:
            raise self._error

    # ---- on the threads

    def _main(self, lane: Lane) -> None:
        try:
            with lane:
                while not self._failed.is_set():
                    try:
                        run = self._runs.popleft()
                    except IndexError:
                        break
                    self._load(run, lane)
        except BaseException as error:
            self._error = self._error or error
            self._failed.set()

    def _load(self, run: list[Span], lane: Lane) -> None:
        """Read a run through a descriptor of its own: how far to read ahead is kept there."""
        try:
            fd = os.open(run[0].file, os.O_RDONLY)
        except OSError as error:
            raise self._broken(run[0], error.strerror) from error
        try:
            for span in run:
                if self._failed.is_set():
                    return
                self._read(fd, span, lane.take()[: span.nbytes])
                lane.send(span.segments)
        finally:
            os.close(fd)

    def _read(self, fd: int, span: Span, view: memoryview) -> None:
        """Fill the view with the span's bytes."""
        at = span.begin
        while view:
            try:
                got = os.preadv(fd, [view], at)
            except OSError as error:
                raise self._broken(span, error.strerror) from error
            if not got:
                raise self._broken(span, "it ends too early")
            view, at = view[got:], at + got

    def _broken(self, span: Span, reason: str | None) -> CheckpointError:
        return CheckpointError(
            f"{span.file.parent} cannot be loaded: {span.file.name} cannot be read at "
            f"{span.segments[0].name} ({reason})"
        )
