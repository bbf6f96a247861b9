"""The pinned ring's calls of the CUDA driver, on a fake device that copies as late as it may.

Only a GPU shows what the calls really do (test_weight_loading.py, "cuda"). These tests check every
address, and that no buffer is refilled, unlocked or freed before it was copied, without a GPU.
"""

import ctypes
import itertools
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from eightfold.engine.loading import gpu_loader, pinned_ring
from eightfold.engine.loading.safetensors_headers import read_header

GUARD = 7  # elements before and after each destination, which nothing may write


class FakeStream:
    """A queue of work, none of which is done before something waits for it."""

    def __init__(self, device: "FakeDevice") -> None:
        self.cuda_stream = device.new_handle()
        self._pending: list[Callable[[], object]] = []
        self._added = self.done = 0
        device.streams[self.cuda_stream] = self

    def add(self, work: Callable[[], object]) -> int:
        self._pending.append(work)
        self._added += 1
        return self._added

    def run(self, until: int) -> None:
        while self.done < until:
            self._pending.pop(0)()
            self.done += 1

    def synchronize(self) -> None:
        self.run(self._added)

    def wait_stream(self, other: object) -> None:
        pass


class FakeEvent:
    """An event that is created when it is first recorded, as in PyTorch."""

    def __init__(self, device: "FakeDevice") -> None:
        self._device = device
        self.cuda_event = 0

    def record(self, stream: FakeStream) -> None:
        if not self.cuda_event:
            self.cuda_event = self._device.new_handle()
        self._device.mark(self.cuda_event, stream)

    def synchronize(self) -> None:
        stream, at = self._device.marks[self.cuda_event]
        stream.run(at)


class FakeDevice:
    """The calls of the CUDA driver and runtime.

    Args:
        failing: a call that fails from its second time on.
    """

    def __init__(self, failing: str = "") -> None:
        self._failing, self._calls = failing, itertools.count()
        self._handles, self._lock = itertools.count(1000), threading.Lock()
        self.streams: dict[int, FakeStream] = {}
        self.marks: dict[int, tuple[FakeStream, int]] = {}
        self.locked: dict[int, int] = {}
        self.copies = 0

    def new_handle(self) -> int:
        with self._lock:
            return next(self._handles)

    def mark(self, event: int, stream: FakeStream) -> None:
        self.marks[event] = stream, stream.add(lambda: None)

    def _fails(self, call: str) -> bool:
        return call == self._failing and next(self._calls) > 0

    def cuMemcpyHtoDAsync_v2(self, destination: int, source: int, nbytes: int, stream: int) -> int:  # noqa: N802
        if self._fails("copy"):
            return 700

        def copy() -> None:
            assert self._holds(source, nbytes), "the source is not locked"
            ctypes.memmove(destination, source, nbytes)

        self.copies += 1
        self.streams[stream].add(copy)
        return 0

    def cuEventRecord(self, event: int, stream: int) -> int:  # noqa: N802
        if self._fails("record"):
            return 700
        assert event in self.marks, "the event has not been created"
        self.mark(event, self.streams[stream])
        return 0

    def cuEventQuery(self, event: int) -> int:  # noqa: N802
        stream, at = self.marks[event]
        return 0 if stream.done >= at else 600

    def cudaHostRegister(self, begin: int, nbytes: int, flags: int) -> int:  # noqa: N802
        if self._fails("register"):
            return 2
        assert flags == 0
        assert not any(self._holds(at, 1) for at in (begin, begin + nbytes - 1)), (
            "memory is locked twice"
        )
        self.locked[begin] = nbytes
        return 0

    def cudaHostUnregister(self, begin: int) -> int:  # noqa: N802
        del self.locked[begin]
        return 0

    def _holds(self, begin: int, nbytes: int) -> bool:
        locked = list(self.locked.items())
        return any(at <= begin and begin + nbytes <= at + size for at, size in locked)


def use_fake_device(
    monkeypatch: pytest.MonkeyPatch, device: FakeDevice, driver: bool = True
) -> None:
    """Make the loader use the device. Without the driver, PyTorch's own calls copy at once."""

    class PinnedRing(pinned_ring.PinnedRing):
        def __init__(self, _: torch.device, *rest: int) -> None:
            super().__init__(torch.device("cuda"), *rest)
            self._device = torch.device("cpu")  # where converted tensors go

    def fail(status: int) -> None:
        raise RuntimeError(f"status {status}")

    monkeypatch.setattr(gpu_loader, "PinnedRing", PinnedRing)
    monkeypatch.setattr(pinned_ring, "_cuda_driver", lambda: device if driver else None)
    for name, value in {
        "Stream": lambda _: FakeStream(device),
        "Event": lambda: FakeEvent(device),
        "current_stream": lambda _: None,
        "set_stream": lambda _: None,
        "cudart": lambda: device,
        "check_error": fail,
    }.items():
        monkeypatch.setattr(torch.cuda, name, value)


def destinations_in_larger_tensors(
    tensors: dict[str, torch.Tensor], types: dict[torch.dtype, torch.dtype]
) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """Return destinations, each the middle part of a larger tensor, and the larger tensors."""
    larger, destinations = {}, {}
    for name, tensor in tensors.items():
        count, dtype = tensor.numel(), types.get(tensor.dtype, tensor.dtype)
        larger[name] = torch.ones(count + 2 * GUARD, dtype=dtype)
        destinations[name] = larger[name][GUARD : GUARD + count].view(tensor.shape)
    return destinations, larger


def write_tensors(file: Path, dtypes: tuple[torch.dtype, ...]) -> dict[str, torch.Tensor]:
    """Write tensors of many sizes, some smaller than a span and some larger, and return them."""
    torch.manual_seed(0)
    sizes = [0, 1, 3, 1000, 5000, 0, *range(1, 200, 7), 9001, 20001, 2]
    tensors = {
        f"t{i:03}": torch.randn(size).mul(9).to(dtypes[i % len(dtypes)])
        for i, size in enumerate(sizes)
    }
    tensors["scalar"] = torch.tensor(2.5)
    save_file(tensors, file)
    return tensors


ODD = (torch.bool, torch.float32, torch.bfloat16, torch.int64, torch.uint8)
EVEN = (torch.bfloat16, torch.float32, torch.int16)


@pytest.mark.parametrize(
    ("dtypes", "types", "driver"),
    [
        (ODD, {}, True),
        (EVEN, {torch.bfloat16: torch.float32}, True),  # the other types are copied
        (EVEN, {torch.bfloat16: torch.float32}, False),
    ],
    ids=["copied", "converted", "without the driver"],
)
@pytest.mark.parametrize(("threads", "buffers"), [(1, 1), (1, 2), (3, 2), (2, 3)])
@pytest.mark.parametrize("span_bytes", [4096, 1 << 20])
def test_every_byte_arrives_at_its_destination_and_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dtypes, types, driver, threads: int,
    buffers: int, span_bytes: int,
) -> None:  # fmt: skip
    file = tmp_path / "model.safetensors"
    tensors = write_tensors(file, dtypes)
    device = FakeDevice()
    use_fake_device(monkeypatch, device, driver)
    destinations, larger = destinations_in_larger_tensors(tensors, types)
    config = gpu_loader.LoaderConfig(threads=threads, buffers=buffers, span_bytes=span_bytes)
    pairs = [(tensor, tensor.name) for tensor in read_header(file)]
    gpu_loader.read_tensors(pairs, destinations, torch.device("cuda"), config)
    for name, tensor in tensors.items():
        assert torch.equal(destinations[name], tensor.to(destinations[name].dtype)), name
        for guard in (larger[name][:GUARD], larger[name][-GUARD:]):
            assert torch.equal(guard, torch.ones_like(guard)), name
    assert device.locked == {}
    assert (device.copies > 0) is driver


@pytest.mark.parametrize("failing", ["register", "copy", "record"])
def test_a_failing_call_ends_the_load_and_leaves_nothing_locked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: str
) -> None:
    file = tmp_path / "model.safetensors"
    tensors = write_tensors(file, ODD)
    device = FakeDevice(failing)
    use_fake_device(monkeypatch, device)
    destinations, _ = destinations_in_larger_tensors(tensors, {})
    pairs: Any = [(tensor, tensor.name) for tensor in read_header(file)]
    before = set(threading.enumerate())
    config = gpu_loader.LoaderConfig(threads=3, span_bytes=4096)
    with pytest.raises(RuntimeError, match="status"):
        gpu_loader.read_tensors(pairs, destinations, torch.device("cuda"), config)
    assert device.locked == {}
    assert set(threading.enumerate()) == before
