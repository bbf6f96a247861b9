"""Relations, moduli and brackets around a number (0.2 s)."""

from __future__ import annotations

import pytest
from helpers.solver_cases.form_table import form_rows

from eightfold.solver.answers.box_content import integer

BRACKETS = r"""
(1{,}234) -> 1234
\bigl(1,234\bigr) -> none
(1,234)^2 -> none
\frac{(1,234)}{2} -> none
\text{(1,234)} -> none
(12\,345) -> 12345
3(1,234) -> none
(3, 42) -> none
\langle 1,234\rangle -> none
\langle 57 \rangle -> none
[1,234] -> none
\{1,234\} -> none
\left[1,234\right] -> none
[0,42) -> none
\{3, 42\} -> none
\left\{ 57 \right\} -> none
[2+4]\cdot 7 -> none
\sqrt[0]{42} -> none
\min\{42, 50\} -> 42
(57] -> none
\left[57\right] -> none
(x,y,z) = (1,234,567) -> none
\left\langle 1,234 \right\rangle -> none
2\left[1,234\right] -> none
-(1,234) -> none
(1\,234) -> 1234
(1'234) -> 1234
"""
"""A list in brackets is no number; an explicit mark of grouping makes one."""

RESIDUES = r"""
42 (mod 1{,}000) -> 42
42 (mod 1,000) -> 42
42 \mod 100 -> 42
42 \mod{100} -> 42
42\ (\operatorname{mod} 100) -> 42
x \equiv 42 (\bmod 100) -> 42
x \equiv 42 \text{ mod } 100 -> 42
x \equiv 142 \bmod 100 -> none
x \equiv 142 \pmod{100} -> none
142 (mod 100) -> none
57 \pmod p -> none
42 \pmod {2^{10}} -> 42
42 \pmod 100 -> 42
42 \pmod{10^{5}+7} -> 42
7^{2026} \equiv 649 \pmod{1000} -> 649
7^{2026} \bmod 1000 = 649 -> 649
7^{2026} \pmod{1000} -> none
7^{10^{10}} \bmod 1000 -> 1
3^{100!} \bmod 7 -> 1
100! \bmod 101 -> 100
(2^{100} + 3^{100}) \bmod 1000 -> 377
2^{100} + 3^{100} \bmod 1000 -> none
-5 \bmod 7 -> none
(-5) \bmod 7 -> 2
3\cdot 7^{20} \bmod 10 -> 3
42 \bmod 0 -> none
42 \text{ (mod } 100) -> 42
42\text{ (mod 100)} -> 42
\text{42 (mod 100)} -> 42
42 mod 100 -> 42
142 mod 100 -> 42
42 modulo 100 -> 42
42 \,(\mathrm{mod}\; 10^5) -> 42
2^{10} \equiv 24 \pmod{1000} -> 24
x \equiv 3 \pmod 5, x \equiv 2 \pmod 7 -> none
x \equiv 3, 5 \pmod 7 -> none
x \equiv 3 \text{ or } 5 \pmod 7 -> none
x \equiv \pm 3 \pmod 7 -> none
3^{2025} \bmod 1000 -> 443
n \equiv 57 \pmod{2^{16}} -> 57
57 \pmod{99{,}991} -> 57
57 \pmod{100}, 58 -> none
2^{1000000} \mod 1000 -> 376
57 \pmod{0} -> none
x \equiv -3 \pmod 7 -> none
"""
"""A modulus is an operator, or a remark beside the least residue."""

RELATIONS = r"""
(x,y)=(1,234) -> none
|S| = 1,234 -> 1234
f(1,234) = 5 -> 5
\lim_{x \to 0} f(x) = 42 -> 42
\lim\limits_{x\to 0^+} f(x)=42 -> 42
lim n→∞ a_n = 57 -> 57
\min_{x>0} f(x) = 42 -> 42
\max\{f(x) : x > 0\} = 42 -> 42
\prod_{p\mid n} p = 57 -> 57
\int_0^1 f(x)\,dx = 42 -> 42
\sum_{1\le i<j\le n} 1 = 42 -> 42
\sup_{n \ge 1} a_n = 42 -> 42
P(X \le 3) = 42 -> 42
[G:H] = 57 -> 57
|G:H| = 57 -> 57
\gcd(a,b)=57 -> 57
\|x\|^2 = 42 -> 42
N(1,2,3) = 42 -> 42
a_{1,2} + a_{3,4} = 42 -> 42
x := 57 -> 57
x \stackrel{\text{def}}{=} 57 -> 57
x \overset{?}{=} 57 -> none
2x = 84 \implies x = 42 -> 42
\implies x = 57 -> 57
x < y = 57 -> none
a \le b = 57 -> none
x \ne 57 -> none
x \not= 57 -> none
x \in S = 57 -> none
x=1,y=2 -> none
x=1 \quad y=2 -> none
x=1 \text{ and } y=2 -> none
x=1 \text{ or } x = 2 -> none
42 \text{ where } n = 3 -> none
42 \text{ when } n = 3 -> none
\text{if } n = 57 -> none
x = 42\; y = 3 -> none
n=3: 42 -> none
\text{For } n = 3, 42 -> none
\text{Therefore, } x = 57 -> 57
The final answer is: 57 -> 57
84 : 2 -> none
\therefore N = 57 -> 57
n=57 -> 57
n = 57 = m -> none
57 = n -> none
x^2 = 42 -> 42
5!=120 -> 120
n!=120 -> none
x != 57 -> none
x == 57 -> 57
x => 57 -> 57
42 \pm 1 -> none
42 > 41 -> none
\text{Number of ways} = 57 -> 57
\text{No. of ways: } 57 -> 57
\text{not } x = 57 -> none
AB = 57 -> 57
m+n = 57 -> 57
m + n = 10 + 32 = 42 -> 42
10 + 32 = 42 -> 42
\mathrm{Answer} = 57 -> 57
(x = 57) -> 57
x_1 = 1, x_2 = 42 -> none
x_{1,2} = 42 -> 42
x = 3 \text{ or } 42 -> none
x = 3, 42 -> none
x \in \{3, 42\} -> none
A \to 57 -> none
n \to 42 = 5 -> none
k = 57 -> 57
3{:}42 -> none
3:42 -> none
\sum_{k=1}^{8} k -> none
1+2+\cdots+8 = 36 -> 36
\sum_{k=1}^{8} k = 36 -> 36
\log_2 1024 = 10 -> 10
\phi(100) = 40 -> 40
\min(3,5)=3 -> 3
\lim = 57 -> 57
\infty = 57 -> 57
57 = 57 -> 57
6 \times 7 = 42 -> 42
6 \times 7 = 42 \neq 43 -> none
6\times 7 \Rightarrow 42 -> 42
57 \Rightarrow -> none
= 57 -> 57
=57= -> none
\sim 57 -> none
\le 57 -> none
n \ge 57 -> none
\lt 57 -> none
≈57 -> none
∼57 -> none
(101010)_2 = 42 -> 42
101010_2 = 42_{10} -> 42
57! = 57 -> 57
42 \text{ for } n = 3 -> none
n = 42 \text{ for } m=3 -> none
\text{for } n=3 \text{ we get } 42 -> none
\max = 42 \text{ at } x = 3 -> none
x = 3 \text{ gives } 42 -> 42
42 \text{ at } x = 3 -> none
42 (n=3) -> none
42 \text{ (when n=3)} -> none
B = 57 -> 57
A = \{57\} -> none
A = (57) -> 57
P(42) = 3 -> 3
f(x) = 57x -> none
f(x) = 57 + x -> none
x + y = 57 -> 57
\frac{a}{b} = \frac{84}{2} = 42 -> 42
\frac{a}{b} = \frac{85}{2} -> none
a/b = 84/2 -> 42
\pm57 -> none
\mp 57 -> none
\lfloor x \rfloor = 57 -> 57
\lceil \log_2 5 \rceil = 3 -> 3
\frac{d}{dx} = 57 -> 57
n^2+n=42 -> 42
\det A = 57 -> 57
\text{gcd}(84,126) = 42 -> 42
\# = 57 -> 57
\#\{(a,b): a\le b\} = 57 -> 57
\left|\{n \le 100 : 2 \mid n\}\right| = 50 -> 50
|A \cup B| = 57 -> 57
\sum_{d | n, d > 1} f(d) = 42 -> 42
\sum_{\substack{i<j\\ j<5}} 1 = 42 -> 42
\Pr[X > 3] = 42 -> 42
\text{Let } x = 57 -> none
\text{Suppose } x = 57 -> none
\text{So } x = 57 -> 57
\text{Finally: } 57 -> 57
\text{Result} = 57 -> 57
\text{Total: } 20 + 22 = 42 -> 42
\text{3 values: 1, 2, 42} -> none
x \triangleq 57 -> 57
\text{Number of pairs with sum } 10 = 42 -> 42
\text{Number of pairs with even sum} = 57 -> 57
\text{Area of } \triangle ABC = 57 -> 57
\text{Answer: } \boxed{57} -> 57
x \neq 57 -> none
"""
"""The right side of the last equality counts, if nothing else is stated."""

TABLES = {"brackets": BRACKETS, "residues": RESIDUES, "relations": RELATIONS}


@pytest.mark.parametrize("name", TABLES)
def test_forms_of_a_table_are_read_as_it_says(name: str) -> None:
    rows = form_rows(TABLES[name])
    assert {form: integer(form) for form, _ in rows} == dict(rows)
