"""Readers of the rows in files of problems, one row at a time."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ..solver_config import SolverError

BATCH_ROWS = 512
"""Rows of a Parquet or Arrow file that are in memory at the same time."""

Row = dict[Any, Any]


def read_rows(path: Path, columns: Sequence[str]) -> Iterator[Row]:
    """Yield the rows of a file.

    Args:
        path: a file whose suffix is in `READERS`.
        columns: names of the columns that are used; files in columns read no others.

    Raises:
        SolverError: if the file is missing, unreadable or of another kind.
    """
    if not path.is_file():
        raise SolverError(f"There is no file of problems {path}.")
    reader = READERS.get(path.suffix.lower())
    if reader is None:
        raise SolverError(f"{path} must be a .csv or .jsonl file, or a .parquet file.")
    try:
        yield from reader(path, columns)
    except UnicodeDecodeError as error:
        raise SolverError(f"{path} is not UTF-8 text.") from error
    except OSError as error:
        raise SolverError(f"{path} cannot be read: {error.strerror or error}.") from error


def _csv_rows(path: Path, columns: Sequence[str]) -> Iterator[Row]:
    csv.field_size_limit(max(csv.field_size_limit(), path.stat().st_size))
    with path.open(encoding="utf-8-sig") as file:
        reader = csv.DictReader(file, strict=True)
        try:
            names = reader.fieldnames or ()
            for name in columns:
                if names and name not in names:
                    raise SolverError(
                        f"{path} has no column {name!r}; its first line names {', '.join(names)}."
                    )
            yield from reader
        except csv.Error as error:
            raise SolverError(f"{path} is not a CSV table: {error}.") from error


def _json_rows(path: Path, columns: Sequence[str]) -> Iterator[Row]:
    with path.open(encoding="utf-8-sig") as file:
        for number, line in enumerate(file, 1):
            if line.strip():
                try:
                    row = json.loads(line)
                except (ValueError, RecursionError) as error:  # also an integer of 5,000 digits
                    raise SolverError(f"Line {number} of {path} is not JSON: {error}.") from error
                if not isinstance(row, dict):
                    raise SolverError(f"Line {number} of {path} is not a JSON object.")
                yield row


def _parquet_rows(path: Path, columns: Sequence[str]) -> Iterator[Row]:
    file = _parquet(path)
    names = _present(path, file.schema_arrow.names, columns)
    for batch in file.iter_batches(batch_size=BATCH_ROWS, columns=names):
        yield from _plain_rows(batch.to_pylist())


def _arrow_rows(path: Path, columns: Sequence[str]) -> Iterator[Row]:
    require_pyarrow(path)
    import pyarrow

    try:
        with pyarrow.memory_map(str(path)) as source, pyarrow.ipc.open_stream(source) as stream:
            names = _present(path, stream.schema.names, columns)
            for batch in stream:
                for begin in range(0, batch.num_rows, BATCH_ROWS):
                    rows = batch.slice(begin, BATCH_ROWS).select(names).to_pylist()
                    yield from _plain_rows(rows)
    except pyarrow.ArrowInvalid as error:
        raise SolverError(f"{path} is not an Arrow stream: {error}.") from error


def _present(path: Path, names: Sequence[str], columns: Sequence[str]) -> list[str]:
    """Return the columns to read: the required ones, and those of the usual names."""
    for name in columns:
        if name not in names:
            raise SolverError(f"{path} has no column {name!r}; its columns are {', '.join(names)}.")
    return [name for name in names if name in (*columns, "answer", "family")]


def _parquet(path: Path) -> Any:
    require_pyarrow(path)
    import pyarrow
    import pyarrow.parquet

    try:
        return pyarrow.parquet.ParquetFile(path)
    except pyarrow.ArrowInvalid as error:
        raise SolverError(f"{path} is not a Parquet file: {error}.") from error


def require_pyarrow(path: Path) -> None:
    """Raise SolverError if pyarrow, which reads a file, is not installed."""
    if find_spec("pyarrow") is None:
        raise SolverError(f"{path} is read with pyarrow; install eightfold[ray].")


def _plain_rows(rows: list[Row]) -> Iterator[Row]:
    """Turn whole numbers that are stored as floats, as pandas does beside gaps, into integers."""
    for row in rows:
        for name, value in row.items():
            if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
                row[name] = int(value)
            elif isinstance(value, float) and value != value:
                row[name] = None
        yield row


READERS: dict[str, Callable[[Path, Sequence[str]], Iterator[Row]]] = {
    ".csv": _csv_rows,
    ".jsonl": _json_rows,
    ".parquet": _parquet_rows,
    ".arrow": _arrow_rows,
}
"""The reader for each suffix."""
