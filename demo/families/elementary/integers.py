"""Primes, divisors, multiples and squares of small numbers."""

from __future__ import annotations

from random import Random

from ..family import Params, family, number


def _interval(r: Random, high: int = 5_000) -> Params:
    a = number(r, 1, high)
    return {"a": a, "b": a + number(r, 2, high)}


def _two(r: Random) -> Params:
    k = r.randint(1, 60)
    return {"a": k * number(r, 1, 99), "b": k * number(r, 2, 99)}


def _three(r: Random) -> Params:
    k = r.randint(1, 12)
    return {"a": k * r.randint(1, 20), "b": k * r.randint(2, 20), "c": k * r.randint(2, 20)}


def _either(r: Random) -> Params | None:
    a, b = r.randint(2, 20), r.randint(2, 20)
    return {"a": a, "b": b, "n": number(r, 10, 9_999)} if a != b else None


def _remainder_search(r: Random) -> Params | None:
    p, q = r.sample((3, 4, 5, 7, 8, 9, 11, 13, 16, 17, 19), 2)
    x = r.randint(10, p * q)
    made = {"a": x % p, "p": p, "b": x % q, "q": q}
    return made if made["a"] and made["b"] else None


def _parity(r: Random) -> Params:
    k = r.randint(0, 1)
    return {**_interval(r), "word": ("even", "odd")[k], "k": k}


FAMILIES = (
    family(
        "primes_below",
        lambda r: {"n": number(r, 3, 50_000)},
        [
            "How many [primes|prime numbers] are [there |]<below> {n}?",
            "[Find|What is|Determine] the number of [primes|prime numbers] <below> {n}[?|.]",
            "<count> [primes|prime numbers] <below> {n}.",
            "How many [primes|prime numbers] $p$ [satisfy|are there with] $p < {n}$?",
            "How many numbers <below> {n} are prime?",
            "{who} lists all [primes|prime numbers] <below> {n}. How many [are on the list|numbers does {he} write]?",
            "How many numbers under {n} have exactly two divisors?",
        ],
        ["Primes below {n}, so up to {n} - 1.", "Count p < {n}."],
        [
            "print(sympy.primepi({n} - 1))",
            "print(sum(1 for p in range(2, {n}) if sympy.isprime(p)))",
            "print(len(list(sympy.primerange({n}))))",
        ],
    ),
    family(
        "primes_between",
        _interval,
        [
            "How many [primes|prime numbers] are [there |]between {a} and {b}?",
            "[Find|What is] the number of [primes|prime numbers] from {a} to {b}[?|.]",
            "[Count|Find] [the number of |]primes $p$ with ${a} \\le p \\le {b}$.",
            "How many of the numbers {a} to {b} are prime?",
            "How many [primes|prime numbers] lie in the interval $[{a}, {b}]$?",
            "If you start at {a} and go to {b}, how many primes do you meet?",
        ],
        ["Primes from {a} to {b}.", "Count primes in range({a}, {b} + 1)."],
        [
            "print(sum(1 for n in range({a}, {b} + 1) if sympy.isprime(n)))",
            "print(len(list(sympy.primerange({a}, {b} + 1))))",
        ],
    ),
    family(
        "sum_of_primes",
        lambda r: {"n": number(r, 3, 900)},
        [
            "[What is|Find|Compute] the sum of [all |the |]<primes> <below> {n}[?|.]".replace(
                "<primes>", "[primes|prime numbers]"
            ),
            "[Add|Sum] [up |]all [primes|prime numbers] <below> {n}.",
            "What do [all |the |][primes|prime numbers] <below> {n} add up to?",
            "{who} adds [all |the |]prime numbers <below> {n}. What is the [sum|total]?",
            "Find the total of all the primes under {n}.",
        ],
        ["Sum the primes below {n}.", "sum of primerange({n})."],
        [
            "print(sum(sympy.primerange({n} + 0)))",
            "print(sum(p for p in range(2, {n}) if sympy.isprime(p)))",
        ],
    ),
    family(
        "sum_of_first_primes",
        lambda r: {"n": r.randint(2, 150)},
        [
            "[What is|Find|Compute] the sum of the first {n} [primes|prime numbers][?|.]",
            "[Add|Sum] [up |]the first {n} [primes|prime numbers].",
            "What do the {n} smallest [primes|prime numbers] add up to?",
            "{who} adds the first {n} prime numbers: 2, 3, 5 and so on. What is the total?",
            "Find the sum of the {n} least primes.",
        ],
        ["Sum of sympy.prime(k) for k up to {n}.", "Add the first {n} primes."],
        [
            "print(sum(sympy.prime(k) for k in range(1, {n} + 1)))",
            "print(sum(sympy.primerange(sympy.prime({n}) + 1)))",
        ],
    ),
    family(
        "next_prime",
        lambda r: {"n": number(r, 1, 90_000)},
        [
            "[What is|Find] the [smallest|first|least] prime [number |](greater|larger|bigger) than {n}[?|.]".replace(
                "(", "["
            ).replace(")", "]"),
            "[What is|Find] the [next prime|next prime number|first prime] after {n}[?|.]",
            "Which prime [number |]comes [next |right |]after {n}?",
            "[Find|Determine] the smallest prime $p$ with $p > {n}$.",
            "Counting upward from {n}, which prime do you meet first?",
        ],
        ["The next prime after {n}.", "sympy.nextprime({n})."],
        [
            "print(sympy.nextprime({n}))",
            "p = {n} + 1\nwhile not sympy.isprime(p):\n    p += 1\nprint(p)",
        ],
    ),
    family(
        "previous_prime",
        lambda r: {"n": number(r, 4, 99_999)},
        [
            "[What is|Find] the [largest|greatest|biggest|last] prime [number |]<below> {n}[?|.]",
            "[What is|Find] the [prime|prime number] [just|right|immediately] before {n}[?|.]",
            "Which is the largest prime [number |]<below> {n}?",
            "[Find|Determine] the largest prime $p$ with $p < {n}$.",
            "Counting down from {n}, which prime comes first?",
        ],
        ["The largest prime below {n}.", "sympy.prevprime({n})."],
        [
            "print(sympy.prevprime({n}))",
            "p = {n} - 1\nwhile not sympy.isprime(p):\n    p -= 1\nprint(p)",
        ],
    ),
    family(
        "gcd",
        _two,
        [
            "[What is|Find|Compute] the greatest common [divisor|factor] of {a} and {b}[?|.]",
            "[What is|Find|Compute] the [gcd|GCD|GCF|highest common factor|HCF|largest common divisor] of {a} and {b}[?|.]",
            "[What is|Compute|Find] $\\gcd({a}, {b})$[?|.]",
            "[What is|Find] the [largest|greatest|biggest] [integer|number|whole number] that divides [both|] {a} and {b}[?|.]",
            "{who} has {a} {items} and {b} {items2} and makes as many equal [bags|groups|packets] as possible[, using everything|]. How many [bags or groups|of them] can {he} make?",
            "Which is the greatest number by which {a} and {b} can both be divided?",
        ],
        ["gcd({a}, {b}).", "The greatest common divisor of {a} and {b}."],
        ["print(math.gcd({a}, {b}))", "a, b = {a}, {b}\nwhile b:\n    a, b = b, a % b\nprint(a)"],
    ),
    family(
        "lcm",
        _two,
        [
            "[What is|Find|Compute] the least common multiple of {a} and {b}[?|.]",
            "[What is|Find|Compute] the [lcm|LCM|lowest common multiple|smallest common multiple] of {a} and {b}[?|.]",
            "[What is|Compute|Find] $\\text{lcm}({a}, {b})$[?|.]",
            "[What is|Find] the [smallest|least] positive [integer|number] [divisible by both|that is a multiple of both] {a} and {b}[?|.]",
            "Two [lights|bells|buses] [flash|ring|leave] every {a} and {b} minutes. They [do so|start] together now. After how many minutes [do they [flash or ring|coincide] together again|does this happen again]?",
            "After what positive number do the multiples of {a} and those of {b} first meet?",
        ],
        ["lcm({a}, {b}).", "The least common multiple of {a} and {b}."],
        ["print(math.lcm({a}, {b}))", "print({a} * {b} // math.gcd({a}, {b}))"],
    ),
    family(
        "gcd_or_lcm_of_three",
        lambda r: (
            lambda k: {
                **_three(r),
                "f": k,
                "words": r.choice(
                    {
                        "gcd": ("greatest common divisor", "gcd", "greatest common factor", "GCD"),
                        "lcm": ("least common multiple", "lcm", "LCM", "smallest common multiple"),
                    }[k]
                ),
            }
        )(r.choice(("gcd", "lcm"))),
        [
            "[What is|Find|Compute] the {words} of {a}, {b}[,|] and {c}[?|.]",
            "<find> the {words} of the [three |]numbers {a}, {b} and {c}.",
            "The numbers {a}, {b} and {c} are given. [What is|Find] their {words}[?|.]",
            "[Give|Tell me|I need] the {words} of {a}, {b}, {c}.",
            "For {a}, {b} and {c} the {words} is asked.",
        ],
        ["{f}({a}, {b}, {c}).", "The {f} of {a}, {b} and {c}."],
        ["print(math.{f}({a}, {b}, {c}))"],
    ),
    family(
        "number_of_divisors",
        lambda r: {"n": number(r, 2, 99_999)},
        [
            "How many [positive |][divisors|factors] does {n} have?",
            "[What is|Find|Compute] the number of [positive |][divisors|factors] of {n}[?|.]",
            "[Count|Find] the [positive |][divisors|factors] of {n}.",
            "How many [positive integers|numbers|natural numbers] divide {n}[ without remainder| evenly|]?",
            "{n} has how many [positive |]divisors[, including 1 and itself|]?",
            "In how many numbers is {n} divisible?",
            "By how many different positive whole numbers can {n} be divided exactly?",
        ],
        ["Count the divisors of {n}.", "Divisors of {n}."],
        [
            "print(sympy.divisor_count({n}))",
            "print(sum(1 for d in range(1, {n} + 1) if {n} % d == 0))",
            "print(len(sympy.divisors({n})))",
        ],
    ),
    family(
        "sum_of_divisors",
        lambda r: {"n": number(r, 2, 20_000)},
        [
            "[What is|Find|Compute] the sum of [all |the |][positive |][divisors|factors] of {n}[?|.]",
            "[Add|Sum] [up |]all [positive |][divisors|factors] of {n}.",
            "What do [all |]the [positive |]divisors of {n} add up to?",
            "{who} adds all numbers that divide {n}[, 1 and {n} included|]. What is the sum?",
            "Find the total of the numbers by which {n} can be divided exactly.",
        ],
        ["Sum the divisors of {n}.", "divisor_sigma({n})."],
        [
            "print(sum(d for d in range(1, {n} + 1) if {n} % d == 0))",
            "print(sum(sympy.divisors({n})))",
            "print(sympy.divisor_sigma({n}))",
        ],
    ),
    family(
        "prime_factor",
        lambda r: (
            lambda k: {
                "n": number(r, 4, 999_999),
                "part": k,
                "code": {"smallest": "min", "largest": "max"}[k],
            }
        )(r.choice(("smallest", "largest"))),
        [
            "[What is|Find|Compute] the {part} prime [factor|divisor] of {n}[?|.]",
            "Which is the {part} prime [number |]that divides {n}?",
            "[Find|Determine] the {part} prime $p$ [dividing|that divides] {n}.",
            "{n} is [factored|factorized] into primes. What is the {part} of them?",
            "Among the primes in the factorization of {n}, name the {part}.",
        ],
        ["The {part} prime factor of {n}.", "{code} of factorint({n})."],
        ["print({code}(sympy.factorint({n})))", "print({code}(sympy.primefactors({n})))"],
    ),
    family(
        "number_of_prime_factors",
        lambda r: {"n": number(r, 4, 999_999)},
        [
            "How many [different|distinct] prime [factors|divisors] does {n} have?",
            "[What is|Find] the number of [distinct|different] prime [factors|divisors] of {n}[?|.]",
            "How many [different|distinct] primes divide {n}?",
            "[Count|Find] the [distinct|different] primes in the factorization of {n}.",
            "The number {n} is built from how many different primes?",
        ],
        ["Distinct primes of {n}.", "Count the primes that divide {n}."],
        ["print(len(sympy.primefactors({n})))", "print(len(sympy.factorint({n})))"],
    ),
    family(
        "multiples_up_to",
        lambda r: {"n": number(r, 5, 90_000), "k": number(r, 2, 99)},
        [
            "How many [positive |][multiples of {k}|numbers divisible by {k}] are [there |]<upto> {n}?",
            "How many <whole> <upto> {n} are <multof> {k}?",
            "[Count|Find the number of] [integers|numbers] from 1 to {n} [that are |]<divby> {k}.",
            "How many numbers between 1 and {n} [are <divby>|can be divided by] {k}?",
            "How many of the numbers 1, 2, 3, ..., {n} are <multof> {k}?",
            "{who} colors every {k}th number on a list from 1 to {n}. How many are colored?",
        ],
        ["{n} // {k}.", "Multiples of {k} up to {n}."],
        ["print({n} // {k})", "print(sum(1 for i in range(1, {n} + 1) if i % {k} == 0))"],
    ),
    family(
        "multiples_between",
        lambda r: {**_interval(r), "k": number(r, 2, 60)},
        [
            "How many [multiples of {k}|numbers divisible by {k}] are [there |]between {a} and {b}<incl>?",
            "How many [integers|numbers] from {a} to {b} are <multof> {k}?",
            "[Count|Find the number of] [integers|numbers] $n$ with ${a} \\le n \\le {b}$ [that are |]divisible by {k}.",
            "[Find|What is] the number of multiples of {k} from {a} to {b}<incl>[?|.]",
            "Of the whole numbers {a} through {b}, how many leave no remainder on division by {k}?",
        ],
        ["Multiples of {k} from {a} to {b}.", "{b} // {k} - ({a} - 1) // {k}."],
        [
            "print(sum(1 for n in range({a}, {b} + 1) if n % {k} == 0))",
            "print({b} // {k} - ({a} - 1) // {k})",
        ],
    ),
    family(
        "even_or_odd_between",
        _parity,
        [
            "How many {word} [numbers|integers] are [there |]between {a} and {b}<incl>?",
            "How many [of the |][numbers|integers] from {a} to {b} are {word}?",
            "[Count|Find the number of] {word} [numbers|integers] from {a} to {b}<incl>.",
            "How many {word} $n$ [satisfy|are there with] ${a} \\le n \\le {b}$?",
            "{a}, {b} and all numbers in between are written down. How many are {word}?",
        ],
        ["{word} numbers from {a} to {b}.", "Count n % 2 == {k} from {a} to {b}."],
        ["print(sum(1 for n in range({a}, {b} + 1) if n % 2 == {k}))"],
    ),
    family(
        "multiples_of_either",
        _either,
        [
            "How many <whole> [<upto>|from 1 to] {n} are <multof> {a} or {b}?",
            "How many numbers from 1 to {n} are divisible by {a} or [by |]{b}[ or both|]?",
            "[Count|Find] the <ints> up to {n} that are <multof> {a} or {b}.",
            "[Find|What is] the number of multiples of {a} or {b} up to {n}[?|.]",
            "At least one of {a} and {b} divides how many of the first {n} positive integers?",
        ],
        ["n up to {n} with n % {a} == 0 or n % {b} == 0.", "Divisible by {a} or {b}."],
        [
            "print(sum(1 for n in range(1, {n} + 1) if n % {a} == 0 or n % {b} == 0))",
            "print({n} // {a} + {n} // {b} - {n} // math.lcm({a}, {b}))",
        ],
    ),
    family(
        "multiples_of_both",
        _either,
        [
            "How many <whole> [<upto>|from 1 to] {n} are <multof> [both |]{a} and {b}?",
            "How many numbers from 1 to {n} are divisible by [both |]{a} and [by |]{b}?",
            "[Count|Find] the <ints> up to {n} that are <multof> {a} and [of |]{b}[ at the same time|].",
            "[Find|What is] the number of common multiples of {a} and {b} up to {n}[?|.]",
            "{a} and {b} divide how many of the first {n} positive integers at once?",
        ],
        ["n up to {n} with n % {a} == 0 and n % {b} == 0.", "{n} // lcm({a}, {b})."],
        [
            "print(sum(1 for n in range(1, {n} + 1) if n % {a} == 0 and n % {b} == 0))",
            "print({n} // math.lcm({a}, {b}))",
        ],
    ),
    family(
        "multiples_of_neither",
        _either,
        [
            "How many <whole> [<upto>|from 1 to] {n} are divisible by neither {a} nor {b}?",
            "How many numbers from 1 to {n} are not divisible by {a} [or|and not by] {b}?",
            "[Count|Find] the <ints> up to {n} that are [neither multiples of {a} nor of {b}|multiples of neither {a} nor {b}].",
            "[Find|What is] the number of integers from 1 to {n} that neither {a} nor {b} divides[?|.]",
            "All multiples of {a} and of {b} are crossed out in the list 1 to {n}. How many numbers remain?",
        ],
        ["n up to {n} with n % {a} != 0 and n % {b} != 0.", "Neither {a} nor {b} divides n."],
        [
            "print(sum(1 for n in range(1, {n} + 1) if n % {a} != 0 and n % {b} != 0))",
            "print({n} - {n} // {a} - {n} // {b} + {n} // math.lcm({a}, {b}))",
        ],
    ),
    family(
        "sum_of_either_multiples",
        _either,
        [
            "[What is|Find] the sum of [all |the |]<whole> <below> {n} that are <multof> {a} or {b}[?|.]",
            "[What is|Find] the sum of all [the |]multiples of {a} or {b} <below> {n}[?|.]",
            "[Add|Sum] all numbers <below> {n} that are divisible by {a} or {b}.",
            "What do all [positive |]numbers <below> {n} divisible by {a} or by {b} add up to?",
            "Those natural numbers under {n} which {a} or {b} divides are added. What is the sum?",
        ],
        [
            "Sum n < {n} with n % {a} == 0 or n % {b} == 0.",
            "Add multiples of {a} or {b} below {n}.",
        ],
        ["print(sum(n for n in range(1, {n}) if n % {a} == 0 or n % {b} == 0))"],
    ),
)
