"""Reasons for which a final text has no valid answer (0.1 s)."""

from __future__ import annotations

import pytest

from eightfold.solver.answers import answer, explain_no_answer

REASONS = [
    ("", "The final text is empty"),
    ("I cannot solve this.", "names no integer"),
    ("It is 3.5 or so.", "names no integer"),
    ("The answer is 381.", 'in "The answer is 381." the integer 381 stands without a box'),
    ("Thinking ...\n\n**381**", 'in "**381**" the integer 381 stands without a box'),
    ("So $x = 1,234$.", "the integer 1,234 stands without a box"),
    ("Thus \\boxed{381", "not closed"),
    ("Thus \\boxed 381", "no braces"),
    ("\\boxed{42.5}", "its value 85/2 is not an integer"),
    ("\\boxed{2^{-5000}}", "its value is not an integer"),
    ("\\boxed{100000}", "\\boxed{100000} is out of range: answers are integers from 0 to 99999"),
    ("\\boxed{-3}", "out of range"),
    ("\\boxed{2^{100000}}", "out of range"),
    ("\\boxed{}", "it holds no number"),
    ("\\boxed{?}", "? in it cannot be evaluated"),
    ("\\boxed{n}", "n in it cannot be evaluated"),
    ("\\boxed{(1,234)}", "it is a list"),
    ("\\boxed{1, 2, 3}", "it is a list"),
    ("\\boxed{3 4}", "3 and 4 stand side by side"),
    ("\\boxed{x = 3, y = 4}", "several statements"),
    ("\\boxed{x \\le 42}", "the relation \\le"),
    ("\\boxed{41 \\text{ or } 42}", 'the word "or" beside the number changes it'),
    ("\\boxed{\\text{the square root of } 4}", 'the words before the number, up to "of"'),
    ("\\boxed{142 \\pmod{100}}", "not the least residue of its modulus"),
    ("\\boxed{--42}", "two signs follow each other"),
    ("\\boxed{84/2(21)}", "what its quotient divides by is open"),
    ("\\boxed{9!!!!}", "double factorial"),
    ("\\boxed{10^{10^{10}}}", "too large to compute"),
    ("\\boxed{1/0}", "divides by zero"),
    ("\\boxed{\\sqrt{2}}", "a root that is not rational"),
    ("\\boxed{\\begin{pmatrix} 4 \\end{pmatrix}}", "the environment pmatrix"),
    ("\\boxed{" + "{" * 60 + "4" + "}" * 60 + "}", "nested too deeply"),
    ("\\boxed{" + "9" * 2000 + "}", "longer than 1000 characters"),
    ("\\boxed{3} and \\boxed{4}", "Which of the boxes \\boxed{3} and \\boxed{4} is the answer"),
    ("\\boxed{?} and \\boxed{4.5}", "\\boxed{4.5}"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "reason"), REASONS, ids=[text[:30] for text, _ in REASONS])
def test_reason_is_one_sentence_that_names_it(text: str, reason: str) -> None:
    assert answer(text) is None
    explanation = explain_no_answer(text, 0, 99_999)
    assert reason in explanation
    assert explanation.endswith(".")
    assert "\n" not in explanation
    assert len(explanation) < 400


def test_reason_names_the_range_asked_for() -> None:
    assert "from 10 to 20" in explain_no_answer("\\boxed{5}", 10, 20)


def test_text_with_an_answer_needs_no_reason() -> None:
    assert explain_no_answer("\\boxed{42}", 0, 99_999) == ""
