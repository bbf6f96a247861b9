"""Equations, unknown numbers, functions and new operations."""

from __future__ import annotations

from random import Random

from ..family import ANSWERS, Params, family, number


def _linear(r: Random) -> Params | None:
    x, a, b = number(r, 0, 300), r.randint(1, 30), number(r, 0, 300)
    shape = r.randrange(5)
    first = "" if a == 1 else str(a)
    if shape == 0:
        tex, code = f"{first}x + {b} = {a * x + b}", f"({a * x + b} - {b}) // {a}"
    elif shape == 1:
        tex, code = f"{first}x - {b} = {a * x - b}", f"({a * x - b} + {b}) // {a}"
    elif shape == 2:
        tex, code = f"{b} + {first}x = {a * x + b}", f"({a * x + b} - {b}) // {a}"
    elif shape == 3:
        tex, code = f"{a * x + b} = {first}x + {b}", f"({a * x + b} - {b}) // {a}"
    else:
        tex, code = f"{first}x = {a * x}", f"{a * x} // {a}"
    return {"tex": tex, "code": code} if a * x - b >= 0 else None


def _linear_both(r: Random) -> Params | None:
    x, a, c = r.randint(1, 99), r.randint(2, 20), r.randint(1, 19)
    if a <= c:
        return None
    b = r.randint(1, 200)
    d = (a - c) * x + b
    if r.random() < 0.5 and (a - c) * x > b:
        return {
            "tex": f"{a}x - {b} = {'' if c == 1 else c}x + {(a - c) * x - b}",
            "code": f"({(a - c) * x - b} + {b}) // ({a} - {c})",
        }
    return {
        "tex": f"{a}x + {b} = {'' if c == 1 else c}x + {d}",
        "code": f"({d} - {b}) // ({a} - {c})",
    }


def _bracket(r: Random) -> Params | None:
    x, a, b = r.randint(1, 99), r.randint(2, 20), r.randint(1, 99)
    if r.random() < 0.5:
        return {"tex": f"{a}(x + {b}) = {a * (x + b)}", "code": f"{a * (x + b)} // {a} - {b}"}
    return (
        {"tex": f"{a}(x - {b}) = {a * (x - b)}", "code": f"{a * (x - b)} // {a} + {b}"}
        if x > b
        else None
    )


def _fraction_equation(r: Random) -> Params:
    k, x, b = r.randint(2, 15), r.randint(1, 60), r.randint(0, 60)
    return {
        "tex": f"\\frac{{x}}{{{k}}} + {b} = {x + b}" if b else f"\\frac{{x}}{{{k}}} = {x}",
        "code": f"({x + b} - {b}) * {k}" if b else f"{x} * {k}",
    }


def _sum_difference(r: Random) -> Params:
    small, gap = number(r, 1, 400), number(r, 1, 300)
    return {"s": 2 * small + gap, "d": gap, "ask": r.choice(("larger", "smaller"))}


def _sum_product(r: Random) -> Params:
    x, y = r.randint(1, 60), r.randint(1, 60)
    return {
        "s": x + y,
        "p": x * y,
        "ask": (k := r.choice(("larger", "smaller"))),
        "code": {"larger": "max", "smaller": "min"}[k],
    }


def _system(r: Random) -> Params | None:
    x, y = r.randint(0, 40), r.randint(0, 40)
    a, b, c, d = (r.randint(1, 9) for _ in range(4))
    minus = r.random() < 0.4
    if minus:
        d = -d
    if a * d == b * c or c * x + d * y < 0:
        return None
    sign = "-" if d < 0 else "+"
    left = (
        "" if a == 1 else str(a),
        "" if b == 1 else str(b),
        "" if c == 1 else str(c),
        "" if abs(d) == 1 else str(abs(d)),
    )
    e, f = a * x + b * y, c * x + d * y
    ask, code = r.choice((("x", "x"), ("y", "y"), ("x + y", "x + y"), ("xy", "x * y")))
    return {"first": f"{left[0]}x + {left[1]}y = {e}", "second": f"{left[2]}x {sign} {left[3]}y = {f}", "ask": ask, "code": code,
            "one": f"{a}*x + {b}*y - {e}", "two": f"{c}*x {sign} {abs(d)}*y - {f}"}  # fmt: skip


def _consecutive(r: Random) -> Params:
    k = r.randint(2, 9)
    step, word = r.choice(((1, ""), (1, ""), (2, "even "), (2, "odd ")))
    a = r.randint(1, 300)
    if word == "even ":
        a += a % 2
    elif word == "odd ":
        a += 1 - a % 2
    total = k * a + step * k * (k - 1) // 2
    ask = r.choice(("smallest", "largest"))
    words = ("two", "three", "four", "five", "six", "seven", "eight", "nine")[k - 2]
    return {
        "k": k,
        "words": r.choice((words, str(k))),
        "kind": word,
        "step": step,
        "s": total,
        "ask": ask,
        "code": "a" if ask == "smallest" else f"a + {step * (k - 1)}",
    }


def _think_of_number(r: Random) -> Params | None:
    x, a, b = r.randint(1, 200), r.randint(2, 12), r.randint(1, 99)
    shape = r.randrange(5)
    text, code = (
        (f"multiplies it by {a} and adds {b}", f"({a * x + b} - {b}) // {a}"),
        (f"multiplies it by {a} and subtracts {b}", f"({a * x - b} + {b}) // {a}"),
        (f"adds {b} and multiplies the sum by {a}", f"{a * (x + b)} // {a} - {b}"),
        (f"doubles it and adds {b}", f"({2 * x + b} - {b}) // 2"),
        (f"adds {b} to it and then subtracts {a}", f"{x + b - a} + {a} - {b}"),
    )[shape]
    result = (a * x + b, a * x - b, a * (x + b), 2 * x + b, x + b - a)[shape]
    return {"words": text, "r": result, "code": code} if result >= 0 else None


def _polynomial(r: Random) -> tuple[str, str]:
    degree = r.choice((1, 1, 2, 2, 2, 3))
    tex, code = "", ""
    for power in range(degree, -1, -1):
        c = (
            r.choice((0, 1, 1, 2, 3, 4, 5, 7, 10))
            if power < degree
            else r.choice((1, 1, 2, 3, 4, 5))
        )
        if not c:
            continue
        sign = "" if not tex else r.choice((" + ", " + ", " - "))
        body = f"x^{power}" if power > 1 else "x" if power else ""
        tex += sign + (str(c) if c > 1 or not body else "") + body
        term = {0: str(c), 1: f"{c} * x"}.get(power, f"{c} * x**{power}")
        code += sign + (term[4:] if c == 1 and power else term)
    return tex, code


def _function_value(r: Random) -> Params | None:
    tex, code = _polynomial(r)
    x = r.randint(0, 20)
    return (
        {"tex": tex, "code": code, "x": x}
        if eval(code, {"x": x}) in ANSWERS and "x" in code
        else None
    )


def _operation(r: Random) -> Params | None:
    tex, code = r.choice(
        (("2a + b", "2 * a + b"), ("a^2 + b", "a**2 + b"), ("ab + a", "a * b + a"), ("a^2 - b^2", "a**2 - b**2"), ("a + 3b", "a + 3 * b"),
         ("ab - a - b", "a * b - a - b"), ("a^2 + b^2", "a**2 + b**2"), ("3a - b", "3 * a - b"), ("(a + b)^2", "(a + b)**2"), ("a(b + 1)", "a * (b + 1)"),
         ("5a - 2b", "5 * a - 2 * b"), ("a^b", "a**b"), ("ab + 1", "a * b + 1"), ("a + b + ab", "a + b + a * b"))
    )  # fmt: skip
    a, b = r.randint(1, 12), r.randint(1, 9)
    sign = r.choice(("\\oplus", "\\star", "*", "\\circ", "@", "#", "\\otimes"))
    value = eval(code, {"a": a, "b": b})
    return {"tex": tex, "code": code, "p": a, "q": b, "sign": sign} if value in ANSWERS else None


def _quadratic(r: Random) -> Params:
    x, y = r.randint(1, 40), r.randint(1, 40)
    if r.random() < 0.5:
        ask = r.choice(("larger", "smaller"))
        return {
            "tex": f"x^2 - {x + y}x + {x * y} = 0",
            "p": x + y,
            "q": x * y,
            "m": "-",
            "s": "+",
            "ask": f"the {ask} solution",
            "code": "max(roots)" if ask == "larger" else "min(roots)",
        }
    y = x + r.randint(1, 30)
    return {
        "tex": f"x^2 + {y - x}x - {x * y} = 0",
        "p": y - x,
        "q": x * y,
        "m": "+",
        "s": "-",
        "ask": "the positive solution",
        "code": "max(roots)",
    }


def _relation(r: Random) -> Params:
    k, x, b = r.randint(2, 9), r.randint(1, 200), r.randint(1, 99)
    words = {2: "twice", 3: "three times", 4: "four times"}.get(k, f"{k} times")
    return {"k": k, "t": words, "b": b, "r": k * x + b}


FAMILIES = (
    family(
        "linear_equation",
        _linear,
        [
            "Solve [for $x$: |]${tex}$.",
            "[Find|Determine] $x$ if ${tex}$.",
            "[If|Given that] ${tex}$, [what is|find] $x$[?|.]",
            "[What is|Find] the [solution|value of $x$] [of|in|if] ${tex}$[?|.]",
            "[For which|For what] $x$ [does ${tex}$ hold|is ${tex}$]?",
            "[Solve the equation|Solve] ${tex}$[ for the unknown|].",
            "${tex}$. [Find x|What is x|x = ?]",
            "Which number must stand for $x$ in ${tex}$?",
        ],
        ["x = {code}.", "Solve for x: {code}."],
        ["print({code})", "x = {code}\nprint(x)"],
    ),
    family(
        "linear_equation_two_sides",
        _linear_both,
        [
            "Solve [for $x$: |]${tex}$.",
            "[Find|Determine] $x$ if ${tex}$.",
            "[If|Given that] ${tex}$, [what is|find] $x$[?|.]",
            "[What is|Find] the [solution|value of $x$] [of|in|if] ${tex}$[?|.]",
            "[Solve the equation|Solve] ${tex}$.",
            "Both sides of ${tex}$ are equal for which $x$?",
        ],
        ["x = {code}.", "Collect x on one side: {code}."],
        ["print({code})", "x = {code}\nprint(x)"],
    ),
    family(
        "bracket_equation",
        lambda r: _bracket(r) if r.random() < 0.6 else _fraction_equation(r),
        [
            "Solve [for $x$: |]${tex}$.",
            "[Find|Determine] $x$ if ${tex}$.",
            "[If|Given that] ${tex}$, [what is|find] $x$[?|.]",
            "[What is|Find] the [solution|value of $x$] [of|in|if] ${tex}$[?|.]",
            "[Solve the equation|Solve] ${tex}$.",
            "What must $x$ be so that ${tex}$ is true?",
        ],
        ["x = {code}.", "Undo step by step: {code}."],
        ["print({code})", "x = {code}\nprint(x)"],
    ),
    family(
        "sum_and_difference",
        _sum_difference,
        [
            "[The sum of two numbers is|Two numbers have sum|Two numbers add up to] {s} and [their difference is|have difference|differ by] {d}. [What is|Find] the {ask}[ one| number|][?|.]",
            "[Find|What is] the {ask} of two numbers with sum {s} and difference {d}[?|.]",
            "$x + y = {s}$ and $x - y = {d}$. [What is|Find] the {ask} of [the two|$x$ and $y$][?|.]",
            "{who} and {who2} have {s} {items} together. {who} has {d} more than {who2}. How many does the one with the {ask} number have?",
            "One number exceeds another by {d}, and both make {s}. Which is the {ask}?",
        ],
        ["The {ask} from sum {s} and difference {d}.", "({s} + {d}) / 2 and ({s} - {d}) / 2."],
        [
            "larger = ({s} + {d}) // 2\nsmaller = {s} - larger\nprint({ask})",
            "smaller = ({s} - {d}) // 2\nlarger = smaller + {d}\nprint({ask})",
        ],
    ),
    family(
        "sum_and_product",
        _sum_product,
        [
            "[The sum of two numbers is|Two numbers have sum|Two numbers add up to] {s} and [their product is|have product] {p}. [What is|Find] the {ask}[ one| number|][?|.]",
            "[Find|What is] the {ask} of two numbers with sum {s} and product {p}[?|.]",
            "$x + y = {s}$ and $xy = {p}$. [What is|Find] the {ask} of [the two|$x$ and $y$][?|.]",
            "Two [whole |]numbers multiply to {p} and add to {s}. <find> the {ask} one.",
            "A pair of integers has total {s}; multiplied they give {p}. Which is the {ask} of them?",
        ],
        ["x + y = {s}, x * y = {p}; the {ask}.", "Search x with x * ({s} - x) == {p}."],
        [
            "pairs = [(x, {s} - x) for x in range({s} + 1) if x * ({s} - x) == {p}]\nprint({code}(pairs[0]))",
            "x = next(x for x in range({s} + 1) if x * ({s} - x) == {p})\nprint({code}(x, {s} - x))",
        ],
    ),
    family(
        "two_equations",
        _system,
        [
            "Solve the system ${first}$, ${second}$[ and give| for|. What is] ${ask}$.",
            "[If|Given that] ${first}$ and ${second}$, [what is|find] ${ask}$[?|.]",
            "[Find|Compute] ${ask}$ if ${first}$ and ${second}$.",
            "${first}$ and ${second}$. [What is|Find] ${ask}$[?|.]",
            "[Numbers|Integers] $x$ and $y$ satisfy ${first}$ and ${second}$. <find> ${ask}$.",
            "Two unknowns obey ${first}$ as well as ${second}$. Which value has ${ask}$?",
        ],
        ["Solve {one} = 0 and {two} = 0; give {code}.", "Two equations for x and y, then {code}."],
        [
            "x, y = sympy.symbols('x y')\ns = sympy.solve([{one}, {two}], [x, y])\nx, y = s[x], s[y]\nprint({code})"
        ]
        * 1
        + [
            "from sympy.abc import x, y\ns = sympy.solve([{one}, {two}], [x, y])\nx, y = s[x], s[y]\nprint({code})"
        ],
    ),
    family(
        "consecutive_numbers",
        _consecutive,
        [
            "The sum of {words} consecutive {kind}[integers|numbers] is {s}. [What is|Find] the {ask}[ one| of them|][?|.]",
            "{words} consecutive {kind}[integers|numbers] [add up to|have the sum] {s}. [What is|Find|Which is] the {ask}[ one| of them|][?|.]",
            "[Find|What is] the {ask} of {words} consecutive {kind}[integers|numbers] [whose sum is|with sum] {s}[?|.]",
            "If {words} consecutive {kind}[integers|numbers] sum to {s}, what is the {ask}[ number|]?",
            "{s} is the total of {words} {kind}whole numbers that follow one another. Name the {ask}.",
        ],
        [
            "{k} numbers from a with step {step}, sum {s}; give {code}.",
            "Sum {s}: find a, then {code}.",
        ],
        [
            "a = ({s} - {step} * {k} * ({k} - 1) // 2) // {k}\nprint({code})",
            "a = 0\nwhile sum(a + {step} * i for i in range({k})) != {s}:\n    a += 1\nprint({code})",
        ],
    ),
    family(
        "think_of_a_number",
        _think_of_number,
        [
            "{who} thinks of a number, {words}. The result is {r}. [What is the number|Find the number|What was the number|Which number was it]?",
            "[I think|You think|Someone thinks] of a number. [He|She|One] {words} and gets {r}. [What is|Find] the number[?|.]",
            "{who} [takes|chooses|picks] a number, {words} and [gets|obtains|arrives at] {r}. With which number did {he} start?",
            "A [machine|robot] takes a number, {words} and shows {r}. What number went in?",
            "Out comes {r} after somebody {words}, it being a secret number. What is the secret number?",
        ],
        ["Go backwards: {code}.", "Undo the steps: {code}."],
        ["print({code})", "x = {code}\nprint(x)"],
    ),
    family(
        "function_value",
        _function_value,
        [
            "[Let|If|Suppose] $f(x) = {tex}$[. What is|, what is|. Find|. Compute] $f({x})$[?|.]",
            "[What is|Find|Compute|Evaluate] ${tex}$ [for|at|when|if] $x = {x}$[?|.]",
            "[Find|Compute|What is] $f({x})$ [for|if] $f(x) = {tex}$[?|.]",
            "[Evaluate|What is] the [polynomial|function|expression] ${tex}$ [at|for] $x = {x}$[?|.]",
            "[Given|If] $x = {x}$, [find|what is] [the value of |]${tex}$[?|.]",
            "Put $x = {x}$ into ${tex}$. [What do you get|What is the result]?",
            "What value does ${tex}$ take when {x} is substituted for $x$?",
        ],
        ["x = {x}: {code}.", "Evaluate {code} at {x}."],
        ["x = {x}\nprint({code})", "def f(x):\n    return {code}\nprint(f({x}))"],
    ),
    family(
        "new_operation",
        _operation,
        [
            "[Let|Define|Suppose] $a {sign} b = {tex}$[. What is|. Find|. Compute] ${p} {sign} {q}$[?|.]",
            "[If|Suppose that] $a {sign} b = {tex}$, [what is|find] ${p} {sign} {q}$[?|.]",
            "[An|A new] operation is defined by $a {sign} b = {tex}$. [What is|Find] ${p} {sign} {q}$[?|.]",
            "[Compute|What is] ${p} {sign} {q}$ if $a {sign} b$ [means|stands for|is] ${tex}$[?|.]",
            "For numbers one writes $a {sign} b$ for ${tex}$. Which value has ${p} {sign} {q}$?",
        ],
        ["a = {p}, b = {q}: {code}.", "{code} with a = {p} and b = {q}."],
        ["a, b = {p}, {q}\nprint({code})", "def op(a, b):\n    return {code}\nprint(op({p}, {q}))"],
    ),
    family(
        "quadratic_equation",
        _quadratic,
        [
            "[Find|What is|Determine|Give] {ask} of ${tex}$[?|.]",
            "Solve ${tex}$[ and give|. What is|; give] {ask}.",
            "[The equation|The quadratic equation] ${tex}$ [is given|has two solutions]. <find> {ask}.",
            "If ${tex}$, [what is|find] {ask}[?|.]",
            "Which number is {ask} of the equation ${tex}$?",
        ],
        ["x*x {m} {p} x {s} {q} = 0; take {code}.", "Roots of the quadratic, then {code}."],
        [
            "x = sympy.Symbol('x')\nroots = sympy.solve(x**2 {m} {p} * x {s} {q}, x)\nprint({code})",
            "roots = [x for x in range(-2000, 2001) if x**2 {m} {p} * x {s} {q} == 0]\nprint({code})",
        ],
    ),
    family(
        "number_from_relation",
        _relation,
        [
            "{b} more than {t} a number is {r}. [What is|Find] the number[?|.]",
            "{t} a number [plus|increased by] {b} [is|equals|gives] {r}. [What is|Find] the number[?|.]",
            "[The sum of|If you add] {b} [and|to] {t} a number[ is| you get|:] {r}. [What is|Find] the number[?|.]",
            "[What|Which] number, [taken {t}|multiplied by {k}] and increased by {b}, [gives|is] {r}?",
            "When {b} is added to {t} an unknown number, the outcome is {r}. Which number is it?",
        ],
        ["({r} - {b}) / {k}.", "{k}x + {b} = {r}."],
        ["print(({r} - {b}) // {k})", "x = ({r} - {b}) // {k}\nprint(x)"],
    ),
)
