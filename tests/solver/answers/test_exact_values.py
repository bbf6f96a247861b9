"""Exact evaluation and its bounds (0.3 s)."""

from __future__ import annotations

import math
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eightfold.solver.answers.box_content import MAX_BOX, integer
from eightfold.solver.answers.exact_values import MAX_BITS, MAX_WORK, Expression, exact_value
from eightfold.solver.answers.not_exact_error import NotExactError


def number(value: int | Fraction) -> Expression:
    return Expression("number", value=Fraction(value))


@given(n=st.integers(0, 400), k=st.integers(0, 400))
def test_binomials_and_factorial_quotients_are_exact(n: int, k: int) -> None:
    assert exact_value(Expression("binomial", (number(n), number(k)))) == math.comb(n, k)
    above, below = (Expression("factorial", (number(value),)) for value in (n, k))
    quotient = Fraction(math.factorial(n), math.factorial(k))
    assert exact_value(Expression("quotient", (above, below))) == quotient


@given(base=st.integers(-50, 50), exponent=st.integers(1, 10**30), modulus=st.integers(1, 10**6))
def test_powers_under_a_modulus_are_exact(base: int, exponent: int, modulus: int) -> None:
    power = Expression("power", (number(base), number(exponent)))
    remainder = Expression("remainder", (power, number(modulus)))
    assert exact_value(remainder) == pow(base, exponent, modulus)


@given(root=st.integers(0, 10**12), index=st.integers(2, 20))
def test_roots_are_exact_or_refused(root: int, index: int) -> None:
    assert exact_value(Expression("root", (number(root**index), number(index)))) == root
    if root > 1:
        with pytest.raises(NotExactError):
            exact_value(Expression("root", (number(root**index + 1), number(index))))


@given(value=st.fractions())
def test_floor_ceiling_and_absolute_value_are_those_of_rationals(value: Fraction) -> None:
    quotient = Expression("quotient", (number(value.numerator), number(value.denominator)))
    assert exact_value(Expression("floor", (quotient,))) == math.floor(value)
    assert exact_value(Expression("ceil", (quotient,))) == math.ceil(value)
    assert exact_value(Expression("absolute", (quotient,))) == abs(value)


@given(
    radicand=st.fractions(min_value=0, max_value=10**9),
    degree=st.integers(2, 9),
    factor=st.fractions(min_value=0, max_value=99),
)
def test_floors_and_ceilings_of_roots_are_exact(
    radicand: Fraction, degree: int, factor: Fraction
) -> None:
    quotient = Expression("quotient", (number(radicand.numerator), number(radicand.denominator)))
    root = Expression("root", (quotient, number(degree)))
    below, above = (exact_value(Expression(name, (root,))) for name in ("floor", "ceil"))
    assert below**degree <= radicand < (below + 1) ** degree
    assert (above - 1) ** degree < radicand <= above**degree or radicand == above == 0
    ratio = Expression("quotient", (number(factor.numerator), number(factor.denominator)))
    square = Expression("root", (quotient, number(2)))
    floor = exact_value(Expression("floor", (Expression("product", (ratio, square)),)))
    assert floor**2 <= factor**2 * radicand < (floor + 1) ** 2


def test_size_and_work_are_bounded() -> None:
    power = Expression("power", (number(2), number(MAX_BITS - 10)))
    assert exact_value(power) == 1 << (MAX_BITS - 10)
    with pytest.raises(NotExactError, match="too large"):
        exact_value(Expression("power", (number(2), number(MAX_BITS + 1))))
    with pytest.raises(NotExactError, match="too large"):
        exact_value(Expression("sum", (power,) * (MAX_WORK // MAX_BITS + 1)))


@pytest.mark.parametrize(
    "part",
    [
        "10^{", "9!!", "9999!*", "9999!/", "2^{99999}*", "3^{70000}/", "\\binom{99999}{5000}+",
        "1/3^{60000}+", "\\sqrt{2^{99999}}*", "\\sqrt[64]{2^{99999}}+", "7^{9999!} \\bmod 991+",
        "\\frac{", "\\frac", "\\sqrt[", "[", "|", "∛", "½", "1,", "1 ", "is ", "\\\\ =", "\\text{",
        "\\over ", "\\boxed{", "(", "{", "-", "\\gcd(9999!,", "\\overset{", "\\begin{aligned}",
    ],
)  # fmt: skip
def test_no_box_takes_long(part: str) -> None:
    """Each call ends at once; the suite's time limit would end a test that hangs."""
    for content in (part * (MAX_BOX // len(part)), part * 30 + "1" + "}" * 30 * part.count("{")):
        integer(content)
    assert integer(part + "9!!!!") is None
