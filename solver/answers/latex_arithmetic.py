"""Parses the short exact expressions that boxes contain, such as `2\\cdot 21` or `10^3`.

Grammar, over cleaned nodes without spaces:

    value    = sum [mod power]          before mod the sum is one product without a sign
    sum      = ["-"] product (("+" | "-" | "+-") product)*
    product  = power (("*" | "/") ["-"] power | power)*
    power    = atom ["!"] ["°"] ["^" exponent]
    exponent = ["-"] atom
    atom     = number | group | "(" value ")" | "[" value "]" | "|" value "|" | floor | ceiling
             | \\frac | \\binom | \\sqrt | "√" atom | (gcd | lcm | max | min) "(" sum ("," sum)+ ")"

A factor may follow without a sign if it is a bracket, a root, a binomial, a fraction not after a
number (`1\\frac12` is a mixed number), or a number after a factorial; but nowhere after a quotient,
as in `1/2(3)`. Refused as ambiguous too: `3!!`, `2^3^2`, `2^3!`, `--2`, `-5 mod 3`, `7+5 mod 10`.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

from .exact_values import Expression
from .latex.latex_tokens import MAX_DEPTH, Kind, Node
from .not_exact_error import NotExactError

_BRACKETS = {"(": ")", "[": "]", "|": "|", "\\lfloor": "\\rfloor", "\\lceil": "\\rceil"}
_LISTS = ("gcd", "lcm", "max", "min")
_RADICALS = {"\\surd": 2, "\\cuberoot": 3, "\\fourthroot": 4}
_FACTORS = (*_RADICALS, "\\sqrt", "\\binom", "\\frac", "\\abs", "\\floor", "\\ceil")
_MEANINGS = {"|": "absolute", "\\lfloor": "floor", "\\lceil": "ceil"}


def parse_expression(nodes: Sequence[Node]) -> Expression:
    """Return the expression that the nodes are.

    Raises:
        NotExactError: if they are anything else than the grammar's `value`.
    """
    return _parse([node for node in nodes if node.kind is not Kind.SPACE], 0)


def _parse(nodes: list[Node], depth: int) -> Expression:
    if depth > MAX_DEPTH:
        raise NotExactError("it is nested too deeply")
    parser = _Parser([node for node in nodes if node.kind is not Kind.SPACE], depth)
    value = parser.value()
    if parser.peek() is not None:
        parser.refuse()
    return value


class _Parser:
    def __init__(self, nodes: list[Node], depth: int) -> None:
        self.nodes = nodes
        self.depth = depth
        self.position = 0
        self.bars = 0  # absolute values that are open
        self.terms = 0  # of the sum that was read last

    def peek(self) -> Node | None:
        return self.nodes[self.position] if self.position < len(self.nodes) else None

    def sees(self, *texts: str) -> bool:
        node = self.peek()
        return node is not None and node.text in texts

    def take(self) -> Node:
        node = self.peek()
        if node is None:
            raise NotExactError("it ends too early" if self.nodes else "it holds no number")
        self.position += 1
        return node

    def refuse(self) -> None:
        """Raise the error that names the next node."""
        node = self.take()
        before = self.nodes[self.position - 2] if self.position > 1 else None
        if before and before.kind is node.kind is Kind.NUMBER:
            raise NotExactError(f"{before.text} and {node.text} stand side by side")
        if node.is_sign(",", "{,}", ";"):
            raise NotExactError("it is a list")
        raise NotExactError(f"{node.text or 'a group'} in it cannot be evaluated")

    def value(self) -> Expression:
        signed = self.sees("+", "-")
        left = self.sum()
        if not self.sees("\\bmod"):
            return left
        self.take()
        if signed or self.terms > 1:
            raise NotExactError("what mod applies to is open")
        return Expression("remainder", (left, self.power()))

    def sum(self) -> Expression:
        parts: list[Expression] = []
        while True:
            negative = False
            if parts or self.sees("+", "-"):
                sign = self.take().text
                negative = sign == "-"
                if parts and sign == "+" and self.sees("-"):
                    self.take()
                    negative = True
            if self.sees("+", "-"):
                raise NotExactError("two signs follow each other")
            product = self.product()
            parts.append(Expression("negative", (product,)) if negative else product)
            if not self.sees("+", "-"):
                self.terms = len(parts)
                return parts[0] if len(parts) == 1 else Expression("sum", tuple(parts))

    def product(self) -> Expression:
        value = self.power()
        divided = False
        while True:
            if self.sees("*", "/"):
                name = "product" if self.take().text == "*" else "quotient"
                divided |= name == "quotient"
                negative = self.sees("-")
                if negative:
                    self.take()
                factor = self.power()
                factor = Expression("negative", (factor,)) if negative else factor
                value = Expression(name, (value, factor))
            elif self.juxtaposed(value):
                if divided:
                    raise NotExactError("what its quotient divides by is open")
                value = Expression("product", (value, self.power()))
            else:
                return value

    def juxtaposed(self, before: Expression) -> bool:
        """Return True if the next node begins a factor without a multiplication sign."""
        node, last = self.peek(), self.nodes[self.position - 1]
        if node is None:
            return False
        if node.kind is Kind.COMMAND and node.text == "\\frac":
            mixed = before.name == "number" or last.kind is Kind.NUMBER
            return not mixed
        if node.kind is Kind.NUMBER:
            return last.is_sign("!")
        if node.text == "|":
            return self.bars == 0
        return node.text in _FACTORS or (node.text in _BRACKETS and node.text != "|")

    def power(self) -> Expression:
        value = self.atom()
        if self.sees("!"):
            if self.take().worded:
                raise NotExactError("what the ! among words means is open")
            value = Expression("factorial", (value,))
            if self.sees("!"):
                raise NotExactError("it holds a double factorial")
        if self.sees("°"):
            self.take()
        if not self.sees("^"):
            return value
        self.take()
        negative = self.sees("-")
        if self.sees("-", "+"):
            self.take()
        exponent = self.atom()
        if self.sees("^", "!"):
            raise NotExactError("what its exponent extends to is open")
        exponent = Expression("negative", (exponent,)) if negative else exponent
        return Expression("power", (value, exponent))

    def atom(self) -> Expression:
        node = self.take()
        if node.kind is Kind.NUMBER:
            return Expression("number", value=Fraction(node.text))
        if node.kind is Kind.GROUP:
            return _parse(list(node.args[0]), self.depth + 1)
        if node.text in _BRACKETS:
            return self.bracket(node.text)
        if node.kind is Kind.COMMAND and node.args:
            return self.command(node)
        if node.text in _RADICALS:
            index = Expression("number", value=Fraction(_RADICALS[node.text]))
            return Expression("root", (self.nested_atom(), index))
        if node.text.lstrip("\\") in _LISTS:
            return self.list_function(node.text.lstrip("\\"))
        self.position -= 1
        self.refuse()
        raise AssertionError("refuse() raises")

    def nested_atom(self) -> Expression:
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise NotExactError("it is nested too deeply")
        value = self.atom()
        self.depth -= 1
        return value

    def bracket(self, opening: str) -> Expression:
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise NotExactError("it is nested too deeply")
        outer, self.bars = self.bars, int(opening == "|")
        value = self.value()
        if not self.sees(_BRACKETS[opening]):
            if self.peek() is not None:
                self.refuse()
            raise NotExactError("its brackets do not match")
        self.take()
        self.bars = outer
        self.depth -= 1
        name = _MEANINGS.get(opening)
        return Expression(name, (value,)) if name else value

    def command(self, node: Node) -> Expression:
        args = tuple(_parse(list(arg), self.depth + 1) for arg in node.args)
        two = Expression("number", value=Fraction(2))
        if node.text == "\\frac":
            return Expression("quotient", args)
        if node.text == "\\binom":
            return Expression("binomial", args)
        if node.text == "\\sqrt":
            return Expression("root", args if len(args) == 2 else (*args, two))
        if node.text in ("\\abs", "\\floor", "\\ceil"):
            name = {"\\abs": "absolute"}.get(node.text, node.text[1:])
            return Expression(name, args)
        raise NotExactError(f"{node.text} in it cannot be evaluated")

    def list_function(self, name: str) -> Expression:
        """Read `\\gcd(84, 126)` and its like; the arguments of digits only are set apart."""
        opening = self.take()
        closing = {"(": ")", "\\{": "\\}"}.get(opening.text, "")
        parts: list[Expression] = []
        while not closing or not parts or not self.sees(closing):
            if parts and not self.sees(","):
                self.refuse()
            if parts:
                self.take()
            if not closing:
                raise NotExactError(f"{name} is not followed by its arguments in brackets")
            parts.append(self.sum())
        self.take()
        if len(parts) < 2:
            raise NotExactError(f"{name} has one argument")
        return Expression(name, tuple(parts))
