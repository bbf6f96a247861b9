"""Finds the value that a box states: the right side of its last equality, without words."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

from .answer_words import (
    CLAUSES,
    CONCLUSIONS,
    FUNCTIONS,
    RELATION_WORDS,
    changing_word,
    computing_words,
    qualifying_word,
)
from .exact_values import exact_value
from .latex import latex_commands as commands
from .latex.latex_cleaning import ORDINALS
from .latex.latex_tokens import ROW, WIDE_SPACES, Kind, Node
from .latex_arithmetic import parse_expression
from .not_exact_error import NotExactError

_OPENING, _CLOSING = ("(", "[", "\\{", "\\langle"), (")", "]", "\\}", "\\rangle")
_LIMITS = ("\\lim", "\\limsup", "\\liminf", "lim", "limsup", "liminf")
_PUNCTUATION = (",", ".", ":", ";", "'", '"', "-", "/", "*", "?", "!", "(", ")", "[", "]", "&")
_Nodes = Sequence[Node]


def stated_value(nodes: _Nodes) -> Fraction:
    """Return the exact value that cleaned nodes state.

    A box is `[introduction] [name =]* value [words] [modulus]`: words of an introduction and units
    go unless they change the number; of equalities the right side of the last counts. With a
    modulus as a remark, `a \\pmod m`, the value must be the least residue.

    Raises:
        NotExactError: if it states several values, a bound, or none that is exact.
    """
    nodes = _without_introduction(_without_label(_without_rows(_trimmed(nodes))))
    if len(nodes) == 1 and nodes[0].kind is Kind.GROUP:
        return stated_value(nodes[0].args[0])
    parts, relations = _split(nodes)
    if not relations and _encloses(nodes) and _split(nodes[1:-1])[1]:
        return stated_value(nodes[1:-1])  # (x = 42)
    if relations:
        _check_names(parts[:-1], relations[-1])
    if relations and relations[-1] == "equals":
        parts[-1] = _trimmed(parts[-1])
        if parts[-1] and parts[-1][0].text == "to":
            parts[-1] = parts[-1][1:]
    return _value(parts[-1], bool(relations) and relations[-1] == "\\equiv")


def _trimmed(nodes: _Nodes) -> list[Node]:
    """Return the nodes without spaces, decorations and final punctuation around them."""
    start, end = 0, len(nodes)
    while start < end and (
        nodes[start].kind is Kind.SPACE
        or nodes[start].text in commands.DECORATIONS
        or nodes[start].is_sign(ROW, "&", '"')
    ):
        start += 1
    while start < end and (
        nodes[end - 1].kind is Kind.SPACE
        or nodes[end - 1].text in commands.DECORATIONS
        or nodes[end - 1].is_sign(ROW, "&", '"', ".", ",", ";", ":")
    ):
        end -= 1
    return list(nodes[start:end])


def _without_rows(nodes: list[Node]) -> list[Node]:
    """Return the rows of a layout as one, if each after the first goes on with a relation."""
    kept: list[Node] = []
    for index, node in enumerate(nodes):
        if node.is_sign(ROW):
            following = _trimmed(nodes[index:])
            if not following or not _relation(following[0], False):
                raise NotExactError("it holds several rows")
        elif not node.is_sign("&", '"'):
            kept.append(node)
    return kept


def _without_label(nodes: list[Node]) -> list[Node]:
    """Return the nodes without the letter of a multiple choice before them, as `(D)` or `D.`."""
    core = [(i, node) for i, node in enumerate(nodes) if node.kind is not Kind.SPACE]
    opened = bool(core) and core[0][1].is_sign("(")
    letter, closing = (core[opened : opened + 2] + [(0, Node(Kind.SPACE))] * 2)[:2]
    if letter[1].kind is not Kind.WORD or letter[1].text not in "ABCDEFGHIJ":
        return nodes
    if not closing[1].is_sign(")", *(() if opened else (".", ":"))):
        return nodes
    return _trimmed(nodes[closing[0] + 1 :])


def _without_introduction(nodes: list[Node]) -> list[Node]:
    """Return the nodes after the words that a colon or comma ends: `Answer:`, `Therefore,`."""
    end = 0
    for index, node in enumerate(nodes):
        colon = node.is_sign(":")
        if colon or (node.is_sign(",") and all(_is_word(nodes, i) for i in _words(nodes[:index]))):
            end = index + 1
        elif node.kind not in (Kind.WORD, Kind.SPACE) and not node.is_sign(".", "'", "(", ")", "-"):
            break
    introduction = _phrase(nodes[:end])
    if word := changing_word(introduction):
        raise NotExactError(f'the word "{word}" before the number changes it')
    return _trimmed(nodes[end:])


def _words(nodes: _Nodes) -> list[int]:
    return [index for index, node in enumerate(nodes) if node.kind is Kind.WORD]


def _phrase(nodes: _Nodes) -> str:
    return "".join(" " if node.kind is Kind.SPACE else node.text for node in nodes)


def _is_word(nodes: _Nodes, index: int) -> bool:
    """Return True if a node is a word rather than a product of variables.

    Inside `\\text` all are; outside, words of four letters that stand apart, and words in
    scripts that mathematics does not take its letters from.
    """
    node = nodes[index]
    if node.kind is not Kind.WORD:
        return False
    before = nodes[index - 1] if index else None
    if node.text.lower() in FUNCTIONS and any(
        after.text in _OPENING for after in nodes[index + 1 : index + 2]
    ):
        return False
    if node.worded or (
        before is not None
        and ((before.kind is Kind.NUMBER and node.text in ORDINALS) or before.is_sign("°"))
    ):
        return True
    if any(0x400 <= ord(char) < 0x1D400 for char in node.text):
        return True
    apart = all(
        i < 0
        or i >= len(nodes)
        or nodes[i].kind is Kind.SPACE
        or nodes[i].is_sign(*_PUNCTUATION[:6], "(", ")")
        for i in (index - 1, index + 1)
    )
    return apart and len(node.text) >= 4 and node.text.lower() not in FUNCTIONS


def _relation(node: Node, word: bool) -> str | None:
    """Return the relation that a node is, if the same value stands on both of its sides."""
    if node.is_sign("=", "==", ":="):
        return "="
    if node.is_sign("=>"):
        return "\\implies"
    if node.kind is Kind.COMMAND and node.text in commands.EQUALITIES:
        return node.text
    if word and node.kind is Kind.WORD and node.text.lower() in RELATION_WORDS:
        return "equals" if node.text.lower() in ("equals", "equal") else "is"
    return None


def _depths(nodes: _Nodes) -> list[int]:
    """Return how many brackets are open at each node.

    Raises:
        NotExactError: if they do not match.
    """
    depths, depth = [], 0
    for node in nodes:
        depth -= node.text in _CLOSING
        depths.append(depth)
        depth += node.text in _OPENING
        if depth < 0:
            break
    if depth:
        raise NotExactError("its brackets do not match")
    return depths


def _encloses(nodes: _Nodes) -> bool:
    depths = _depths(nodes)
    return (
        len(nodes) > 2
        and nodes[0].is_sign("(")
        and nodes[-1].is_sign(")")
        and min(depths[1:-1], default=0) > 0
    )


def _split(nodes: list[Node]) -> tuple[list[list[Node]], list[str]]:
    """Return what stands between the equalities outside brackets, and the equalities."""
    parts: list[list[Node]] = [[]]
    relations: list[str] = []
    limit = any(node.text in _LIMITS for node in nodes)
    for index, (node, depth) in enumerate(zip(nodes, _depths(nodes), strict=True)):
        alone = _is_word(nodes, index) or _stands_apart(nodes, index)
        if depth == 0 and (relation := _relation(node, alone)):
            parts.append([])
            relations.append(relation)
            continue
        if depth == 0 and _compares(node, parts[-1]) and not (limit and _is_arrow(node)):
            raise NotExactError(f"it holds the relation {node.text}")
        if node.is_sign("!="):  # 5!=120
            parts[-1].append(Node(Kind.SIGN, "!"))
            parts.append([])
            relations.append("=")
            continue
        parts[-1].append(node)
    return parts, relations


def _stands_apart(nodes: _Nodes, index: int) -> bool:
    return all(0 <= i < len(nodes) and nodes[i].kind is Kind.SPACE for i in (index - 1, index + 1))


def _is_arrow(node: Node) -> bool:
    return node.text in commands.ARROWS or node.is_sign("->")


def _compares(node: Node, before: _Nodes) -> bool:
    if node.is_sign("!="):
        return not before or not (before[-1].kind is Kind.NUMBER or before[-1].text == ")")
    return node.text in commands.RELATIONS or node.is_sign("<", ">", "<=", ">=", "->")


def _check_names(parts: Sequence[_Nodes], relation: str) -> None:
    """Check that what stands left of the last equality names or computes one value.

    Raises:
        NotExactError: if it lists several, or holds a condition.
    """
    for position, part in enumerate(parts):
        depths = _depths(part)
        if any(d == 0 and n.is_sign(",", ";", "{,}") for n, d in zip(part, depths, strict=True)):
            raise NotExactError("it makes several statements")
        phrase = _phrase(part)
        words = "".join(
            " " if node.kind is Kind.SPACE or not _is_word(part, index) else node.text
            for index, node in enumerate(part)
        )
        if word := qualifying_word(phrase if position == 0 else words):
            raise NotExactError(f'the word "{word}" qualifies it')
        if position and (_separates(part) or _clauses(part)):
            raise NotExactError("it makes several statements")
    first = parts[0]
    clauses = _clauses(first)
    if (
        len(clauses) == 1
        and clauses == _words(first)[:1]
        and first[clauses[0]].text.lower() in CONCLUSIONS
    ):
        clauses = []  # So x = 42
    if clauses and relation not in ("is", "equals"):
        before = any(node.kind is Kind.NUMBER for node in first[: clauses[-1]])
        names = [i for i in _words(first) if i > clauses[-1] and not _is_word(first, i)]
        if before or names:
            raise NotExactError("its equality may be a condition")


def _clauses(nodes: _Nodes) -> list[int]:
    """Return where words stand that begin a clause."""
    return [i for i in _words(nodes) if nodes[i].text.lower() in CLAUSES and _is_word(nodes, i)]


def _separates(part: _Nodes) -> bool:
    """Return True if space sets two statements apart: `42 \\quad y` or `42 y`."""
    part = _trimmed(part)
    before: Node | None = None  # the last node that is no space
    spaces: list[str] = []
    for index, node in enumerate(part):
        if node.kind is Kind.SPACE:
            spaces.append(node.text)
            continue
        if spaces and before is not None and not _is_word(part, index):
            if any(space in WIDE_SPACES for space in spaces):
                return True
            if node.kind is Kind.WORD and before.kind is Kind.NUMBER:
                return True
        before, spaces = node, []
    return False


def _value(nodes: _Nodes, congruent: bool) -> Fraction:
    """Return the value of what stands right of the last equality."""
    nodes = _without_label(_trimmed(nodes))
    start = 0
    while start < len(nodes) and (
        nodes[start].kind is Kind.SPACE
        or _is_word(nodes, start)
        or (start and nodes[start].is_sign(".", ":", "'", ","))
    ):
        start += 1
    introduction, nodes = _phrase(nodes[:start]), nodes[start:]
    end = next((i for i in range(len(nodes)) if _begins_words(nodes, i)), len(nodes))
    unit = _phrase(nodes[end:])
    for word in (changing_word(introduction), changing_word(unit)):
        if word:
            raise NotExactError(f'the word "{word}" beside the number changes it')
    if word := computing_words(introduction, unit):
        raise NotExactError(f'the words before the number, up to "{word}", change it')
    _check_unit(nodes, end)
    core = _trimmed(nodes[:end])
    while end < len(nodes) and core and core[-1].is_sign("-", "*", "/", ".", ","):
        core = _trimmed(core[:-1])
    if not core:
        raise NotExactError("it holds no number")
    if any(node.text in WIDE_SPACES for node in core) or core[0].is_sign("["):
        raise NotExactError("it holds more than a number")
    return _residue(core, congruent)


def _begins_words(nodes: _Nodes, index: int) -> bool:
    if _is_word(nodes, index):
        return True
    following = index + 1
    while following < len(nodes) and nodes[following].kind is Kind.SPACE:
        following += 1
    return nodes[index].is_sign("(", "[") and (
        following < len(nodes) and _is_word(nodes, following)
    )


def _check_unit(nodes: _Nodes, start: int) -> None:
    """Check that from `start` on there are words only, and powers of units.

    Raises:
        NotExactError: if something else follows, as another number or a variable.
    """
    everywhere = "for all" in _phrase(nodes[start:])
    exponent = False
    for index in range(start, len(nodes)):
        node = nodes[index]
        if exponent:
            exponent = node.is_sign("-", "+")
            fits = exponent or node.kind in (Kind.GROUP, Kind.NUMBER)
        elif node.is_sign("^"):
            exponent = fits = True
        else:
            fits = (
                node.kind is Kind.SPACE
                or (node.kind is Kind.WORD and (everywhere or _is_word(nodes, index)))
                or node.is_sign(*_PUNCTUATION, "{,}", "°")
                or node.text in commands.DECORATIONS
            )
        if not fits:
            raise NotExactError("something else than words follows the number")


def _residue(core: list[Node], congruent: bool) -> Fraction:
    """Return the value of an expression, which a remark on the modulus may follow."""
    at = next((i for i, n in enumerate(core) if n.text in ("\\pmod", "\\bmod")), None)
    if at is None:
        return _evaluated(core)
    bracket = next((i for i in range(at - 1, -1, -1) if core[i].kind is not Kind.SPACE), None)
    remark = bracket is not None and core[bracket].is_sign("(")
    if core[at].text == "\\pmod":
        value, modulus = core[:at], list(core[at].args[0])
        if core[at + 1 :]:
            raise NotExactError("something follows its modulus")
    elif bracket is not None and remark and core[-1].is_sign(")"):
        value, modulus = core[:bracket], core[at + 1 : -1]
    elif congruent:
        value, modulus = core[:at], core[at + 1 :]
    else:
        return _evaluated(core)
    found, least = _evaluated(value), _evaluated(modulus)
    if least.denominator != 1 or not 0 <= found < least:
        raise NotExactError("it is not the least residue of its modulus")
    return found


def _evaluated(nodes: _Nodes) -> Fraction:
    return exact_value(parse_expression(nodes))
