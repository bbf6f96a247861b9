"""Equations, coefficients and representations."""

from __future__ import annotations

from random import Random

from .family import Params, family, modulus, number


def _roots(r: Random) -> Params | None:
    x, y = number(r, 2, 999), number(r, 2, 999)
    return {"s": x + y, "p": x * y} if x * y <= 99_999 and x != y else None


def _coefficient(r: Random) -> Params:
    n = number(r, 6, 99)
    return {
        "a": r.randint(2, 40),
        "b": r.randint(1, 40),
        "n": n,
        "k": r.randint(1, n - 1),
        "m": modulus(r),
    }


FAMILIES = (
    family(
        "quadratic_roots",
        _roots,
        [
            "<find> the larger root of $x^2 - {s}x + {p} = 0$.",
            "What is the greatest solution of the equation $x^2 - {s}x + {p} = 0$?",
            "Two positive integers have sum {s} and product {p}. <find> the larger one.",
            "The numbers $u > v$ satisfy $u + v = {s}$ and $uv = {p}$. <find> $u$.",
            "The quadratic $x^2 - {s}x + {p}$ has two integer zeros. Which is the larger?",
            "A rectangle with integer sides has area {p} and half its perimeter is {s}. How long is the longer side?",
        ],
        [
            "Sum {s}, product {p}: solve the quadratic.",
            "Use the discriminant {s}^2 - 4 * {p}.",
            "Search the integer x with x({s} - x) = {p}.",
        ],
        [
            "print(({s} + math.isqrt({s}**2 - 4 * {p})) // 2)",
            "print(max(x for x in range({s} + 1) if x * ({s} - x) == {p}))",
            """
x = sympy.symbols('x')
print(max(sympy.solve(x**2 - {s} * x + {p}, x)))""",
        ],
    ),
    family(
        "two_squares",
        lambda r: {"n": number(r, 20, 99_999)},
        [
            "How many pairs of integers $(x, y)$, positive, negative or zero, satisfy $x^2 + y^2 = {n}$?",
            "<find> the number of lattice points on the circle $x^2 + y^2 = {n}$.",
            "How many integer solutions does the equation $x^2 + y^2 = {n}$ have?",
            "Count the ordered pairs $(a, b)$ of integers with $a^2 + b^2 = {n}$.",
            "In how many ways can {n} be written as $x^2 + y^2$ with integers $x$ and $y$, where order and signs matter?",
            "How many points with integer coordinates have a distance of exactly $\\sqrt{{n}}$ from the origin?",
        ],
        [
            "For each x test whether {n} - x^2 is a square.",
            "Count all integer pairs with x^2 + y^2 = {n}.",
            "Loop over x and use isqrt; signs matter.",
        ],
        [
            """
from math import isqrt
n = {n}
count = 0
for x in range(-isqrt(n), isqrt(n) + 1):
    y = isqrt(n - x * x)
    if y * y == n - x * x:
        count += 2 if y > 0 else 1
print(count)""",
            """
r = math.isqrt({n})
squares = collections.Counter(y * y for y in range(-r, r + 1))
print(sum(squares[{n} - x * x] for x in range(-r, r + 1)))""",
        ],
    ),
    family(
        "coefficient_mod",
        _coefficient,
        [
            "<find> the coefficient of $x^{{k}}$ in $({a}x + {b})^{{n}}$, modulo {m}.",
            "What is the remainder modulo {m} of the coefficient of $x^{{k}}$ in the expansion of $({a}x + {b})^{{n}}$?",
            "The polynomial $({a}x + {b})^{{n}}$ is expanded. <find> the coefficient of $x^{{k}}$ modulo {m}.",
            "Let $c$ be the coefficient of $x^{{k}}$ in $({a}x + {b})^{{n}}$. <find> $c \\bmod {m}$.",
            "In the expansion of $({a}t + {b})^{{n}}$, what is the coefficient of $t^{{k}}$, reduced modulo {m}?",
            "When {n} factors ${a}x + {b}$ are multiplied out, which number stands in front of $x^{{k}}$? Give it modulo {m}.",
        ],
        [
            "Binomial theorem: comb({n}, {k}) {a}^{k} {b}^({n} - {k}).",
            "Use the binomial theorem and reduce modulo {m}.",
            "The coefficient is a binomial times powers of {a} and {b}.",
        ],
        [
            "from math import comb\nprint(comb({n}, {k}) * {a}**{k} * {b}**({n} - {k}) % {m})",
            "a, b, n, k = {a}, {b}, {n}, {k}\nprint(math.comb(n, k) * a**k * b**(n - k) % {m})",
            """
p = [1]
for _ in range({n}):
    p = [{b} * u + {a} * v for u, v in zip(p + [0], [0] + p)]
print(p[{k}] % {m})""",
        ],
    ),
    family(
        "factorial_mod",
        lambda r: {"n": number(r, 8, 9_999), "m": number(r, 11, 99_999), "a": number(r, 2, 99)},
        [
            "<find> the sum $1! + 2! + \\cdots + {n}!$ modulo {m}, and multiply it by {a}; give the result modulo {m}.",
            "Let $S = 1! + 2! + \\cdots + {n}!$. What is ${a}S$ modulo {m}?",
            "What is the remainder when ${a}(1! + 2! + 3! + \\cdots + {n}!)$ is divided by {m}?",
            "<find> ${a} \\cdot \\sum_{k=1}^{{n}} k! \\bmod {m}$.",
            "The factorials of the numbers 1 to {n} are added and the sum is multiplied by {a}. <find> the remainder modulo {m}.",
            "Take {a} times the total of the first {n} factorials, starting with $1!$. Which remainder does it leave on division by {m}?",
        ],
        [
            "Keep the factorial and the sum modulo {m}.",
            "Sum k! for k up to {n} modulo {m}, times {a}.",
            "A loop up to {n} with reduction modulo {m}.",
        ],
        [
            """
f = 1
s = 0
for k in range(1, {n} + 1):
    f = f * k % {m}
    s += f
print({a} * s % {m})""",
            """
f, s = 1, 0
for k in range({n}):
    f = f * (k + 1) % {m}
    if f == 0:
        break
    s = (s + f) % {m}
print(s * {a} % {m})""",
        ],
    ),
    family(
        "hyperbola",
        lambda r: {"a": number(r, 2, 999), "b": number(r, 2, 999)},
        [
            "How many pairs of positive integers $(x, y)$ satisfy $\\frac{1}{x} + \\frac{1}{y} = \\frac{1}{{a}}$ and $x \\le {b} + {a}$?",
            "<find> the number of positive integer solutions of $1/x + 1/y = 1/{a}$ with $x \\le {b} + {a}$.",
            "Count the ordered pairs of positive integers $x, y$ with $1/x + 1/y = 1/{a}$ where $x$ is at most ${b} + {a}$.",
            "For how many positive integers $x \\le {b} + {a}$ is there a positive integer $y$ with $1/x + 1/y = 1/{a}$?",
            "The positive integers $x$ and $y$ satisfy $xy = {a}(x + y)$ and $x \\le {b} + {a}$. How many pairs $(x, y)$ are there?",
            "The reciprocals of two positive integers add up to the reciprocal of {a}, and the first of the two is not greater than ${b} + {a}$. How many ordered pairs are possible?",
        ],
        [
            "From 1/x + 1/y = 1/{a}: y = {a}x / (x - {a}).",
            "Loop over x above {a} and test divisibility.",
            "For each x the y is determined.",
        ],
        [
            "print(sum(1 for x in range({a} + 1, {a} + {b} + 1) if {a} * x % (x - {a}) == 0))",
            """
count = 0
for x in range({a} + 1, {b} + {a} + 1):
    if {a} * x % (x - {a}) == 0:
        count += 1
print(count)""",
            "print(len([d for d in sympy.divisors({a}**2) if d <= {b}]))",
        ],
    ),
    family(
        "largest_square",
        lambda r: {"a": number(r, 5, 9_999), "b": number(r, 2, 999), "m": modulus(r)},
        [
            "Let $s$ be the integer part of $\\sqrt{{a} \\cdot 10^{{b}}}$. <find> $s$ modulo {m}.",
            "What is $\\lfloor \\sqrt{{a} \\cdot 10^{{b}}} \\rfloor$ modulo {m}?",
            "<find> the remainder modulo {m} of the largest integer $n$ with $n^2 \\le {a} \\cdot 10^{{b}}$.",
            "The square root of ${a} \\cdot 10^{{b}}$ is rounded down to an integer. <find> this integer modulo {m}.",
            "Let $n$ be the greatest integer whose square does not exceed ${a} \\cdot 10^{{b}}$. What remainder does $n$ leave on division by {m}?",
            "How many positive squares are not greater than ${a} \\cdot 10^{{b}}$? Give the number modulo {m}.",
        ],
        [
            "math.isqrt works for big integers: isqrt({a} * 10**{b}).",
            "Integer square root of {a} * 10^{b}, then mod {m}.",
            "Use isqrt and reduce modulo {m}.",
        ],
        [
            "print(math.isqrt({a} * 10**{b}) % {m})",
            "from math import isqrt\nprint(isqrt({a} * 10**{b}) % {m})",
            """
n = {a} * 10**{b}
x = 1 << (n.bit_length() + 1) // 2
while x * x > n:
    x = (x + n // x) // 2
print(x % {m})""",
        ],
    ),
)
