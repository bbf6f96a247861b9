"""Single calculations: sums, products, quotients, roots, fractions of a number, missing numbers."""

from __future__ import annotations

from random import Random

from ..family import Params, family, number


def _listed(r: Random, low: int, high: int, least: int = 3, most: int = 8) -> Params:
    values = [number(r, low, high) for _ in range(r.randint(least, most))]
    join = r.choice((", ", ", ", ", and ", " and "))
    last = join if join.strip() else ", "
    return {
        "list": ", ".join(map(str, values[:-1])) + last + str(values[-1]),
        "code": ", ".join(map(str, values)),
        "n": len(values),
    }


def _division(r: Random) -> Params:
    b, q = number(r, 2, 99), number(r, 2, 999)
    return {"a": b * q, "b": b}


def _subtraction(r: Random) -> Params:
    a, b = number(r, 2, 99_999), number(r, 1, 99_999)
    return {"a": max(a, b), "b": min(a, b)}


def _fraction(r: Random) -> Params:
    q = r.randint(2, 12)
    return {"p": r.randint(1, q - 1), "q": q, "n": q * number(r, 2, 999)}


def _gap(r: Random) -> Params:
    a, b = number(r, 2, 299), number(r, 2, 299)
    first, result, code = r.choice(
        (
            (f"? + {a}", a + b, f"{a + b} - {a}"),
            (f"? - {a}", b, f"{a} + {b}"),
            (f"? \\times {a}", a * b, f"{a * b} // {a}"),
        )
    )
    return {"first": first, "b": result, "code": code}


FAMILIES = (
    family(
        "addition",
        lambda r: {"a": number(r, 0, 49_999), "b": number(r, 0, 49_999)},
        [
            "[What is|Compute|Calculate|Find|How much is|Work out] ${a} + {b}$[?|.|]",
            "[What is|Find|Compute|Determine] the sum of {a} and {b}[?|.]",
            "Add {a} [and|to] {b}.",
            "[How much is|What is|What's] {a} plus {b}?",
            "${a} + {b}$ [= ?|=|equals what?]",
            "[If you add|When you add] {b} to {a}, [what do you get|what is the result|which number comes out]?",
            "[{who} has|There are] {a} {items} and [gets|finds|receives] {b} more. How many {items} [are there|are there in total|are there now]?",
            "{who} [has|owns] {a} {items} and {who2} [has|owns] {b}[ {items}|]. How many [do they have together|{items} do they have in total|{items} are there in all]?",
            "What total do the numbers {a} and {b} make?",
        ],
        ["Add {a} and {b}.", "A sum: {a} + {b}.", "{a} + {b}."],
        ["print({a} + {b})"],
    ),
    family(
        "subtraction",
        _subtraction,
        [
            "[What is|Compute|Calculate|Find|How much is|Work out] ${a} - {b}$[?|.|]",
            "[What is|Find|Compute] the difference [of|between] {a} and {b}[?|.]",
            "Subtract {b} from {a}.",
            "[How much is|What is|What's] {a} minus {b}?",
            "${a} - {b}$ [= ?|=|equals what?]",
            "[If you take|When we take] {b} away from {a}, [what is left|what remains|how much is left]?",
            "[{who} has|There are] {a} {items} and [gives away|loses|sells|uses] {b}[ of them|]. How many {items} [are left|remain|does {he} have left]?",
            "How much [larger|bigger|greater] is {a} than {b}?",
            "{who} had {a} {items}. {b} of them [were sold|broke|were given away|got lost]. How many {items} [are left|remain]?",
            "What must be added to {b} to [get|make|reach] {a}?",
        ],
        ["Subtract {b} from {a}.", "A difference: {a} - {b}.", "{a} - {b}."],
        ["print({a} - {b})"],
    ),
    family(
        "multiplication",
        lambda r: {"a": number(r, 2, 400), "b": number(r, 2, 250)},
        [
            "[What is|Compute|Calculate|Find|How much is|Work out] ${a} [\\times|\\cdot] {b}$[?|.|]",
            "[What is|Find|Compute] the product of {a} and {b}[?|.]",
            "Multiply {a} [by|and|with] {b}.",
            "[How much is|What is|What's] {a} times {b}?",
            "${a} \\times {b}$ [= ?|=|equals what?]",
            "There are {a} {boxes} with {b} {items} [each|in each|in every {box}]. How many {items} are there[ in total| altogether|]?",
            "{who} [buys|packs|has] {a} {boxes} of {b} {items}[ each|]. How many {items} [is that|are there|does {he} have][ in total|]?",
            "[A hall|A theater|A cinema|A classroom] has {a} rows of {b} seats. How many [seats|people can sit there|seats are there in all]?",
            "[One|Each] {item} costs {b} {money}. [How much do|What do] {a} {items} cost?",
            "A [farmer|gardener] plants {a} rows with {b} trees [each|in each row]. How many trees does [he|she] plant?",
            "How many {items} lie in {a} {boxes} if every {box} contains {b} of them?",
        ],
        ["Multiply {a} and {b}.", "A product: {a} * {b}.", "{a} times {b}."],
        ["print({a} * {b})"],
    ),
    family(
        "division",
        _division,
        [
            "[What is|Compute|Calculate|Find|How much is|Work out] ${a} [\\div|/] {b}$[?|.|]",
            "[What is|Find|Compute] the quotient of {a} and {b}[?|.]",
            "Divide {a} by {b}.",
            "[How much is|What is|What's] {a} divided by {b}?",
            "How many times does {b} [go into|fit into] {a}?",
            "{a} {items} are [shared|divided|split|distributed] [equally|evenly|fairly] among {b} [children|people|friends|students]. How many [does each get|{items} does each one get|does everyone receive]?",
            "{who} [puts|packs|places] {a} {items} into {boxes} of {b}. How many {boxes} [does {he} need|are filled|are there]?",
            "{a} {items} are put into {b} {boxes} [equally|so that each holds the same number]. How many are in each {box}?",
            "{b} friends [share|split] {a} {money} [equally|evenly]. How much does each [get|receive]?",
            "If {a} {items} [cost|are sold for] the same and {b} of them make one set, how many sets can be made?",
        ],
        ["Divide {a} by {b}.", "A quotient: {a} / {b}.", "{a} divided by {b}."],
        ["print({a} // {b})"],
    ),
    family(
        "whole_quotient_or_rest",
        lambda r: {"a": number(r, 5, 99_999), "b": number(r, 2, 999)},
        [
            "[What is|Find|Compute] the remainder [when {a} is divided by {b}|of {a} divided by {b}|of {a} on division by {b}][?|.]",
            "[What is|Find|Compute] ${a} \\bmod {b}$[?|.]",
            "[How much|What] is left over when {a} is divided by {b}?",
            "{a} {items} are packed into {boxes} of {b}. How many {items} are left over?",
            "{who} divides {a} by {b}. [What is the remainder|What remainder does {he} get|What remains]?",
            "{a} divided by {b} leaves [what|which] remainder?",
            "{who} [shares|distributes] {a} {items} equally among {b} [friends|children|people] and keeps the rest. How many does {he} keep?",
            "What is {a} mod {b}?",
            "Which number is left when {b} is taken away from {a} as often as possible?",
        ],
        ["The remainder is {a} % {b}.", "{a} mod {b}.", "Take {a} modulo {b}."],
        ["print({a} % {b})", "q, r = divmod({a}, {b})\nprint(r)"],
    ),
    family(
        "sum_of_list",
        lambda r: _listed(r, 1, 999),
        [
            "[Find|Compute|What is|Calculate] the [sum|total] of {list}[?|.]",
            "Add [up |]the numbers {list}.",
            "[What is the sum of|Add up|What do you get if you add] the numbers {list}?",
            "{who} [scored|collected|sold|counted] {list} {items} on different days. [How many|What is the number of {items}] in total?",
            "What is the total of these [values|numbers]: {list}?",
            "{who} saves {list} {money} in {n} weeks. How much did {he} save altogether?",
            "How much do {list} add up to?",
        ],
        ["Add the numbers {code}.", "Sum of the list {code}."],
        ["print(sum([{code}]))", "numbers = [{code}]\nprint(sum(numbers))"],
    ),
    family(
        "largest_minus_smallest",
        lambda r: _listed(r, 1, 999),
        [
            "[What is|Find] the [range|spread] of [the numbers |the data ||the list ]{list}[?|.]",
            "[What is|Find] the difference between the largest and the smallest of {list}[?|.]",
            "How much [larger|bigger] is the [largest|biggest] than the smallest of the numbers {list}?",
            "The numbers {list} are given. Subtract the [smallest|minimum] from the [largest|maximum].",
            "By how much does the maximum of {list} exceed the minimum?",
        ],
        ["Maximum minus minimum of {code}.", "The range of {code}."],
        [
            "print(max([{code}]) - min([{code}]))",
            "numbers = [{code}]\nprint(max(numbers) - min(numbers))",
        ],
    ),
    family(
        "largest_of_list",
        lambda r: _listed(r, 1, 9_999),
        [
            "[What is|Which is|Find] the [largest|biggest|greatest] [of the numbers |number among |of ]{list}[?|.]",
            "Which of [the numbers |]{list} is [largest|the biggest|the greatest]?",
            "[Find|What is] the maximum of {list}[?|.]",
            "{who} wrote down {list}. What is the [largest|greatest] number on the list?",
            "Among {list}, which number comes last when they are put in increasing order?",
        ],
        ["The maximum of {code}.", "The largest of {code}."],
        ["print(max([{code}]))", "print(sorted([{code}])[-1])"],
    ),
    family(
        "smallest_of_list",
        lambda r: _listed(r, 1, 9_999),
        [
            "[What is|Which is|Find] the [smallest|least|lowest] [of the numbers |number among |of ]{list}[?|.]",
            "Which of [the numbers |]{list} is [smallest|the least|the lowest]?",
            "[Find|What is] the minimum of {list}[?|.]",
            "{who} wrote down {list}. What is the [smallest|least] number on the list?",
            "Among {list}, which number comes first when they are put in increasing order?",
        ],
        ["The minimum of {code}.", "The smallest of {code}."],
        ["print(min([{code}]))", "print(sorted([{code}])[0])"],
    ),
    family(
        "square_root",
        lambda r: {"n": number(r, 1, 999) ** 2},
        [
            "[What is|Find|Compute|Calculate] the square root of {n}[?|.]",
            "[What is|Compute|Evaluate] $\\sqrt{{n}}$[?|.]",
            "[Which|What] [positive number|natural number|number] [squared is|has the square|times itself is] {n}?",
            "[Find|Give] the positive [number|integer] $x$ with $x^2 = {n}$.",
            "A square has area {n}. [What is its side length|How long is its side|Find the side]?",
            "Solve $x^2 = {n}$ for positive $x$.",
            "{n} tiles form a square. How many tiles are along each side?",
            "Which positive whole number multiplied by itself gives {n}?",
        ],
        ["The square root of {n}.", "Find x with x*x = {n}."],
        ["print(math.isqrt({n}))", "print(round({n}**0.5))"],
    ),
    family(
        "cube_root",
        lambda r: {"n": r.randint(2, 200) ** 3},
        [
            "[What is|Find|Compute] the cube root of {n}[?|.]",
            "[Which|What] number cubed is {n}?",
            "[Find|Solve for] the integer $x$ with $x^3 = {n}$.",
            "A cube has volume {n}. [How long is its edge|What is the length of an edge|Find its edge length]?",
            "What number times itself times itself gives {n}?",
        ],
        ["The cube root of {n}.", "Find x with x**3 = {n}."],
        ["print(round({n}**(1/3)))", "x = 1\nwhile x**3 < {n}:\n    x += 1\nprint(x)"],
    ),
    family(
        "square_or_cube",
        lambda r: (
            lambda b, p: {
                "a": b,
                "p": p,
                "word": "squared" if p == 2 else "cubed",
                "noun": "square" if p == 2 else "cube",
            }
        )(r.randint(2, 300 if (p := r.choice((2, 3))) == 2 else 45), p),
        [
            "[What is|Compute|Find|How much is] {a} {word}[?|.]",
            "[What is|Compute|Find] the {noun} of {a}[?|.]",
            "[What is|Compute|Find] ${a}^{p}$[?|.]",
            "{who} computes the {noun} of {a}. What is the result?",
            "Which number is the {noun} of {a}?",
        ],
        ["{a} {word}: {a}**{p}.", "Compute {a}**{p}."],
        ["print({a}**{p})"],
    ),
    family(
        "power_value",
        lambda r: (
            lambda b: {"a": b, "b": r.randint(0, {2: 16, 3: 10, 4: 8, 5: 7, 6: 6}.get(b, 5))}
        )(r.randint(2, 10)),
        [
            "[What is|Compute|Find|Calculate|How much is] ${a}^{{b}}$[?|.|]",
            "[What is|Find|Compute] {a} to the power [of |]{b}[?|.]",
            "[What is|Compute|How much is] {a} raised to the power [of |]{b}[?|.]",
            "[What is|Give] the {b}th power of {a}[?|.]",
            "{who} multiplies {b} copies of {a}. [What does {he} get|What is the product]?",
            "[Bacteria|Cells] multiply by {a} every hour. Starting with 1, how many are there after {b} hours?",
            "Find the value of {a} with exponent {b}.",
        ],
        ["A power: {a}**{b}.", "Compute {a} to the {b}."],
        ["print({a}**{b})", "print(pow({a}, {b}))"],
    ),
    family(
        "factorial_value",
        lambda r: {"n": r.randint(1, 8)},
        [
            "[What is|Compute|Find|Calculate] ${n}!$[?|.]",
            "[What is|Compute|Find] {n} factorial[?|.]",
            "[What is|Find] the factorial of {n}[?|.]",
            "[What is|Find] the product of [all |the |]<whole> from 1 to {n}[?|.]",
            "Multiply together the first {n} positive integers.",
        ],
        ["{n} factorial.", "The factorial of {n}."],
        ["print(math.factorial({n}))", "print(math.prod(range(1, {n} + 1)))"],
    ),
    family(
        "fraction_of_number",
        _fraction,
        [
            "[What is|Compute|Find|How much is] $\\frac{{p}}{{q}}$ of {n}[?|.]",
            "[What is|How much is|Find] {p}/{q} of {n}[?|.]",
            "{who} has {n} {items} and gives {p}/{q} of them to {who2}. How many {items} does {who2} get?",
            "In a school with {n} students, {p}/{q} [of them |of the students |]are [girls|boys|wearing glasses]. How many [is that|are they|students is that]?",
            "[Compute|What is] $\\frac{{p}}{{q}} \\times {n}$[?|.]",
            "{p}/{q} of the {n} {items} are [red|new|broken]. How many is that?",
            "Divide {n} into {q} equal parts and take {p} of them. How much is that?",
        ],
        ["{p}/{q} of {n} is {n} * {p} / {q}.", "Take {n} // {q} * {p}."],
        ["print({n} * {p} // {q})", "print({n} // {q} * {p})"],
    ),
    family(
        "missing_number",
        _gap,
        [
            "${first} = {b}$. [What is the missing number|Which number replaces the question mark|What is ?]",
            "[Find|What is] the missing number in ${first} = {b}$[?|.]",
            "[Fill in|Complete] the blank: ${first} = {b}$.",
            "[What number should replace|Which number goes in place of] the question mark in ${first} = {b}$?",
            "Someone spilled ink over a number: ${first} = {b}$, the ? being the ink. What was written there?",
        ],
        ["The missing number is {code}.", "Work backwards: {code}."],
        ["print({code})"],
    ),
)
