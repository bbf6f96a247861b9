"""The lexical structure of Python code, as far as it decides where a piece of code ends."""

from __future__ import annotations

import ast
import re
import textwrap
import warnings
from collections.abc import Iterator
from itertools import islice

# A token that matters: a string from its opening quote, a comment, a line break, a run of
# backticks, or a backslash with the character that it protects.
_TOKEN = re.compile(r'"""|\'\'\'|["\'#\n]|`{3,}|\\.', re.DOTALL)
_STRING_END = {
    quote: re.compile(rf"(?:\\.|(?!{quote}).)*?{quote}", re.DOTALL) for quote in ('"""', "'''")
} | {
    quote: re.compile(rf"(?:\\.|[^\\{quote}\n])*(?:{quote}|(?=\n)|\Z)", re.DOTALL)
    for quote in "\"'"
}
_TELLING = (ast.Import, ast.ImportFrom, ast.FunctionDef, ast.ClassDef, ast.For, ast.While, ast.With)
_PROMPT = re.compile(r"(?:>>>|\.\.\.)(?: |$)|In \[\d+\]: ?|\s+\.\.\.: ?")
_FIRST_PROMPT = re.compile(r"\s*(?:>>> |In \[\d+\]: )")
_LINE_END = re.compile(r"[^\n]*")


MAX_SHOWN = 20_000

CALLS_AHEAD = 8
"""Number of following calls that may turn out to stand in a string of the code before them."""


def horizon(text: str, start: int, mark: re.Pattern[str], count: int = CALLS_AHEAD) -> int:
    """Return how far to look for the end of the code at `start`: to the mark behind `count` others.

    The limit keeps the time linear if a model repeats the beginning of a call without end.
    """
    marks = (match.start() for match in mark.finditer(text, start) if match[0])
    return next(islice(marks, count, None), len(text))


def is_python(code: str) -> bool:
    """Return True if the code is a Python module; IPython's magics are not."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            ast.parse(code)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    return True


def shows_code(code: str) -> bool:
    """Return True if text can be nothing but Python: it imports, defines, loops or prints.

    Of longer texts than `MAX_SHOWN` characters that is not said.
    """
    if len(code) > MAX_SHOWN or not is_python(code):
        return False
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return any(map(_is_telling, ast.walk(ast.parse(code))))


def _is_telling(node: ast.AST) -> bool:
    if isinstance(node, ast.Call):
        return isinstance(node.func, ast.Name) and node.func.id == "print"
    return isinstance(node, _TELLING)


def bare_positions(text: str, start: int) -> Iterator[tuple[int, str]]:
    """Yield position and text of line breaks and runs of backticks outside strings and comments.

    An open triple-quoted string ends the iteration after the pair (position of its quotes, quotes).
    """
    at = start
    while token := _TOKEN.search(text, at):
        at, word = token.end(), token[0]
        if word in _STRING_END:
            end = _STRING_END[word].match(text, at)
            if end is None:
                yield token.start(), word
                return
            at = end.end()
        elif word == "#":
            end = _LINE_END.match(text, at)
            assert end is not None
            at = end.end()
        elif word == "\\\n":
            yield token.start() + 1, "\n"
        elif word[0] != "\\":
            yield token.start(), word


def meant_code(code: str) -> str:
    """Return the code that was meant by a string argument; nearly always the string itself.

    What is no Python as it stands, and is after one of these changes, is changed: `\\n` and other
    escapes of a code written in one line become characters; a line break in a one-line string
    becomes `\\n` again; common indentation is removed; escaped quotes become quotes.
    """
    if is_python(code):
        return code
    candidates = []
    if "\\n" in code and "\n" not in code:
        candidates.append(_unescaped(code))
    elif "\n" in code:
        candidates += [textwrap.dedent(code).lstrip("\n"), _rejoined(code)]
        candidates.append(re.sub(r"\\([\"'])", r"\1", code))
    return next((one for one in candidates if is_python(one)), code)


def block_code(code: str) -> str:
    """Return the code that was meant by a block of Python; nearly always its content itself.

    Common indentation is removed if the content is Python only then. Of a session with the
    interpreter's prompts, what was typed is kept.
    """
    shorter = textwrap.dedent(code)
    if _FIRST_PROMPT.match(shorter):
        lines = (line for line in shorter.splitlines(keepends=True))
        typed = [_PROMPT.sub("", line, count=1) for line in lines if _PROMPT.match(line)]
        return "".join(typed)
    return shorter if shorter != code and not is_python(code) and is_python(shorter) else code


_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", '"': '"', "'": "'", "\\": "\\"}


def _unescaped(code: str) -> str:
    return re.sub(r"\\([ntr\"'\\])", lambda escape: _ESCAPES[escape[1]], code)


def _rejoined(code: str) -> str:
    """Return the code with `\\n` for each line break inside a one-line string."""
    string = re.compile(
        r'"""(?:\\.|.)*?"""|\'\'\'(?:\\.|.)*?\'\'\'|#[^\n]*'
        r"|\"(?:\\.|[^\\\"])*\"|'(?:\\.|[^\\'])*'",
        re.DOTALL,
    )

    def join(match: re.Match[str]) -> str:
        triple = match[0].startswith(('"""', "'''"))
        return match[0] if triple else match[0].replace("\n", "\\n")

    return string.sub(join, code)
