"""Cuts LaTeX into tokens and nests its groups, in time proportional to its length."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum

from ..not_exact_error import NotExactError

MAX_DEPTH = 40
"""Depth of nested groups and brackets above which a text is refused."""


class Kind(StrEnum):
    """The kind of a node."""

    NUMBER = "number"
    WORD = "word"
    COMMAND = "command"
    SIGN = "sign"
    SPACE = "space"
    GROUP = "group"


@dataclass(frozen=True, slots=True)
class Node:
    """A token, a group in braces, or a command with its arguments.

    Attributes:
        kind: see `Kind`.
        text: its characters; "" for a group; a newline or a plain space for a run of white space.
        args: arguments of a command; the one content of a group.
        worded: True inside `\\text` and its like, where letters are words.
    """

    kind: Kind
    text: str = ""
    args: tuple[tuple[Node, ...], ...] = ()
    worded: bool = False

    def is_sign(self, *signs: str) -> bool:
        """Return True if this is one of the signs."""
        return self.kind is Kind.SIGN and self.text in signs


_TOKEN = re.compile(
    r"""(?P<number>\d+(?:\.\d+)?|\.\d+)
    |(?P<word>[^\W\d_]+)
    |(?P<space>\s+|~|\\[,;:!>/\ \-]|\\(?:thinspace|space|medspace|thickspace|negthinspace|enspace
        |enskip|quad|qquad|nobreakspace|hfill|hfil|hss)(?![a-zA-Z])|\\(?=\s|$))
    |(?P<row>\\\\(?:\s*\[[^\[\]]{0,12}\])?|\\(?:newline|par|cr)(?![a-zA-Z]))
    |(?P<mark>\\[()\[\]$]|\$)
    |(?P<command>\\[a-zA-Z]+(?:\*(?=\s*[{\[]))?|\\[%\#&@"'^=.`])
    |(?P<sign>\\[{}|_]|[<>!:=]=|=>|->|.)""",
    re.VERBOSE,
)
WIDE_SPACES = ("\\quad", "\\qquad", "\\enskip", "\\enspace")
ROW = "\\\\"


def read_nodes(text: str) -> list[Node]:
    """Return the nodes of a LaTeX text, groups nested and formula marks left out.

    Raises:
        NotExactError: if the braces do not match, or are nested deeper than `MAX_DEPTH`.
    """
    levels: list[list[Node]] = [[]]
    for match in _TOKEN.finditer(text):
        token = match[0]
        if token == "{":
            levels.append([])
            if len(levels) > MAX_DEPTH:
                raise NotExactError("it is nested too deeply")
        elif token == "}":
            content = levels.pop()
            if not levels:
                raise NotExactError("its braces do not match")
            levels[-1].append(Node(Kind.GROUP, args=(tuple(content),)))
        elif match.lastgroup == "row":
            levels[-1].append(Node(Kind.SIGN, ROW))
        elif match.lastgroup == "mark":
            levels[-1].append(Node(Kind.SPACE, " "))
        else:
            kind = Kind(match.lastgroup or "sign")
            if kind is Kind.SPACE and not token.strip():
                token = "\n" if "\n" in token else " "
            levels[-1].append(Node(kind, token))
    if len(levels) > 1:
        raise NotExactError("its braces do not match")
    return levels[0]
