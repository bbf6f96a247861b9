"""Digits of numbers."""

from __future__ import annotations

from random import Random

from .family import Params, family, number


def _interval(r: Random) -> Params:
    a = number(r, 10, 60_000)
    return {"a": a, "b": a + number(r, 50, 9_000)}


FAMILIES = (
    family(
        "digit_sum_of_power",
        lambda r: {"a": number(r, 2, 9_999), "b": number(r, 5, 600)},
        [
            "What is the sum of the digits of ${a}^{{b}}$?",
            "<find> the digit sum of ${a}^{{b}}$.",
            "The number ${a}^{{b}}$ is written in decimal notation. <find> the sum of its digits.",
            "Let $N = {a}^{{b}}$. Add all the decimal digits of $N$. What is the total?",
            "When {a} to the power {b} is written out in base 10, what do its digits add up to?",
            "[Someone writes|Clara writes] the decimal expansion of the {b}th power of {a} and adds all digits in it. What number is obtained?",
        ],
        [
            "Python has big integers: str({a}**{b}).",
            "Sum the digits of {a}**{b}.",
            "I turn the power into a string and add the digits.",
        ],
        [
            "print(sum(int(d) for d in str({a}**{b})))",
            "print(sum(map(int, str({a}**{b}))))",
            """
n = {a}**{b}
s = 0
while n > 0:
    s += n % 10
    n //= 10
print(s)""",
        ],
    ),
    family(
        "digit_sum_count",
        lambda r: {**_interval(r), "s": r.randint(4, 30)},
        [
            "How many integers from {a} to {b} have digit sum {s}?",
            "<find> the number of integers $n$ with ${a} \\le n \\le {b}$ whose digits add up to {s}.",
            "Count the numbers between {a} and {b} (inclusive) with sum of digits equal to {s}.",
            "For how many integers in the interval $[{a}, {b}]$ is the sum of the decimal digits {s}?",
            "Let $s(n)$ be the digit sum of $n$. How many $n$ from {a} up to {b} satisfy $s(n) = {s}$?",
            "Someone adds the digits of every number from {a} up to and including {b}. How many times is the result {s}?",
        ],
        [
            "Check the digit sum of each n from {a} to {b}.",
            "I count n with digit sum {s}.",
            "Brute force over the range; the digit sum must be {s}.",
        ],
        [
            "print(sum(1 for n in range({a}, {b} + 1) if sum(map(int, str(n))) == {s}))",
            """
count = 0
for n in range({a}, {b} + 1):
    if sum(int(d) for d in str(n)) == {s}:
        count += 1
print(count)""",
            """
def s(n):
    return n % 10 + s(n // 10) if n else 0
print(len([n for n in range({a}, {b} + 1) if s(n) == {s}]))""",
        ],
    ),
    family(
        "digit_occurrences",
        lambda r: {**_interval(r), "d": r.randint(1, 9)},
        [
            "How many times is the digit {d} written when all integers from {a} to {b} are written down?",
            "<find> the total number of digits {d} in the list ${a}, {a} + 1, \\ldots, {b}$.",
            "All the integers from {a} to {b} are written on a board. How often does the digit {d} appear?",
            "The pages of a book are numbered from {a} to {b}. How many times is the digit {d} used?",
            "Count the occurrences of the digit {d} in the decimal representations of the integers from {a} to {b}.",
            "A sign painter has to paint every house number from {a} through {b}. How many copies of the digit {d} does he paint?",
        ],
        [
            "Count the character {d} in each number from {a} to {b}.",
            "I sum str(n).count for the digit {d}.",
            "Loop over the numbers and count the digit {d}.",
        ],
        [
            "print(sum(str(n).count('{d}') for n in range({a}, {b} + 1)))",
            """
total = 0
for n in range({a}, {b} + 1):
    while n:
        if n % 10 == {d}:
            total += 1
        n //= 10
print(total)""",
            "print(''.join(map(str, range({a}, {b} + 1))).count('{d}'))",
        ],
    ),
    family(
        "palindromes",
        lambda r: {"n": number(r, 50, 60_000), "k": number(r, 2, 40)},
        [
            "How many palindromes from 1 to {n} are divisible by {k}?",
            "<find> the number of positive integers up to {n} that are multiples of {k} and read the same forwards and backwards.",
            "Count the palindromic multiples of {k} not exceeding {n}.",
            "A palindrome is a number that equals its reversal. How many positive palindromes at most {n} are multiples of {k}?",
            "How many integers $m$ with $1 \\le m \\le {n}$ are divisible by {k} and are decimal palindromes?",
            "Among the first {n} positive integers, how many stay the same when their digits are reversed and can also be divided by {k} without remainder?",
        ],
        [
            "Check the multiples of {k} up to {n} for palindromes.",
            "A palindrome equals its reversed string.",
            "Loop over multiples of {k} and compare with the reversal.",
        ],
        [
            "print(sum(1 for m in range({k}, {n} + 1, {k}) if str(m) == str(m)[::-1]))",
            """
count = 0
for m in range(1, {n} + 1):
    s = str(m)
    if m % {k} == 0 and s == s[::-1]:
        count += 1
print(count)""",
        ],
    ),
    family(
        "binary_ones",
        lambda r: {**_interval(r), "k": r.randint(3, 11)},
        [
            "How many integers from {a} to {b} have exactly {k} ones in their binary representation?",
            "<find> the number of $n$ with ${a} \\le n \\le {b}$ whose binary expansion contains exactly {k} ones.",
            "Count the integers between {a} and {b}, inclusive, with exactly {k} digits 1 in base 2.",
            "Written in binary, how many of the numbers {a} to {b} contain the digit 1 exactly {k} times?",
            "For how many integers in $[{a}, {b}]$ is the sum of the binary digits equal to {k}?",
            "How many numbers in the range {a} to {b} (ends included) are a sum of {k} different powers of two?",
        ],
        [
            "Use bin(n).count and compare with {k}.",
            "Count n from {a} to {b} with {k} binary ones.",
            "A loop over the range with the binary string.",
        ],
        [
            "print(sum(1 for n in range({a}, {b} + 1) if bin(n).count('1') == {k}))",
            """
count = 0
for n in range({a}, {b} + 1):
    if n.bit_count() == {k}:
        count += 1
print(count)""",
            "print(len([n for n in range({a}, {b} + 1) if f'{n:b}'.count('1') == {k}]))",
        ],
    ),
)
