"""Splits the bytes of stored tensors into spans: the units that are read from a file at once."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import torch

from .safetensors_headers import StoredTensor

TORCH_DTYPES = {
    **{"BOOL": torch.bool, "U8": torch.uint8, "I8": torch.int8, "I16": torch.int16},
    **{"I32": torch.int32, "I64": torch.int64, "F16": torch.float16, "BF16": torch.bfloat16},
    **{"F32": torch.float32, "F64": torch.float64, "F8_E4M3": torch.float8_e4m3fn},
}
_FP8 = torch.float8_e4m3fn  # means little without its scales, so that it is never converted


@dataclass(frozen=True, slots=True)
class Segment:
    """Part of a stored tensor, and the part of a model's tensor that it fills.

    Views are created when they are needed: creating all of them in advance would delay the first
    read.

    Args:
        name: the tensor's name in the file.
        dtype: the stored type.
        nbytes: the part's size in the file.
        destination: the model's whole tensor, flattened.
        first: index of the first element of ``destination`` to fill.
    """

    name: str
    dtype: torch.dtype
    nbytes: int
    destination: torch.Tensor
    first: int

    @property
    def view(self) -> torch.Tensor:
        """The elements of ``destination`` to fill."""
        return self.destination[self.first : self.first + self.nbytes // self.dtype.itemsize]

    @property
    def address(self) -> int:
        """Memory address of the first element to fill."""
        return self.destination.data_ptr() + self.first * self.destination.itemsize


@dataclass(slots=True)
class ReadSpan:
    """Consecutive bytes of a file: those of its segments, in order, starting at ``begin``."""

    file: Path
    begin: int
    nbytes: int = 0
    segments: list[Segment] = field(default_factory=list)


def split_into_spans(
    pairs: Iterable[tuple[StoredTensor, str]],
    destinations: dict[str, torch.Tensor],
    max_bytes: int,
) -> list[ReadSpan]:
    """Split stored tensors into spans of at most ``max_bytes``, in the order of files and bytes.

    Args:
        pairs: stored tensors, and the names of the tensors that they fill.
        destinations: contiguous tensors of the stored shapes, by those names. Their types may
            differ from the stored ones as :func:`is_convertible` allows.
        max_bytes: most bytes of a span.

    Raises:
        ValueError: if a destination is not contiguous.
    """
    spans: list[ReadSpan] = []
    ordered = sorted(pairs, key=lambda pair: (pair[0].file, pair[0].begin))
    for tensor, name in ordered:
        destination = destinations[name].detach()
        if not destination.is_contiguous():
            raise ValueError(f"The tensor that {name} is loaded into is not contiguous.")
        offset = tensor.begin
        for segment in _segments(tensor, destination.view(-1), max_bytes):
            last = spans[-1] if spans else None
            if (
                last is None
                or last.file != tensor.file
                or last.begin + last.nbytes != offset
                or last.nbytes + segment.nbytes > max_bytes
            ):
                last = ReadSpan(tensor.file, offset)
                spans.append(last)
            last.segments.append(segment)
            last.nbytes += segment.nbytes
            offset += segment.nbytes
    return spans


def _segments(tensor: StoredTensor, destination: torch.Tensor, max_bytes: int) -> Iterator[Segment]:
    dtype = TORCH_DTYPES[tensor.dtype]
    step, count = max_bytes // dtype.itemsize, destination.shape[0]
    for first in range(0, count, step):
        nbytes = min(step, count - first) * dtype.itemsize
        yield Segment(tensor.name, dtype, nbytes, destination, first)


def is_convertible(tensor: StoredTensor, destination: torch.Tensor) -> bool:
    """Return whether a stored tensor can be loaded into a tensor of another type.

    Floating-point types of 16 bits or more convert to one another; any other type must be the
    destination's own.
    """
    stored = TORCH_DTYPES.get(tensor.dtype)
    return stored is not None and (
        stored == destination.dtype
        or (
            stored.is_floating_point
            and destination.is_floating_point()
            and _FP8 not in (stored, destination.dtype)
        )
    )


def convertible_types(destination: torch.Tensor) -> str:
    """Return in words the stored types that can be loaded into a tensor."""
    if destination.is_floating_point() and destination.dtype != _FP8:
        return "BF16, F16 or F32"
    return next(name for name, dtype in TORCH_DTYPES.items() if dtype == destination.dtype)
