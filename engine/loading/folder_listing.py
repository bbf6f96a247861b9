"""Lists a folder's files in the order in which a preload reads them."""

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ..model_errors import CheckpointError
from .os_page_cache import resident_bytes
from .safetensors_headers import weight_files

WEIGHT_SUFFIXES = (
    *(".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".gguf", ".h5", ".msgpack", ".onnx"),
    ".onnx_data",
)
"""Endings of the names of files that may hold weights."""


@dataclass(frozen=True, slots=True)
class ListedFile:
    """A file to read.

    Args:
        path: the file.
        size: its length in bytes.
        resident: bytes of it in the OS page cache when it was listed; ``None`` if the kernel does
            not tell.
    """

    path: Path
    size: int
    resident: int | None


def check_folder(folder: str | Path) -> None:
    """Check that a folder exists and can be accessed.

    Raises:
        CheckpointError: if it does not, cannot be accessed or is not a folder.
    """
    if not str(folder):
        raise CheckpointError("The folder's name is empty; give the folder to read.")
    try:
        mode = os.stat(folder).st_mode
    except (FileNotFoundError, NotADirectoryError) as error:
        raise CheckpointError(f"There is no folder {folder}; give an existing folder.") from error
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise CheckpointError(f"{folder} cannot be accessed: {reason}.") from error
    if not stat.S_ISDIR(mode):
        raise CheckpointError(f"{folder} is not a folder; give the folder that contains it.")


def list_files(folder: Path) -> tuple[list[ListedFile], list[str]]:
    """List every non-empty regular file below a folder once, following links.

    The largest files come first. The shards of a checkpoint count as one unit and come in the order
    of its index.

    Returns:
        The files, and a description of each path that could not be examined.
    """
    faults: list[str] = []
    found: list[ListedFile] = []
    for path, size in _walk(folder, faults):
        try:
            found.append(ListedFile(path, size, resident_bytes(path)))
        except OSError as error:
            faults.append(f"{path} ({error.strerror})")
    unit_of, rank = _shard_order({file.path.parent for file in found})
    real = {file.path: os.path.realpath(file.path) for file in found}
    unit_sizes: dict[Path, int] = {}
    for file in found:
        unit = unit_of.get(real[file.path], file.path)
        unit_sizes[unit] = unit_sizes.get(unit, 0) + file.size

    def sort_key(file: ListedFile) -> tuple[int, Path, int]:
        unit = unit_of.get(real[file.path], file.path)
        return -unit_sizes[unit], unit, rank.get(real[file.path], 0)

    return sorted(found, key=sort_key), faults


def leave_out_unread(files: list[ListedFile]) -> tuple[list[ListedFile], list[ListedFile]]:
    """Divide listed files into those to read, and weights that no loader reads.

    In a folder with a checkpoint and in those below, these are files of weights that neither the
    checkpoint nor another one there names: copies in other formats, adapters, original weights.
    """
    checkpoints: set[Path] = set()
    read: set[tuple[int, int]] = set()
    for folder in {file.path.parent for file in files}:
        try:
            status = [os.stat(file) for file in weight_files(folder)]
        except (OSError, ValueError):
            continue  # the loader reports it
        read |= {(one.st_dev, one.st_ino) for one in status}
        checkpoints |= {folder} if status else set()

    def is_unread(file: ListedFile) -> bool:
        if not file.path.name.lower().endswith(WEIGHT_SUFFIXES):
            return False
        try:
            status = os.stat(file.path)
        except OSError:
            return False  # it has vanished, which its reader reports
        below_one = not checkpoints.isdisjoint(file.path.parents)
        return below_one and (status.st_dev, status.st_ino) not in read

    unread = {file.path for file in files if is_unread(file)} if checkpoints else set()
    return (
        [file for file in files if file.path not in unread],
        [file for file in files if file.path in unread],
    )


def _shard_order(folders: set[Path]) -> tuple[dict[str, Path], dict[str, int]]:
    """Return the unit (its folder) of each sharded checkpoint's files, and their ranks within it.

    Keys are real paths: in a download cache, a checkpoint's folder holds only links to its files.
    """
    unit_of: dict[str, Path] = {}
    rank: dict[str, int] = {}
    for folder in folders:
        try:
            files = [os.path.realpath(file) for file in weight_files(folder)]
        except (OSError, ValueError):
            continue  # the loader reports a broken index
        unit_of |= dict.fromkeys(files, folder)
        rank |= {file: position for position, file in enumerate(files)}
    return unit_of, rank


def _walk(root: Path, faults: list[str]) -> Iterator[tuple[Path, int]]:
    """Yield regular files and their sizes, and add to ``faults`` what cannot be examined."""
    paths = [root]
    seen: set[tuple[int, int]] = set()
    while paths:
        path = paths.pop()
        try:
            status = path.stat()
            identity = (status.st_dev, status.st_ino)
            if identity in seen:
                continue
            seen.add(identity)
            if stat.S_ISDIR(status.st_mode):
                paths += [path / name for name in sorted(os.listdir(path), reverse=True)]
            # Opening a pipe or a device could block forever.
            elif stat.S_ISREG(status.st_mode) and status.st_size:
                yield path, status.st_size
        except OSError as error:
            faults.append(f"{path} ({error.strerror})")
