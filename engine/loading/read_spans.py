"""Cuts the bytes of stored tensors into spans: what one read fetches, and where it goes."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import torch

from .safetensors_headers import StoredTensor

DTYPES = {
    **{"BOOL": torch.bool, "U8": torch.uint8, "I8": torch.int8, "I16": torch.int16},
    **{"I32": torch.int32, "I64": torch.int64, "F16": torch.float16, "BF16": torch.bfloat16},
    **{"F32": torch.float32, "F64": torch.float64},
}


@dataclass(frozen=True, slots=True)
class Segment:
    """``nbytes`` of a stored tensor, whose place, flat, they fill from an element on.

    A view of that part is made where it is wanted: making all of them would delay the first read.
    """

    name: str
    dtype: torch.dtype
    nbytes: int
    whole: torch.Tensor
    first: int

    @property
    def place(self) -> torch.Tensor:
        """The flat part that is filled."""
        return self.whole[self.first : self.first + self.nbytes // self.dtype.itemsize]

    @property
    def address(self) -> int:
        """Where that part begins."""
        return self.whole.data_ptr() + self.first * self.whole.itemsize


@dataclass(slots=True)
class Span:
    """Bytes of a file in a row: those of its segments, one after another from ``begin``."""

    file: Path
    begin: int
    nbytes: int = 0
    segments: list[Segment] = field(default_factory=list)


def cut(
    pairs: Iterable[tuple[StoredTensor, str]], places: dict[str, torch.Tensor], most: int
) -> list[Span]:
    """Spans of at most ``most`` bytes, in the order of files and bytes.

    Args:
        places: contiguous tensors of the stored shapes, by the names in ``pairs``, of types that
            the stored ones become (:func:`convertible`).
    """
    spans: list[Span] = []
    ordered = sorted(pairs, key=lambda pair: (pair[0].file, pair[0].begin))
    for tensor, name in ordered:
        place = places[name].detach()
        if not place.is_contiguous():
            raise ValueError(f"the place of {name} is not contiguous")
        dtype = DTYPES[tensor.dtype]
        at = tensor.begin
        for segment in _segments(tensor, dtype, place.view(-1), most):
            last = spans[-1] if spans else None
            if (
                last is None
                or last.file != tensor.file
                or last.begin + last.nbytes != at
                or last.nbytes + segment.nbytes > most
            ):
                last = Span(tensor.file, at)
                spans.append(last)
            last.segments.append(segment)
            last.nbytes += segment.nbytes
            at += segment.nbytes
    return spans


def _segments(
    tensor: StoredTensor, dtype: torch.dtype, flat: torch.Tensor, most: int
) -> Iterator[Segment]:
    width = dtype.itemsize
    step, count = most // width, flat.shape[0]
    for first in range(0, count, step):
        yield Segment(tensor.name, dtype, min(step, count - first) * width, flat, first)


def convertible(tensor: StoredTensor, place: torch.Tensor) -> bool:
    """Whether a floating-point tensor meets a place of any such type, another one of its own."""
    found = DTYPES.get(tensor.dtype)
    return found is not None and (
        found == place.dtype or (found.is_floating_point and place.is_floating_point())
    )
