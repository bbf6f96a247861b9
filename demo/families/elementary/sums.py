"""Sums of series and terms of well-known sequences."""

from __future__ import annotations

from random import Random

from ..family import Params, family, number


def _arithmetic(r: Random) -> Params:
    a, d = number(r, 1, 99), r.randint(1, 30)
    return {"a": a, "d": d, "n": number(r, 4, 300), "b": a + d, "c": a + 2 * d, "e": a + 3 * d}


def _arithmetic_last(r: Random) -> Params:
    made = _arithmetic(r)
    return {**made, "l": int(made["a"]) + int(made["d"]) * (int(made["n"]) - 1)}


def _falling(r: Random) -> Params | None:
    d, n = r.randint(1, 9), r.randint(4, 12)
    a = d * n + r.randint(0, 50)
    return {
        "list": ", ".join(str(a - d * i) for i in range(4)),
        "code": str(a - 4 * d),
        "rule": f"subtract {d}",
    }


def _next_term(r: Random) -> Params | None:
    kind = r.randrange(7)
    a, d = r.randint(1, 30), r.randint(1, 20)
    if kind == 0:
        terms, rule, code = [a + d * i for i in range(6)], f"add {d}", "{0} + " + str(d)
    elif kind == 1:
        q = r.randint(2, 5)
        terms, rule, code = [a * q**i for i in range(6)], f"multiply by {q}", "{0} * " + str(q)
    elif kind == 2:
        a = r.randint(1, 10)
        terms, rule, code = [(a + i) ** 2 for i in range(6)], "squares", f"{a + 5}**2"
    elif kind == 3:
        terms = [a, d]
        while len(terms) < 6:
            terms.append(terms[-1] + terms[-2])
        rule, code = "each is the sum of the two before", f"{terms[-3]} + {terms[-2]}"
    elif kind == 4:
        terms, rule = (
            [a + i * (i + 1) // 2 * d for i in range(6)],
            "the differences grow by " + str(d),
        )
        code = "{0} + " + str(5 * d)
    elif kind == 5:
        terms = [a + d * 6 - d * i for i in range(6)]
        rule, code = f"subtract {d}", "{0} - " + str(d)
    else:
        a = r.randint(1, 6)
        terms, rule, code = [(a + i) ** 3 for i in range(6)], "cubes", f"{a + 5}**3"
    shown = terms[:5]
    return {
        "list": ", ".join(map(str, shown)),
        "rule": rule,
        "code": code.replace("{0}", str(shown[-1])),
    }


def _range(r: Random) -> Params:
    a = number(r, 1, 300)
    return {"a": a, "b": a + number(r, 3, 99)}


def _powers(r: Random) -> Params:
    q = r.randint(2, 9)
    return {"q": q, "n": r.randint(2, {2: 15, 3: 9, 4: 7, 5: 6, 6: 5}.get(q, 4))}


FAMILIES = (
    family(
        "sum_to_n",
        lambda r: {"n": number(r, 3, 440)},
        [
            "[What is|Find|Compute|Calculate] the sum of [all |the |]<ints> from 1 to {n}[?|.]",
            "[What is|Find|Compute] the sum of the first {n} [positive integers|natural numbers|counting numbers][?|.]",
            "[What is|Compute|Find] $1 + 2 + 3 + \\cdots + {n}$[?|.]",
            "[What is|Compute|Evaluate] $1 + 2 + \\ldots + {n}$[?|.]",
            "Add [up |][all |]the [numbers|integers] from 1 to {n}.",
            "[What is|Find] the {n}th triangular number[?|.]",
            "[What is|Compute] $\\sum_{k=1}^{{n}} k$[?|.]",
            "{who} [stacks|lays] rows of 1, 2, 3, ..., {n} {items}. How many [{items} |]is that[ in total|]?",
            "{who} saves 1 coin on the first day, 2 on the second and so on for {n} days. How many coins is that?",
            "How much is one plus two plus three and so on up to {n}?",
        ],
        ["{n} * ({n} + 1) / 2.", "Sum of range(1, {n} + 1)."],
        ["print(sum(range(1, {n} + 1)))", "print({n} * ({n} + 1) // 2)"],
    ),
    family(
        "sum_between",
        _range,
        [
            "[What is|Find|Compute] the sum of [all |the |]<ints> from {a} to {b}<incl>[?|.]",
            "[What is|Compute|Find] ${a} + {a1} + \\cdots + {b}$[?|.]".replace(
                "{a} + {a1}", "{a} + \\ldots"
            ).replace(" + \\cdots", ""),
            "Add [up |][all |]the [numbers|integers] from {a} to {b}<incl>.",
            "What do [all |]the numbers {a} to {b} add up to?",
            "Starting at {a} and ending at {b}, all whole numbers are added. What is the total?",
        ],
        ["sum(range({a}, {b} + 1)).", "({a} + {b}) times the count over 2."],
        ["print(sum(range({a}, {b} + 1)))", "print(({a} + {b}) * ({b} - {a} + 1) // 2)"],
    ),
    family(
        "sum_of_squares",
        lambda r: {"n": r.randint(2, 66)},
        [
            "[What is|Find|Compute] the sum of [the squares of the first {n} positive integers|the first {n} squares|the first {n} perfect squares][?|.]",
            "[What is|Compute|Find] $1^2 + 2^2 + 3^2 + \\cdots + {n}^2$[?|.]",
            "[What is|Compute] $\\sum_{k=1}^{{n}} k^2$[?|.]",
            "Add [up |]the squares of [all |the |]<ints> from 1 to {n}.",
            "A square pyramid of {n} layers is built from balls. How many balls?",
            "If the numbers 1 to {n} are squared and then added, what results?",
        ],
        ["sum of k*k up to {n}.", "Squares of 1 to {n}."],
        [
            "print(sum(k * k for k in range(1, {n} + 1)))",
            "print({n} * ({n} + 1) * (2 * {n} + 1) // 6)",
        ],
    ),
    family(
        "sum_of_cubes",
        lambda r: {"n": r.randint(2, 24)},
        [
            "[What is|Find|Compute] the sum of [the cubes of the first {n} positive integers|the first {n} cubes][?|.]",
            "[What is|Compute|Find] $1^3 + 2^3 + 3^3 + \\cdots + {n}^3$[?|.]",
            "[What is|Compute] $\\sum_{k=1}^{{n}} k^3$[?|.]",
            "Add [up |]the cubes of [all |the |]<ints> from 1 to {n}.",
            "If the numbers 1 to {n} are cubed and then added, what results?",
        ],
        ["sum of k**3 up to {n}.", "Cubes of 1 to {n}."],
        ["print(sum(k**3 for k in range(1, {n} + 1)))", "print(({n} * ({n} + 1) // 2)**2)"],
    ),
    family(
        "sum_of_odd_or_even",
        lambda r: (
            lambda k: {
                "n": number(r, 2, 300),
                "word": k,
                "code": {"odd": "2 * k - 1", "even": "2 * k"}[k],
            }
        )(r.choice(("odd", "even"))),
        [
            "[What is|Find|Compute] the sum of the first {n} {word} [positive integers|natural numbers|numbers][?|.]",
            "[What is|Find|Compute] the sum of the first {n} [positive |]{word} [integers|numbers][?|.]",
            "Add [up |]the first {n} {word} numbers.",
            "What do the {n} smallest [positive |]{word} numbers add up to?",
            "Taking {n} {word} natural numbers from the start, what is their total?",
        ],
        ["sum of {code} for k up to {n}.", "The k-th {word} number is {code}."],
        ["print(sum({code} for k in range(1, {n} + 1)))"],
    ),
    family(
        "sum_of_odd_or_even_between",
        lambda r: (lambda k: {**_range(r), "word": k, "m": {"odd": 1, "even": 0}[k]})(
            r.choice(("odd", "even"))
        ),
        [
            "[What is|Find|Compute] the sum of [all |the |]{word} [integers|numbers] [from|between] {a} [to|and] {b}<incl>[?|.]",
            "Add [up |]all {word} numbers from {a} to {b}.",
            "What do the {word} numbers from {a} to {b} add up to?",
            "[Find|Compute] the total of the {word} integers $n$ with ${a} \\le n \\le {b}$.",
            "In the list {a} up to {b}, the {word} numbers are added. What comes out?",
        ],
        ["sum of n from {a} to {b} with n % 2 == {m}.", "Add {word} n in range({a}, {b} + 1)."],
        ["print(sum(n for n in range({a}, {b} + 1) if n % 2 == {m}))"],
    ),
    family(
        "sum_of_multiples",
        lambda r: {"k": r.randint(3, 60), "n": number(r, 60, 1_500)},
        [
            "[What is|Find|Compute] the sum of [all |the |][positive |]multiples of {k} [<upto>|up to] {n}[?|.]",
            "[What is|Find|Compute] the sum of [all |the |]<whole> from 1 to {n} [that are |]divisible by {k}[?|.]",
            "Add [up |]all multiples of {k} from 1 to {n}.",
            "What do the [positive |]multiples of {k} up to {n} add up to?",
            "Of the numbers 1 to {n}, those that {k} divides are added. What is the total?",
        ],
        ["sum(range({k}, {n} + 1, {k})).", "Multiples of {k} up to {n}."],
        ["print(sum(range({k}, {n} + 1, {k})))", "m = {n} // {k}\nprint({k} * m * (m + 1) // 2)"],
    ),
    family(
        "arithmetic_term",
        _arithmetic,
        [
            "[What is|Find] the {n}th term of the [arithmetic |]sequence {a}, {b}, {c}, ...[?|.]",
            "[What is|Find] the {n}th term of an arithmetic [sequence|progression] with first term {a} and [common |]difference {d}[?|.]",
            "An arithmetic sequence starts [with|at] {a} and has [common |]difference {d}. [What is|Find] [its|the] {n}th term[?|.]",
            "The sequence {a}, {b}, {c}, {e}, ... goes on [like this|in the same way]. What is the {n}th [number|term]?",
            "[Find|Compute] $a_{{n}}$ if $a_1 = {a}$ and $a_{k+1} = a_k + {d}$.",
            "{who} starts at {a} and counts up by {d}. What is the {n}th number {he} says?",
        ],
        ["{a} + {d} * ({n} - 1).", "Term {n}: first {a}, difference {d}."],
        ["print({a} + {d} * ({n} - 1))", "a = {a}\nd = {b} - {a}\nprint(a + d * ({n} - 1))"],
    ),
    family(
        "arithmetic_sum",
        lambda r: {**_arithmetic(r), "n": r.randint(3, 70)},
        [
            "[What is|Find] the sum of the first {n} terms of the [arithmetic |]sequence {a}, {b}, {c}, ...[?|.]",
            "[What is|Find] the sum of the first {n} terms of an arithmetic [sequence|progression] with first term {a} and [common |]difference {d}[?|.]",
            "An arithmetic [series|sequence] starts with {a} and has [common |]difference {d}. [What is|Find] the sum of its first {n} terms[?|.]",
            "[A theater has|In a hall there are] {n} rows[ of seats|]; the first has {a} seats and each [further |next ]row {d} more[ than the one before|]. How many seats are there[ in total|]?".replace(
                "[further |next ]", "[further|next] "
            ),
            "On the first day {who} does {a} [push-ups|exercises] and every day {d} more than the day before. How many in {n} days altogether?",
        ],
        ["sum of {a} + {d} * k for k below {n}.", "{n} terms from {a}, difference {d}."],
        [
            "print(sum({a} + {d} * k for k in range({n})))",
            "print({n} * (2 * {a} + ({n} - 1) * {d}) // 2)",
        ],
    ),
    family(
        "number_of_terms",
        _arithmetic_last,
        [
            "How many [terms|numbers] [are in|has] the [arithmetic |]sequence {a}, {b}, {c}, ..., {l}?",
            "[What is|Find] the number of terms in {a}, {b}, {c}, ..., {l}[?|.]",
            "How many numbers are in the list ${a}, {b}, {c}, \\ldots, {l}$?",
            "{who} counts {a}, {b}, {c} and so on to {l}. How many numbers [does {he} say|are that]?",
            "The progression from {a} to {l} in steps of {d} has what length?",
        ],
        ["({l} - {a}) / {d} + 1.", "Steps from {a} to {l}."],
        ["print(len(range({a}, {l} + 1, {b} - {a})))", "print(({l} - {a}) // ({b} - {a}) + 1)"],
    ),
    family(
        "next_term",
        _next_term,
        [
            "[What is|Find] the next [number|term] in the sequence {list}, ...?",
            "{list}, ? [What comes next|Which number comes next|What is the next number]?",
            "[Which|What] number [comes next|follows] in {list}, ...?",
            "[Continue|Complete] the [sequence|pattern]: {list}, ...",
            "{who} writes {list}. [What|Which number] does {he} write next?",
            "Find the [missing|next] term: {list}, __.",
            "A row begins {list}. How does it go on?",
        ],
        ["The rule: {rule}. Next: {code}.", "{rule}: {code}."],
        ["print({code})"],
    ),
    family(
        "fibonacci_term",
        lambda r: {"n": r.randint(1, 25)},
        [
            "[What is|Find|Compute] the {n}th Fibonacci number[?|.]",
            "[What is|Find|Compute] the {n}th [term|number] of the Fibonacci sequence 1, 1, 2, 3, 5, ...[?|.]",
            "[What is|Find|Compute] $F_{{n}}$[?|.][| ($F_1 = F_2 = 1$)| where $F_k$ are the Fibonacci numbers]",
            "The Fibonacci sequence starts 1, 1, [and each further term is the sum of the two before|2, 3, 5]. [What is|Find] the {n}th term[?|.]",
            "In the Fibonacci sequence, [what|which] [is the {n}th number|number has position {n}]?".replace(
                "[what|which] [is the {n}th number|number has position {n}]", "what is number {n}"
            ),
            "Each number of a sequence is the sum of its two predecessors, starting with 1 and 1. Which is number {n}?",
        ],
        ["sympy.fibonacci({n}).", "Fibonacci number {n}."],
        [
            "print(sympy.fibonacci({n}))",
            "a, b = 0, 1\nfor _ in range({n}):\n    a, b = b, a + b\nprint(a)",
        ],
    ),
    family(
        "fibonacci_sum",
        lambda r: {"n": r.randint(2, 22)},
        [
            "[What is|Find|Compute] the sum of the first {n} Fibonacci numbers[?|.]",
            "Add [up |]the first {n} Fibonacci numbers[ 1, 1, 2, 3, ...|].",
            "[What is|Compute] $F_1 + F_2 + \\cdots + F_{{n}}$[?|.][| ($F_1 = F_2 = 1$)| for the Fibonacci numbers]",
            "What do the first {n} [terms|numbers] of the Fibonacci sequence add up to?",
            "The Fibonacci numbers from the first to number {n} are added. What total results?",
        ],
        ["Add Fibonacci numbers 1 to {n}.", "sum of fibonacci(k), k up to {n}."],
        [
            "print(sum(sympy.fibonacci(k) for k in range(1, {n} + 1)))",
            "a, b, s = 0, 1, 0\nfor _ in range({n}):\n    a, b = b, a + b\n    s += a\nprint(s)",
        ],
    ),
    family(
        "sum_of_powers",
        _powers,
        [
            "[What is|Find|Compute] $1 + {q} + {q}^2 + \\cdots + {q}^{{n}}$[?|.]",
            "[What is|Find|Compute] the sum of the powers of {q} from ${q}^0$ to ${q}^{{n}}$[?|.]",
            "[What is|Compute] $\\sum_{k=0}^{{n}} {q}^k$[?|.]",
            "Add [up |]all powers of {q} with exponents 0 to {n}.",
            "A tree has one trunk, {q} boughs on it, {q} branches on each bough and so on, {n} times. How many parts are there in all?",
        ],
        ["sum of {q}**k for k from 0 to {n}.", "Geometric sum with {q}."],
        ["print(sum({q}**k for k in range({n} + 1)))", "print(({q}**({n} + 1) - 1) // ({q} - 1))"],
    ),
    family(
        "geometric_term",
        lambda r: (lambda a, q, n: {"a": a, "q": q, "n": n, "b": a * q, "c": a * q * q})(
            r.randint(1, 9), r.randint(2, 4), r.randint(3, 7)
        ),
        [
            "[What is|Find] the {n}th term of the [geometric |]sequence {a}, {b}, {c}, ...[?|.]",
            "[What is|Find] the {n}th term of a geometric [sequence|progression] with first term {a} and [common |]ratio {q}[?|.]",
            "A geometric sequence starts [with|at] {a} and has ratio {q}. [What is|Find] [its|the] {n}th term[?|.]",
            "A number starts at {a} and is multiplied by {q} again and again. What is the {n}th number in the row?",
        ],
        ["{a} * {q}**({n} - 1).", "Term {n}: first {a}, ratio {q}."],
        [
            "print({a} * {q}**({n} - 1))",
            "x = {a}\nfor _ in range({n} - 1):\n    x *= {q}\nprint(x)",
        ],
    ),
    family(
        "doubling",
        lambda r: {
            "a": number(r, 1, 99),
            "n": r.randint(1, 9),
            "unit": r.choice(("day", "hour", "week", "minute", "year")),
        },
        [
            "[A colony|A number of bacteria|The number of cells] doubles every {unit}. It starts with {a}. How many are there after {n} {unit}s?",
            "{who} has {a} {items}; the number doubles each {unit}. How many [does {he} have|are there] after {n} {unit}s?",
            "Starting [from|with] {a}, a [quantity|population] doubles every {unit}. [What is it|How big is it] after {n} {unit}s?",
            "[Double {a}|Take {a} and double it] {n} times. What [is the result|do you get]?",
            "Each {unit} twice as many as before: from {a}, what is reached {n} {unit}s later?",
        ],
        ["{a} * 2**{n}.", "{n} doublings of {a}."],
        ["print({a} * 2**{n})"],
    ),
)
