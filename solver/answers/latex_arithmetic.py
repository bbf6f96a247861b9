"""Evaluates the short exact expressions that boxes contain, such as `2\\cdot 21` or `10^3`."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from fractions import Fraction

MAX_BITS = 256
"""Size in bits above which an intermediate value is refused; no answer in range needs more."""

MAX_DEPTH = 40

_TOKEN = re.compile(
    r"(?P<number>\d+(?:\.\d*)?|\.\d+)|(?P<command>\\[a-zA-Z]+)|(?P<sign>[-+*/^!(){}])"
)
_FRACTIONS = ("\\frac", "\\dfrac", "\\tfrac", "\\cfrac")
_BINOMIALS = ("\\binom", "\\dbinom", "\\tbinom")
_PRODUCTS = ("*", "\\cdot", "\\times", "\\ast")
_QUOTIENTS = ("/", "\\div")
_REMAINDERS = ("\\bmod", "\\mod")


class NotExactError(ValueError):
    """The text is not an expression with one exact rational value."""


def evaluate(text: str) -> Fraction:
    """Return the exact value of a LaTeX or plain arithmetic expression without spaces.

    Reads decimal numbers, + - * / ^ !, brackets, \\cdot, \\times, \\div, \\bmod, \\frac, \\binom
    and \\sqrt of a square. Ambiguous forms are refused: a number directly before \\frac (a mixed
    number), !! (a double factorial), and a factor without a sign after a quotient, as in 1/2(3).

    Raises:
        NotExactError: if the text is anything else, divides by zero, or exceeds `MAX_BITS`.
    """
    tokens, position = [], 0
    while position < len(text):
        match = _TOKEN.match(text, position)
        if match is None:
            raise NotExactError(text)
        tokens.append(match[0])
        position = match.end()
    parser = _Parser(tokens)
    value = parser.sum()
    if parser.peek():
        raise NotExactError(text)
    return value


def _bounded(value: Fraction) -> Fraction:
    if max(value.numerator.bit_length(), value.denominator.bit_length()) > MAX_BITS:
        raise NotExactError("too large")
    return value


class _Parser:
    def __init__(self, tokens: list[str]) -> None:
        self.tokens = tokens
        self.position = 0
        self.depth = 0

    def peek(self) -> str:
        return self.tokens[self.position] if self.position < len(self.tokens) else ""

    def take(self) -> str:
        token = self.peek()
        self.position += 1
        return token

    def sum(self) -> Fraction:
        value = self.product()
        while self.peek() in ("+", "-"):
            value = value + self.product() if self.take() == "+" else value - self.product()
        return _bounded(value)

    def product(self) -> Fraction:
        value = self.signed()
        divided = False
        while token := self.peek():
            if token in _PRODUCTS:
                self.take()
                value *= self.signed()
            elif token in (*_QUOTIENTS, *_REMAINDERS):
                self.take()
                divisor = self.signed()
                if divisor == 0:
                    raise NotExactError("division by zero")
                value = value / divisor if token in _QUOTIENTS else value % divisor
                divided = True
            elif self.juxtaposed() and not divided:
                value *= self.power()
            else:
                break
        return _bounded(value)

    def juxtaposed(self) -> bool:
        """Return True if the next token begins a factor without a multiplication sign."""
        before, token = self.tokens[self.position - 1], self.peek()
        if token in _FRACTIONS:
            return not before[-1:].isdigit()
        return token in ("(", "\\sqrt", *_BINOMIALS) or (token[:1].isdigit() and before == "!")

    def signed(self) -> Fraction:
        self.depth += 1  # every nested expression passes through here
        if self.depth > MAX_DEPTH:
            raise NotExactError("nested too deeply")
        if self.peek() in ("+", "-"):
            value = self.signed() if self.take() == "+" else -self.signed()
        else:
            value = self.power()
        self.depth -= 1
        return value

    def power(self) -> Fraction:
        value = self.atom()
        if self.peek() == "!":
            self.take()
            value = Fraction(math.factorial(_natural(value, 40)))
            if self.peek() == "!":
                raise NotExactError("double factorial")
        if self.peek() != "^":
            return value
        self.take()
        exponent = self.signed()
        if exponent.denominator != 1 or abs(exponent) > MAX_BITS:
            raise NotExactError("exponent")
        size = max(value.numerator.bit_length(), value.denominator.bit_length())
        if size * abs(exponent.numerator) > 2 * MAX_BITS or (value == 0 and exponent < 0):
            raise NotExactError("power")
        return _bounded(value**exponent.numerator)

    def atom(self) -> Fraction:
        token = self.take()
        if token in ("(", "{"):
            value = self.sum()
            if self.take() != {"(": ")", "{": "}"}[token]:
                raise NotExactError("brackets")
        elif token in _FRACTIONS:
            value = self.pair(_ratio)
        elif token in _BINOMIALS:
            value = self.pair(_choose)
        elif token == "\\sqrt":
            value = _root(self.argument())
        elif token[:1].isdigit() or token[:1] == ".":
            value = Fraction(token.rstrip(".") if token != "." else "x")
        else:
            raise NotExactError(token)
        return value

    def argument(self) -> Fraction:
        """Return the value of a command's argument: a group or, as in TeX, one digit."""
        token = self.peek()
        if token == "{":
            return self.atom()
        if not token[:1].isdigit() or "." in token:
            raise NotExactError(token)
        self.tokens[self.position] = token[1:]
        if not token[1:]:
            self.position += 1
        return Fraction(int(token[0]))

    def pair(self, combine: Callable[[Fraction, Fraction], Fraction]) -> Fraction:
        first = self.argument()
        return combine(first, self.argument())


def _natural(value: Fraction, most: int) -> int:
    if value.denominator != 1 or not 0 <= value <= most:
        raise NotExactError("not a small natural number")
    return value.numerator


def _ratio(above: Fraction, below: Fraction) -> Fraction:
    if below == 0:
        raise NotExactError("division by zero")
    return above / below


def _choose(n: Fraction, k: Fraction) -> Fraction:
    return Fraction(math.comb(_natural(n, MAX_BITS), _natural(k, MAX_BITS)))


def _root(value: Fraction) -> Fraction:
    if value < 0:
        raise NotExactError("root of a negative number")
    above, below = math.isqrt(value.numerator), math.isqrt(value.denominator)
    if above**2 != value.numerator or below**2 != value.denominator:
        raise NotExactError("not a square")
    return Fraction(above, below)
