"""Classic short questions about numbers: digits and multiples, cubes, divisors, inequalities."""

from __future__ import annotations

import math
from random import Random

from ..family import Params, family, number

_DIGITS = ("two", "three", "four", "five")


def _digits(r: Random) -> Params:
    d = r.randint(2, 5)
    return {"d": d, "word": _DIGITS[d - 2], "low": 10 ** (d - 1), "high": 10**d - 1}


def _squares_cubes(r: Random) -> Params:
    how, op = r.choice(
        (("both perfect squares and perfect cubes", "&"), ("perfect squares or perfect cubes", "|"))
    )
    return {"n": number(r, 10, 99_999), "how": how, "op": op}


def _extreme(r: Random) -> Params:
    part, code = r.choice((("largest", "max"), ("smallest", "min")))
    return {**_digits(r), "part": part, "code": code}


def _total(r: Random) -> Params:
    what, code, sign = r.choice((("sum", "sum", "+"), ("product", "math.prod", "\\cdot")))
    return {
        "n": number(r, 3, 300),
        "m": number(r, 2, 999),
        "what": what,
        "code": code,
        "sign": sign,
    }


def _factorial(r: Random) -> Params:
    n = r.randint(2, 12)
    return {"f": math.factorial(n), "n": n}


def _board(r: Random) -> Params:
    ask, code, why = r.choice(
        (
            ("squares of all sizes", "sum(k * k for k in range(1, 9))", "sides 1 to 8"),
            ("squares", "sum(k * k for k in range(1, 9))", "sides 1 to 8"),
            ("small squares", "8 * 8", "8 rows of 8"),
            ("rectangles", "math.comb(9, 2)**2", "two of 9 lines each way"),
            ("black squares", "8 * 8 // 2", "half of 64"),
            ("2 by 2 squares", "7 * 7", "7 places each way"),
            ("3 by 3 squares", "6 * 6", "6 places each way"),
        )
    )
    return {"ask": ask, "code": code, "why": why}


def _inequality(r: Random) -> Params:
    k, b = r.randint(1, 9), r.randint(0, 30)
    low = number(r, 0, 200)
    high = low + number(r, 5, 500)
    first = "" if k == 1 else str(k)
    left, right = r.choice((("\\le", "\\le"), ("<", "<"), ("\\le", "<"), ("<", "\\le")))
    signs = {"\\le": "<=", "<": "<"}
    inner = f"{first}x + {b}" if b else f"{first}x"
    return {
        "tex": f"{low} {left} {inner} {right} {high}",
        "code": f"{low} {signs[left]} {k} * x + {b} {signs[right]} {high}",
        "h": high,
    }


def _sequence_rule(r: Random) -> Params:
    a, p, q = r.randint(1, 9), r.randint(1, 3), r.randint(0, 9)
    n = r.randint(3, 8)
    rule = f"{'' if p == 1 else p}a_k + {q}" if q else f"{p + 1}a_k"
    return {"a": a, "rule": rule, "p": p if q else p + 1, "q": q, "n": n}


FAMILIES = (
    family(
        "n_digit_multiples",
        lambda r: {**_digits(r), "k": number(r, 2, 99)},
        [
            "How many {word}-digit [numbers|integers] are [divisible by|multiples of] {k}?",
            "How many {d}-digit [numbers|integers] [are divisible by|can be divided by] {k}?",
            "How many {word}-digit multiples of {k} are there?",
            "[Count|Find] the [positive |]{word}-digit [numbers|integers] [that are |]divisible by {k}.",
            "Of all numbers with {word} digits, how many does {k} divide?",
        ],
        ["{high} // {k} - ({low} - 1) // {k}.", "Multiples of {k} from {low} to {high}."],
        [
            "print({high} // {k} - ({low} - 1) // {k})",
            "print(sum(1 for n in range({low}, {high} + 1) if n % {k} == 0))",
        ],
    ),
    family(
        "perfect_cubes_below",
        lambda r: {"n": number(r, 2, 999_999)},
        [
            "How many [positive |]perfect cubes are [there |]<below> {n}?",
            "[Count|Find the number of] [positive |]cubes <below> {n}.",
            "How many <whole> <below> {n} are perfect cubes?",
            "Of the numbers from 1 up to but not including {n}, how many are cubes of whole numbers?",
        ],
        ["k with k**3 < {n}.", "Cubes below {n}."],
        ["k = 1\nwhile k**3 < {n}:\n    k += 1\nprint(k - 1)"],
    ),
    family(
        "squares_or_cubes",
        _squares_cubes,
        [
            "How many <whole> from 1 to {n} are {how}?",
            "How many [integers|numbers] between 1 and {n} are {how}?",
            "[Count|Find] the numbers up to {n} that are {how}.",
            "Among the first {n} positive integers, how many are {how}?",
        ],
        ["squares {op} cubes up to {n}.", "Sets up to {n}: squares {op} cubes."],
        [
            "squares = {k * k for k in range(1, 400) if k * k <= {n}}\ncubes = {k**3 for k in range(1, 60) if k**3 <= {n}}\nprint(len(squares {op} cubes))"
        ],
    ),
    family(
        "extreme_prime_with_digits",
        _extreme,
        [
            "[What is|Find] the {part} {word}-digit prime[ number|][?|.]",
            "[What is|Find] the {part} {d}-digit prime[ number|][?|.]",
            "[What is|Find] the {part} prime [number |]with {word} digits[?|.]",
            "Which prime of {word} digits is the {part}?",
        ],
        ["{code} of the primes from {low} to {high}.", "Primes {low}..{high}, {code}."],
        ["print({code}(sympy.primerange({low}, {high} + 1)))"],
    ),
    family(
        "least_with_divisors",
        lambda r: {
            "k": r.choice(
                (
                    1,
                    2,
                    3,
                    4,
                    5,
                    6,
                    7,
                    8,
                    9,
                    10,
                    12,
                    14,
                    15,
                    16,
                    18,
                    20,
                    21,
                    24,
                    25,
                    27,
                    28,
                    30,
                    32,
                    36,
                    40,
                )
            )
        },
        [
            "[What is|Find] the [smallest|least] [positive integer|number] with exactly {k} [divisors|positive divisors|factors][?|.]",
            "Which is the smallest number that has [exactly |]{k} [divisors|factors]?",
            "[Find|Determine] the least positive integer having {k} [positive |]divisors.",
            "From what number on does one first meet {k} divisors exactly?",
        ],
        ["n with divisor_count(n) == {k}.", "Search for {k} divisors."],
        ["n = 1\nwhile sympy.divisor_count(n) != {k}:\n    n += 1\nprint(n)"],
    ),
    family(
        "number_of_factorial",
        _factorial,
        [
            "[For which|For what] $n$ [is|does] $n! = {f}$?",
            "[Find|Solve for] $n$ if $n! = {f}$.",
            "{f} is the factorial of [which|what] number?",
            "The factorial of a number is {f}. [What is|Find] the number[?|.]",
            "How many factors 1, 2, 3, ... must be multiplied to make {f}?",
        ],
        ["n with n! == {f}.", "Search n: factorial {f}."],
        ["n = 1\nwhile math.factorial(n) < {f}:\n    n += 1\nprint(n)"],
    ),
    family(
        "solutions_of_inequality",
        _inequality,
        [
            "How many [integers|whole numbers] $x$ satisfy ${tex}$?",
            "[Count|Find the number of] integers $x$ [with|such that|for which] ${tex}$.",
            "For how many integers $x$ is ${tex}$?",
            "[Find|What is] the number of integer solutions of ${tex}$[?|.]",
            "${tex}$ is true for how many whole numbers $x$?",
        ],
        ["x with {code}.", "Count integers: {code}."],
        ["print(sum(1 for x in range(-{h} - 1, {h} + 2) if {code}))"],
    ),
    family(
        "recursive_sequence",
        _sequence_rule,
        [
            "[Let|Suppose] $a_1 = {a}$ and $a_{k+1} = {rule}$. [What is|Find] $a_{{n}}$[?|.]",
            "A sequence is defined by $a_1 = {a}$, $a_{k+1} = {rule}$. [What is|Find] [the {n}th term|$a_{{n}}$][?|.]",
            "[Find|Compute] $a_{{n}}$ if $a_1 = {a}$ and $a_{k+1} = {rule}$ [for all $k$|for $k \\ge 1$].",
            "With $a_1 = {a}$, each further term follows from $a_{k+1} = {rule}$. Which number is the {n}th?",
        ],
        ["Start at {a}; x -> {p} * x + {q}, {n} - 1 times.", "{n} - 1 steps of {p}x + {q}."],
        ["x = {a}\nfor _ in range({n} - 1):\n    x = {p} * x + {q}\nprint(x)"],
    ),
    family(
        "chessboard",
        _board,
        [
            "How many {ask} are [there |]on a [standard |normal |]chessboard?",
            "[Count|Find] the {ask} on a chessboard.",
            "[What is|Find] the number of {ask} on [an 8 by 8 board|a chessboard|an 8x8 chessboard][?|.]",
            "How many {ask} does a chessboard [contain|have]?",
            "{who} counts all {ask} of a chessboard. What does {he} get?",
        ],
        ["{why}: {code}.", "{code}."],
        ["print({code})"],
    ),
    family(
        "divisors_of_factorial",
        lambda r: {"n": r.randint(3, 20)},
        [
            "How many [positive |]divisors does ${n}!$ have?",
            "[What is|Find] the number of [positive |]divisors of ${n}!$[?|.]",
            "[Count|Find] the [divisors|factors] of {n} factorial.",
            "By how many positive integers is {n}! divisible?",
        ],
        ["divisor_count({n}!).", "Divisors of math.factorial({n})."],
        ["print(sympy.divisor_count(math.factorial({n})))"],
    ),
    family(
        "remainder_of_sum_or_product",
        _total,
        [
            "[What is|Find] the remainder when $1 {sign} 2 {sign} \\cdots {sign} {n}$ is divided by {m}[?|.]",
            "[What is|Find] the remainder of the {what} of the numbers from 1 to {n} <mod> {m}[?|.]",
            "The {what} of all integers from 1 to {n} is divided by {m}. What is the remainder?",
            "Modulo {m}, what is the {what} of the first {n} positive integers?",
        ],
        ["{code}(range(1, {n} + 1)) % {m}.", "The {what} of 1 to {n}, mod {m}."],
        ["print({code}(range(1, {n} + 1)) % {m})"],
    ),
)
