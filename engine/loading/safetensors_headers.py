"""The safetensors files of a model folder and what their headers say, without reading a weight.

Format: https://huggingface.co/docs/safetensors (eight bytes with the header's length, the header as
JSON, then the tensors' bytes without holes).
"""

import json
import os
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

from ..model_errors import CheckpointError

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
MAX_HEADER = 100_000_000  # safetensors' own bound
ITEM_BYTES = {
    **{"BOOL": 1, "U8": 1, "I8": 1, "F8_E4M3": 1, "F8_E5M2": 1},
    **{"I16": 2, "U16": 2, "F16": 2, "BF16": 2},
    **{"I32": 4, "U32": 4, "F32": 4, "I64": 8, "U64": 8, "F64": 8, "C64": 8},
}


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """A tensor in a file: its bytes are [begin, end) of the file. dtype: safetensors' name."""

    name: str
    file: Path
    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int

    @property
    def nbytes(self) -> int:
        return self.end - self.begin


def index_order(folder: Path) -> list[Path]:
    """The files that hold a folder's weights, in the order in which the index names them.

    They need not exist. Empty where there is neither a single file nor an index.

    Raises:
        CheckpointError: where the index cannot be read.
    """
    if (folder / SINGLE).is_file():
        return [folder / SINGLE]
    index = folder / INDEX
    if not index.is_file():
        return []
    try:
        names = list(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
        # An index sorts tensors by name, which puts layer 10 before layer 2; files are numbered.
        files = [folder / name for name in sorted(set(names))]
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise CheckpointError(f"{index} is not an index of weights: {_reason(error)}") from error
    outside = [file for file in files if not file.is_relative_to(folder) or ".." in file.parts]
    if outside:
        raise CheckpointError(f"{index} names {outside[0]}, which is not in its folder")
    return files


def stored_tensors(folder: Path) -> list[StoredTensor]:
    """Every tensor of a folder, file after file, in the order of their bytes.

    Raises:
        CheckpointError: where a file is missing, truncated or no safetensors file, or two files
            hold one tensor.
    """
    files = index_order(folder)
    if not files:
        raise CheckpointError(f"{folder} cannot be loaded: it has neither {SINGLE} nor {INDEX}")
    found: dict[str, StoredTensor] = {}
    for file in files:
        for tensor in read_header(file):
            other = found.setdefault(tensor.name, tensor)
            if other is not tensor:
                raise CheckpointError(
                    f"{folder} cannot be loaded: {tensor.name} is in both {other.file.name} and "
                    f"{file.name}"
                )
    return list(found.values())


def read_header(file: Path) -> list[StoredTensor]:
    """The tensors of one file, in the order of their bytes.

    Raises:
        CheckpointError: where it is missing, truncated or no safetensors file.
    """
    try:
        with file.open("rb") as stream:
            size = os.fstat(stream.fileno()).st_size
            length = int.from_bytes(stream.read(8), "little")
            if size < 8 or length > MAX_HEADER:
                raise ValueError("it has no header")
            if size < 8 + length:
                raise ValueError("it ends within its header; copy it again")
            header = json.loads(stream.read(length), object_pairs_hook=_once)
    except FileNotFoundError as error:
        raise CheckpointError(f"{file.parent} cannot be loaded: {file.name} is missing") from error
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(
            f"{file.parent} cannot be loaded: {file.name} is no readable safetensors file "
            f"({_reason(error)})"
        ) from error
    try:
        tensors = [
            _entry(name, entry, file, 8 + length)
            for name, entry in header.items()
            if name != "__metadata__"
        ]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise CheckpointError(
            f"{file.parent} cannot be loaded: the header of {file.name} is broken ({error})"
        ) from error
    tensors.sort(key=lambda tensor: (tensor.begin, tensor.end))
    _check_bytes(file, tensors, 8 + length, size)
    return tensors


def _once(entries: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(entries)
    if len(found) != len(entries):
        names = [name for name, _ in entries]
        raise ValueError(f"{next(n for n in names if names.count(n) > 1)} is in it twice")
    return found


def _reason(error: BaseException) -> str:
    named = (error.strerror if isinstance(error, OSError) else None) or str(error)
    return f"{type(error).__name__} {named}" if isinstance(error, KeyError) else named


def _entry(name: str, entry: dict[str, Any], file: Path, data: int) -> StoredTensor:
    shape = tuple(entry["shape"])
    begin, end = entry["data_offsets"]
    if not all(type(number) is int for number in (*shape, begin, end)):
        raise ValueError(f"{name} has a shape or offset that is no whole number")
    if entry["dtype"] not in ITEM_BYTES:
        raise ValueError(f"{name} has the unknown type {entry['dtype']}")
    if min(shape, default=0) < 0 or end - begin != prod(shape) * ITEM_BYTES[entry["dtype"]]:
        raise ValueError(f"{name} has {end - begin} bytes, which its shape and type contradict")
    return StoredTensor(name, file, entry["dtype"], shape, data + begin, data + end)


def _check_bytes(file: Path, tensors: list[StoredTensor], data: int, size: int) -> None:
    """Every byte of the file belongs to one tensor."""
    at = data
    for tensor in tensors:
        if tensor.begin != at:
            raise CheckpointError(
                f"{file.parent} cannot be loaded: {tensor.name} in {file.name} does not begin "
                "where the tensor before it ends"
            )
        at = tensor.end
        if at > size:
            raise CheckpointError(
                f"{file.parent} cannot be loaded: {file.name} is truncated, {tensor.name} would "
                f"end at byte {at} and the file ends at {size}; copy it again"
            )
    if at != size:
        raise CheckpointError(
            f"{file.parent} cannot be loaded: {file.name} has {size - at} bytes after its last "
            "tensor"
        )
