"""Boxes that a text has, and when two of them are parts of one answer (0.1 s)."""

from __future__ import annotations

import pytest

from eightfold.solver.answers.box_search import find_boxes, has_unclosed_box
from eightfold.solver.answers.boxed_answer import MAX_BOXES, answer


@pytest.mark.parametrize(
    "box",
    [
        "\\boxed{57}", "\\Boxed{57}", "\\fbox{57}", "\\framebox{57}", "\\framebox[2cm][c]{57}",
        "\\boxed[red]{57}", "\\bbox[5px,border:2px solid]{57}", "\\doublebox{57}", "\\tcbox{57}",
        "\\fcolorbox{red}{white}{57}", "\\colorbox{yellow}{57}",
        "\\enclose{roundedbox}{57}", "\\boxed｛57｝", "\\boxed {57}",
        "＼boxed{57}", "$$\\boxed{\\textbf{57}}$$", "**\\boxed{57}**", "\\boxed*{57}",
    ],
)  # fmt: skip
def test_commands_that_frame_are_boxes(box: str) -> None:
    assert answer(f"Thus {box}.") == 57


@pytest.mark.parametrize(
    "text", ["\\mbox{57}", "\\boxes{57}", "\\boxed(5)", "\\enclose{circle}{5}"]
)
def test_other_commands_are_no_boxes(text: str) -> None:
    assert find_boxes(text) == []


def test_boxes_know_where_they_stand() -> None:
    text = "so \\boxed{ 5 } and \\fbox{x}"
    assert [text[box.start : box.end] for box in find_boxes(text)] == ["\\boxed{ 5 }", "\\fbox{x}"]


def test_unclosed_boxes_are_seen() -> None:
    assert has_unclosed_box("\\boxed{5")
    assert not has_unclosed_box("\\boxed{5} {")


@pytest.mark.parametrize(
    "text",
    [
        "\\boxed{3} and \\boxed{4}",
        "$\\boxed{3}$ or $\\boxed{4}$.",
        "$x$ is \\boxed{3}, \\boxed{4}, \\boxed{5}.",
        "\\boxed{3}\\text{ and }\\boxed{4}",
        "\\boxed{x = 3} \\quad \\boxed{y = 4}",
        "\\boxed{4}\\boxed{2}",
        "\\[\\boxed{3}\\]\nand\n\\[\\boxed{4}\\]",
        "(a) \\boxed{3}\n(b) \\boxed{4}",
        "1. \\boxed{3}\n2. \\boxed{4}",
        "- \\boxed{3}\n- \\boxed{4}",
        "\\boxed{3} and \\boxed{\\frac{1}{2}}",
        "\\boxed{m=3}, \\boxed{n=4}, m+n=7",
        "With \\boxed{m=3} and then \\boxed{n=4} we find m+n = 7.",
        "\\boxed{3}+\\boxed{4}=7",
    ],
)
def test_parts_of_an_answer_are_none(text: str) -> None:
    assert answer(text) is None


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("\\boxed{3} and \\boxed{4}. The sum is \\boxed{7}.", 7),
        ("\\boxed{3} and \\boxed{4}, in all \\boxed{7}", 7),
        ("\\boxed{3}+\\boxed{4}=\\boxed{7}", 7),
        ("\\boxed{42} and \\boxed{42}", 42),
        ("\\boxed{n = 42}, \\boxed{42}", 42),
        ("\\boxed{N}, \\boxed{42}", 42),
        ("\\boxed{3} is wrong, so \\boxed{4}", 4),
        ("\\boxed{3}\n\\boxed{4}", 4),
        ("\\boxed{3}\nA check gives \\boxed{4}, as 2 + 2.", 4),
        ("I had \\boxed{3}. Now \\boxed{4}, since 1 + 3 = 4.", 4),
        ("\\boxed{42}, which is 6 times 7", 42),
        ("\\boxed{41.5}, to the next integer \\boxed{42}", 42),
    ],
)
def test_last_box_concludes_or_corrects(text: str, value: int) -> None:
    assert answer(text) == value


def test_boxes_far_from_the_end_are_not_read() -> None:
    assert answer("\\boxed{5}" + "\\boxed{?}" * (MAX_BOXES - 1)) == 5
    assert answer("\\boxed{5}" + "\\boxed{?}" * MAX_BOXES) is None
    assert answer("\\boxed{1}, \\boxed{2} " * 20_000 + "3") is None
    assert answer("\\boxed{1}" + ", " * 50_000 + "\\boxed{2}") is None
