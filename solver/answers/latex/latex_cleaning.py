"""Removes from LaTeX what does not change what it says: styles, colors, spacing, invisible text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from ..not_exact_error import NotExactError
from . import latex_commands as commands
from .latex_tokens import Kind, Node

ORDINALS = ("st", "nd", "rd", "th")
_UNIT = Node(Kind.WORD, "unit", worded=True)
_MOD = Node(Kind.COMMAND, "\\bmod")
_DEGREE = Node(Kind.SIGN, "°")


def clean(nodes: Sequence[Node], worded: bool = False) -> list[Node]:
    """Return the nodes that matter.

    Styles give way to what they hold, with its letters marked as words inside `\\text`. Commands of
    arithmetic hold their arguments. `{a \\over b}` becomes `\\frac{a}{b}`, `mod` in any type
    `\\bmod`, a fraction of units one word, degrees the sign of a degree.

    Raises:
        NotExactError: if an argument is missing, or an environment is not only a layout.
    """
    return _Cleaner(nodes, worded).run()


class _Cleaner:
    def __init__(self, nodes: Sequence[Node], worded: bool) -> None:
        self.nodes = list(nodes)
        self.worded = worded
        self.position = 0
        self.out: list[Node] = []

    def run(self) -> list[Node]:
        while self.position < len(self.nodes):
            node = self._take()
            if node.kind is Kind.COMMAND:
                self._command(commands.SPELLED.get(node.text, node.text))
            elif node.kind is Kind.GROUP:
                self._group(node)
            elif node.is_sign("^", "_"):
                self._script(node)
            elif node.kind is Kind.WORD and node.text.lower() in ("mod", "modulo"):
                self.out.append(_MOD)
            else:
                text = "_" if node.text == "\\_" else node.text
                self.out.append(replace(node, text=text, worded=self.worded))
        return _infix(self.out)

    def _take(self) -> Node:
        self.position += 1
        return self.nodes[self.position - 1]

    def _peek(self) -> Node | None:
        """Return the next node that is not a space, or None."""
        for index in range(self.position, len(self.nodes)):
            if self.nodes[index].kind is not Kind.SPACE:
                return self.nodes[index]
        return None

    def _skip_spaces(self) -> None:
        while self.position < len(self.nodes) and self.nodes[self.position].kind is Kind.SPACE:
            self.position += 1

    def _braced(self) -> tuple[Node, ...] | None:
        """Take the next node if it is a group, and return its content."""
        node = self._peek()
        if node is None or node.kind is not Kind.GROUP:
            return None
        self._skip_spaces()
        return self._take().args[0]

    def _bracketed(self) -> list[Node] | None:
        """Take an optional argument in square brackets, and return its content."""
        node = self._peek()
        if node is None or not node.is_sign("["):
            return None
        for end in range(self.position, len(self.nodes)):
            if self.nodes[end].is_sign("]"):
                self._skip_spaces()
                content = self.nodes[self.position + 1 : end]
                self.position = end + 1
                return content
        return None

    def _argument(self, name: str) -> tuple[Node, ...]:
        """Take an argument: a group or, as in TeX, one digit or one command; return it cleaned."""
        braced = self._braced()
        if braced is not None:
            return tuple(clean(braced, self.worded))
        node = self._peek()
        if node is None or node.kind not in (Kind.NUMBER, Kind.WORD, Kind.COMMAND):
            raise NotExactError(f"{name} lacks an argument")
        self._skip_spaces()
        if node.kind is Kind.COMMAND:
            return tuple(clean([self._take()], self.worded))
        if not node.text[0].isalnum() or (node.kind is Kind.NUMBER and "." in node.text):
            raise NotExactError(f"{name} lacks an argument")
        first, rest = node.text[0], node.text[1:]
        self.nodes[self.position] = replace(node, text=rest)
        self.position += not rest
        return (Node(node.kind, first, worded=self.worded),)

    def _command(self, name: str) -> None:
        if name in commands.SHOWN_AFTER:
            self.out += self._shown(name)
        elif name in commands.HIDDEN:
            self._bracketed()
            self._braced()
        elif name in commands.SWITCHES:
            node = self._peek()
            if name in ("\\left", "\\right", "\\middle") and node and node.is_sign("."):
                self._skip_spaces()
                self._take()
        elif name in commands.DIMENSIONS:
            self._dimension()
        elif name in commands.QUANTITIES:
            self._quantity(name)
        elif name in commands.ARITIES:
            self._arithmetic(name)
        elif name in commands.DEGREES:
            self.out.append(_DEGREE)
        elif name in ("\\begin", "\\end"):
            self._environment(name)
        elif name in ("\\overset", "\\stackrel"):
            above, shown = self._argument(name), self._argument(name)
            plain = len(shown) == 1 and shown[0].is_sign("=") and not _asks(above)
            self.out.append(shown[0] if plain else Node(Kind.COMMAND, name, (above, shown)))
        else:
            kind = Kind.COMMAND if name.startswith("\\") and name[1].isalpha() else Kind.SIGN
            self.out.append(Node(kind, name, worded=self.worded))

    def _shown(self, name: str) -> list[Node]:
        """Return what a style shows; a style without a group, as in `\\mathbf 42`, is left out."""
        before = self.position
        while self._bracketed() is not None:
            pass
        for _ in range(commands.SHOWN_AFTER[name]):
            self._braced()
        content = self._braced()
        if content is None:
            self.position = before
            return []
        shown = clean(content, self.worded or name in commands.WORDED)
        return _explicit_comma(shown) or shown

    def _group(self, group: Node) -> None:
        content = clean(group.args[0], self.worded)
        if comma := _explicit_comma(content):
            self.out += comma
        elif (
            all(node.kind is Kind.SPACE for node in content)
            or any(node.kind is Kind.WORD and node.worded for node in content)
            or (_is_number(content) and self._beside_digits())
        ):
            self.out += content
        else:
            self.out.append(Node(Kind.GROUP, args=(tuple(content),)))

    def _beside_digits(self) -> bool:
        """Return True if a number stands directly before or after, so that digits run on."""
        after = self.nodes[self.position : self.position + 1]
        if after and after[0].kind is Kind.GROUP:
            after = list(after[0].args[0])
        return _is_number(self.out[-1:]) or _is_number(after)

    def _script(self, mark: Node) -> None:
        """Read a superscript or subscript: a degree, an ordinal's ending, or mathematics."""
        node = self._peek()
        content = None
        if node and node.kind is Kind.GROUP:
            content = clean(self._braced() or (), self.worded)
        elif node and node.kind is Kind.COMMAND and node.text in commands.SHOWN_AFTER:
            self._skip_spaces()
            content = self._shown(self._take().text)
        elif node and node.kind is Kind.COMMAND and node.text in commands.DEGREES:
            return  # the command itself becomes a degree
        elif node and node.is_sign("°"):
            return
        if content is None:
            self.out.append(replace(mark, worded=self.worded))
            return
        core = [node for node in content if node.kind is not Kind.SPACE]
        if mark.text == "^" and core and core[0].is_sign("°"):
            self.out += core
        elif mark.text == "^" and len(core) == 1 and core[0].text in ORDINALS:
            self.out += [replace(core[0], worded=True)]
        else:
            self.out += [mark, Node(Kind.GROUP, args=(tuple(content),))]

    def _dimension(self) -> None:
        for wanted in (Kind.SIGN, Kind.NUMBER, Kind.WORD):
            node = self._peek()
            if node and node.kind is wanted and (wanted is not Kind.SIGN or node.text in "+-"):
                self._skip_spaces()
                self._take()

    def _quantity(self, name: str) -> None:
        self._bracketed()
        if name in ("\\qty", "\\SI"):
            self.out += self._argument(name)
        unit = self._braced()
        if unit is None:
            raise NotExactError(f"{name} lacks an argument")
        self.out.append(Node(Kind.SPACE, " "))
        for node in unit:
            if node.kind in (Kind.COMMAND, Kind.WORD):
                self.out.append(Node(Kind.WORD, node.text.lstrip("\\") or "%", worded=True))

    def _arithmetic(self, name: str) -> None:
        node = self._peek()
        if name in ("\\pmod", "\\pod") and node and node.kind is Kind.NUMBER:
            self._skip_spaces()
            self.out.append(Node(Kind.COMMAND, "\\pmod", ((self._take(),),)))
            return
        index = self._bracketed() if name == "\\sqrt" else None
        args = tuple(self._argument(name) for _ in range(commands.ARITIES[name]))
        if name in commands.FRACTIONS:
            name = "\\frac"
            if all(map(_is_unit, args)):
                self.out.append(_UNIT)
                return
        elif name in commands.BINOMIALS:
            name = "\\binom"
        elif name == "\\pod":
            name = "\\pmod"
        if index is not None:
            args += (tuple(clean(index)),)
        self.out.append(Node(Kind.COMMAND, name, args))

    def _environment(self, name: str) -> None:
        words = self._braced() or ()
        environment = "".join(node.text for node in words)
        if f"\\{environment}" not in commands.ENVIRONMENTS:
            raise NotExactError(f"it holds the environment {environment}")
        if name == "\\begin":
            self._bracketed()
            if environment in ("array", "tabular", "alignat", "alignedat", "minipage"):
                self._braced()


def _infix(nodes: list[Node]) -> list[Node]:
    """Return the nodes with `a \\over b` and `a \\choose b` as a command with two arguments."""
    found = [i for i, node in enumerate(nodes) if node.text in ("\\over", "\\choose")]
    if not found:
        return nodes
    at = found[0]
    if len(found) > 1:
        raise NotExactError("it holds \\over twice")
    name = "\\frac" if nodes[at].text == "\\over" else "\\binom"
    return [Node(Kind.COMMAND, name, (tuple(nodes[:at]), tuple(nodes[at + 1 :])))]


def _explicit_comma(nodes: Sequence[Node]) -> list[Node]:
    """Return the comma that groups digits if the nodes are one in braces or in a style."""
    one = len(nodes) == 1 and nodes[0].is_sign(",", "{,}")
    return [Node(Kind.SIGN, "{,}")] if one else []


def _is_number(nodes: Sequence[Node]) -> bool:
    return len(nodes) == 1 and nodes[0].kind is Kind.NUMBER


def _is_unit(nodes: Sequence[Node]) -> bool:
    """Return True for words and their powers, such as the parts of a speed in km/h^2."""
    word = False
    for index, node in enumerate(nodes):
        power = word and (node.is_sign("^") or (index > 0 and nodes[index - 1].is_sign("^")))
        word |= node.kind is Kind.WORD and node.worded
        if not (power or node.kind is Kind.SPACE or (node.kind is Kind.WORD and node.worded)):
            return False
    return word


def _asks(nodes: Sequence[Node]) -> bool:
    return any(node.is_sign("?", "!") for node in nodes)
