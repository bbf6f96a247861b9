"""Congruences, powers and remainders."""

from __future__ import annotations

from math import gcd
from random import Random

from .family import Params, family, modulus, number


def _linear(r: Random) -> Params | None:
    m = number(r, 11, 99_999)
    a, b = number(r, 2, m - 1), number(r, 1, m - 1)
    return {"a": a, "b": b, "m": m} if b % gcd(a, m) == 0 else None


def _crt(r: Random) -> Params | None:
    m1, m2, m3 = (number(r, 3, 60) for _ in range(3))
    if gcd(m1, m2) != 1 or gcd(m1, m3) != 1 or gcd(m2, m3) != 1 or m1 * m2 * m3 > 99_999:
        return None
    a1, a2, a3 = (r.randrange(1, m) for m in (m1, m2, m3))
    return {"a": a1, "b": a2, "c": a3, "p": m1, "q": m2, "s": m3}


def _order(r: Random) -> Params | None:
    m = number(r, 7, 30_000)
    a = number(r, 2, m - 1)
    return {"a": a, "m": m} if gcd(a, m) == 1 else None


def _inverse(r: Random) -> Params | None:
    m = number(r, 11, 99_999)
    a = number(r, 2, m - 1)
    return {"a": a, "m": m} if gcd(a, m) == 1 else None


FAMILIES = (
    family(
        "power_mod",
        lambda r: {"a": number(r, 2, 99_999), "b": number(r, 11, 99_999), "m": modulus(r)},
        [
            "What is the remainder when ${a}^{{b}}$ is divided by {m}?",
            "<find> ${a}^{{b}} \\bmod {m}$.",
            "<find> the remainder of {a} to the power {b} on division by {m}.",
            "Let $N = {a}^{{b}}$. What remainder does $N$ leave modulo {m}?",
            "The number {a} is raised to the power {b}, and the result is divided by {m}. What remainder is left?",
            "<find> the integer $r$ with $0 \\le r < {m}$ and $r \\equiv {a}^{{b}} \\pmod{{m}}$.",
            "Multiply {b} copies of the number {a} together. If the product is split into groups of {m}, how much is left over?",
        ],
        [
            "This is a modular power: {a}^{b} mod {m}.",
            "pow with three arguments gives {a}^{b} mod {m}.",
            "Use fast modular exponentiation with modulus {m}.",
        ],
        [
            "print(pow({a}, {b}, {m}))",
            "a, b, m = {a}, {b}, {m}\nprint(pow(a, b, m))",
            """
r = 1
a = {a}
e = {b}
while e:
    if e % 2:
        r = r * a % {m}
    a = a * a % {m}
    e //= 2
print(r)""",
        ],
    ),
    family(
        "linear_congruence",
        _linear,
        [
            "<find> the smallest non-negative integer $x$ with ${a}x \\equiv {b} \\pmod{{m}}$.",
            "What is the least non-negative $x$ such that ${a}x$ leaves remainder {b} when divided by {m}?",
            "Solve ${a} x \\equiv {b} \\pmod{{m}}$ and give the smallest solution $x \\ge 0$.",
            "For which smallest non-negative integer $x$ is ${a}x - {b}$ divisible by {m}?",
            "Which is the smallest integer $x \\ge 0$ for which {m} divides ${a}x - {b}$?",
            "A number is multiplied by {a}. The product leaves remainder {b} on division by {m}. What is the smallest non-negative integer this number can be?",
        ],
        [
            "Search the first x with {a}x = {b} modulo {m}.",
            "I solve the congruence {a}x = {b} mod {m}.",
            "A search over x from 0 to {m} finds the solution.",
        ],
        [
            "print(next(x for x in range({m}) if ({a} * x - {b}) % {m} == 0))",
            """
x = 0
while {a} * x % {m} != {b}:
    x += 1
print(x)""",
            """
a, b, m = {a}, {b}, {m}
g = math.gcd(a, m)
a, b, m = a // g, b // g, m // g
print(b * pow(a, -1, m) % m)""",
        ],
    ),
    family(
        "inverse_mod",
        _inverse,
        [
            "<find> the multiplicative inverse of {a} modulo {m}.",
            "What is the inverse of {a} modulo {m}, as an integer between 1 and {m}?",
            "<find> the smallest positive integer $x$ with ${a}x \\equiv 1 \\pmod{{m}}$.",
            "Which positive integer $x < {m}$ satisfies ${a} \\cdot x \\equiv 1 \\pmod{{m}}$?",
            "Let $y$ be the inverse of {a} in the ring of integers modulo {m}. <find> $y$, taken between 1 and {m}.",
            "What is the least positive integer that gives remainder 1 on division by {m} after it is multiplied by {a}?",
        ],
        [
            "pow with exponent -1 gives the inverse of {a} mod {m}.",
            "I need x with {a}x = 1 modulo {m}.",
            "The inverse of {a} modulo {m} is wanted.",
        ],
        [
            "print(pow({a}, -1, {m}))",
            "from sympy import mod_inverse\nprint(mod_inverse({a}, {m}))",
            "print(next(x for x in range(1, {m}) if {a} * x % {m} == 1))",
        ],
    ),
    family(
        "three_remainders",
        _crt,
        [
            "<find> the smallest positive integer that leaves remainder {a} when divided by {p}, remainder {b} when divided by {q}, and remainder {c} when divided by {s}.",
            "What is the least positive integer $n$ with $n \\equiv {a} \\pmod{{p}}$, $n \\equiv {b} \\pmod{{q}}$ and $n \\equiv {c} \\pmod{{s}}$?",
            "A number gives remainders {a}, {b} and {c} on division by {p}, {q} and {s} respectively. <find> the smallest such positive number.",
            "Solve the system $x \\equiv {a} \\pmod{{p}}$, $x \\equiv {b} \\pmod{{q}}$, $x \\equiv {c} \\pmod{{s}}$ for the smallest positive $x$.",
            "Which is the smallest positive integer $x$ such that $x - {a}$ is divisible by {p}, $x - {b}$ by {q} and $x - {c}$ by {s}?",
            "[Eggs|Coins|Marbles] are packed {p} at a time and {a} remain; {q} at a time and {b} remain; {s} at a time and {c} remain. What is the smallest possible number of them?",
        ],
        [
            "The moduli are {p}, {q}, {s} with remainders {a}, {b}, {c}.",
            "Use the Chinese remainder theorem or a search.",
            "Search the first n with remainders {a}, {b}, {c}.",
        ],
        [
            "print(next(n for n in range(1, {p} * {q} * {s} + 1) if n % {p} == {a} and n % {q} == {b} and n % {s} == {c}))",
            "from sympy.ntheory.modular import crt\nprint(crt([{p}, {q}, {s}], [{a}, {b}, {c}])[0])",
            """
n = {a}
while n % {q} != {b} or n % {s} != {c}:
    n += {p}
print(n)""",
        ],
    ),
    family(
        "multiplicative_order",
        _order,
        [
            "<find> the multiplicative order of {a} modulo {m}.",
            "What is the smallest positive integer $k$ with ${a}^k \\equiv 1 \\pmod{{m}}$?",
            "<find> the least $k \\ge 1$ such that {m} divides ${a}^k - 1$.",
            "Let $k$ be the smallest positive exponent for which ${a}^k$ leaves remainder 1 modulo {m}. <find> $k$.",
            "What is the order of {a} in the multiplicative group of integers modulo {m}?",
            "The powers of {a} are reduced modulo {m}. What is the length of the period of the sequence they form?",
        ],
        [
            "Multiply by {a} modulo {m} until 1 appears.",
            "I look for the order of {a} modulo {m}.",
            "sympy has n_order, or a loop will do.",
        ],
        [
            """
k = 1
x = {a} % {m}
while x != 1:
    x = x * {a} % {m}
    k += 1
print(k)""",
            "from sympy import n_order\nprint(n_order({a}, {m}))",
        ],
    ),
    family(
        "cubic_congruence",
        lambda r: {"a": number(r, 1, 999), "b": number(r, 1, 999), "m": number(r, 11, 6_000)},
        [
            "How many integers $x$ with $0 \\le x < {m}$ satisfy $x^3 + {a}x + {b} \\equiv 0 \\pmod{{m}}$?",
            "<find> the number of solutions of $x^3 + {a}x + {b} \\equiv 0$ modulo {m}.",
            "For how many residues $x$ modulo {m} is $x^3 + {a}x + {b}$ divisible by {m}?",
            "Count the integers $x$ from 0 to ${m} - 1$ for which {m} divides $x^3 + {a}x + {b}$.",
            "Let $f(x) = x^3 + {a}x + {b}$. How many roots does $f$ have modulo {m}?",
            "In how many residue classes modulo {m} does the polynomial $x^3 + {a}x + {b}$ take the value zero?",
        ],
        [
            "Test all x below {m} in x^3 + {a}x + {b}.",
            "Try every residue modulo {m}.",
            "I count the roots of x^3 + {a}x + {b} modulo {m}.",
        ],
        [
            "print(sum(1 for x in range({m}) if (x**3 + {a} * x + {b}) % {m} == 0))",
            """
m = {m}
count = 0
for x in range(m):
    if (x * x * x + {a} * x + {b}) % m == 0:
        count += 1
print(count)""",
        ],
    ),
    family(
        "polynomial_value_mod",
        lambda r: {
            "a": number(r, 2, 99),
            "b": number(r, 1, 999),
            "c": number(r, 1, 9_999),
            "n": number(r, 11, 99_999),
            "m": modulus(r),
        },
        [
            "Let $P(x) = {a}x^3 + {b}x + {c}$. <find> the remainder when $P({n})$ is divided by {m}.",
            "What is the remainder of ${a} \\cdot {n}^3 + {b} \\cdot {n} + {c}$ on division by {m}?",
            "<find> $P({n}) \\bmod {m}$, where $P(x) = {a}x^3 + {b}x + {c}$.",
            "The polynomial ${a}x^3 + {b}x + {c}$ is evaluated at $x = {n}$. What remainder does the value leave modulo {m}?",
            "If $f(t) = {a}t^3 + {b}t + {c}$, what is $f({n})$ modulo {m}?",
            "Put $x = {n}$ into ${a}x^3 + {b}x + {c}$ and reduce the result modulo {m}. Which number between 0 and ${m} - 1$ comes out?",
        ],
        [
            "Evaluate at x = {n} and reduce modulo {m}.",
            "I compute {a}x^3 + {b}x + {c} at {n} mod {m}.",
            "Direct evaluation with x = {n}.",
        ],
        [
            "x = {n}\nprint(({a} * x**3 + {b} * x + {c}) % {m})",
            """
def P(x):
    return {a} * x**3 + {b} * x + {c}
print(P({n}) % {m})""",
            "x = {n}\nprint((({a} * x * x + {b}) * x + {c}) % {m})",
        ],
    ),
    family(
        "power_sum_mod",
        lambda r: {"n": number(r, 11, 9_999), "k": r.randint(2, 9), "m": modulus(r)},
        [
            "<find> the remainder when $1^{k} + 2^{k} + \\cdots + {n}^{k}$ is divided by {m}.",
            "What is $\\sum_{i=1}^{{n}} i^{k}$ modulo {m}?",
            "The $k$-th powers of the integers from 1 to {n} are added, where $k = {k}$. <find> the remainder of the sum modulo {m}.",
            "Let $S = 1^{k} + 2^{k} + 3^{k} + \\cdots + {n}^{k}$. What remainder does $S$ leave when divided by {m}?",
            "Raise each of the numbers $1, 2, \\ldots, {n}$ to the power {k} and add the results. What is the sum modulo {m}?",
            "What is left over when the sum of the first {n} positive integers, each raised to the exponent {k}, is divided by {m}?",
        ],
        [
            "Sum i^{k} for i up to {n}, modulo {m}.",
            "A generator with pow is quick enough for {n} terms.",
            "I add i**{k} for i = 1..{n} and reduce mod {m}.",
        ],
        [
            "print(sum(i**{k} for i in range(1, {n} + 1)) % {m})",
            "print(sum(pow(i, {k}, {m}) for i in range(1, {n} + 1)) % {m})",
            """
s = 0
for i in range(1, {n} + 1):
    s = (s + i**{k}) % {m}
print(s)""",
        ],
    ),
    family(
        "factorial_zeros",
        lambda r: {"n": number(r, 11, 40_000), "b": number(r, 2, 99)},
        [
            "In how many zeros does ${n}!$ end when it is written in base {b}?",
            "<find> the number of trailing zeros of ${n}!$ in base {b}.",
            "What is the largest integer $k$ such that ${b}^k$ divides ${n}!$?",
            "<find> the greatest exponent $e$ for which ${n}!$ is divisible by ${b}^e$.",
            "How many times can ${n}!$ be divided by {b} without leaving a remainder?",
            "The factorial of {n} is written in the number system with base {b}. How many consecutive zeros stand at its right end?",
        ],
        [
            "Use Legendre's formula for the primes of {b}.",
            "For each prime p of {b} count the power of p in {n}!.",
            "The answer is the minimum over the primes of {b}.",
        ],
        [
            """
from sympy import factorint
best = None
for p, e in factorint({b}).items():
    q = {n}
    v = 0
    while q:
        q //= p
        v += q
    best = v // e if best is None else min(best, v // e)
print(best)""",
            """
def legendre(n, p):
    return 0 if n == 0 else n // p + legendre(n // p, p)
print(min(legendre({n}, p) // e for p, e in sympy.factorint({b}).items()))""",
        ],
    ),
)
