"""Counting: paths, subsets, strings, partitions."""

from __future__ import annotations

from random import Random

from .family import Params, family, modulus, number


def _blocked(r: Random) -> Params:
    a, b = r.randint(4, 40), r.randint(4, 40)
    return {"a": a, "b": b, "c": r.randint(1, a - 1), "d": r.randint(1, b - 1), "m": modulus(r)}


def _coins(r: Random) -> Params | None:
    a, b, c = sorted(r.sample(range(2, 50), 3))
    return {"a": a, "b": b, "c": c, "n": number(r, 50, 4_000)}


def _choose(r: Random) -> Params:
    n = number(r, 12, 1_500)
    return {"n": n, "k": r.randint(3, n - 3), "m": modulus(r)}


FAMILIES = (
    family(
        "lattice_paths",
        _blocked,
        [
            "How many lattice paths from $(0, 0)$ to $({a}, {b})$ with steps right and up avoid the point $({c}, {d})$? Give the answer modulo {m}.",
            "A path goes from $(0, 0)$ to $({a}, {b})$ in unit steps to the right or up and must not pass through $({c}, {d})$. <find> the number of such paths modulo {m}.",
            "<find> the remainder modulo {m} of the number of monotone lattice paths from the origin to $({a}, {b})$ that do not visit $({c}, {d})$.",
            "A robot moves on a grid from $(0, 0)$ to $({a}, {b})$, each step one unit east or north. The cell $({c}, {d})$ is blocked. How many routes are there, modulo {m}?",
            "Let $N$ be the number of shortest grid paths from $(0,0)$ to $({a}, {b})$ avoiding $({c}, {d})$. What is $N \\bmod {m}$?",
            "An ant walks from the origin to $({a}, {b})$, increasing one coordinate by 1 at every step, and never touches $({c}, {d})$. In how many ways can it walk? Reduce the answer modulo {m}.",
        ],
        [
            "Total paths to ({a}, {b}) minus paths through ({c}, {d}).",
            "Subtract the paths through the blocked point.",
            "A grid computation or binomials solve it, modulo {m}.",
        ],
        [
            "from math import comb\nprint((comb({a} + {b}, {a}) - comb({c} + {d}, {c}) * comb({a} - {c} + {b} - {d}, {a} - {c})) % {m})",
            """
a, b, c, d = {a}, {b}, {c}, {d}
ways = [[0] * (b + 1) for _ in range(a + 1)]
for i in range(a + 1):
    for j in range(b + 1):
        if (i, j) == (c, d):
            continue
        if i == 0 and j == 0:
            ways[i][j] = 1
            continue
        ways[i][j] = (ways[i - 1][j] if i else 0) + (ways[i][j - 1] if j else 0)
print(ways[a][b] % {m})""",
        ],
    ),
    family(
        "bounded_solutions",
        lambda r: {
            "k": r.randint(3, 9),
            "n": number(r, 10, 150),
            "t": r.randint(5, 60),
            "m": modulus(r),
        },
        [
            "How many solutions does $x_1 + x_2 + \\cdots + x_{{k}} = {n}$ have in integers $0 \\le x_i \\le {t}$? Give the answer modulo {m}.",
            "<find> the number of ways modulo {m} to put {n} identical balls into {k} distinct boxes so that no box gets more than {t} balls.",
            "The integers $x_1, \\ldots, x_{{k}}$ lie between 0 and {t} and have sum {n}. How many choices are there, modulo {m}?",
            "Let $N$ be the number of {k}-tuples of integers from 0 to {t} with sum {n}. <find> $N \\bmod {m}$.",
            "In how many ways can {k} children share {n} equal candies if each gets at most {t}? Answer modulo {m}.",
            "A list of {k} non-negative integers, none above {t}, adds up to {n}. Count such lists and give the count modulo {m}.",
        ],
        [
            "Dynamic programming over {k} variables up to {t}.",
            "I count tuples of length {k} with sum {n}.",
            "Use a table of sums for each variable.",
        ],
        [
            """
ways = [1] + [0] * {n}
for _ in range({k}):
    ways = [sum(ways[max(0, s - {t}):s + 1]) for s in range({n} + 1)]
print(ways[{n}] % {m})""",
            """
from math import comb
total = 0
for j in range({k} + 1):
    rest = {n} - j * ({t} + 1)
    if rest < 0:
        break
    total += (-1)**j * comb({k}, j) * comb(rest + {k} - 1, {k} - 1)
print(total % {m})""",
        ],
    ),
    family(
        "coin_change",
        _coins,
        [
            "In how many ways can {n} cents be paid with coins of {a}, {b} and {c} cents?",
            "<find> the number of triples $(x, y, z)$ of non-negative integers with ${a}x + {b}y + {c}z = {n}$.",
            "How many non-negative integer solutions has the equation ${a}x + {b}y + {c}z = {n}$?",
            "There are coins of value {a}, {b} and {c}, as many as you like. In how many ways can you make the amount {n}, if order does not matter?",
            "Count the ways to write {n} as a sum of numbers from the set $\\{{a}, {b}, {c}\\}$, disregarding order.",
            "A shop sells packs of {a}, {b} or {c} pens. In how many ways can exactly {n} pens be bought?",
        ],
        [
            "Coin change with values {a}, {b}, {c} for {n}.",
            "Count the solutions of {a}x + {b}y + {c}z = {n}.",
            "Dynamic programming or two loops are enough.",
        ],
        [
            """
ways = [1] + [0] * {n}
for coin in ({a}, {b}, {c}):
    for s in range(coin, {n} + 1):
        ways[s] += ways[s - coin]
print(ways[{n}])""",
            """
count = 0
for z in range({n} // {c} + 1):
    rest = {n} - {c} * z
    for y in range(rest // {b} + 1):
        if (rest - {b} * y) % {a} == 0:
            count += 1
print(count)""",
        ],
    ),
    family(
        "binary_strings",
        lambda r: {"n": number(r, 8, 2_000), "k": r.randint(2, 9), "m": modulus(r)},
        [
            "How many binary strings of length {n} contain no {k} consecutive ones? Give the answer modulo {m}.",
            "<find> the number of sequences of {n} zeros and ones without a block of {k} ones in a row, modulo {m}.",
            "A coin is tossed {n} times. In how many outcomes do {k} heads never come in a row? Answer modulo {m}.",
            "Let $N$ be the number of binary words of length {n} in which the digit 1 never occurs {k} times in a row. What is $N$ modulo {m}?",
            "Count the 0-1 strings of length {n} that avoid {k} adjacent ones. <find> the count modulo {m}.",
            "Each of {n} lamps in a row is on or off, and there may never be {k} neighbouring lamps that are all on. How many patterns are possible, modulo {m}?",
        ],
        [
            "Keep the number of strings by the run of ones at the end.",
            "A recurrence with {k} states works for length {n}.",
            "Dynamic programming over the length {n}.",
        ],
        [
            """
state = [1] + [0] * ({k} - 1)
for _ in range({n}):
    state = [sum(state) % {m}] + state[:-1]
print(sum(state) % {m})""",
            """
f = [1]
for i in range(1, {n} + 1):
    f.append((sum(f[max(0, i - {k}):i]) + (1 if i < {k} else 0)) % {m})
print(f[{n}])""",
        ],
    ),
    family(
        "binomial_mod",
        _choose,
        [
            "What is the remainder when $\\binom{{n}}{{k}}$ is divided by {m}?",
            "<find> $\\binom{{n}}{{k}} \\bmod {m}$.",
            "In how many ways can {k} people be chosen from {n} people? Give the answer modulo {m}.",
            "A set has {n} elements. <find> the number of its subsets with {k} elements, modulo {m}.",
            "<find> the remainder of the binomial coefficient $C({n}, {k})$ modulo {m}.",
            "A club of {n} members elects a committee of {k} members. How many committees are possible? Reduce the number modulo {m}.",
        ],
        [
            "math.comb({n}, {k}) modulo {m}.",
            "This is a binomial coefficient modulo {m}.",
            "Choose {k} of {n}, then reduce modulo {m}.",
        ],
        [
            "print(math.comb({n}, {k}) % {m})",
            "from math import comb\nprint(comb({n}, {k}) % {m})",
            """
c = 1
for i in range({k}):
    c = c * ({n} - i) // (i + 1)
print(c % {m})""",
        ],
    ),
    family(
        "pairs_divisible_sum",
        lambda r: {"n": number(r, 12, 440), "k": number(r, 3, 99)},
        [
            "How many pairs $(a, b)$ with $1 \\le a < b \\le {n}$ have a sum divisible by {k}?",
            "<find> the number of pairs of different integers from 1 to {n} whose sum is a multiple of {k}.",
            "Two distinct numbers are chosen from $\\{1, 2, \\ldots, {n}\\}$. In how many ways can their sum be divisible by {k}?",
            "Count the two-element subsets of $\\{1, \\ldots, {n}\\}$ with sum divisible by {k}.",
            "For how many pairs of integers $1 \\le x < y \\le {n}$ does {k} divide $x + y$?",
            "Cards are numbered 1 to {n}. In how many ways can two cards be drawn at once so that {k} divides the total of the two numbers?",
        ],
        [
            "Two loops up to {n}; the sum must be divisible by {k}.",
            "Check all pairs below {n}.",
            "Count by remainders modulo {k}.",
        ],
        [
            "print(sum(1 for a in range(1, {n} + 1) for b in range(a + 1, {n} + 1) if (a + b) % {k} == 0))",
            """
count = 0
for a in range(1, {n} + 1):
    for b in range(a + 1, {n} + 1):
        if (a + b) % {k} == 0:
            count += 1
print(count)""",
            """
seen = [0] * {k}
count = 0
for b in range(1, {n} + 1):
    count += seen[-b % {k}]
    seen[b % {k}] += 1
print(count)""",
        ],
    ),
    family(
        "subset_sums",
        lambda r: {"n": r.randint(8, 150), "k": r.randint(3, 30), "m": modulus(r)},
        [
            "How many subsets of $\\{1, 2, \\ldots, {n}\\}$ have a sum divisible by {k}? Count the empty set and give the answer modulo {m}.",
            "<find>, modulo {m}, the number of subsets of the first {n} positive integers whose sum is a multiple of {k} (the empty set included).",
            "Let $N$ be the number of subsets of $\\{1, \\ldots, {n}\\}$, including the empty one, with element sum divisible by {k}. What is $N \\bmod {m}$?",
            "In how many ways can we choose some (possibly none) of the numbers from 1 to {n} such that {k} divides their sum? Answer modulo {m}.",
            "The sum of the elements of a subset of $\\{1, \\ldots, {n}\\}$ is divisible by {k}; the empty sum is 0. How many such subsets are there modulo {m}?",
            "Each of the numbers 1 up to {n} is either kept or crossed out. In how many cases is the sum of those kept a multiple of {k}? Reduce modulo {m}.",
        ],
        [
            "Count subsets by their sum modulo {k}.",
            "Dynamic programming over remainders modulo {k}.",
            "Add the numbers 1 to {n} one at a time.",
        ],
        [
            """
ways = [1] + [0] * ({k} - 1)
for i in range(1, {n} + 1):
    ways = [ways[r] + ways[(r - i) % {k}] for r in range({k})]
print(ways[0] % {m})""",
            """
w = collections.Counter([0])
for i in range(1, {n} + 1):
    new = collections.Counter(w)
    for r, c in w.items():
        new[(r + i) % {k}] += c
    w = new
print(w[0] % {m})""",
        ],
    ),
    family(
        "integer_triangles",
        lambda r: {"p": number(r, 12, 700)},
        [
            "How many non-congruent triangles with integer sides have perimeter {p}?",
            "<find> the number of triangles with integer side lengths and perimeter {p}, up to congruence.",
            "Count the triples of integers $a \\le b \\le c$ with $a + b + c = {p}$ and $a + b > c$.",
            "A triangle has sides of whole-number length and perimeter {p}. How many different triangles are possible?",
            "In how many ways can {p} be written as $a + b + c$ with positive integers $a \\le b \\le c$ that are the sides of a triangle?",
            "A stick of length {p} is cut into three pieces of integer length which form a proper triangle. How many different triangles can be obtained?",
        ],
        [
            "Loop over a <= b with c = {p} - a - b.",
            "The triangle inequality is a + b > c; perimeter {p}.",
            "Count the triples with sum {p}.",
        ],
        [
            """
count = 0
for a in range(1, {p} // 3 + 1):
    for b in range(a, ({p} - a) // 2 + 1):
        c = {p} - a - b
        if a + b > c:
            count += 1
print(count)""",
            "p = {p}\nprint(sum(1 for a in range(1, p // 3 + 1) for b in range(a, (p - a) // 2 + 1) if 2 * (a + b) > p))",
        ],
    ),
    family(
        "derangements_mod",
        lambda r: {"n": number(r, 6, 999), "m": modulus(r)},
        [
            "How many permutations of {n} elements have no fixed point? Give the answer modulo {m}.",
            "<find> the number of derangements of {n} objects modulo {m}.",
            "Let $D_n$ be the number of derangements of $n$ elements. What is $D_{{n}}$ modulo {m}?",
            "{n} letters are put into {n} addressed envelopes so that no letter is in its own envelope. In how many ways, modulo {m}, is this possible?",
            "In how many permutations of $1, 2, \\ldots, {n}$ is no number at its own place? Answer modulo {m}.",
            "{n} guests take hats at random, and nobody gets the own hat. Count the possible outcomes and reduce modulo {m}.",
        ],
        [
            "Use D(n) = (n - 1)(D(n-1) + D(n-2)) for n = {n}.",
            "Derangements of {n} elements modulo {m}.",
            "The recurrence of derangements works modulo {m}.",
        ],
        [
            """
d = 1
for i in range(1, {n} + 1):
    d = (d * i + (-1)**i) % {m}
print(d)""",
            """
a, b = 1, 0
for i in range(2, {n} + 1):
    a, b = b, (i - 1) * (a + b) % {m}
print(b)""",
            "print(int(sympy.subfactorial({n})) % {m})",
        ],
    ),
)
