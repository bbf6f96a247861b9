"""Tables that notebooks show."""

from collections.abc import Iterable


def html_cells(values: Iterable[object]) -> str:
    """Return the cells of a row; values are HTML already."""
    return "".join(f"<td>{value}</td>" for value in values)


def html_table(titles: Iterable[str], rows: Iterable[str]) -> str:
    """Return a table.

    Args:
        titles: the columns' titles, as HTML.
        rows: the cells of each row, such as `html_cells` returns them.
    """
    head = "".join(f"<th>{title}</th>" for title in titles)
    body = "".join(f"<tr>{cells}</tr>" for cells in rows)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
