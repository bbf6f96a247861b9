"""Divisors, primes and greatest common divisors."""

from __future__ import annotations

from random import Random

from .family import Params, family, number


def _interval(r: Random, high: int, width: int) -> Params:
    a = number(r, 2, high)
    return {"a": a, "b": a + number(r, 5, width)}


def _three(r: Random) -> Params | None:
    a, b, c = r.sample(range(2, 60), 3)
    return {"n": number(r, 50, 30_000), "a": a, "b": b, "c": c}


FAMILIES = (
    family(
        "divisor_count",
        lambda r: {"n": number(r, 12, 99_999)},
        [
            "How many positive divisors does {n} have?",
            "<find> the number of positive integers that divide {n}.",
            "Let $n = {n}$. How many [positive divisors|divisors] does $n$ have, counting 1 and $n$ itself?",
            "[Count|Count all] the positive integers $d$ such that {n} is a multiple of $d$.",
            "What is the value of $d({n})$, where $d(n)$ is the number of divisors of $n$?",
            "For how many positive integers $k$ is {n}/$k$ an integer?",
            "In how many ways can {n} be written as an ordered product of two positive integers?",
        ],
        [
            "I count the divisors of {n} with a loop.",
            "Let me test each number up to {n}.",
            "The task asks for the number of divisors of {n}.",
        ],
        [
            "n = {n}\nprint(sum(1 for d in range(1, n + 1) if n % d == 0))",
            "from sympy import divisor_count\nprint(divisor_count({n}))",
            """
n = {n}
count = 0
d = 1
while d * d <= n:
    if n % d == 0:
        count += 1 if d * d == n else 2
    d += 1
print(count)""",
        ],
    ),
    family(
        "divisor_sum",
        lambda r: {"n": number(r, 12, 28_000)},
        [
            "<find> the sum of all positive divisors of {n}.",
            "What is the sum of the positive divisors of {n}, including 1 and {n}?",
            "Let $S$ be the sum of all positive integers dividing {n}. <find> $S$.",
            "Add up all the positive divisors of {n}. What [is the total|total do you get]?",
            "Evaluate $\\sigma({n})$, the sum of divisors function.",
            "All positive integers $d$ with $d \\mid {n}$ are added together. What is the result?",
        ],
        [
            "I add all divisors of {n}.",
            "The sum of divisors of {n} is needed.",
            "Let me sum d over the divisors d of {n}.",
        ],
        [
            "n = {n}\nprint(sum(d for d in range(1, n + 1) if n % d == 0))",
            "from sympy import divisors\nprint(sum(divisors({n})))",
            "from sympy import divisor_sigma\nprint(divisor_sigma({n}))",
        ],
    ),
    family(
        "multiples_but_not",
        _three,
        [
            "How many integers from 1 to {n} are divisible by {a} or {b} but not by {c}?",
            "<find> the number of positive integers not exceeding {n} that are multiples of {a} or of {b}, but not multiples of {c}.",
            "Among the numbers $1, 2, \\ldots, {n}$, how many are divisible by at least one of {a} and {b} and not divisible by {c}?",
            "Count the integers $k$ with $1 \\le k \\le {n}$ such that {a} or {b} divides $k$ while {c} does not divide $k$.",
            "A number is called good if it is a multiple of {a} or {b} and not a multiple of {c}. How many good numbers are there up to {n}?",
            "From the first {n} positive integers keep those divisible by {a} or {b}, then remove the multiples of {c}. How many numbers are left?",
        ],
        [
            "I check every k up to {n}: divisible by {a} or {b}, not by {c}.",
            "A direct count over 1 to {n} is enough.",
            "Count with a loop: {a} or {b} divides k, {c} does not.",
        ],
        [
            "print(sum(1 for k in range(1, {n} + 1) if (k % {a} == 0 or k % {b} == 0) and k % {c} != 0))",
            """
count = 0
for k in range(1, {n} + 1):
    if k % {c} == 0:
        continue
    if k % {a} == 0 or k % {b} == 0:
        count += 1
print(count)""",
            """
good = set(range({a}, {n} + 1, {a})) | set(range({b}, {n} + 1, {b}))
good -= set(range({c}, {n} + 1, {c}))
print(len(good))""",
        ],
    ),
    family(
        "coprime_in_interval",
        lambda r: {**_interval(r, 40_000, 6_000), "m": number(r, 6, 9_999)},
        [
            "How many integers between {a} and {b}, inclusive, are coprime to {m}?",
            "<find> the number of integers $k$ with ${a} \\le k \\le {b}$ and $\\gcd(k, {m}) = 1$.",
            "Count the integers in the interval $[{a}, {b}]$ that share no common factor greater than 1 with {m}.",
            "How many numbers from {a} to {b} are relatively prime to {m}?",
            "Let $m = {m}$. How many integers from {a} up to {b} have greatest common divisor 1 with $m$?",
            "An integer is called free if it has no prime factor in common with {m}. How many free integers lie in the range from {a} to {b}, both ends included?",
        ],
        [
            "I count k from {a} to {b} with gcd(k, {m}) = 1.",
            "Use gcd for every k in the range.",
            "Loop over the interval and test the gcd with {m}.",
        ],
        [
            "from math import gcd\nprint(sum(1 for k in range({a}, {b} + 1) if gcd(k, {m}) == 1))",
            """
from math import gcd
count = 0
for k in range({a}, {b} + 1):
    if gcd(k, {m}) == 1:
        count += 1
print(count)""",
            """
from sympy import primefactors
ps = primefactors({m})
print(len([k for k in range({a}, {b} + 1) if all(k % p for p in ps)]))""",
        ],
    ),
    family(
        "prime_count",
        lambda r: _interval(r, 60_000, 5_000),
        [
            "How many prime numbers are there between {a} and {b}, inclusive?",
            "<find> the number of primes $p$ with ${a} \\le p \\le {b}$.",
            "Count the primes in the interval $[{a}, {b}]$.",
            "What is the number of prime numbers that are at least {a} and at most {b}?",
            "Among the integers from {a} to {b}, how many are prime?",
            "How many integers $n$ satisfying ${a} \\le n \\le {b}$ have exactly two positive divisors?",
        ],
        [
            "I count the primes from {a} to {b}.",
            "Test each number between {a} and {b} for primality.",
            "sympy can list the primes in this range.",
        ],
        [
            "from sympy import isprime\nprint(sum(1 for p in range({a}, {b} + 1) if isprime(p)))",
            "from sympy import primerange\nprint(len(list(primerange({a}, {b} + 1))))",
            """
n = {b}
sieve = bytearray([1]) * (n + 1)
sieve[0:2] = bytes(2)
for i in range(2, int(n ** 0.5) + 1):
    if sieve[i]:
        sieve[i * i::i] = bytes(len(range(i * i, n + 1, i)))
print(sum(sieve[{a}:]))""",
        ],
    ),
    family(
        "nth_prime",
        lambda r: {"k": number(r, 5, 9_500)},
        [
            "What is the {k}th prime number? (Take 2 as the first prime.)",
            "Let $p_1 = 2, p_2 = 3, p_3 = 5, \\ldots$ be the primes in order. <find> $p_n$ for $n = {k}$.",
            "The primes are listed in increasing order. Which prime stands at position {k}?",
            "<find> the prime number with index {k} in the sequence $2, 3, 5, 7, 11, \\ldots$",
            "Exactly {k} prime numbers are less than or equal to the prime $p$. <find> $p$.",
            "[Someone writes|Anna writes|Ben writes] down the first {k} primes. What is the last number written?",
        ],
        [
            "I need prime number {k}.",
            "sympy has a function for the n-th prime; here n = {k}.",
            "List primes until there are {k} of them.",
        ],
        [
            "from sympy import prime\nprint(prime({k}))",
            "from sympy import sieve\nsieve.extend_to_no({k})\nprint(sieve[{k}])",
        ],
    ),
    family(
        "gcd_sum",
        lambda r: {"n": number(r, 10, 9_000), "m": number(r, 6, 9_999)},
        [
            "<find> $\\sum_{k=1}^{{n}} \\gcd(k, {m})$.",
            "What is the sum of $\\gcd(k, {m})$ over all integers $k$ from 1 to {n}?",
            "For every $k = 1, 2, \\ldots, {n}$ the greatest common divisor of $k$ and {m} is written down. <find> the sum of these numbers.",
            "Let $g(k)$ be the greatest common divisor of $k$ and {m}. <find> $g(1) + g(2) + \\cdots + g({n})$.",
            "Add the greatest common divisors of {m} with each of the integers 1 to {n}. What is the total?",
            "Suppose $f(x) = \\gcd(x, {m})$. What do you get when you add the values of $f$ at the first {n} positive integers?",
        ],
        [
            "Sum gcd(k, {m}) for k up to {n}.",
            "I add the gcd with {m} for k from 1 to {n}.",
            "A loop over k with math.gcd does it.",
        ],
        [
            "from math import gcd\nprint(sum(gcd(k, {m}) for k in range(1, {n} + 1)))",
            """
import math
total = 0
for k in range(1, {n} + 1):
    total += math.gcd(k, {m})
print(total)""",
            "import numpy as np\nprint(int(np.gcd(np.arange(1, {n} + 1), {m}).sum()))",
        ],
    ),
    family(
        "largest_prime_factor",
        lambda r: {"a": number(r, 3, 999), "b": number(r, 3, 999), "c": number(r, 1, 9_999)},
        [
            "What is the largest prime factor of ${a} \\cdot {b} + {c}$?",
            "<find> the greatest prime divisor of ${a} \\times {b} + {c}$.",
            "Let $N = {a} \\cdot {b} + {c}$. Which is the largest prime that divides $N$?",
            "The product of {a} and {b} is increased by {c}. <find> the largest prime factor of the result.",
            "Factor the number ${a} \\cdot {b} + {c}$ into primes. What is the biggest prime that appears?",
            "Multiply {a} by {b} and add {c}. Among all the primes dividing this number, which one is the greatest?",
        ],
        [
            "Factor {a} * {b} + {c} and take the largest prime.",
            "I use factorint on {a} * {b} + {c}.",
            "The largest prime factor is the maximum of the factorization.",
        ],
        [
            "from sympy import factorint\nprint(max(factorint({a} * {b} + {c})))",
            "from sympy import primefactors\nprint(primefactors({a} * {b} + {c})[-1])",
            """
n = {a} * {b} + {c}
p = 2
best = 1
while n > 1:
    if n % p == 0:
        best = p
        n //= p
    elif p * p > n:
        p = n
    else:
        p += 1
print(best)""",
        ],
    ),
    family(
        "factorial_divisible",
        lambda r: {"m": number(r, 6, 99_999)},
        [
            "<find> the smallest positive integer $n$ such that $n!$ is divisible by {m}.",
            "What is the least $n$ for which {m} divides $n!$?",
            "For which smallest positive integer $n$ is the factorial $n!$ a multiple of {m}?",
            "Let $S(m)$ be the smallest $n$ with $m \\mid n!$. <find> $S({m})$.",
            "The product $1 \\cdot 2 \\cdot 3 \\cdots n$ is divisible by {m}. What is the smallest possible value of $n$?",
            "Starting with 1, we multiply by 2, then by 3, then by 4 and so on. By which number do we multiply when the product first becomes a multiple of {m}?",
        ],
        [
            "Multiply 1, 2, 3, ... modulo {m} until the result is 0.",
            "I keep the factorial modulo {m} and stop at 0.",
            "A loop finds the first n with n! divisible by {m}.",
        ],
        [
            """
n = 1
f = 1
while f % {m} != 0:
    n += 1
    f = f * n % {m}
print(n)""",
            """
from math import gcd
m = {m}
n = 1
while m > 1:
    n += 1
    m //= gcd(m, n)
print(n)""",
        ],
    ),
)
