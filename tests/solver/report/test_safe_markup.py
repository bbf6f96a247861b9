"""Text of others as HTML: nothing of it becomes an element, and formulas are set (1 s)."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from eightfold.solver.report.safe_markup import (
    ATTRIBUTES,
    ELEMENTS,
    MAX_PROSE,
    code_styles,
    mathml,
    plain,
    prose,
    python_code,
    visible,
)

ALLOWED = ELEMENTS | {"span", "strong", "code", "pre"}
PIECES = st.sampled_from(
    ["$", "$$", "\\(", "\\)", "\\[", "\\]", "\\text{", "}", "<script>", "</pre>", '" onload="x']
    + ["&lt;", "**", "```python\n", "\n```\n", "<|x|>", "\\href{javascript:1}{y}", "\\boxed{1}"]
    + ["\\class{a b}{c}", "\\style{color:red}{x}", "<", ">", "&", "'", '"', "\x00", "a", " ", "\n"]
)


class Tags(HTMLParser):
    """Collects the elements and attributes of a text, and checks that they are nested."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.names: set[str] = set()
        self.attributes: set[str] = set()
        self.comments = 0
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.open.append(tag)
        self.names.add(tag)
        self.attributes |= {name for name, _ in attrs}

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_comment(self, data: str) -> None:
        self.comments += 1


@settings(deadline=None)
@given(st.lists(PIECES | st.text(max_size=5), max_size=30).map("".join))
@example("$\\text{<script>}$")
@example("\\[\\href{javascript:1}{y}\\]")
def test_no_text_becomes_an_element_of_its_own(text: str) -> None:
    for html in (prose(text), plain(text), python_code(text)):
        tags = Tags(html)
        assert tags.names <= ALLOWED
        assert tags.attributes <= ATTRIBUTES | {"class"}
        assert not tags.comments
        assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e]", html)
        html.encode("utf-8")


@pytest.mark.parametrize(
    ("text", "html"),
    [
        ("a\r\nb\rc", "a\nb\u240dc"),
        ("\x00\x1b\x7f", "\u2400\u241b\u2421"),
        ("\u202e\ud800\U000e0001", "\\u202e\\ud800\\U000e0001"),
        ("tab\tand\nline é 数 😀", "tab\tand\nline é 数 😀"),
    ],
)
def test_invisible_characters_are_shown(text: str, html: str) -> None:
    assert visible(text) == html


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("$x^2$", "<msup><mi>x</mi><mn>2</mn></msup>"),
        ("\\(\\frac{1}{2}\\)", "<mfrac>"),
        ("$$a < b$$", '<math display="block"><mrow><mi>a</mi><mo>&lt;</mo>'),
        ("\\[\n x \n\\]", 'display="block"'),
        ("so \\boxed{23}.", '<mrow class="boxed"><mrow><mn>23</mn>'),
        ("\\begin{align*}a&=b\\\\c&=d\\end{align*}", "<mtable><mtr><mtd><mi>a</mi></mtd>"),
        ("$\\binom{n}{k} \\bmod 7$", "mod"),
        ("costs $5 and $6", "costs $5 and $6"),
        ("$\\nosuchthing{x}$", "<code>$\\nosuchthing{x}$</code>"),
        ("$\\frac{1$", "$\\frac{1$"),
        ("a **bold** word", "<strong>bold</strong>"),
        ("<|tool_call>", '<span class="token">&lt;|tool_call&gt;</span>'),
        ("x\n```python\nif 1: pass\n```\ny", '<pre class="code"><span class="k">if</span>'),
    ],
)
def test_formulas_and_words(text: str, part: str) -> None:
    assert part in prose(text)


def test_formulas_that_are_too_long_or_too_deep_stay_text() -> None:
    assert mathml("x" * 1001) is None
    assert mathml("{" * 400 + "x" + "}" * 400) is None
    assert mathml("\x00") is None


def test_texts_of_a_megabyte_are_kept_whole() -> None:
    text = "$x$ " * (MAX_PROSE // 4 + 1)
    assert prose(text) == text
    code = "print(1)\n" * 20_000
    assert python_code(code) == code


def test_code_has_colors_for_light_and_dark_pages() -> None:
    assert '<span class="k">for</span>' in python_code("for x in y: pass")
    light, dark = code_styles().split("@media (prefers-color-scheme: dark)")
    assert ".code .k {" in light
    assert ".code .k {" in dark
    assert "<" not in light + dark
