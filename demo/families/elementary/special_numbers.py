"""Squares, smallest and largest numbers with a property, digits and number systems."""

from __future__ import annotations

from random import Random

from ..family import Params, family, number


def _remainders(r: Random) -> Params | None:
    p, q = r.sample((3, 4, 5, 7, 8, 9, 11, 13, 16, 17, 19, 6, 10), 2)
    x = r.randint(10, p * q)
    return {"a": x % p, "p": p, "b": x % q, "q": q} if x % p and x % q else None


def _roman(n: int) -> str:
    values = ((1000, "M"), (900, "CM"), (500, "D"), (400, "CD"), (100, "C"), (90, "XC"), (50, "L"), (40, "XL"), (10, "X"), (9, "IX"), (5, "V"), (4, "IV"), (1, "I"))  # fmt: skip
    text = ""
    for value, letters in values:
        while n >= value:
            text += letters
            n -= value
    return text


def _base(r: Random) -> Params:
    b = r.choice((2, 2, 2, 3, 4, 5, 6, 7, 8, 9))
    n = r.randint(2, 999)
    digits = ""
    k = n
    while k:
        digits = str(k % b) + digits
        k //= b
    return {
        "digits": digits,
        "b": b,
        "words": {2: "binary", 8: "octal", 3: "ternary"}.get(b, f"base {b}"),
        "n": n,
    }


def _to_base(r: Random) -> Params | None:
    made = _base(r)
    return made if len(str(made["digits"])) <= 5 else None


def _numeral(r: Random) -> Params:
    n = number(r, 1, 3999)
    return {"roman": _roman(n), "n": n}


FAMILIES = (
    family(
        "perfect_squares_up_to",
        lambda r: {"n": number(r, 2, 999_999)},
        [
            "How many perfect squares are [there |]<below> {n}?",
            "[Count|Find the number of] [positive |]perfect squares <below> {n}.",
            "How many <whole> <below> {n} are perfect squares?",
            "[Find|What is] the number of square numbers [<below>|under] {n}[?|.]",
            "Of the numbers from 1 up to but not including {n}, how many are squares of whole numbers?",
        ],
        ["k with k * k < {n}.", "Squares below {n}."],
        ["print(math.isqrt({n} - 1))", "k = 1\nwhile k * k < {n}:\n    k += 1\nprint(k - 1)"],
    ),
    family(
        "squares_between",
        lambda r: (lambda a: {"a": a, "b": a + number(r, 10, 9_999)})(number(r, 1, 9_999)),
        [
            "How many perfect squares are [there |][between|from] {a} and {b}<incl>?",
            "[Count|Find] the [perfect squares|square numbers] from {a} to {b}<incl>.",
            "How many [integers|numbers] $n$ with ${a} \\le n \\le {b}$ are perfect squares?",
            "How many square numbers [lie|are] between {a} and {b}<incl>?",
            "The range {a} to {b} holds how many squares of integers?",
        ],
        ["Squares from {a} to {b}.", "isqrt({b}) - isqrt({a} - 1)."],
        [
            "print(math.isqrt({b}) - math.isqrt({a} - 1))",
            "print(sum(1 for n in range({a}, {b} + 1) if math.isqrt(n)**2 == n))",
        ],
    ),
    family(
        "least_multiple_above",
        lambda r: {"n": number(r, 10, 90_000), "k": number(r, 2, 999)},
        [
            "[What is|Find] the [smallest|least|first] multiple of {k} [greater|larger|bigger] than {n}[?|.]",
            "[What is|Find] the [smallest|least] [integer|number] [greater|larger] than {n} [that is |]divisible by {k}[?|.]",
            "Which is the first number after {n} that {k} divides?",
            "[Find|Determine] the smallest $n > {n}$ [that is |]divisible by {k}.",
            "Counting up from {n}, when do you first hit a multiple of {k}?",
        ],
        ["({n} // {k} + 1) * {k}.", "The first multiple of {k} after {n}."],
        ["print(({n} // {k} + 1) * {k})", "x = {n} + 1\nwhile x % {k}:\n    x += 1\nprint(x)"],
    ),
    family(
        "greatest_multiple_below",
        lambda r: {"n": number(r, 100, 99_999), "k": number(r, 2, 99)},
        [
            "[What is|Find] the [largest|greatest|biggest] multiple of {k} <below> {n}[?|.]",
            "[What is|Find] the [largest|greatest] [integer|number] <below> {n} [that is |]divisible by {k}[?|.]",
            "Which is the last number before {n} that {k} divides?",
            "[Find|Determine] the largest $n < {n}$ [that is |]divisible by {k}.",
            "Counting down from {n}, when do you first hit a multiple of {k}?",
        ],
        ["({n} - 1) // {k} * {k}.", "The last multiple of {k} before {n}."],
        ["print(({n} - 1) // {k} * {k})", "x = {n} - 1\nwhile x % {k}:\n    x -= 1\nprint(x)"],
    ),
    family(
        "extreme_with_digits",
        lambda r: (
            lambda d, k: {
                "d": d,
                "k": r.randint(2, 99),
                "part": k,
                "word": {2: "two", 3: "three", 4: "four", 5: "five"}[d],
                "low": 10 ** (d - 1),
                "high": 10**d - 1,
                "code": {"smallest": "min", "largest": "max"}[k],
            }
        )(r.randint(2, 5), r.choice(("smallest", "largest"))),
        [
            "[What is|Find] the {part} {word}-digit [number|integer|multiple] [that is |]divisible by {k}[?|.]".replace(
                "|multiple", ""
            ),
            "[What is|Find] the {part} {d}-digit [number|integer] [that is |]divisible by {k}[?|.]",
            "[What is|Find] the {part} {word}-digit multiple of {k}[?|.]",
            "Which is the {part} multiple of {k} with {word} digits?",
            "A number has {word} digits and {k} divides it. What is the {part} such number?",
        ],
        [
            "From {low} to {high}, the {part} multiple of {k}.",
            "{code} over {low}..{high} with n % {k} == 0.",
        ],
        ["print({code}(n for n in range({low}, {high} + 1) if n % {k} == 0))"],
    ),
    family(
        "two_remainders",
        _remainders,
        [
            "[What is|Find] the [smallest|least] positive [integer|number] that leaves [a |]remainder {a} [when divided by|on division by|mod] {p} and [remainder |]{b} [when divided by|on division by|mod] {q}[?|.]",
            "A number leaves remainder {a} when divided by {p} and remainder {b} when divided by {q}. What is the smallest [such |]positive [number|integer|one]?",
            "[Find|Solve for] the least positive $x$ with $x \\equiv {a} \\pmod{{p}}$ and $x \\equiv {b} \\pmod{{q}}$.",
            "{items} in groups of {p} leave {a} over, in groups of {q} {b}. What is the smallest [possible |]number of {items}?",
            "Which smallest natural number gives the rest {a} for the divisor {p} and the rest {b} for the divisor {q}?",
        ],
        ["x % {p} == {a} and x % {q} == {b}.", "Search the smallest x with both remainders."],
        [
            "x = 1\nwhile x % {p} != {a} or x % {q} != {b}:\n    x += 1\nprint(x)",
            "print(next(x for x in range(1, 10**6) if x % {p} == {a} and x % {q} == {b}))",
        ],
    ),
    family(
        "divisible_by_all",
        lambda r: {"n": r.randint(2, 12)},
        [
            "[What is|Find] the [smallest|least] positive [integer|number] [that is |][evenly |]divisible by [all|each|every one] of the [numbers|integers] [from |]1 to {n}[?|.]",
            "[What is|Find] the [smallest|least] [positive |]number that can be divided by each [of the numbers|number] from 1 to {n}[ without remainder|][?|.]",
            "[What is|Find] the least common multiple of [the numbers |]$1, 2, \\ldots, {n}$[?|.]",
            "[Find|Compute] the lcm of the first {n} positive integers.",
            "Which least positive number do all of 1 up to {n} divide?",
        ],
        ["lcm of 1 to {n}.", "The least common multiple of range(1, {n} + 1)."],
        [
            "print(math.lcm(*range(1, {n} + 1)))",
            "x = 1\nfor k in range(1, {n} + 1):\n    x = math.lcm(x, k)\nprint(x)",
        ],
    ),
    family(
        "digit_sum",
        lambda r: {"n": number(r, 10, 999_999_999)},
        [
            "[What is|Find|Compute] the [sum of the digits|digit sum] of {n}[?|.]",
            "[Add|Sum] [up |][all |]the digits of {n}.",
            "What do the digits of {n} add up to?",
            "{who} adds the digits of {n}. What does {he} get?",
            "The number {n} has which cross sum?",
        ],
        ["Add the digits of {n}.", "Digit sum of {n}."],
        ["print(sum(int(d) for d in str({n})))", "print(sum(map(int, str({n}))))"],
    ),
    family(
        "digit_product",
        lambda r: {"n": number(r, 11, 99_999)},
        [
            "[What is|Find|Compute] the product of the digits of {n}[?|.]",
            "Multiply [all |]the digits of {n}[ together|].",
            "{who} multiplies the digits of {n}. What does {he} get?",
            "What is the digit product of {n}?",
            "Which number results when the digits of {n} are multiplied with each other?",
        ],
        ["Multiply the digits of {n}.", "Digit product of {n}."],
        [
            "print(math.prod(int(d) for d in str({n})))",
            "p = 1\nfor d in str({n}):\n    p *= int(d)\nprint(p)",
        ],
    ),
    family(
        "digits_of_power",
        lambda r: {"a": number(r, 2, 999), "b": number(r, 2, 400)},
        [
            "How many digits does ${a}^{{b}}$ have?",
            "[What is|Find] the number of [decimal |]digits of ${a}^{{b}}$[?|.]",
            "How many [decimal |]digits [are in|has] [the number |]${a}^{{b}}$?",
            "How many digits [does|has] {a} to the power {b}[ have|]?",
            "Written out, how long is the number ${a}^{{b}}$, in digits?",
        ],
        ["len(str({a}**{b})).", "Digits of {a}**{b}."],
        ["print(len(str({a}**{b})))"],
    ),
    family(
        "last_digits_of_power",
        lambda r: (
            lambda k: {
                "a": number(r, 2, 9_999),
                "b": number(r, 2, 9_999),
                "m": 10**k,
                "words": ("last digit", "last two digits", "last three digits")[k - 1],
                "also": ("units digit", "last 2 digits", "last 3 digits")[k - 1],
            }
        )(r.choice((1, 1, 2, 3))),
        [
            "[What is|What are|Find] the {words} of ${a}^{{b}}$[?|.]",
            "[What is|What are|Find|Determine] the {also} of ${a}^{{b}}$[?|.]",
            "[Find|Give] the {words} of {a} to the power [of |]{b}.",
            "${a}^{{b}}$ [ends in|has] which {words}?",
            "With which {words} does {a} raised to the power {b} end?",
        ],
        ["{a}^{b} mod {m}.", "pow({a}, {b}, {m})."],
        ["print(pow({a}, {b}, {m}))", "print({a}**{b} % {m})"],
    ),
    family(
        "reversed_number",
        lambda r: (
            lambda n, k: {
                "n": n,
                "words": (
                    "is the result",
                    "do you get if you add the number and its reversal",
                    "is the difference between the number and its reversal",
                )[k],
                "code": ("x", "{n} + x", "abs({n} - x)")[k].replace("{n}", str(n)),
            }
        )(number(r, 12, 9_999), r.choice((0, 0, 1, 2))),
        [
            "[The digits of {n} are reversed|Reverse the digits of {n}|Write {n} backwards]. What {words}?",
            "{who} [reverses|turns around] the [digits of|number] {n}. What {words}?",
            "[Take|Consider] the number {n} and [read it backwards|reverse it]. What {words}?",
            "The order of the digits in {n} is turned round. What {words}?",
        ],
        ["Reverse {n}: then {code}.", "x is {n} backwards; {code}."],
        [
            "x = int(str({n})[::-1])\nprint({code})",
            "x = int(''.join(reversed(str({n}))))\nprint({code})",
        ],
    ),
    family(
        "from_base",
        _base,
        [
            "[What is|Convert|Write] the {words} number {digits} [in decimal|in base 10|as a decimal number|to decimal][?|.]",
            "[Convert|Change] {digits} from {words} to [decimal|base 10].",
            "[What is the decimal value of|What does] {digits} [in|from] {words}[ have as a decimal value| mean in decimal|]?",
            "[What is|Find] $({digits})_{{b}}$ [in base 10|as a decimal number][?|.]",
            "[Compute|Find] ${digits}_{{b}}$ in [decimal|base ten].",
            "Read in {words}, {digits} stands for which ordinary number?",
        ],
        ["int('{digits}', {b}).", "{digits} in base {b}."],
        ["print(int('{digits}', {b}))"],
    ),
    family(
        "to_base",
        _to_base,
        [
            "[What is|Write|Express|Convert] {n} in {words}[?|.]",
            "[Convert|Change] [the decimal number |]{n} [to|into] {words}.",
            "[What is|Find] the {words} [representation|form|notation] of {n}[?|.]",
            "How is {n} written in [{words}|base {b}]?",
            "Which digits represent {n} in {words}?",
        ],
        ["{n} in base {b}, by repeated division.", "Digits of {n} in base {b}."],
        [
            "n = {n}\ndigits = ''\nwhile n:\n    digits = str(n % {b}) + digits\n    n //= {b}\nprint(digits)",
            "print(np.base_repr({n}, {b}))",
        ],
    ),
    family(
        "ones_in_binary",
        lambda r: {"n": number(r, 2, 99_999)},
        [
            "How many [ones|1s|1's|ones digits] are in the binary [representation|expansion|form] of {n}?",
            "[Count|Find the number of] ones in {n} written in binary.",
            "How many ones [does|has] {n} [have |]in binary?",
            "{who} writes {n} in binary. How many digits are 1?",
            "If {n} is written in base 2, how many 1s occur?",
        ],
        ["bin({n}).count('1').", "Count ones in binary {n}."],
        ["print(bin({n}).count('1'))", "n = {n}\nprint(n.bit_count())"],
    ),
    family(
        "roman_numeral",
        _numeral,
        [
            "[What is|Which number is|What number is] the Roman numeral {roman}?",
            "[Convert|Change] the Roman numeral {roman} to [a number|decimal|an ordinary number|digits].",
            "[What|Which number] does {roman} [mean|stand for] in Roman numerals?",
            "[A stone|A clock|A building] bears the Roman number {roman}. Which [year or number|number] is that?",
            "Write {roman} in our digits.",
        ],
        ["Values of the letters of {roman}.", "Read {roman} from left to right."],
        [
            "v = dict(I=1, V=5, X=10, L=50, C=100, D=500, M=1000)\ns = '{roman}'\nt = 0\nfor i, c in enumerate(s):\n    if i + 1 < len(s) and v[s[i + 1]] > v[c]:\n        t -= v[c]\n    else:\n        t += v[c]\nprint(t)",
            "v = dict(I=1, V=5, X=10, L=50, C=100, D=500, M=1000)\nx = [v[c] for c in '{roman}']\nprint(sum(-a if a < b else a for a, b in zip(x, x[1:] + [0])))",
        ],
    ),
    family(
        "zeros_of_factorial",
        lambda r: {"n": number(r, 5, 9_999)},
        [
            "[With how many zeros does|How many zeros does] ${n}!$ end[ with| in|]?",
            "How many [trailing |]zeros [are at the end of|does] ${n}!$[ have at its end|]?",
            "How many zeros are there at the end of {n} factorial?",
            "[Find|Count] the [trailing zeros|zeros at the end] of ${n}!$.",
            "The product $1 \\cdot 2 \\cdot 3 \\cdots {n}$ ends in how many zeros?",
        ],
        ["Powers of 5 in {n}!.", "Add {n} // 5, {n} // 25, ..."],
        [
            "n = {n}\nzeros = 0\nwhile n:\n    n //= 5\n    zeros += n\nprint(zeros)",
            "print(sum({n} // 5**k for k in range(1, 20)))",
        ],
    ),
    family(
        "digits_used",
        lambda r: {"n": number(r, 10, 20_000)},
        [
            "[The pages of a book are numbered|{who} numbers pages] from 1 to {n}. How many digits are [written|used|printed]?",
            "How many digits are [needed|used] to write [all |]the numbers from 1 to {n}?",
            "[Someone|{who}] writes [down |]all the <ints> from 1 to {n}. How many digits [does {he}|are] [write|written|typed]?",
            "A book has {n} pages. How many digits does it take to number them[ all|]?",
            "All numbers up to {n} are typed one after the other, starting at 1. How many key presses is that?",
        ],
        ["Sum of len(str(k)) up to {n}.", "Digits of 1 to {n}."],
        ["print(sum(len(str(k)) for k in range(1, {n} + 1)))"],
    ),
)
