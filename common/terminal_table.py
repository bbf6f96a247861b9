"""Tables for people on a terminal, and the same columns as plain text for scripts elsewhere."""

from __future__ import annotations

import io
import shutil
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TextIO

_UNLIMITED = 1 << 16  # characters in a line, far more than any row has


@dataclass(frozen=True)
class Column:
    """A column of a table.

    Attributes:
        title: shown above the column.
        right: align the cells to the right, as for numbers.
    """

    title: str
    right: bool = False


def format_table(
    columns: Sequence[Column],
    rows: Iterable[Sequence[str]],
    *,
    plain_titles: bool = True,
    indent: int = 0,
    stream: TextIO | None = None,
) -> str:
    """Lay out a table for the stream that it will be printed to.

    On a terminal, titles have a rule below them, and cells wrap if the terminal is too narrow.
    Elsewhere each row is one line, however long, so that scripts can read it.

    Args:
        columns: the columns, from left to right.
        rows: one cell per column; cells are taken literally, without rich's markup.
        plain_titles: show the titles also if the stream is not a terminal.
        indent: spaces in front of each line.
        stream: where the text will be written; None means standard output.

    Returns:
        The lines, without a newline at the end.
    """
    from rich import box
    from rich.console import Console
    from rich.padding import Padding
    from rich.table import Table

    stream = sys.stdout if stream is None else stream
    live = stream.isatty()
    lines = live and (stream.encoding or "").lower().startswith("utf")
    table = Table(
        box=box.SIMPLE_HEAD if lines else None,
        show_edge=False,
        show_header=live or plain_titles,
        padding=(0, 2, 0, 0),
        pad_edge=False,
    )
    for column in columns:
        table.add_column(
            column.title,
            justify="right" if column.right else "left",
            no_wrap=not live,
            overflow="fold",  # nothing is cut off
        )
    for row in rows:
        table.add_row(*row)
    # Not to the stream itself: rich ends the process if the reader closes it.
    text = io.StringIO()
    console = Console(
        file=text,
        force_terminal=live,
        force_jupyter=False,
        width=shutil.get_terminal_size().columns if live else _UNLIMITED,
        height=25,  # not used, but without it rich takes "dumb" terminals to be 80 columns wide
        markup=False,
        emoji=False,
        highlight=False,
    )
    console.print(Padding(table, (0, 0, 0, indent), expand=False))
    return "\n".join(line.rstrip() for line in text.getvalue().splitlines())
