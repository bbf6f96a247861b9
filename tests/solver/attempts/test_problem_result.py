"""The display of a result in a console and in a notebook: figures, no text, no ids (0.1 s)."""

from __future__ import annotations

from html.parser import HTMLParser
from typing import Any

from helpers.solver_cases.recorded_run import attempt_record

from eightfold.solver import Result


def result(*records: dict[str, Any], faults: tuple[str, ...] = ()) -> Result:
    return Result(
        23, {23: 2, 7: 1}, records, 12.34, 5310, 9, 1, "agreement", faults, tuple(range(2000))
    )


def records() -> list[dict[str, Any]]:
    found = [attempt_record(index, 23, 1.0) for index in range(8)]
    for record in found:
        record["turns"] = [{"text": "long thought " * 500, "tokens": list(range(3000))}]
    return found


def test_the_repr_is_one_short_line() -> None:
    shown = repr(result(*records()))
    assert shown == (
        "Result(answer=23, votes={23: 2, 7: 1}, attempts=8, seconds=12.3, tokens=5310, calls=9, "
        "errors=1, stopped='agreement')"
    )
    assert "faults=2" in repr(result(faults=("a", "b")))


class Cells(HTMLParser):
    """Collects the text of a document and the names of its elements."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.text: list[str] = []

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.tags.append(tag)

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def test_a_notebook_shows_a_table_of_the_attempts() -> None:
    tries = records()
    tries[2] |= {"answer": None, "ending": "no valid answer", "detail": "wrote no <b>box</b>"}
    document = Cells()
    document.feed(result(*tries, faults=("<script>alert(1)</script>",))._repr_html_())
    assert document.tags.count("tr") == 9
    assert not {"script", "b"} & set(document.tags)
    assert "no valid answer (wrote no <b>box</b>)" in document.text
    assert "long thought" not in "".join(document.text)
    assert [cell for cell in document.text if cell.isdigit()][:1] == ["1"], "counted from 1"
