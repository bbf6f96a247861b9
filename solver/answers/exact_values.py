"""Evaluates expressions exactly, with bounds on the size of numbers and on the work."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction

from .not_exact_error import NotExactError

MAX_BITS = 1 << 17
"""Size in bits above which an intermediate value is refused."""

MAX_WORK = 1 << 19
"""Sum of the sizes in bits of all intermediate values above which an expression is refused."""

_MAX_MODULUS_BITS = 256
_LIST_FUNCTIONS = {"gcd": math.gcd, "lcm": math.lcm}


@dataclass(frozen=True)
class Expression:
    """An operation and what it applies to.

    Attributes:
        name: "number", "negative", "sum", "product", "quotient", "power", "factorial", "binomial",
            "root" (radicand, index), "absolute", "floor", "ceil", "remainder", "gcd", "lcm", "max"
            or "min".
        parts: operands.
        value: the number, if it is one.
    """

    name: str
    parts: tuple[Expression, ...] = ()
    value: Fraction = Fraction(0)


def exact_value(expression: Expression) -> Fraction:
    """Return the value of an expression.

    Raises:
        NotExactError: if it has none, is irrational, or exceeds `MAX_BITS` or `MAX_WORK`.
    """
    return _Evaluation().exact(expression)


class _Evaluation:
    """One evaluation with its account of work."""

    def __init__(self) -> None:
        self.work = 0

    def charge(self, bits: int) -> None:
        self.work += bits
        if bits > MAX_BITS or self.work > MAX_WORK:
            raise NotExactError("it is too large to compute")

    def bounded(self, value: Fraction) -> Fraction:
        self.charge(value.numerator.bit_length() + value.denominator.bit_length())
        return value

    def exact(self, expression: Expression) -> Fraction:
        return self.bounded(self._exact(expression))

    def natural(self, expression: Expression) -> int:
        value = self.exact(expression)
        if value.denominator != 1 or value < 0:
            raise NotExactError("a natural number is needed inside it")
        return value.numerator

    def _exact(self, expression: Expression) -> Fraction:
        name, parts = expression.name, expression.parts
        if name == "number":
            return expression.value
        if name in ("product", "quotient"):
            return self.product(expression)
        if name == "factorial":
            return Fraction(self.falling(self.natural(parts[0]), 0))
        if name == "binomial":
            return Fraction(self.binomial(*map(self.natural, parts)))
        if name == "remainder":
            modulus = self.natural(parts[1])
            if not modulus:
                raise NotExactError("it divides by zero")
            return Fraction(self.modulo(parts[0], modulus))
        if name == "power":
            return self.power(parts[0], self.exact(parts[1]))
        if name in ("floor", "ceil") and _has_decimal(parts[0]):
            raise NotExactError(f"the {name} of a decimal, which may be rounded, is open")
        if name in ("floor", "ceil"):
            return Fraction(self.floor(parts[0], up=name == "ceil"))
        values = [self.exact(part) for part in parts]
        if name in _LIST_FUNCTIONS:
            return Fraction(_LIST_FUNCTIONS[name](*map(_whole, values)))
        if name == "root":
            return self.root(*values)
        if name == "sum":
            return self.total(values)
        if name in ("negative", "absolute"):
            return -values[0] if name == "negative" else abs(values[0])
        return {"max": max, "min": min}[name](values)

    def total(self, values: Sequence[Fraction]) -> Fraction:
        total = Fraction(0)
        for value in values:
            total = self.bounded(total + value)
        return total

    def product(self, expression: Expression) -> Fraction:
        """Return a product or quotient; factorials cancel, and square roots multiply first."""
        factors = list(_factors(expression, 1))
        sides: dict[int, int] = {1: 1, -1: 1}
        rationals, radicands = Fraction(1), []
        factorials: dict[int, list[int]] = {1: [], -1: []}
        for factor, side in factors:
            if factor.name == "factorial":
                factorials[side].append(self.natural(factor.parts[0]))
            elif factor.name == "root" and self.exact(factor.parts[1]) == 2:
                radicand = self.exact(factor.parts[0])
                radicands.append(radicand if side == 1 else self.inverse(radicand))
                if radicand < 0:
                    raise NotExactError("it holds the root of a negative number")
            else:
                value = self.exact(factor)
                rationals = self.bounded(rationals * (value if side == 1 else self.inverse(value)))
        above, below = (sorted(factorials[side], reverse=True) for side in (1, -1))
        for n, k in zip(above, below, strict=False):
            sides[1 if n >= k else -1] *= self.falling(max(n, k), min(n, k))
        longer, side = (above, 1) if len(above) > len(below) else (below, -1)
        for n in longer[min(len(above), len(below)) :]:
            sides[side] *= self.falling(n, 0)
        value = rationals
        for radicand in radicands[1:]:
            radicands[0] = self.bounded(radicands[0] * radicand)
        if radicands:
            value *= self.root(radicands[0], Fraction(2))
        for side in (1, -1):
            self.charge(sides[side].bit_length())
        return value * Fraction(sides[1], sides[-1])

    def floor(self, expression: Expression, up: bool) -> int:
        """Return the floor of an expression, or its ceiling; it may be an irrational root."""
        try:
            value = self.exact(expression)
        except NotExactError:
            radicand, degree = self.radical(expression)
            return self.floor_root(math.floor(radicand), degree) + up
        return math.ceil(value) if up else math.floor(value)

    def radical(self, expression: Expression) -> tuple[Fraction, int]:
        """Return radicand and index of an irrational root; factors are drawn under the root."""
        if expression.name == "root":
            index = self.exact(expression.parts[1])
            if self.exact(expression.parts[0]) >= 0 and index.denominator == 1 and index <= 64:
                return self.exact(expression.parts[0]), index.numerator
        elif expression.name in ("product", "quotient"):
            squared = Fraction(1)
            for factor, side in _factors(expression, 1):
                value, index = factor, Fraction(1)
                if factor.name == "root":
                    value, index = factor.parts[0], self.exact(factor.parts[1])
                found = self.exact(value)
                if found < 0 or index not in (1, 2):
                    break
                power = found if index == 2 else found * found
                squared = self.bounded(squared * (power if side == 1 else self.inverse(power)))
            else:
                return squared, 2
        raise NotExactError("it is not rational")

    def inverse(self, value: Fraction) -> Fraction:
        if value == 0:
            raise NotExactError("it divides by zero")
        return 1 / value

    def falling(self, n: int, k: int) -> int:
        """Return n! / k!, with k <= n."""
        self.charge(int((n - k) * math.log2(n + 2)))
        return math.perm(n, n - k)

    def binomial(self, n: int, k: int) -> int:
        if k > n:
            return 0
        self.charge(int(min(k, n - k) * math.log2(n + 2)))  # bits, or somewhat more
        return math.comb(n, k)

    def power(self, base: Expression, exponent: Fraction) -> Fraction:
        index = Fraction(exponent.denominator)
        if base.name == "root":  # the radicand is raised first, so that (\sqrt 2)^2 is 2
            index *= self.exact(base.parts[1])
            base = base.parts[0]
            if self.exact(base) < 0:
                raise NotExactError("it holds the root of a negative number")
        value = self.exact(base)
        if index != 1 and value < 0:
            raise NotExactError("it holds the root of a negative number")
        if value == 0 and exponent <= 0:
            raise NotExactError("it raises zero to zero or less")
        if value not in (0, 1, -1):
            size = math.log2(max(abs(value.numerator), value.denominator))
            self.charge(int(size * min(abs(exponent.numerator), MAX_BITS + 1)))
            raised = value**exponent.numerator
        else:
            raised = value if exponent.numerator % 2 else value * value
        return raised if index == 1 else self.root(raised, index)

    def root(self, value: Fraction, index: Fraction) -> Fraction:
        if index.denominator != 1 or not 2 <= index <= 64:
            raise NotExactError("it holds a root of an index that is not read")
        degree = index.numerator
        if value < 0:
            if degree % 2 == 0:
                raise NotExactError("it holds the root of a negative number")
            return -self.root(-value, index)
        above, below = (
            self.whole_root(value.numerator, degree),
            self.whole_root(value.denominator, degree),
        )
        return Fraction(above, below)

    def whole_root(self, value: int, degree: int) -> int:
        """Return the root of a natural number, which must be one too."""
        root = self.floor_root(value, degree)
        if root**degree != value:
            raise NotExactError("it holds a root that is not rational")
        return root

    def floor_root(self, value: int, degree: int) -> int:
        """Return the floor of a root; by Newton's method if it is not a square root."""
        root = math.isqrt(value)
        if degree > 2 and value:
            self.charge(64 * value.bit_length())
            root = 1 << -(-value.bit_length() // degree)
            while True:
                following = ((degree - 1) * root + value // root ** (degree - 1)) // degree
                if following >= root:
                    break
                root = following
        return root

    def modulo(self, expression: Expression, modulus: int) -> int:
        """Return the least residue of an expression; powers are reduced as they are computed."""
        name, parts = expression.name, expression.parts
        self.charge(1)
        if modulus.bit_length() <= _MAX_MODULUS_BITS:
            if name == "sum":
                return sum(self.modulo(part, modulus) for part in parts) % modulus
            if name == "negative":
                return -self.modulo(parts[0], modulus) % modulus
            factors = list(_factors(expression, 1)) if name == "product" else []
            if factors and all(side == 1 for _, side in factors):
                residue = 1
                for factor, _ in factors:
                    residue = residue * self.modulo(factor, modulus) % modulus
                return residue
            exponent = self.exact(parts[1]) if name == "power" else Fraction(0)
            if exponent > 0 and exponent.denominator == 1:
                self.charge(exponent.numerator.bit_length() * 8)
                return pow(self.modulo(parts[0], modulus), exponent.numerator, modulus)
        return _whole(self.exact(expression)) % modulus


def _factors(expression: Expression, side: int) -> Iterator[tuple[Expression, int]]:
    """Yield the factors of products and quotients, with -1 for those that divide."""
    pending = [(expression, side)]
    while pending:
        part, side = pending.pop()
        if part.name == "product":
            pending += [(factor, side) for factor in part.parts]
        elif part.name == "quotient":
            pending += [(part.parts[0], side), (part.parts[1], -side)]
        else:
            yield part, side


def _has_decimal(expression: Expression) -> bool:
    pending = [expression]
    while pending:
        part = pending.pop()
        if part.value.denominator != 1:
            return True
        pending += part.parts
    return False


def _whole(value: Fraction) -> int:
    if value.denominator != 1:
        raise NotExactError("a whole number is needed inside it")
    return value.numerator
