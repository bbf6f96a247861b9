"""Geometry with integer coordinates."""

from __future__ import annotations

from random import Random

from .family import Params, family, number


def _triangle(r: Random, high: int = 220) -> Params | None:
    """Draw the corners of a triangle; None if they lie on one line."""
    v = [number(r, 0, high) for _ in range(6)]
    a, b, c, d, e, f = v
    if (c - a) * (f - b) == (e - a) * (d - b):
        return None
    return dict(zip("abcdef", v, strict=True))


FAMILIES = (
    family(
        "circle_points",
        lambda r: {"r": number(r, 5, 25_000)},
        [
            "How many points with integer coordinates satisfy $x^2 + y^2 \\le {r}$?",
            "<find> the number of lattice points $(x, y)$ with $x^2 + y^2 \\le {r}$.",
            "How many pairs of integers $(x, y)$, positive, negative or zero, satisfy $x^2 + y^2 \\le {r}$?",
            "A circle around the origin has squared radius {r}. How many lattice points lie inside or on it?",
            "Count the integer points in the disk $x^2 + y^2 \\le {r}$.",
            "How many grid points of the plane have a distance of at most $\\sqrt{{r}}$ from the origin?",
        ],
        [
            "For each x count the y with y^2 <= {r} - x^2.",
            "Use isqrt for every x; the bound is {r}.",
            "Count the lattice points in the disk with r^2 = {r}.",
        ],
        [
            """
from math import isqrt
r = {r}
print(sum(2 * isqrt(r - x * x) + 1 for x in range(-isqrt(r), isqrt(r) + 1)))""",
            """
count = 0
x = 0
while x * x <= {r}:
    w = 2 * math.isqrt({r} - x * x) + 1
    count += w if x == 0 else 2 * w
    x += 1
print(count)""",
        ],
    ),
    family(
        "triangle_area",
        _triangle,
        [
            "<find> twice the area of the triangle with vertices $({a}, {b})$, $({c}, {d})$ and $({e}, {f})$.",
            "A triangle has the vertices $A({a}, {b})$, $B({c}, {d})$, $C({e}, {f})$. What is twice its area?",
            "The points $({a}, {b})$, $({c}, {d})$, $({e}, {f})$ form a triangle of area $S$. <find> $2S$.",
            "Let $P = ({a}, {b})$, $Q = ({c}, {d})$ and $R = ({e}, {f})$. What is the area of the parallelogram spanned by the vectors $PQ$ and $PR$?",
            "<find> the doubled area of triangle $ABC$ with $A = ({a}, {b})$, $B = ({c}, {d})$ and $C = ({e}, {f})$.",
            "Three corners of a parallelogram, with the middle one named first, are $({a}, {b})$, $({c}, {d})$, $({e}, {f})$. What area does it have?",
        ],
        [
            "Twice the area is the absolute value of a determinant.",
            "Use the cross product of the two edge vectors.",
            "The shoelace formula gives twice the area.",
        ],
        [
            "print(abs(({c} - {a}) * ({f} - {b}) - ({e} - {a}) * ({d} - {b})))",
            """
p = [({a}, {b}), ({c}, {d}), ({e}, {f})]
s = 0
for i in range(3):
    x1, y1 = p[i]
    x2, y2 = p[(i + 1) % 3]
    s += x1 * y2 - x2 * y1
print(abs(s))""",
        ],
    ),
    family(
        "triangle_interior",
        _triangle,
        [
            "How many lattice points lie strictly inside the triangle with vertices $({a}, {b})$, $({c}, {d})$ and $({e}, {f})$?",
            "<find> the number of interior lattice points of the triangle $({a}, {b})$, $({c}, {d})$, $({e}, {f})$.",
            "A triangle has corners $({a}, {b})$, $({c}, {d})$ and $({e}, {f})$. Count the points with integer coordinates in its interior.",
            "How many points with integer coordinates are inside (not on the boundary of) the triangle $({a}, {b})$, $({c}, {d})$, $({e}, {f})$?",
            "By Pick's theorem or otherwise, <find> the number of lattice points strictly inside the triangle with corners $({a}, {b})$, $({c}, {d})$, $({e}, {f})$.",
            "Trees stand at all points with whole coordinates. A fence runs straight from $({a}, {b})$ to $({c}, {d})$, on to $({e}, {f})$ and back to the start. How many trees are enclosed, not counting those on the fence?",
        ],
        [
            "Pick's theorem: 2A = 2I + B - 2.",
            "Compute the area and the boundary points with gcd.",
            "Use Pick: I = (2A - B + 2) / 2.",
        ],
        [
            """
from math import gcd
p = [({a}, {b}), ({c}, {d}), ({e}, {f})]
s = t = 0
for i in range(3):
    x1, y1 = p[i]
    x2, y2 = p[(i + 1) % 3]
    s += x1 * y2 - x2 * y1
    t += gcd(x2 - x1, y2 - y1)
print((abs(s) - t + 2) // 2)""",
            """
a, b, c, d, e, f = {a}, {b}, {c}, {d}, {e}, {f}
area = abs((c - a) * (f - b) - (e - a) * (d - b))
edge = math.gcd(c - a, d - b) + math.gcd(e - c, f - d) + math.gcd(a - e, b - f)
print((area - edge + 2) // 2)""",
        ],
    ),
    family(
        "boundary_points",
        lambda r: _triangle(r, 9_999),
        [
            "How many lattice points lie on the boundary of the triangle with vertices $({a}, {b})$, $({c}, {d})$ and $({e}, {f})$?",
            "<find> the number of points with integer coordinates on the sides of the triangle $({a}, {b})$, $({c}, {d})$, $({e}, {f})$.",
            "A triangle has corners $({a}, {b})$, $({c}, {d})$ and $({e}, {f})$. Count the lattice points on its perimeter, corners included.",
            "How many integer points are on the edges of the triangle with corners $({a}, {b})$, $({c}, {d})$, $({e}, {f})$?",
            "Let $A = ({a}, {b})$, $B = ({c}, {d})$, $C = ({e}, {f})$. How many lattice points does the boundary of $ABC$ contain?",
            "Posts stand at all points with whole coordinates. A rope runs straight from $({a}, {b})$ to $({c}, {d})$, then to $({e}, {f})$ and back to the start. How many posts does the rope touch?",
        ],
        [
            "Each side has gcd(dx, dy) lattice points.",
            "Add the gcds of the three edges.",
            "The boundary count is a sum of three gcds.",
        ],
        [
            "from math import gcd\nprint(gcd({c} - {a}, {d} - {b}) + gcd({e} - {c}, {f} - {d}) + gcd({a} - {e}, {b} - {f}))",
            """
p = [({a}, {b}), ({c}, {d}), ({e}, {f})]
t = 0
for i in range(3):
    t += math.gcd(p[i][0] - p[i - 1][0], p[i][1] - p[i - 1][1])
print(t)""",
        ],
    ),
    family(
        "diamond_points",
        lambda r: {"n": number(r, 5, 150), "k": number(r, 2, 40)},
        [
            "How many lattice points $(x, y)$ with $|x| + |y| \\le {n}$ have $x + 2y$ divisible by {k}?",
            "<find> the number of pairs of integers $(x, y)$ such that $|x| + |y| \\le {n}$ and {k} divides $x + 2y$.",
            "Count the integer points in the square $|x| + |y| \\le {n}$ for which $x + 2y$ is a multiple of {k}.",
            "For how many integer pairs $(x, y)$ with $|x| + |y|$ at most {n} is $x + 2y \\equiv 0 \\pmod{{k}}$?",
            "The integers $x, y$ satisfy $|x| + |y| \\le {n}$, and $x + 2y$ is divisible by {k}. How many pairs are there?",
            "A taxi can reach all crossings $(x, y)$ with $|x| + |y| \\le {n}$. At how many of them is $x + 2y$ a multiple of {k}?",
        ],
        [
            "Loop over x and y with |x| + |y| <= {n}.",
            "Two loops; test (x + 2y) % {k}.",
            "Count the points of the diamond of size {n}.",
        ],
        [
            """
n = {n}
count = 0
for x in range(-n, n + 1):
    h = n - abs(x)
    for y in range(-h, h + 1):
        if (x + 2 * y) % {k} == 0:
            count += 1
print(count)""",
            "n = {n}\nprint(sum(1 for x in range(-n, n + 1) for y in range(abs(x) - n, n - abs(x) + 1) if (x + 2 * y) % {k} == 0))",
        ],
    ),
    family(
        "right_triangles",
        lambda r: {"n": number(r, 10, 420)},
        [
            "How many right triangles with integer sides have a hypotenuse of at most {n}?",
            "<find> the number of triples of positive integers $a < b < c$ with $a^2 + b^2 = c^2$ and $c \\le {n}$.",
            "Count the Pythagorean triples $(a, b, c)$ with $a < b < c \\le {n}$.",
            "How many Pythagorean triangles, up to congruence, have hypotenuse not exceeding {n}?",
            "For how many pairs of positive integers $a < b$ is $\\sqrt{a^2 + b^2}$ an integer not greater than {n}?",
            "The three sides of a right-angled triangle are whole numbers, and the longest side is no longer than {n}. How many different such triangles exist?",
        ],
        [
            "Loop over a < b and test whether c is an integer <= {n}.",
            "Use isqrt to test a^2 + b^2; c is at most {n}.",
            "Count the triples with c <= {n}.",
        ],
        [
            """
from math import isqrt
n = {n}
count = 0
for a in range(1, n):
    for b in range(a + 1, isqrt(n * n - a * a) + 1):
        c = isqrt(a * a + b * b)
        if c * c == a * a + b * b:
            count += 1
print(count)""",
            """
squares = {c * c for c in range(1, {n} + 1)}
print(sum(1 for a in range(1, {n}) for b in range(a + 1, {n}) if a * a + b * b in squares))""",
        ],
    ),
)
