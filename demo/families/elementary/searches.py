"""Smallest and largest numbers, counts of solutions and other small searches."""

from __future__ import annotations

from random import Random

from ..family import Params, family, number


def _digit_place(r: Random) -> Params:
    n = number(r, 1_000, 9_999_999)
    place, k = r.choice((("ones", 0), ("units", 0), ("tens", 1), ("hundreds", 2), ("thousands", 3)))
    return {"n": n, "place": place, "p": 10**k}


def _rounding(r: Random) -> Params:
    k, word = r.choice(((10, "ten"), (100, "hundred"), (1000, "thousand")))
    n = number(r, k, 99_000)
    return {"n": n + 1 if n % k == k // 2 else n, "k": k, "word": word}


def _logarithm(r: Random) -> Params:
    b = r.choice((2, 2, 2, 3, 4, 5, 6, 7, 10))
    return {"b": b, "n": b ** r.randint(1, {2: 20, 3: 12, 10: 9}.get(b, 7))}


def _probability(r: Random) -> Params:
    kind = r.randrange(4)
    if kind == 0:
        k, s = r.randint(2, 3), 0
        s = r.randint(k, 6 * k)
        return {
            "event": f"the sum of {k} dice is {s}",
            "good": f"sum(1 for d in itertools.product(range(1, 7), repeat={k}) if sum(d) == {s})",
            "all": f"6**{k}",
        }
    if kind == 1:
        n = r.randint(2, 8)
        k = r.randint(0, n)
        return {
            "event": f"{n} coin flips give exactly {k} heads",
            "good": f"math.comb({n}, {k})",
            "all": f"2**{n}",
        }
    if kind == 2:
        a, b = r.randint(1, 20), r.randint(1, 20)
        return {
            "event": f"a ball drawn from {a} red and {b} blue balls is red",
            "good": str(a),
            "all": f"{a} + {b}",
        }
    n, d = r.randint(10, 100), r.randint(2, 9)
    return {
        "event": f"a random number from 1 to {n} is divisible by {d}",
        "good": f"{n} // {d}",
        "all": str(n),
    }


def _triples(r: Random) -> Params:
    kind = r.choice(("positive", "nonnegative", "non-negative"))
    return {"n": number(r, 3, 300), "kind": kind, "low": int(kind == "positive")}


def _digit_class(r: Random) -> Params:
    kind = r.choice(("even ", "odd ", "", "prime "))
    tests = {"even ": " if n % 2 == 0", "odd ": " if n % 2 == 1", "prime ": " if sympy.isprime(n)"}
    d = r.randint(1, 2)
    low, high = ((1, 9), (10, 99))[d - 1]
    words = {"word": ("one", "two")[d - 1], "kind": kind, "test": tests.get(kind, "")}
    return {**words, "d": d, "low": low, "high": high}


FAMILIES = (
    family(
        "stairs",
        lambda r: {"n": r.randint(2, 23)},
        [
            "In how many ways can one climb {n} stairs, taking 1 or 2 [steps|stairs] at a time?",
            "{who} climbs a staircase of {n} steps, one or two [steps |]at a time. [In how many ways|How many ways are there]?",
            "How many ways are there to [climb|go up] {n} [steps|stairs] [if one may take|with] 1 or 2 at a time?",
            "[Count|Find] the ways to write {n} as an ordered sum of 1s and 2s.",
            "In how many ways can a 2 by {n} [board|rectangle] be [tiled|covered] with dominoes?",
            "A frog hops over {n} stones, landing on the next or the next but one. How many different hop sequences are there?",
        ],
        ["Like Fibonacci: f(n) = f(n-1) + f(n-2), n = {n}.", "Dynamic programming up to {n}."],
        [
            "a, b = 1, 1\nfor _ in range({n}):\n    a, b = b, a + b\nprint(a)",
            "print(sympy.fibonacci({n} + 1))",
        ],
    ),
    family(
        "totient",
        lambda r: {"n": number(r, 2, 20_000)},
        [
            "[What is|Find|Compute] [Euler's totient|Euler's phi function|the totient] of {n}[?|.]",
            "[What is|Compute|Find] $\\varphi({n})$[?|.][| (Euler's function)]",
            "How many <whole> [<upto>|from 1 to] {n} are [coprime|relatively prime] to {n}?",
            "How many positive integers less than {n} are [coprime|relatively prime] to {n}?",
            "[Count|Find] the integers from 1 to {n} that [share no factor with|have no common divisor with|are coprime to] {n}[ except 1|].".replace(
                "[ except 1|]", ""
            ),
            "With how many of the numbers 1 to {n} does {n} have greatest common divisor 1?",
        ],
        ["phi({n}).", "Count k up to {n} with gcd(k, {n}) = 1."],
        [
            "print(sympy.totient({n}))",
            "print(sum(1 for k in range(1, {n} + 1) if math.gcd(k, {n}) == 1))",
        ],
    ),
    family(
        "digit_sum_of_factorial",
        lambda r: {"n": number(r, 3, 500)},
        [
            "[What is|Find|Compute] the [sum of the digits|digit sum] of ${n}!$[?|.]",
            "[Add|Sum] [up |]the digits of {n} factorial.",
            "What do the digits of ${n}!$ add up to?",
            "{n} factorial is written out. [What is|Find] the sum of its digits[?|.]",
            "All digits in the decimal form of {n}! are added. What comes out?",
        ],
        ["Digits of {n}! added.", "sum of digits of math.factorial({n})."],
        ["print(sum(int(d) for d in str(math.factorial({n}))))"],
    ),
    family(
        "difference_of_square_sums",
        lambda r: {"n": r.randint(2, 30)},
        [
            "[What is|Find] the difference between the square of the sum and the sum of the squares of the first {n} [positive integers|natural numbers][?|.]",
            "[What is|Find] the difference between the sum of the squares of the first {n} [natural numbers|positive integers] and the square of their sum[?|.]",
            "By how much does $(1 + 2 + \\cdots + {n})^2$ exceed $1^2 + 2^2 + \\cdots + {n}^2$?",
            "[Compute|Find] $(1 + 2 + \\cdots + {n})^2 - (1^2 + 2^2 + \\cdots + {n}^2)$.",
            "Square the sum of 1 to {n}, then take away the squares of all those numbers. What is left?",
        ],
        ["sum squared less sum of squares up to {n}.", "n = {n}: both sums."],
        ["print(sum(range(1, {n} + 1))**2 - sum(k * k for k in range(1, {n} + 1)))"],
    ),
    family(
        "numbers_with_digit",
        lambda r: {"n": number(r, 20, 20_000), "d": r.randint(1, 9)},
        [
            "How many [numbers|integers] from 1 to {n} [contain|have] the digit {d}[ at least once|]?",
            "How many <ints> between 1 and {n} contain [the digit|a] {d}?",
            "[Count|Find] the <ints> from 1 to {n} [in which the digit {d} occurs|with at least one digit {d}].",
            "In how many of the numbers 1, 2, ..., {n} does the digit {d} [appear|occur]?",
            "How many numbers up to {n} cannot be written without a {d}?",
        ],
        ["n up to {n} with '{d}' in str(n).", "Count numbers with a {d}."],
        ["print(sum(1 for n in range(1, {n} + 1) if '{d}' in str(n)))"],
    ),
    family(
        "numbers_without_digit",
        lambda r: {"n": number(r, 20, 20_000), "d": r.randint(1, 9)},
        [
            "How many [numbers|integers] from 1 to {n} do not contain the digit {d}?",
            "How many <ints> between 1 and {n} have no digit {d}?",
            "[Count|Find] the <ints> from 1 to {n} [without the digit|without any] {d}.",
            "How many of the numbers 1, 2, ..., {n} [are free of|contain no] {d}?",
            "All numbers up to {n} with a digit {d} are struck out. How many survive?",
        ],
        ["n up to {n} with '{d}' not in str(n).", "Count numbers without a {d}."],
        ["print(sum(1 for n in range(1, {n} + 1) if '{d}' not in str(n)))"],
    ),
    family(
        "palindromes_between",
        lambda r: (lambda a: {"a": a, "b": a + number(r, 20, 9_999)})(number(r, 1, 9_999)),
        [
            "How many palindromes are [there |]between {a} and {b}<incl>?",
            "How many [numbers|integers] from {a} to {b} are palindromes?",
            "[Count|Find] the palindromic numbers from {a} to {b}.",
            "How many [integers|numbers] between {a} and {b} read the same [forwards and backwards|from left and from right]?",
            "Which count of the numbers {a} to {b} do not change when reversed?",
        ],
        ["str(n) == str(n)[::-1] from {a} to {b}.", "Palindromes in range({a}, {b} + 1)."],
        ["print(sum(1 for n in range({a}, {b} + 1) if str(n) == str(n)[::-1]))"],
    ),
    family(
        "pairs_with_sum",
        lambda r: {"n": number(r, 3, 2_000)},
        [
            "How many [ordered |]pairs $(x, y)$ of positive integers [satisfy|have] $x + y = {n}$?",
            "In how many ways can {n} be written as an ordered sum of two positive integers?",
            "How many solutions has $x + y = {n}$ in positive integers?",
            "[Count|Find] the ordered pairs of positive [integers|whole numbers] that add up to {n}.",
            "Order counting, how many ways are there to split {n} into two positive whole parts?",
        ],
        ["x from 1 to {n} - 1.", "{n} - 1 pairs."],
        ["print({n} - 1)", "print(sum(1 for x in range(1, {n}) if {n} - x > 0))"],
    ),
    family(
        "pairs_with_product",
        lambda r: {"n": number(r, 2, 20_000)},
        [
            "How many [ordered |]pairs $(x, y)$ of positive integers [satisfy|have] $xy = {n}$?",
            "In how many ways can {n} be written as an ordered product of two positive integers?",
            "How many solutions has $x \\cdot y = {n}$ in positive integers?",
            "[Count|Find] the ordered pairs of positive [integers|whole numbers] with product {n}.",
            "Order counting, how many ways are there to factor {n} into two positive whole numbers?",
        ],
        ["x must divide {n}.", "One pair for each divisor of {n}."],
        [
            "print(sum(1 for x in range(1, {n} + 1) if {n} % x == 0))",
            "print(sympy.divisor_count({n}))",
        ],
    ),
    family(
        "triples_with_sum",
        _triples,
        [
            "How many [ordered |]triples $(x, y, z)$ of {kind} integers [satisfy|have] $x + y + z = {n}$?",
            "How many solutions has $x + y + z = {n}$ in {kind} integers?",
            "[Count|Find] the {kind} integer solutions of $a + b + c = {n}$.",
            "In how many ways can {n} be written as an ordered sum of three {kind} integers?",
            "Three {kind} integers, in order, total {n}. How many possibilities are there?",
        ],
        ["x and y from {low}, z = {n} - x - y.", "Count triples from {low} with sum {n}."],
        [
            "print(sum(1 for x in range({low}, {n} + 1) for y in range({low}, {n} + 1 - x) if {n} - x - y >= {low}))"
        ],
    ),
    family(
        "least_n_with_sum_above",
        lambda r: {"n": number(r, 5, 90_000)},
        [
            "[What is|Find] the smallest $n$ [such that|with] $1 + 2 + \\cdots + n > {n}$[?|.]",
            "[What is|Find] the [smallest|least] positive integer $k$ such that the sum of the first $k$ positive integers is [greater|larger] than {n}[?|.]",
            "How many of the numbers 1, 2, 3, ... must be added[ from the start|] to get more than {n}?",
            "[Which|What] is the first triangular number [greater|larger] than {n}, by its index?",
            "Adding 1 + 2 + 3 and so on, after how many terms is {n} exceeded?",
        ],
        ["Add 1, 2, ... until above {n}.", "Smallest n with n(n + 1)/2 > {n}."],
        [
            "total = n = 0\nwhile total <= {n}:\n    n += 1\n    total += n\nprint(n)",
            "n = 1\nwhile n * (n + 1) // 2 <= {n}:\n    n += 1\nprint(n)",
        ],
    ),
    family(
        "least_power_above",
        lambda r: {"b": r.randint(2, 9), "n": number(r, 2, 9_999_999)},
        [
            "[What is|Find] the [smallest|least] $n$ [such that|with] ${b}^n > {n}$[?|.]",
            "[What is|Find] the [smallest|least] exponent $k$ for which ${b}^k$ [exceeds|is greater than|is larger than] {n}[?|.]",
            "How [often|many times] must 1 be multiplied by {b} to [exceed|get more than] {n}?",
            "After how many [doublings|multiplications] by {b} does 1 exceed {n}?".replace(
                "[doublings|multiplications]", "multiplications"
            ),
            "To which least power must {b} be raised to go beyond {n}?",
        ],
        ["k with {b}**k > {n}.", "Multiply by {b} until above {n}."],
        ["k = 0\nwhile {b}**k <= {n}:\n    k += 1\nprint(k)"],
    ),
    family(
        "first_power_above",
        lambda r: {"b": r.randint(2, 5), "n": number(r, 2, 18_000)},
        [
            "[What is|Find] the [smallest|first|least] power of {b} [greater|larger|bigger] than {n}[?|.]",
            "Which power of {b} is the first [above|greater than] {n}?",
            "[Find|Determine] the smallest power of {b} that [exceeds|is more than] {n}.",
            "Among 1, {b}, and the further powers of {b}, which is the first over {n}?",
        ],
        ["Powers of {b} until above {n}.", "The first power of {b} over {n}."],
        ["x = 1\nwhile x <= {n}:\n    x *= {b}\nprint(x)"],
    ),
    family(
        "digital_root",
        lambda r: {"n": number(r, 10, 9_999_999)},
        [
            "[What is|Find] the digital root of {n}[?|.]",
            "[Add|Sum] the digits of {n}, and repeat until one digit is left. [What is it|Which one]?",
            "The digit sum of {n} is taken again and again until a single digit remains. [What is it|Find it].",
            "{who} keeps adding the digits of {n} until the result has one digit. What is it?",
            "Repeated digit sums reduce {n} to which single digit?",
        ],
        ["Repeat the digit sum of {n}.", "While n > 9: add digits; n = {n}."],
        ["n = {n}\nwhile n > 9:\n    n = sum(map(int, str(n)))\nprint(n)"],
    ),
    family(
        "digit_at_place",
        _digit_place,
        [
            "[What is|Which is|Find] the {place} digit of {n}[?|.]",
            "[What|Which] digit [is|stands] in the {place} place of {n}?",
            "[Give|Name] the digit in the {place} place of the number {n}.",
            "In {n}, what is the {place} digit?",
            "Looking at {n}, which figure counts the {place}?",
        ],
        ["{n} // {p} % 10.", "The {place} digit."],
        ["print({n} // {p} % 10)"],
    ),
    family(
        "rounding",
        _rounding,
        [
            "[Round|Please round] {n} to the nearest {word}.",
            "[What is|Give] {n} rounded to the nearest {word}[?|.]",
            "[What is|Find] {n} to the nearest {k}[?|.]",
            "{who} rounds {n} to the nearest multiple of {k}. What does {he} get?",
            "Which multiple of {k} lies closest to {n}?",
        ],
        ["({n} + {k} / 2) // {k} * {k}.", "Nearest multiple of {k}."],
        ["print(({n} + {k} // 2) // {k} * {k})"],
    ),
    family(
        "logarithm",
        _logarithm,
        [
            "[What is|Compute|Find] $\\log_{{b}} {n}$[?|.]",
            "[What is|Find] the logarithm of {n} to base {b}[?|.]",
            "[To which|To what] power must {b} be raised to [get|give] {n}?",
            "[Solve|Find $x$ if] ${b}^x = {n}$.",
            "{n} is which power of {b}?",
            "How many factors {b} must be multiplied to make {n}?",
        ],
        ["k with {b}**k == {n}.", "Log of {n}, base {b}."],
        ["k = 0\nwhile {b}**k < {n}:\n    k += 1\nprint(k)", "print(round(math.log({n}, {b})))"],
    ),
    family(
        "probability_terms",
        _probability,
        [
            "The probability that {event} is $m/n$ in lowest terms. [What is|Find] $m + n$[?|.]",
            "[Find|What is] $p + q$ if the probability that {event} is $\\frac{p}{q}$ in lowest terms[?|.]",
            "What is the probability that {event}? [Give|Write it as a reduced fraction and give] the sum of numerator and denominator[ of the reduced fraction|].",
            "Write the probability that {event} as a fraction $a/b$ in lowest terms. [Find|What is] $a + b$[?|.]",
            "Reduced, the chance that {event} is a fraction. Add its numerator and its denominator.",
        ],
        ["({good}) / ({all}), reduced.", "Favorable {good} of {all}."],
        [
            "from fractions import Fraction\np = Fraction({good}, {all})\nprint(p.numerator + p.denominator)",
            "a, b = {good}, {all}\ng = math.gcd(a, b)\nprint(a // g + b // g)",
        ],
    ),
    family(
        "product_of_first_primes",
        lambda r: {"n": r.randint(1, 6)},
        [
            "[What is|Find|Compute] the product of the first {n} [primes|prime numbers][?|.]",
            "[Multiply|Multiply together] the first {n} [primes|prime numbers].",
            "{who} multiplies the {n} smallest primes. What is the product?",
            "What number is the product of the {n} least prime numbers?",
        ],
        ["Multiply sympy.prime(k), k up to {n}.", "Product of {n} primes."],
        ["print(math.prod(sympy.prime(k) for k in range(1, {n} + 1)))"],
    ),
    family(
        "sum_of_n_digit_numbers",
        _digit_class,
        [
            "[What is|Find] the sum of all {word}-digit {kind}numbers[?|.]",
            "[Add|Sum] [up |]all {d}-digit {kind}numbers.",
            "What do all {kind}[positive |]numbers with {word} digit(s) add up to?".replace(
                "[positive |]", ""
            ),
            "{who} adds all {word}-digit {kind}numbers. What is the total?",
            "Of the {kind}numbers, those having {d} digits are added. What is the sum?",
        ],
        ["sum of n from {low} to {high}{test}.", "Range {low}..{high}{test}."],
        ["print(sum(n for n in range({low}, {high} + 1){test}))"],
    ),
)
