"""Expressions of arithmetic, in signs and in words, made from random trees."""

from __future__ import annotations

import math
from collections.abc import Callable
from random import Random

from ..family import ANSWERS, Params, family, number

Made = tuple[str, str, int]
"""An expression as LaTeX or words, as Python, and its value."""


def _leaf(r: Random) -> Made:
    n = number(r, 1, r.choice((12, 20, 99, 99, 999)))
    return str(n), str(n), n


def _bracketed(made: Made, r: Random) -> Made:
    """Return the expression in brackets if it is more than a number."""
    text, code, value = made
    return (f"({text})", f"({code})", value) if not code.isdecimal() else made


def _function(r: Random) -> Made:
    """Draw a function of numbers: a floor, an absolute value, a root, a gcd, a binomial."""
    a, b = number(r, 2, 500), number(r, 2, 60)
    k, n = r.randint(1, 5), r.randint(5, 12)
    root = r.randint(2, 40)
    return r.choice(
        (
            (f"\\lfloor {a} / {b} \\rfloor", f"({a} // {b})", a // b),
            (f"|{b} - {a}|", f"abs({b} - {a})", abs(b - a)),
            (f"\\sqrt{{{root * root}}}", f"math.isqrt({root * root})", root),
            (f"\\gcd({a}, {b})", f"math.gcd({a}, {b})", math.gcd(a, b)),
            (f"\\text{{lcm}}({b}, {n})", f"math.lcm({b}, {n})", math.lcm(b, n)),
            (f"\\binom{{{n}}}{{{k}}}", f"math.comb({n}, {k})", math.comb(n, k)),
        )
    )


def _tree(r: Random, depth: int) -> Made:
    """Draw an expression of whole numbers whose parts are whole numbers, too."""
    if depth == 0:
        return _leaf(r)
    kind = r.choice("+++--***/^%!f" if depth == 1 else "+++---***/f")
    if kind == "f":
        return _function(r)
    left = _tree(r, r.randrange(depth) if kind != "+" else depth - 1)
    right = _tree(r, r.choice((0, 0, depth - 1)))
    if kind == "+":
        return f"{left[0]} + {right[0]}", f"{left[1]} + {right[1]}", left[2] + right[2]
    if kind == "-":
        right = _bracketed(right, r)
        return f"{left[0]} - {right[0]}", f"{left[1]} - {right[1]}", left[2] - right[2]
    if kind == "*":
        left, right = _bracketed(left, r), _bracketed(right, r)
        sign = r.choice((" \\times ", " \\times ", " \\cdot "))
        return f"{left[0]}{sign}{right[0]}", f"{left[1]} * {right[1]}", left[2] * right[2]
    left = _bracketed(left, r)
    if kind == "/":
        divisor = r.randint(2, 20)
        quotient = number(r, 2, 999)
        top = (
            left
            if left[2] % divisor == 0
            else (str(divisor * quotient),) * 2 + (divisor * quotient,)
        )
        sign = r.choice((" \\div ", " / "))
        return f"{top[0]}{sign}{divisor}", f"{top[1]} // {divisor}", top[2] // divisor
    base = r.randint(2, 15)
    if kind == "^":
        power = r.randint(2, 5 if base < 8 else 3)
        return (
            f"{base}^{{{power}}}" if power > 9 else f"{base}^{power}",
            f"{base}**{power}",
            base**power,
        )
    if kind == "!":
        n = r.randint(2, 7)
        value = [1, 1, 2, 6, 24, 120, 720, 5040][n]
        return f"{n}!", f"math.factorial({n})", value
    m = r.randint(2, 30)
    return f"{left[0]} \\bmod {m}", f"{left[1]} % {m}", left[2] % m


def _expression(r: Random) -> Params | None:
    text, code, value = _tree(r, r.choice((1, 1, 2, 2, 3)))
    if r.random() < 0.15 and "bmod" not in text and value > 1:
        m = number(r, 2, 99)
        text, code, value = f"({text}) \\bmod {m}", f"({code}) % {m}", value % m
    return {"tex": text, "code": code} if value in ANSWERS and not code.isdecimal() else None


def _power_mod_sum(r: Random) -> Params:
    a, b, c, d = number(r, 2, 99), number(r, 2, 200), number(r, 2, 99), number(r, 2, 200)
    m = number(r, 3, 999)
    return {"a": a, "b": b, "c": c, "d": d, "m": m}


_BINARY: tuple[tuple[tuple[str, ...], Callable[[str, str], str]], ...] = (
    (("the sum of {0} and {1}", "{0} plus {1}", "{1} more than {0}", "{0} increased by {1}",
      "{0} added to {1}", "{0} and {1} together"), lambda a, b: f"{a} + {b}"),
    (("the difference of {0} and {1}", "{0} minus {1}", "{1} less than {0}", "{0} decreased by {1}",
      "{1} subtracted from {0}", "the difference between {0} and {1}"), lambda a, b: f"{a} - {b}"),
    (("the product of {0} and {1}", "{0} times {1}", "{0} multiplied by {1}"),
     lambda a, b: f"{a} * {b}"),
    (("the quotient of {0} and {1}", "{0} divided by {1}", "{0} split into {1} equal parts"),
     lambda a, b: f"{a} // {b}"),
    (("the remainder when {0} is divided by {1}", "the remainder of {0} divided by {1}",
      "{0} modulo {1}"), lambda a, b: f"{a} % {b}"),
)  # fmt: skip
_UNARY: tuple[tuple[tuple[str, ...], Callable[[str], str]], ...] = (
    (("twice {0}", "double {0}", "two times {0}", "the double of {0}"), lambda a: f"2 * {a}"),
    (("three times {0}", "triple {0}", "thrice {0}"), lambda a: f"3 * {a}"),
    (("half of {0}", "one half of {0}", "a half of {0}"), lambda a: f"{a} // 2"),
    (("a third of {0}", "one third of {0}"), lambda a: f"{a} // 3"),
    (("a quarter of {0}", "one fourth of {0}", "one quarter of {0}"), lambda a: f"{a} // 4"),
    (("the square of {0}", "{0} squared"), lambda a: f"{a}**2"),
    (("the cube of {0}", "{0} cubed"), lambda a: f"{a}**3"),
)  # fmt: skip


def _named(words: tuple[str, ...], nested: bool, r: Random) -> str:
    """Draw one of the words; in a nested expression one that can be read in one way only."""
    return r.choice([w for w in words if not nested or w[0] != "{"])


def _wordy(r: Random, depth: int, inside: bool = False) -> Made | None:
    """Draw an expression in words; None if a division in it does not come out even."""
    if depth == 0:
        return _leaf(r)
    inner = _wordy(r, depth - 1, True)
    if inner is None or inner[2] > 2000:
        return None
    nested = inside or depth > 1
    if r.random() < 0.3:
        words, write = r.choice(_UNARY)
        code = write(_bracketed(inner, r)[1])
        divisor = {"// 2": 2, "// 3": 3, "// 4": 4}.get(code[-4:], 1)
        if inner[2] % divisor:
            return None
        return _named(words, nested, r).format(inner[0]), code, int(eval(code))
    index = r.randrange(len(_BINARY))
    words, combine = _BINARY[index]
    left, right = inner, _leaf(r)
    if index in (0, 2) and (depth > 1 or r.random() < 0.5):
        left, right = right, left
    code = combine(_bracketed(left, r)[1], _bracketed(right, r)[1])
    if index == 3 and left[2] % right[2]:
        return None
    named = _named(words[:1] if nested else words, nested, r)
    return named.format(left[0], right[0]), code, int(eval(code))


def _in_words(r: Random) -> Params | None:
    made = _wordy(r, r.choice((1, 1, 2, 2)))
    if made is None or made[2] not in ANSWERS or made[1].isdecimal():
        return None
    return {"words": made[0], "code": made[1]}


FAMILIES = (
    family(
        "expression",
        _expression,
        [
            "[What is|Compute|Calculate|Evaluate|Find|Work out|Simplify] ${tex}$[?|.|]",
            "${tex}$ = ?",
            "${tex} = $",
            "[How much|What] is ${tex}$?",
            "[Find|Determine|What is|Give] the [value|result] of [the expression |]${tex}$.",
            "What does ${tex}$ [equal|give|evaluate to]?",
            "What do we get for ${tex}$?",
            "[What number|Which number|Which integer] is [equal to|the value of] ${tex}$?",
            "${tex}$",
            "[{who} types|{who} enters] ${tex}$ into a calculator. [What does it show|What is the result|What number appears]?",
            "Use the order of operations to [evaluate|compute|simplify] ${tex}$.",
            "[Please compute|Please calculate|I need|Give me|Tell me] ${tex}$.",
            "[Can you tell me|Do you know|Could you work out] [what ${tex}$ is|the value of ${tex}$]?",
            "[Solve|Do|Add up|Answer]: ${tex}$",
            "If $[x|y|n|A] = {tex}$, [what is its value|find its value]?",
            "[What result do you get when you evaluate|When simplified, what is|Reckon up] ${tex}$?",
        ],
        [
            "Evaluate {code}.",
            "I compute {code}.",
            "This is {code} in Python.",
            "An expression: {code}.",
        ],
        ["print({code})", "x = {code}\nprint(x)", "result = {code}\nprint(result)"],
    ),
    family(
        "expression_in_words",
        _in_words,
        [
            "[What is|Compute|Calculate|Find|Determine|Work out|How much is] {words}?",
            "[Find|Give|Determine|What is] the [number|value] [that equals|equal to] {words}.",
            "{words} is [what|which] number?",
            "[Which|What] number is {words}?",
            "{who} [computes|calculates|writes down] {words}. What [number|result] does {he} get?",
            "[Tell me|I want to know|Please compute|I need] {words}.",
            "{words} = ?",
            "[Someone asks you for|The teacher asks for] {words}. What do you answer?",
        ],
        ["In Python this is {code}.", "I compute {code}.", "Evaluate {code}."],
        ["print({code})", "x = {code}\nprint(x)"],
    ),
    family(
        "power_sum_remainder",
        _power_mod_sum,
        [
            "[What is|Find|Compute] the remainder [when|if] ${a}^{{b}} + {c}^{{d}}$ is divided by {m}[?|.]",
            "<find> $({a}^{{b}} + {c}^{{d}}) \\bmod {m}$.",
            "[What remainder does|Which remainder does] ${a}^{{b}} + {c}^{{d}}$ leave <mod> {m}?",
            "[Add|{who} adds] ${a}^{{b}}$ and ${c}^{{d}}$. What is the remainder of the sum <mod> {m}?",
            "Let $S = {a}^{{b}} + {c}^{{d}}$. <find> $S$ modulo {m}.",
            "The two powers ${a}^{{b}}$ and ${c}^{{d}}$ are added and the total is divided by {m}. What is left over?",
        ],
        ["Compute ({a}^{b} + {c}^{d}) mod {m}.", "Add the powers modulo {m}."],
        [
            "print(({a}**{b} + {c}**{d}) % {m})",
            "print((pow({a}, {b}, {m}) + pow({c}, {d}, {m})) % {m})",
        ],
    ),
)
