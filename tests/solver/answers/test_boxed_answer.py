"""The forms in which an answer may be written (0.5 s)."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eightfold.solver.answers import answer, bare_integer, boxes, integer

FORMS: list[tuple[str, int | None]] = [
    # plain numbers
    ("42", 42), (" 42 ", 42), ("042", 42), ("0", 0), ("00", 0), ("+42", 42), ("99999", 99999),
    ("100000", None), ("-5", None), ("−5", None), ("-0", 0), ("42.", 42), ("42.0", 42),
    ("42.000", 42), ("42.4", None), ("41.9999999", None), (".5", None), ("４２", 42),
    # grouping
    ("1,234", 1234), ("1{,}234", 1234), ("1\\,234", 1234), ("1\\!234", 1234), ("1 234", 1234),
    ("12\\ 345", 12345), ("1{,}234.0", None), ("12,34", None), ("1,2,3", None), ("1,234,567", None),
    ("1_234", 1234), (",", None), ("1,\\!234", 1234), ("1\u202f234", 1234), ("1, 234", None),
    ("12 34", None), ("1\\,23", None),
    # styles and wrappers
    ("\\text{42}", 42), ("\\mathbf{42}", 42), ("\\textbf{ 42 }", 42), ("\\mathrm{42}", 42),
    ("\\boldsymbol{\\text{42}}", 42), ("\\textcolor{red}{42}", 42), ("\\color{red}{42}", 42),
    ("$42$", 42), ("\\(42\\)", 42), ("\\displaystyle 42", 42),
    ("{42}", 42), ("{{42}}", 42), ("(42)", 42), ("\\left(42\\right)", 42), ("\\boxed{42}", 42),
    ("\\bf 42", 42), ("\\underline{42}", 42), ("42 \\quad", 42), ("\\;42\\;", 42), ("~42", 42),
    ("\\mathbf 42", 42), ("\\Large{42}", 42), ("{\\large 42}", 42), ("\\emph{42}", 42),
    ("\\hspace{1em}42", 42), ("\\phantom{0}42", 42), ("\\colorbox{yellow}{42}", 42), ("42\\\\", 42),
    ("42\u200b", 42), ("\ufeff42", 42), ("٤٢", 42), ("\\text{1{,}234}", 1234), ("0,042", None),
    ("42\\text{,}000", 42000), ("\\text{-}42", None), ("2\\mathbf{n}", None),
    ("42\\mathrm{i}", None),
    # names, units, words
    ("x=42", 42), ("x = 42", 42), ("N=6\\cdot 7=42", 42), ("f(3) = 42", 42), ("a_1 = 42", 42),
    ("\\text{Answer: }42", 42), ("\\text{The answer is } 42", 42), ("42\\text{ cm}", 42),
    ("42\\text{ cm}^2", 42), ("42^\\circ", 42), ("42^{\\circ}", 42), ("42°", 42), ("\\$42", 42),
    ("42\\%", None), ("x=1, y=42", None), ("x=42,y", None), ("x = 1,234", 1234),
    ("41 \\text{ or } 42", None), ("\\text{not } 42", None), ("42 \\text{ thousand}", None),
    ("\\text{forty-two}", None), ("42_{10}", 42), ("52_{8}", None), ("42 cm", None),
    ("42\\ \\text{units}", 42), ("42\\mathrm{\\,cm}", 42), ("\\text{42 ways}", 42), ("€42", 42),
    ("\\text{The answer is 42.}", 42), ("\\text{Ans: 42}", 42), ("\\text{42 or 43}", None),
    ("\\text{Case }1", None), ("\\text{Case 1}", None), ("42\\text{k}", None), ("4\\text{M}", None),
    ("42\\text{ approx.}", None), ("\\gcd(84, 42) = 42", 42), ("(x,y)=(1,42)", None), ("42k", None),
    ("n=42, m=3", None), ("|S|=42", 42), ("42=x", None), ("\\text{n is 3 and m is 4}", None),
    # relations
    ("\\approx 42", None), ("x \\geq 42", None), ("<42", None), ("\\pm 42", None),
    ("x\\to 42", None),
    ("42 \\pmod{100}", 42), ("x \\equiv 42 \\pmod{100}", 42), ("142 \\pmod{100}", None),
    ("142 \\bmod 100", 42), ("x \\in \\{42\\}", None), ("\\{42\\}", None), ("[42]", None),
    # arithmetic
    ("10^3", 1000), ("10^{3}", 1000), ("2\\cdot 21", 42), ("2 \\times 21", 42), ("2×21", 42),
    ("6 * 7", 42), ("\\frac{84}{2}", 42), ("\\dfrac{84}{2}", 42), ("84/2", 42), ("\\frac84", 2),
    ("\\frac842", None),
    ("\\frac{85}{2}", None), ("\\frac{1}{0}", None), ("40+2", 42), ("50-8", 42), ("5!", 120),
    ("\\binom{10}{3}", 120), ("\\sqrt{1764}", 42), ("\\sqrt{2}", None), ("2(21)", 42),
    ("2^{10} - 1", 1023), ("-(-42)", 42), ("4.2\\times 10^{1}", 42), ("1\\frac{1}{2}", None),
    ("2^{2^{4}}", 65536), ("9^{9^{9}}", None), ("99999!", None), ("10^{-1}", None), ("7²", 49),
    ("100^{100}", None), ("10^{100000}", None), ("0^{-1}", None), ("2^{0.5}", None),
    ("2¹⁰", 1024), ("2²³", None), ("10⁴", 10000), ("3!!", None), ("\\frac{10!}{5!5!}", 252),
    ("\\binom{5}{2}\\binom{4}{2}", 60), ("3\\sqrt{16}", 12), ("\\frac{1}{2}(84)", 42),
    ("84/2(21)", None), ("\\lfloor 42.5 \\rfloor", None), ("10^{10^{10}}", None), ("100!", None),
    # placeholders and nonsense
    ("?", None), ("", None), (" ", None), ("...", None), ("\\ldots", None), ("n", None),
    ("answer", None), ("\\text{answer}", None), ("N", None), ("2n", None), ("\\infty", None),
    ("i", None), ("1e3", None), ("0x2A", None), ("\\square", None), ("_", None), (".", None),
    ("[ANSWER]", None), ("\\text{}", None), ("--", None), ("()", None), ("4{2", None),
    ("1.2.3", None), ("\\pi", None), ("{", None), ("\\", None), ("½", None), ("²", None),
]  # fmt: skip


@pytest.mark.parametrize(("content", "value"), FORMS, ids=[repr(form) for form, _ in FORMS])
def test_form_of_an_answer(content: str, value: int | None) -> None:
    assert answer(f"Therefore \\boxed{{{content}}}.") == value


def test_forms_are_many_distinct_and_of_both_outcomes() -> None:
    assert len(FORMS) >= 60
    assert len({form for form, _ in FORMS}) == len(FORMS)
    assert 40 <= sum(value is None for _, value in FORMS) <= len(FORMS) - 40


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("\\boxed{1} then \\boxed{2}", 2),
        ("\\boxed{7} but \\boxed{?}", 7),
        ("\\boxed{7} but \\boxed{100000} and \\boxed{-3}", 7),
        ("\\boxed{7", None),
        ("\\boxed{\\frac{84}{2}", None),
        ("\\boxed{7 and \\boxed{8}", 8),
        ("\\fbox{8}", 8),
        ("\\boxed {8}", 8),
        ("\\\\boxed{8}", 8),
        ("\\boxed 8", None),
        ("\\boxed\n{\n8\n}", 8),
        ("\\boxed{\\text{It is }\\boxed{8}}", 8),
        ("boxed{8}", None),
        ("the final answer is 42", None),
        ("", None),
    ],
)
def test_last_valid_box_of_a_text_counts(text: str, value: int | None) -> None:
    assert answer(text) == value


def test_range_is_configurable() -> None:
    assert answer("\\boxed{-5}", low=-10) == -5
    assert answer("\\boxed{1000}", high=999) is None
    assert integer("-5") == -5


def test_boxes_are_closed_by_the_matching_brace() -> None:
    assert boxes(r"\boxed{\frac{1}{2}} \boxed{a \} b} \boxed{\boxed{3}}") == [
        r"\frac{1}{2}",
        r"a \} b",
        r"\boxed{3}",
    ]


@given(value=st.integers(0, 99_999))
def test_every_integer_in_range_is_read_in_each_spelling(value: int) -> None:
    for spelling in (f"{value}", f"{value:,}", f"{value:,}".replace(",", "{,}"), f"{value}.0"):
        if "." in spelling and "," in spelling:
            continue
        assert answer(f"\\boxed{{{spelling}}}") == value


@settings(max_examples=300, deadline=None)
@given(st.text(alphabet="0123456789\\{}^!()+-*/,. =fracsqrtbinomtext$_", max_size=40))
def test_no_content_raises_an_exception(content: str) -> None:
    found = integer(content)
    assert found is None or isinstance(found, int)
    answer("\\boxed{" + content + "} \\boxed{")


def test_long_boxes_are_refused_quickly() -> None:
    for part in ("(", "-", "2^", "\\text{", "1 ", "1!x", "²", "\\left", "(1)x"):
        assert answer("\\boxed{" + part * (250 // len(part)) + "}") is None
    assert answer("\\boxed{" + "9" * 100_000 + "}") is None
    assert answer("\\boxed{" * 20_000) is None


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("381", 381), (" 381\n", 381), ("381.", 381), ("$381$", 381), ("**381**", 381),
        ("1,234", 1234), ("1{,}234", 1234), ("-5", -5), ("３８１", 381), ("`381`", 381),
        ("\\(381\\)", 381), ("100000", 100_000), ("3.0", 3), ("(381)", 381),
        ("The answer is 381.", None), ("x = 381", None), ("\\boxed{381}", None), ("", None),
        ("3 4", None), ("3, 4", None), ("3.5", None), ("2-3", None), ("2*3", None), ("2(3)", None),
        ("3!", None), ("³", None), ("381 ways", None), ("381\n382", None), ("1e5", None),
        ("~381", None),
    ],
)  # fmt: skip
def test_bare_integer_is_all_of_a_text(text: str, value: int | None) -> None:
    assert bare_integer(text) == value
