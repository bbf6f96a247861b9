"""Fenced blocks of Markdown, as models write them.

Grammar, line by line; a block of Python ends where Python can have no backticks:

    block    := opening newline content closing | fence "python" code fence    in one line
    opening  := margin fence [" "] info     anywhere in a line for Python, else at its start
    margin   := blanks, and the mark of a quotation or a list
    fence    := three or more backticks or tildes
    info     := language [anything but backticks]
    closing  := at the start of a line: at least as many of the same characters

In a block of Python, a closing inside a triple-quoted string or a comment is content, and three
backticks behind code end the block too, as does the opening of another block. A block that is not
closed ends with the text.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from .python_code import bare_positions, is_python

PYTHON = re.compile(
    r"i?py(?:thon)?[\d.]*|python[-_]?(?:code|repl)|pycon|sage(?:math)?|tool_code|jupyter"
)
OUTPUT = re.compile(
    r"(?:tool_|code_|python_|execution_)?(?:outputs?|results?|stdout)|(?:std)?out|console_output"
)
OPENING = re.compile(
    r"(?P<line>(?:^|(?<=\n))[ \t]*(?:(?:>|[-*+]|\d+[.)])[ \t]+)?)?(?P<fence>`{3,}|~{3,})[ \t]*"
    r"(?P<info>[^\s`~<][^\n`]*)?(?P<eol>\r?\n|\Z)"
)
INLINE = re.compile(r"(?P<fence>`{3,})[ \t]*py(?:thon)?3?[ \t]+(?P<code>[^\n`]+)(?P=fence)(?!`)")
_MARGIN = r"[ \t]*(?:>[ \t]*)?"
NESTING = ("", "markdown", "md", "text")
"""Languages of blocks that may show other blocks."""

_LINE_REST = re.compile(r"[ \t]*(?:\r?\n|\Z|<)")
_LANGUAGE = re.compile(r"\{?\s*[.#]?([\w.+-]*)")


@dataclass(frozen=True)
class FencedBlock:
    """A fenced block in a text.

    Attributes:
        start, end: the block's indices in the text, fences included.
        stop: index behind the characters of the closing fence; `end` may lie in front of them, if
            they open another block at the same time.
        language: "python", "output", or the first word of the opening line in lower case.
        content: the lines between the fences, without the opening fence's indentation.
        closed: True if there is a closing fence.
        certain: False if text to come could show that the closing fence stands in a string.
    """

    start: int
    end: int
    stop: int
    language: str
    content: str
    closed: bool
    certain: bool = True


def read_block(text: str, opening: re.Match[str]) -> FencedBlock | None:
    """Return the block that a match of `OPENING` opens, or None if it opens none."""
    word = _LANGUAGE.match(opening["info"] or "")
    language = word[1].lower() if word else ""
    if PYTHON.fullmatch(language):
        language = "python"
    elif OUTPUT.fullmatch(language):
        language = "output"
    if opening["line"] is None and language not in ("python", "output"):
        return None
    start, fence = opening.start("fence"), opening["fence"]
    indent = _indent_of(opening["line"] or "")
    content = opening.end()
    closing = re.compile(rf"(?:^|(?<=\n)){_MARGIN}({fence[0]}{{{len(fence)},}})")
    certain = True
    if language == "python":
        found, certain = _python_closing(text, content, closing, fence, indent)
    else:
        found = _other_closing(text, content, closing, language)
    if found is None:
        body = _without_indent(text[content:], indent)
        return FencedBlock(start, len(text), len(text), language, body, False)
    end = found[0] if _opens_known(text, found[0]) else found[1]
    body = _without_indent(text[content : found[0]], indent)
    body = re.sub(rf"(?<=\n){_MARGIN}\Z", "", body)
    return FencedBlock(start, end, found[1], language, body, True, certain)


def only_block(text: str) -> FencedBlock | None:
    """Return the block that makes up the whole text, blanks apart, or None."""
    opening = OPENING.match(text.strip())
    block = read_block(text.strip(), opening) if opening else None
    return block if block is not None and block.stop == len(text.strip()) else None


def _opens_known(text: str, at: int) -> bool:
    """Return True if a fence of a known language, or with an end of line behind it, opens here."""
    opening = OPENING.match(text, at)
    if opening is None or not opening["info"]:
        return False
    word = _LANGUAGE.match(opening["info"])
    language = word[1].lower() if word else ""
    known = PYTHON.fullmatch(language) or OUTPUT.fullmatch(language)
    return known is not None


def _python_closing(
    text: str, start: int, closing: re.Pattern[str], fence: str, indent: re.Pattern[str]
) -> tuple[tuple[int, int] | None, bool]:
    """Return where the closing fence of a block of Python stands, and if that is certain."""
    first = closing.search(text, start)
    if first is None or first.start() == start:
        lexical = first.span(1) if first else _bare_fence(text, start, closing, fence)
        return lexical, True
    found = _bare_fence(text, start, closing, fence)
    if found is None:
        return first.span(1), False
    if first.start(1) < found[0] and not is_python(_without_indent(text[start : found[0]], indent)):
        return first.span(1), True  # the string that holds it is none
    return found, True


def _bare_fence(
    text: str, start: int, closing: re.Pattern[str], fence: str
) -> tuple[int, int] | None:
    """Return the first closing fence outside strings and comments, or None."""
    for at, word in bare_positions(text, start):
        if word[0] == "`" and fence[0] == "`" and len(word) >= len(fence):
            return at, at + len(word)
        if word == "\n" and (match := closing.match(text, at + 1)):
            return match.span(1)
    return None


def _other_closing(
    text: str, start: int, closing: re.Pattern[str], language: str
) -> tuple[int, int] | None:
    """Return where the closing fence of a block of another language stands, or None."""
    for match in closing.finditer(text, start):
        nests = language in NESTING and (language or text[start : match.start()].strip())
        opens = not nests and _opens_known(text, match.start(1))
        if opens or _LINE_REST.match(text, match.end()):
            return match.span(1)
    return None


def _indent_of(line: str) -> re.Pattern[str]:
    """Return the pattern of what the lines of a block have in front, given its first line's."""
    if ">" in line:
        return re.compile(r"^[ \t]*>[ \t]?", re.MULTILINE)
    return re.compile(rf"^[ \t]{{1,{max(1, len(line))}}}" if line else r"(?!)", re.MULTILINE)


def _without_indent(content: str, indent: re.Pattern[str]) -> str:
    return indent.sub("", content)
