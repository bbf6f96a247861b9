"""Joins the digits of a number that are written in groups."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace

from .latex_tokens import Kind, Node

_SEPARATORS = {
    "comma": re.compile(r",(?:\\[!,] ?)*|(?:\\!)+,(?:\\!)*| ?\{,\}(?:\\[!,])* ?"),
    "space": re.compile(r"(?:\\[,;:!>/ ]|~|\\(?:thin|med|thick)?space| ) ?| \\,"),
    "quote": re.compile(r"'"),
    "underscore": re.compile(r"_"),
}
_PLAIN_COMMA = re.compile(r"(?:\\!)*,.*")
_OPENING, _CLOSING = ("(", "[", "\\{", "\\langle"), (")", "]", "\\}", "\\rangle")


def join_digits(nodes: Sequence[Node], bracketed: bool = False) -> list[Node]:
    """Return the nodes with `1,234`, `1{,}234`, `1\\,234`, `1 234`, `1'234` and `1_234` joined.

    The first group has one to three digits and no leading zero, the others have three, and all are
    separated alike. A plain comma groups nothing in brackets, because `(1,234)` is a pair; the
    bracket of `(mod 1,000)` holds one number and is none of those.

    Args:
        nodes: cleaned nodes.
        bracketed: True if they stand in brackets.
    """
    joined: list[Node] = []
    depth, position = 0, 0
    while position < len(nodes):
        node = nodes[position]
        if node.kind is Kind.NUMBER:
            end, digits = _number(nodes, position, bracketed or depth > 0)
            joined += [replace(node, text=digits)] if digits else nodes[position:end]
            position = end
            continue
        if node.text in _OPENING and not _opens_modulus(nodes, position):
            depth += 1
        elif node.text in _CLOSING:
            depth = max(0, depth - 1)
        inner = bracketed or depth > 0
        args = tuple(tuple(join_digits(arg, inner)) for arg in node.args)
        joined.append(replace(node, args=args) if args else node)
        position += 1
    return list(_without_base_ten(joined))


def _number(nodes: Sequence[Node], start: int, bracketed: bool) -> tuple[int, str | None]:
    """Return the end of the run of numbers at `start`, and its digits if it is one number."""
    groups, separators = [nodes[start].text], []
    end = start + 1
    while end < len(nodes):
        after = end
        while after < len(nodes) and after < end + 5 and _may_separate(nodes[after]):
            after += 1
        if after == len(nodes) or nodes[after].kind is not Kind.NUMBER:
            break
        separator = "".join(node.text for node in nodes[end:after])
        if not separator and groups[-1].isdigit() and nodes[after].text.isdigit():
            groups[-1] += nodes[after].text  # digits in braces: {4}2
        else:
            separators.append(separator)
            groups.append(nodes[after].text)
        end = after + 1
    preceded = start > 0 and nodes[start - 1].is_sign(",", "{,}", ".")
    if not separators:
        return end, groups[0]
    if not preceded and _are_groups(groups) and _alike(separators, bracketed):
        return end, "".join(groups)
    return end, None


def _may_separate(node: Node) -> bool:
    return node.kind is Kind.SPACE or node.is_sign(",", "{,}", "'", "_")


def _are_groups(groups: Sequence[str]) -> bool:
    first, *others = groups
    return (
        first.isdigit()
        and len(first) <= 3
        and first[0] != "0"
        and all(len(group) == 3 and group.isdigit() for group in others)
    )


def _alike(separators: Sequence[str], bracketed: bool) -> bool:
    if bracketed and any(_PLAIN_COMMA.fullmatch(separator) for separator in separators):
        return False
    return any(all(map(form.fullmatch, separators)) for form in _SEPARATORS.values())


def _opens_modulus(nodes: Sequence[Node], position: int) -> bool:
    for node in nodes[position + 1 : position + 4]:
        if node.kind is not Kind.SPACE:
            return node.text == "\\bmod"
    return False


def _without_base_ten(nodes: Sequence[Node]) -> Iterator[Node]:
    """Leave out the subscript of `42_{10}` or `(42)_{10}`, which says what is so anyway."""
    position = 0
    while position < len(nodes):
        yield nodes[position]
        ten = nodes[position + 2 : position + 3]
        if (
            (nodes[position].kind is Kind.NUMBER or nodes[position].is_sign(")"))
            and ten
            and nodes[position + 1].is_sign("_")
            and "".join(node.text for node in (ten[0].args[0] if ten[0].args else ten))
            in ("10", "(10)")
        ):
            position += 2
        position += 1
