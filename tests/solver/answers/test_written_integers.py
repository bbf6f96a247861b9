"""Integers that are written in many ways are read back (15 s)."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from eightfold.solver.answers import answer, bare_integer, explain_no_answer
from eightfold.solver.answers.box_content import integer

DIGITS = ["0123456789", "０１２３４５６７８９", "٠١٢٣٤٥٦٧٨٩", "०१२३४५६७८९", "𝟎𝟏𝟐𝟑𝟒𝟓𝟔𝟕𝟖𝟗"]
COMMAS = [",", "{,}", ",\\!", "\\text{,}", "\\mathord{,}"]
SEPARATORS = [*COMMAS, "\\,", "\\ ", "~", " ", "\u2005", "\u202f", "_", "'", "’"]
STYLES = [
    "{}", "\\text{{{}}}", "\\mathbf{{{}}}", "\\textbf{{{}}}", "\\boldsymbol{{{}}}", "{{\\bf {}}}",
    "\\textcolor{{red}}{{{}}}", "\\color{{blue}} {}", "\\underline{{{}}}", "${}$", "\\({}\\)",
    "\\Large{{{}}}", "\\textsc{{{}}}", "\\bbox[yellow]{{{}}}", "\\fbox{{{}}}", "**{}**", "`{}`",
    "\\begin{{aligned}} {} \\end{{aligned}}", "{{{}}}", "({})", "\\left({}\\right)", '"{}"',
]  # fmt: skip
NAMES = [
    "", "x = ", "N=", "a_{{3,4}} = ", "f(2,3) =", "\\sum_{{i<j}} a_{{ij}} = ", "|S| = ", "n := ",
    "\\lim_{{n\\to\\infty}} a_n = ", "\\min_{{x>0}} f(x) = ", "\\text{{Answer: }}", "Answer: ",
    "\\therefore ", "\\text{{The sum is equal to }}", "N \\equiv ", "\\text{{(C) }}", "x &= ",
]  # fmt: skip
ENDINGS = [
    "", ".", ",", "\\,", "\\quad", "\\blacksquare", "\\text{{ cm}}^2", "\\text{{ ways}}", "\\\\",
    "\\ \\frac{{\\text{{m}}}}{{\\text{{s}}}}", "\\text{{, as desired}}", "{{}}", "\\phantom{{0}}",
    "\\pmod{{10^7}}", " (mod 10{{,}}000{{,}}000)", "\\ (\\text{{mod }} 10^{{7}})", "\\hfill",
]  # fmt: skip

BRACKETS = [
    ("(", ")"), ("[", "]"), ("\\{", "\\}"), ("\\left(", "\\right)"), ("\\langle ", "\\rangle"),
]  # fmt: skip


@st.composite
def written(draw: st.DrawFn, value: int, plain_comma: bool = True) -> str:
    """Draw a way to write an integer: digits of a script, in groups or not."""
    text = str(value)
    if draw(st.booleans()):
        separator = draw(st.sampled_from(SEPARATORS if plain_comma else SEPARATORS[5:]))
        text = f"{value:,}".replace(",", separator)
    return text.translate(str.maketrans("0123456789", draw(st.sampled_from(DIGITS))))


@settings(max_examples=400, deadline=None)
@given(data=st.data(), value=st.integers(0, 999_999))
def test_style_name_and_ending_leave_an_integer_as_it_is(data: st.DataObject, value: int) -> None:
    style = data.draw(st.sampled_from(STYLES))
    text = style.format(data.draw(written(value, "(" not in style or "\\(" in style)))
    name, ending = (data.draw(st.sampled_from(parts)).format() for parts in (NAMES, ENDINGS))
    assert integer(f"{name}{text}{ending}") == value
    assert answer(f"So \\boxed{{{name}{text}{ending}}}.", 0, 10**6) == value


@settings(max_examples=200, deadline=None)
@given(value=st.integers(2, 99_999), other=st.integers(1, 500))
def test_arithmetic_that_gives_an_integer_gives_it(value: int, other: int) -> None:
    for text in (
        f"{value - other} + {other}",
        f"\\frac{{{value * other}}}{{{other}}}",
        f"{value * other} / {other}",
        f"\\sqrt{{{value**2}}}",
        f"\\sqrt[3]{{{value**3}}}",
        f"\\frac{{{value}!}}{{{value - 1}!}}",
        f"\\binom{{{value}}}{{{value - 1}}}",
        f"|{other} - {value + other}|",
        f"\\lfloor \\frac{{{value * other + other - 1}}}{{{other}}} \\rfloor",
        f"{value} \\bmod {value + other}",
        f"{{{value * other} \\over {other}}}",
    ):
        assert integer(text) == value, text


@settings(max_examples=200, deadline=None)
@given(values=st.lists(st.integers(1, 999), min_size=2, max_size=4), data=st.data())
def test_lists_in_brackets_are_no_numbers(values: list[int], data: st.DataObject) -> None:
    opening, closing = data.draw(st.sampled_from(BRACKETS))
    comma = data.draw(st.sampled_from([",", ", ", ",\\ "]))
    content = opening + comma.join(map(str, values)) + closing
    for text in (content, f"x = {content}", f"2{content}", f"5 + {content}"):
        assert integer(text) is None, text


@given(data=st.data(), value=st.integers(-(10**6), 10**6))
def test_bare_integers_are_read_and_sentences_are_not(data: st.DataObject, value: int) -> None:
    text = f"-{data.draw(written(-value))}" if value < 0 else data.draw(written(value))
    if "\\text" not in text and "\\math" not in text:
        form = data.draw(st.sampled_from(["{}", "${}$", "**{}**", "\\({}\\)", "{}.", " {}\n"]))
        assert bare_integer(form.format(text)) == value
    for sentence in ("The answer is {}.", "x = {}", "{} ways", "\\boxed{{{}}}", "{}, {}", "2({})"):
        assert bare_integer(sentence.format(value, value)) is None


PIECES = (
    "0 7 42 1,234 \\frac \\sqrt \\binom { } ( ) [ ] | ! ^ _ + - * / = \\equiv \\pmod \\bmod \\, "
    "\\quad \\text{ \\mathbf{ is and \\le < , . : \\{ \\} \\lfloor \\over \\left \\right ° √ ½ ² "
    "\\gcd \\max \\begin{aligned} \\\\ & $ {,} ' ** \\cdot x D \\therefore 9!! \\qty \\color "
    "\\overset \\kern \\lim \\to # % \\ 个"
)


@settings(max_examples=500, deadline=None)
@given(st.lists(st.sampled_from(PIECES.split()), max_size=30), st.booleans())
def test_any_content_is_read_or_explained(pieces: list[str], closed: bool) -> None:
    content = "".join(pieces)
    if closed:
        content += "}" * (content.count("{") - content.count("}"))
    text = f"So \\boxed{{{content}}}."
    assert bool(explain_no_answer(text, 0, 99_999)) == (answer(text) is None)
    bare_integer(content)
