"""Text that others wrote, as HTML: escaped, with formulas as MathML and code highlighted.

Everything here returns `Markup`, which templates take as it is, so this module alone decides what
of a trace becomes an element.
"""

from __future__ import annotations

import html
import re
from functools import lru_cache
from typing import TYPE_CHECKING
from xml.etree.ElementTree import Element

from markupsafe import Markup

from eightfold.common.valid_text import escape_surrogates

if TYPE_CHECKING:
    from collections.abc import Iterator

MAX_FORMULA = 1000
"""Characters of a formula beyond which it is shown as text."""

MAX_DEPTH = 40
"""Nested elements of a formula beyond which it is shown as text."""

MAX_PROSE = 300_000
"""Characters of a text beyond which it is shown without formulas and other formatting."""

MAX_HIGHLIGHTED = 100_000
"""Characters of code beyond which it is shown without colors."""

ELEMENTS = frozenset(
    ("math", "mrow", "mi", "mn", "mo", "mtext", "mspace", "ms", "mfrac", "msqrt", "mroot", "mstyle")
    + ("mpadded", "mphantom", "msub", "msup", "msubsup", "munder", "mover", "munderover", "mtable")
    + ("mtr", "mtd", "mmultiscripts", "mprescripts", "menclose")
)
ATTRIBUTES = frozenset(
    ("display", "displaystyle", "scriptlevel", "stretchy", "fence", "form", "separator", "lspace")
    + ("rspace", "minsize", "maxsize", "symmetric", "largeop", "movablelimits", "accent", "width")
    + ("accentunder", "linethickness", "height", "depth", "voffset", "mathvariant", "columnalign")
    + ("rowspacing", "columnspacing")
)
CHILDREN = {
    **dict.fromkeys(("mfrac", "mroot", "msub", "msup", "munder", "mover"), 2),
    **dict.fromkeys(("msubsup", "munderover"), 3),
}
"""Numbers of children that elements must have; browsers do not draw others."""
_VALUE = re.compile(r"[\w.%+ -]{1,40}")
_HIDDEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u00ad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufdd0-"
    "\ufdef\ufeff\ufff9-\uffff\U000e0000-\U000e0fff]"
)
_FORMULA = re.compile(
    r"(?P<block>\$\$(?P<dollars>[^$]{1,1000}?)\$\$|\\\[(?P<brackets>.{1,1000}?)\\\]"
    r"|(?P<lines>\\begin\{(?P<name>(?:align|gather|equation)\*?)\}.{1,1000}?"
    r"\\end\{(?P=name)\}))"
    r"|\\\((?P<parens>.{1,1000}?)\\\)"
    r"|(?<![\\$\w])\$(?P<dollar>[^\s$](?:[^$\n]{0,998}[^\s$\\])?)\$(?![\d$])"
    r"|(?P<box>\\(?:boxed|fbox)\s*\{[^{}$\n]{1,200}\})",
    re.DOTALL,
)
_ALIGNED = re.compile(
    r"\\(begin|end)\{(?:aligned|align\*?|gathered|gather\*?|equation\*?|split|eqnarray\*?)\}"
)
_FENCE = re.compile(
    r"^(```+|~~~+)[ ]*([\w+-]*)[^\n`]*\n(.*?)(?:^\1[ ]*$|\Z)", re.DOTALL | re.MULTILINE
)
_CONTROL = re.compile(
    r"(<(?:\|[^<>|\s]{1,40}\|?|[^<>|\s/]{1,40}\||/?tool_call|/?start_of_turn|/?end_of_turn|/?s"
    r"|bos|eos|pad)>|\[/?(?:TOOL_CALLS|INST)\])"
)
_BOLD = re.compile(r"\*\*(?=\S)([^*\n]{1,300})(?<=\S)\*\*")


def visible(text: str) -> str:
    r"""Return a text in which control characters and other invisible ones can be seen.

    Carriage returns before a newline are dropped. ASCII control characters become the pictures of
    the block U+2400; others, such as marks that reverse the direction, become ``\u202e``.
    """
    return _HIDDEN.sub(_picture, escape_surrogates(text.replace("\r\n", "\n")))


def _picture(match: re.Match[str]) -> str:
    code = ord(match[0])
    if code < 0x20:
        return chr(0x2400 + code)
    if code == 0x7F:
        return "\u2421"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def plain(text: str) -> Markup:
    """Return a text as HTML, without any formatting."""
    return Markup(html.escape(visible(text)))


def prose(text: str) -> Markup:
    """Return a text with formulas set, blocks of code, bold words and control tokens set apart."""
    if len(text) > MAX_PROSE:
        return plain(text)
    parts, at = [], 0
    for match in _FENCE.finditer(text):
        code = python_code(match[3]) if "py" in match[2].lower() else plain(match[3])
        parts.append(_paragraphs(text[at : match.start()]))
        parts.append(Markup('<pre class="code">{}</pre>').format(code))
        at = match.end()
    return Markup("").join([*parts, _paragraphs(text[at:])])


def _paragraphs(text: str) -> Markup:
    parts, at = [], 0
    for match in _FORMULA.finditer(text):
        parts += [_words(text[at : match.start()]), _formula(match)]
        at = match.end()
    return Markup("").join([*parts, _words(text[at:])])


def _words(text: str) -> Markup:
    parts = []
    for index, part in enumerate(_CONTROL.split(text)):
        escaped = html.escape(visible(part), quote=False)
        if index % 2:
            parts.append(f'<span class="token">{escaped}</span>')
        else:
            parts.append(_BOLD.sub(r"<strong>\1</strong>", escaped))
    return Markup("".join(parts))


def _formula(match: re.Match[str]) -> Markup:
    block = match["block"] is not None
    names = ("dollars", "brackets", "lines", "parens", "dollar", "box")
    source = next(match[name] for name in names if match[name] is not None)
    return mathml(source, block) or Markup(f"<code>{plain(match[0])}</code>")


@lru_cache(maxsize=4096)
def mathml(source: str, block: bool = False) -> Markup | None:
    """Return a formula as MathML, or None if it cannot be set.

    Args:
        source: LaTeX without its delimiters.
        block: set the formula on a line of its own.
    """
    from latex2mathml.converter import convert_to_element

    if len(source) > MAX_FORMULA or _HIDDEN.search(source):
        return None
    try:
        source = _ALIGNED.sub(r"\\\1{matrix}", source.strip())
        element = convert_to_element(source, display="block" if block else "inline")
        text = "".join(_serialized(element, 0))
    except Exception:  # the library raises anything for LaTeX that is not well-formed
        return None
    # A command that the library does not know would stand there as a name.
    return None if "\\" in text else Markup(text)


def _serialized(element: Element, depth: int) -> Iterator[str]:
    """Write allowed elements and attributes only; the texts of others are kept.

    Raises:
        ValueError: elements are nested too deeply, or have too few or too many children.
    """
    if depth > MAX_DEPTH:
        raise ValueError("The formula is nested too deeply.")
    if len(element) != CHILDREN.get(element.tag, len(element)):
        raise ValueError("A part of the formula is missing.")
    name = element.tag if element.tag in ELEMENTS else "mrow"
    attributes = {
        key: value
        for key, value in element.attrib.items()
        if key in ATTRIBUTES and _VALUE.fullmatch(value)
    }
    if name == "menclose":  # browsers do not draw it; a style sheet does
        name, attributes = "mrow", {"class": "boxed"}
    written = "".join(f' {key}="{value}"' for key, value in attributes.items())
    yield f"<{name}{written}>"
    if element.text:
        yield html.escape(html.unescape(element.text))
    for child in element:
        yield from _serialized(child, depth + 1)
    yield f"</{name}>"


def python_code(code: str) -> Markup:
    """Return Python code with its tokens in spans, for the style sheet of `code_styles`."""
    shown = visible(code)
    if len(shown) > MAX_HIGHLIGHTED:
        return Markup(html.escape(shown))
    from pygments import highlight
    from pygments.formatters import HtmlFormatter
    from pygments.lexers import PythonLexer

    lexer = PythonLexer(stripnl=False, ensurenl=False)
    return Markup(highlight(shown, lexer, HtmlFormatter(nowrap=True)))


def code_styles() -> str:
    """Return the style sheet of highlighted code, for light and for dark pages."""
    from pygments.formatters import HtmlFormatter

    def rules(style: str) -> str:
        sheet = HtmlFormatter(style=style).get_style_defs(".code")
        return "\n".join(line for line in sheet.splitlines() if line.startswith(".code ."))

    return f"{rules('default')}\n@media (prefers-color-scheme: dark) {{\n{rules('monokai')}\n}}"
