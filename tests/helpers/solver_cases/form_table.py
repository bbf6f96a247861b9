"""Tables of the forms that an answer takes."""

from __future__ import annotations


def form_rows(table: str) -> list[tuple[str, int | None]]:
    """Return the rows of a table of lines `form -> value`, where a value is an integer or none.

    Raises:
        AssertionError: if a form stands twice.
    """
    rows = [line.rpartition(" -> ") for line in table.strip().split("\n")]
    assert len({form for form, _, _ in rows}) == len(rows), "forms are distinct"
    return [(form, None if value == "none" else int(value)) for form, _, value in rows]
