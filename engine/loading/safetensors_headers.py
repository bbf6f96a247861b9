"""Finds the safetensors files of a model folder and parses their headers, without reading weights.

Format: https://huggingface.co/docs/safetensors (eight bytes with the header's length, the header as
JSON, then the bytes of the tensors without gaps).
"""

import json
import os
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

from ..model_errors import CheckpointError

SINGLE_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"
MAX_HEADER_BYTES = 100_000_000  # the safetensors library's own limit
ITEM_BYTES = {
    **{"BOOL": 1, "U8": 1, "I8": 1, "F8_E4M3": 1, "F8_E5M2": 1, "F8_E8M0": 1},
    **{"I16": 2, "U16": 2, "F16": 2, "BF16": 2},
    **{"I32": 4, "U32": 4, "F32": 4, "I64": 8, "U64": 8, "F64": 8, "C64": 8},
}


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """A tensor in a safetensors file.

    Args:
        name: its name in the file.
        file: the file.
        dtype: safetensors' name of its type, such as "BF16".
        shape: its shape.
        begin: offset of its first byte in the file.
        end: offset after its last byte.
    """

    name: str
    file: Path
    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int

    @property
    def nbytes(self) -> int:
        """Number of bytes."""
        return self.end - self.begin


def weight_files(folder: Path) -> list[Path]:
    """Return the files that hold a folder's weights, shards in the order of their names.

    The files of an index need not exist. The list is empty if the folder has neither a single file
    nor an index.

    Raises:
        CheckpointError: if the index cannot be read.
    """
    if (folder / SINGLE_FILE).is_file():
        return [folder / SINGLE_FILE]
    index = folder / INDEX_FILE
    if not index.is_file():
        return []
    try:
        content = json.loads(index.read_text(encoding="utf-8"))
        names = content.get("weight_map") if isinstance(content, dict) else None
        if not isinstance(names, dict) or not all(isinstance(n, str) for n in names.values()):
            raise ValueError("it has no table weight_map with the name of a file for each tensor")
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(
            f"{index} is not an index of weights: {_reason(error)}; copy it again."
        ) from error
    # An index sorts tensors by name, which puts layer 10 before layer 2. Files are numbered.
    files = [folder / name for name in sorted(set(names.values()))]
    outside = [file for file in files if not file.is_relative_to(folder) or ".." in file.parts]
    if outside:
        raise CheckpointError(f"{index} names {outside[0]}, which is outside its folder.")
    return files


def weight_bytes(folder: Path) -> int:
    """Return the bytes of the files that hold a folder's weights; other copies do not count.

    Raises:
        CheckpointError: if the index cannot be read.
        OSError: if a file is missing.
    """
    return sum(file.stat().st_size for file in weight_files(folder))


def read_stored_tensors(folder: Path) -> list[StoredTensor]:
    """Return every tensor of a folder, file by file, in the order of their bytes.

    Raises:
        CheckpointError: if a file is missing, truncated or not a safetensors file, or if two files
            hold the same tensor.
    """
    files = weight_files(folder)
    if not files:
        raise CheckpointError(
            f"{folder} cannot be loaded: it has neither {SINGLE_FILE} nor {INDEX_FILE}."
        )
    found: dict[str, StoredTensor] = {}
    for file in files:
        for tensor in read_header(file):
            other = found.setdefault(tensor.name, tensor)
            if other is not tensor:
                raise CheckpointError(
                    f"{folder} cannot be loaded: {tensor.name} is in both {other.file.name} and "
                    f"{file.name}; copy the checkpoint again, into an empty folder."
                )
    return list(found.values())


def read_header(file: Path) -> list[StoredTensor]:
    """Return the tensors of one file, in the order of their bytes.

    Raises:
        CheckpointError: if the file is missing, truncated or not a safetensors file.
    """
    try:
        with file.open("rb") as stream:
            size = os.fstat(stream.fileno()).st_size
            length = int.from_bytes(stream.read(8), "little")
            if size < 8 or length > MAX_HEADER_BYTES:
                raise ValueError("it has no header")
            if size < 8 + length:
                raise ValueError("it ends within its header")
            header = json.loads(stream.read(length), object_pairs_hook=_reject_duplicates)
    except FileNotFoundError as error:
        raise CheckpointError(
            f"{file.parent} cannot be loaded: {file.name} is missing; copy it there."
        ) from error
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(
            f"{file.parent} cannot be loaded: {file.name} is not a readable safetensors file "
            f"({_reason(error)}); copy it again."
        ) from error
    try:
        tensors = [
            _parse_entry(name, entry, file, 8 + length)
            for name, entry in header.items()
            if name != "__metadata__"
        ]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise CheckpointError(
            f"{file.parent} cannot be loaded: the header of {file.name} is broken ({error}); "
            "copy it again."
        ) from error
    tensors.sort(key=lambda tensor: (tensor.begin, tensor.end))
    _check_layout(file, tensors, 8 + length, size)
    return tensors


def _reject_duplicates(entries: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(entries)
    if len(found) != len(entries):
        names = [name for name, _ in entries]
        raise ValueError(f"{next(n for n in names if names.count(n) > 1)} is in it twice")
    return found


def _reason(error: BaseException) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or str(error)


def _parse_entry(name: str, entry: dict[str, Any], file: Path, data: int) -> StoredTensor:
    """Return the tensor of a header's entry; ``data`` is the offset of the first tensor."""
    shape = tuple(entry["shape"])
    begin, end = entry["data_offsets"]
    if not all(type(number) is int for number in (*shape, begin, end)):
        raise ValueError(f"{name} has a shape or an offset that is not an integer")
    if entry["dtype"] not in ITEM_BYTES:
        raise ValueError(f"{name} has the unknown type {entry['dtype']}")
    if min(shape, default=0) < 0 or end - begin != prod(shape) * ITEM_BYTES[entry["dtype"]]:
        raise ValueError(f"{name} has {end - begin} bytes, which its shape and type contradict")
    return StoredTensor(name, file, entry["dtype"], shape, data + begin, data + end)


def _check_layout(file: Path, tensors: list[StoredTensor], data: int, size: int) -> None:
    """Check that every byte of the file after its header belongs to exactly one tensor."""
    offset = data
    for tensor in tensors:
        if tensor.begin != offset:
            raise CheckpointError(
                f"{file.parent} cannot be loaded: {tensor.name} in {file.name} does not begin "
                "where the tensor before it ends; copy it again."
            )
        offset = tensor.end
        if offset > size:
            raise CheckpointError(
                f"{file.parent} cannot be loaded: {file.name} is truncated ({tensor.name} would "
                f"end at byte {offset}, but the file ends at byte {size}); copy it again."
            )
    if offset != size:
        raise CheckpointError(
            f"{file.parent} cannot be loaded: {file.name} has {size - offset} bytes after its last "
            "tensor; copy it again."
        )
