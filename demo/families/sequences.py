"""Sequences and sums."""

from __future__ import annotations

from random import Random

from .family import Params, family, modulus, number


def _recurrence(r: Random) -> Params:
    return {
        "a": number(r, 1, 999),
        "b": number(r, 1, 999),
        "p": r.randint(2, 20),
        "q": r.randint(2, 20),
        "n": number(r, 8, 5_000),
        "m": modulus(r),
    }


def _iteration(r: Random) -> Params:
    m = modulus(r)
    return {"x": number(r, 2, 9_999), "c": number(r, 1, 999), "n": number(r, 8, 5_000), "m": m}


FAMILIES = (
    family(
        "linear_recurrence",
        _recurrence,
        [
            "A sequence is given by $a_1 = {a}$, $a_2 = {b}$ and $a_n = {p}a_{n-1} + {q}a_{n-2}$ for $n \\ge 3$. <find> $a_{{n}}$ modulo {m}.",
            "Let $a_1 = {a}$, $a_2 = {b}$, and $a_{k} = {p}a_{k-1} + {q}a_{k-2}$. What is the remainder of $a_{{n}}$ on division by {m}?",
            "The sequence $(x_k)$ starts with $x_1 = {a}$, $x_2 = {b}$; every further term is {p} times the previous term plus {q} times the one before it. <find> $x_{{n}} \\bmod {m}$.",
            "Define $u_1 = {a}$, $u_2 = {b}$, $u_{i+2} = {p}u_{i+1} + {q}u_i$. What remainder does $u_{{n}}$ leave modulo {m}?",
            "Starting with {a} and {b}, each new term is {p} times the last term plus {q} times the second to last. <find> the {n}th term modulo {m}.",
            "The first two numbers in a row are {a} and {b}. From then on a number equals {p} times its left neighbour plus {q} times the number left of that. Which remainder modulo {m} has the number in place {n}?",
        ],
        [
            "Iterate the recurrence up to n = {n} modulo {m}.",
            "Start with {a}, {b}; factors {p} and {q}; modulus {m}.",
            "A loop of {n} steps with reduction modulo {m}.",
        ],
        [
            """
x, y = {a}, {b}
for _ in range({n} - 1):
    x, y = y, ({p} * y + {q} * x) % {m}
print(x % {m})""",
            """
a = [{a}, {b}]
while len(a) < {n}:
    a.append(({p} * a[-1] + {q} * a[-2]) % {m})
print(a[{n} - 1] % {m})""",
        ],
    ),
    family(
        "square_iteration",
        _iteration,
        [
            "Let $x_0 = {x}$ and $x_{k+1} = x_k^2 + {c} \\pmod{{m}}$. <find> $x_{{n}}$, reduced modulo {m}.",
            "A sequence starts with $x_0 = {x}$, and $x_{k+1}$ is the remainder of $x_k^2 + {c}$ modulo {m}. What is $x_{{n}}$?",
            "Start with {x}. In each step, square the number, add {c} and take the remainder modulo {m}. Which number do you have after {n} steps?",
            "Let $f(x)$ be the remainder of $x^2 + {c}$ on division by {m}. <find> the result of applying $f$ exactly {n} times to {x}.",
            "The map $x \\mapsto x^2 + {c} \\bmod {m}$ is applied {n} times, beginning with $x = {x}$. <find> the final value.",
            "A machine replaces the number $z$ on its display by the remainder of $z^2 + {c}$ when divided by {m}. At first it shows {x}. What does it show after the machine has worked {n} times?",
        ],
        [
            "Iterate x -> x^2 + {c} mod {m}, {n} times from {x}.",
            "Just simulate {n} steps.",
            "Start at {x} and repeat the map {n} times.",
        ],
        [
            """
x = {x}
for _ in range({n}):
    x = (x * x + {c}) % {m}
print(x)""",
            """
def f(x):
    return (x**2 + {c}) % {m}
x = {x}
for i in range({n}):
    x = f(x)
print(x)""",
        ],
    ),
    family(
        "collatz",
        lambda r: {"n": number(r, 3, 99_999)},
        [
            "How many steps does the Collatz sequence starting at {n} need to reach 1?",
            "Start with {n}. If the number is even, halve it; if it is odd, triple it and add 1. After how many steps is 1 reached for the first time?",
            "Let $f(n) = n/2$ for even $n$ and $f(n) = 3n + 1$ for odd $n$. What is the smallest $k$ such that applying $f$ exactly $k$ times to {n} gives 1?",
            "<find> the number of Collatz steps from {n} to 1.",
            "In the $3n + 1$ problem, how many iterations lead from {n} to 1?",
            "Write down {n}; below an even number write its half, below an odd number write three times the number plus one. Stop at 1. How many numbers stand below the first one?",
        ],
        [
            "Simulate the Collatz steps from {n}.",
            "Count steps until the number is 1, starting at {n}.",
            "A while loop does it for {n}.",
        ],
        [
            """
n = {n}
steps = 0
while n != 1:
    n = n // 2 if n % 2 == 0 else 3 * n + 1
    steps += 1
print(steps)""",
            """
def collatz(n):
    k = 0
    while n > 1:
        if n % 2:
            n = 3 * n + 1
        else:
            n //= 2
        k += 1
    return k
print(collatz({n}))""",
        ],
    ),
    family(
        "fibonacci_mod",
        lambda r: {"n": number(r, 12, 20_000), "m": modulus(r)},
        [
            "What is the remainder when the Fibonacci number $F_{{n}}$ is divided by {m}? ($F_1 = F_2 = 1$.)",
            "Let $F_1 = F_2 = 1$ and $F_k = F_{k-1} + F_{k-2}$. <find> $F_{{n}} \\bmod {m}$.",
            "<find> the {n}th Fibonacci number modulo {m}, where the first two are 1 and 1.",
            "The Fibonacci sequence begins $1, 1, 2, 3, 5, \\ldots$ What remainder does its {n}th term leave on division by {m}?",
            "Determine $F_{{n}}$ modulo {m} for the Fibonacci sequence with $F_1 = 1$ and $F_2 = 1$.",
            "In the sequence $1, 1, 2, 3, 5, 8, \\ldots$ every term is the sum of the two before. Divide term number {n} by {m}. What remains?",
        ],
        [
            "Iterate the Fibonacci numbers modulo {m}.",
            "I need F({n}) mod {m}.",
            "A loop of {n} steps modulo {m}.",
        ],
        [
            """
a, b = 0, 1
for _ in range({n}):
    a, b = b, (a + b) % {m}
print(a % {m})""",
            "from sympy import fibonacci\nprint(fibonacci({n}) % {m})",
        ],
    ),
    family(
        "floor_sum",
        lambda r: {"n": number(r, 10, 9_000)},
        [
            "<find> $\\sum_{k=1}^{{n}} \\lfloor {n}/k \\rfloor$.",
            "What is the sum of the integer parts of ${n}/k$ for $k = 1, 2, \\ldots, {n}$?",
            "<find> $\\lfloor {n}/1 \\rfloor + \\lfloor {n}/2 \\rfloor + \\cdots + \\lfloor {n}/{n} \\rfloor$.",
            "Let $n = {n}$. <find> $\\sum_{i=1}^{n} \\lfloor n/i \\rfloor$.",
            "Divide {n} by each of $1, 2, \\ldots, {n}$ and round every quotient down to an integer. What is the sum of the results?",
            "How many pairs of positive integers $(x, y)$ satisfy $xy \\le {n}$?",
        ],
        [
            "Sum {n} // k for k from 1 to {n}.",
            "Integer division in a loop up to {n}.",
            "I add the floors with a generator.",
        ],
        [
            "print(sum({n} // k for k in range(1, {n} + 1)))",
            """
n = {n}
total = 0
for k in range(1, n + 1):
    total += n // k
print(total)""",
            "n = {n}\nprint(sum(len(range(d, n + 1, d)) for d in range(1, n + 1)))",
        ],
    ),
    family(
        "multiples_sum_mod",
        lambda r: {
            "n": number(r, 50, 40_000),
            "a": number(r, 3, 99),
            "b": number(r, 3, 99),
            "m": modulus(r),
        },
        [
            "<find> the sum of all positive integers up to {n} that are divisible by {a} or {b}, modulo {m}.",
            "What is the remainder modulo {m} of the sum of all multiples of {a} or {b} between 1 and {n}?",
            "Add all integers from 1 to {n} which are divisible by at least one of {a} and {b}. <find> the sum modulo {m}.",
            "Let $S$ be the sum of the numbers $k \\le {n}$, $k \\ge 1$, for which {a} divides $k$ or {b} divides $k$. <find> $S \\bmod {m}$.",
            "The multiples of {a} and the multiples of {b} up to {n} are added, each number only once. What is the sum modulo {m}?",
            "On a number line from 1 to {n} we mark every {a}th and every {b}th number. What remainder modulo {m} has the sum of the marked numbers?",
        ],
        [
            "Sum the k up to {n} divisible by {a} or {b}, then mod {m}.",
            "A direct sum over k from 1 to {n}.",
            "Filter by {a} and {b} and reduce modulo {m}.",
        ],
        [
            "print(sum(k for k in range(1, {n} + 1) if k % {a} == 0 or k % {b} == 0) % {m})",
            "print(sum(set(range(0, {n} + 1, {a})) | set(range(0, {n} + 1, {b}))) % {m})",
            """
s = 0
for k in range(1, {n} + 1):
    if k % {a} == 0 or k % {b} == 0:
        s += k
print(s % {m})""",
        ],
    ),
    family(
        "prime_sum_mod",
        lambda r: {"n": number(r, 20, 30_000), "m": modulus(r)},
        [
            "<find> the sum of all primes up to {n}, modulo {m}.",
            "What is the remainder when the sum of all prime numbers not exceeding {n} is divided by {m}?",
            "Add all primes $p \\le {n}$. What is the sum modulo {m}?",
            "Let $S$ be the sum of the primes less than or equal to {n}. <find> $S \\bmod {m}$.",
            "All prime numbers from 2 to {n} are added. <find> the remainder of the result modulo {m}.",
            "From the list $1, 2, \\ldots, {n}$ everything is erased that is not prime. What remainder does the sum of the rest leave on division by {m}?",
        ],
        [
            "Sum the primes up to {n} and reduce modulo {m}.",
            "sympy.primerange gives the primes up to {n}.",
            "The sum of primes, then mod {m}.",
        ],
        [
            "from sympy import primerange\nprint(sum(primerange(2, {n} + 1)) % {m})",
            "print(sum(p for p in range(2, {n} + 1) if sympy.isprime(p)) % {m})",
            """
n = {n}
sieve = [True] * (n + 1)
total = 0
for i in range(2, n + 1):
    if sieve[i]:
        total += i
        for j in range(i * i, n + 1, i):
            sieve[j] = False
print(total % {m})""",
        ],
    ),
)
