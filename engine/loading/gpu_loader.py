"""Reads the tensors of a checkpoint into a model's tensors on a GPU, with several threads.

The bytes pass through small page-locked buffers. Each reader has its own buffers and stream, and no
second copy of the weights exists anywhere. Reads go through the OS page cache, so that what a
preload has read, or is reading, is not read from the disk again.
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
from .pinned_ring import PinnedRing
from .read_spans import TORCH_DTYPES, ReadSpan, split_into_spans
from .safetensors_headers import StoredTensor

# Most bytes that one reader reads in sequence. The kernel caches a sequential read in larger pieces
# than single pages, and many readers copy faster from those.
MAX_RUN_BYTES = 256 << 20


@dataclass(frozen=True, slots=True)
class LoaderConfig:
    """Settings of the loader.

    Args:
        threads: number of threads that read, from 1 to 256.
        span_bytes: bytes of one read, a multiple of 4096.
        buffers: buffers per thread, from 1 to 16.
    """

    threads: int = 16
    span_bytes: int = 8 << 20
    buffers: int = 2

    def __post_init__(self) -> None:
        if not 1 <= self.threads <= 256:
            raise ValueError(f"threads must be from 1 to 256, not {self.threads}.")
        if self.span_bytes < 4096 or self.span_bytes % 4096:
            raise ValueError(f"span_bytes must be a multiple of 4096, not {self.span_bytes}.")
        if not 1 <= self.buffers <= 16:
            raise ValueError(f"buffers must be from 1 to 16, not {self.buffers}.")


@dataclass(frozen=True, slots=True)
class LoadReport:
    """Result of loading a checkpoint.

    Args:
        tensors: number of tensors loaded.
        nbytes: their bytes in the files.
        seconds: time that loading took.
        converted: number of converted tensors, by (stored type, type in the model).
    """

    tensors: int
    nbytes: int
    seconds: float
    converted: dict[tuple[str, str], int]

    @classmethod
    def of(
        cls,
        pairs: Sequence[tuple[StoredTensor, str]],
        destinations: dict[str, torch.Tensor],
        seconds: float,
    ) -> "LoadReport":
        """Return the report on stored tensors, paired with the names of their destinations."""
        converted: dict[tuple[str, str], int] = {}
        for tensor, name in pairs:
            if TORCH_DTYPES[tensor.dtype] != destinations[name].dtype:
                types = (tensor.dtype, str(destinations[name].dtype).removeprefix("torch."))
                converted[types] = converted.get(types, 0) + 1
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


def read_tensors(
    pairs: Sequence[tuple[StoredTensor, str]],
    destinations: dict[str, torch.Tensor],
    device: torch.device,
    config: LoaderConfig | None = None,
) -> LoadReport:
    """Read stored tensors into a model's tensors.

    When this returns or raises, no thread is running and no pinned memory is held.

    Args:
        pairs: stored tensors, and the names of the tensors that they fill.
        destinations: contiguous tensors on ``device``, of the stored shapes. A floating-point type
            is converted to the destination's as ``Tensor.copy_`` does, to the nearest value.
        device: the device; a CPU works too.
        config: see :class:`LoaderConfig`.

    Raises:
        CheckpointError: if a file cannot be read to the end.
    """
    began = time.monotonic()
    config = config or LoaderConfig()
    spans = split_into_spans(pairs, destinations, config.span_bytes)
    if spans:
        nbytes = max(span.nbytes for span in spans)
        readers = min(config.threads, len(spans))
        rings = [PinnedRing(device, config.buffers, nbytes) for _ in range(readers)]
        _ReaderThreads(spans, rings).run()
    return LoadReport.of(pairs, destinations, time.monotonic() - began)


def _group_into_runs(spans: list[ReadSpan], readers: int) -> list[list[ReadSpan]]:
    """Group consecutive spans of a file into runs, each for one reader to read in sequence.

    The last runs are short, so that all readers finish at about the same time.
    """
    runs: list[list[ReadSpan]] = []
    remaining, room = sum(span.nbytes for span in spans), 0
    for span in spans:
        if runs and runs[-1][0].file == span.file and span.nbytes <= room:
            runs[-1].append(span)
        else:
            room = min(MAX_RUN_BYTES, remaining // (2 * readers))
            runs.append([span])
        room -= span.nbytes
        remaining -= span.nbytes
    return runs


class _ReaderThreads:
    """Threads that take runs in order until none are left, or until one of them fails."""

    def __init__(self, spans: list[ReadSpan], rings: list[PinnedRing]) -> None:
        self._runs = deque(_group_into_runs(spans, len(rings)))
        self._failed = threading.Event()
        self._error: BaseException | None = None
        self._threads = [
            WorkerThread(target=self._run_thread, args=(ring,), name=f"load-{i}")
            for i, ring in enumerate(rings)
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

    def _run_thread(self, ring: PinnedRing) -> None:
        try:
            with ring:
                while not self._failed.is_set():
                    try:
                        run = self._runs.popleft()
                    except IndexError:
                        break
                    self._load_run(run, ring)
        except BaseException as error:
            self._error = self._error or error
            self._failed.set()

    def _load_run(self, run: list[ReadSpan], ring: PinnedRing) -> None:
        """Load a run through its own descriptor, which is where the kernel keeps read-ahead."""
        try:
            fd = os.open(run[0].file, os.O_RDONLY)
        except OSError as error:
            raise self._read_error(run[0], error.strerror) from error
        try:
            for span in run:
                if self._failed.is_set():
                    return
                self._read_span(fd, span, ring.acquire()[: span.nbytes])
                ring.submit(span.segments)
        finally:
            os.close(fd)

    def _read_span(self, fd: int, span: ReadSpan, view: memoryview) -> None:
        offset = span.begin
        while view:
            try:
                got = os.preadv(fd, [view], offset)
            except OSError as error:
                raise self._read_error(span, error.strerror) from error
            if not got:
                raise self._read_error(span, "it ends too early")
            view, offset = view[got:], offset + got

    def _read_error(self, span: ReadSpan, reason: str | None) -> CheckpointError:
        return CheckpointError(
            f"{span.file.parent} cannot be loaded: {span.file.name} cannot be read at "
            f"{span.segments[0].name} ({reason})."
        )
