"""Exact arithmetic, and what could mean two things (0.2 s)."""

from __future__ import annotations

import pytest
from helpers.solver_cases.form_table import form_rows

from eightfold.solver.answers.box_content import integer

ARITHMETIC = r"""
84 \over 2 -> 42
{10 \choose 3} -> 120
\lvert -57 \rvert -> 57
\lfloor 85/2 \rfloor -> 42
84 \div 2 -> 42
6 \bullet 7 -> 42
\log_2 1024 -> none
10^5 - 1 -> 99999
\lfloor 2.7 \cdot 3 \rfloor -> none
{}_{10}C_3 -> none
\sqrt{1,764} -> 42
57^{e} -> none
2³ -> 8
84⋅½ -> 42
84½ -> none
√(1764) -> 42
3√196 -> 42
∛74088 -> 42
\sqrt[3]{74088} -> 42
\sqrt[3]{-8} -> -2
\sqrt[3]{0} -> 0
\text{5!} -> none
\frac{13!}{4!4!5!} -> 90090
\frac{100!}{(98!)(2!)} -> 4950
\frac{\sqrt{18}}{\sqrt{2}} -> 3
⅓·126 -> 42
\sqrt{-4} -> none
1764^{1/2} -> 42
1764^{\frac12} -> 42
8^{2/3} -> 4
\binom{100000}{99999} -> 100000
50!/48! -> 2450
\frac{99999!}{99998!} -> 99999
\frac{10!}{3!\,7!} -> 120
\frac{50!}{2!48!} -> 1225
\frac{1000000!}{999999!} -> 1000000
\frac{2^{100000}}{2^{99995}} -> 32
|-57| -> 57
\left|-57\right| -> 57
||-57|| -> 57
|3-5|\cdot|7-28| -> 42
2|-21| -> 42
\abs{-57} -> 57
⌊85/2⌋ -> 42
\gcd(84, 126) -> 42
\gcd(1,234) -> 1
\max(3, 42) -> 42
--57 -> none
- -57 -> none
2--3 -> none
45+-3 -> 42
2^3^2 -> none
2^{3^2} -> 512
2^3! -> none
9!!!! -> none
0^0 -> none
\frac{0}{5} -> 0
\frac{84}2 -> 42
84÷2 -> 42
6\ast 7 -> 42
6·7 -> 42
57+ -> none
57^* -> none
3\times10^4 -> 30000
4.2\cdot 10 -> 42
2^{10}-1 -> 1023
2^10 -> 1024
(2+3)! -> 120
42/43 -> none
57 + k -> none
42^{1} -> 42
42!/41! -> 42
\frac{7!}{5!} -> 42
\dfrac{7!}{5!} -> 42
7!/5! -> 42
1+2+\cdots+8 -> none
7\cdot[2+4] -> 42
|57| -> 57
\|57\| -> none
57| -> none
! -> none
1/0 -> none
0/0 -> none
\frac{0}{0} -> none
2x + 42 -> none
4\cdot2 -> 8
-57 -> -57
- 57 -> -57
{-57} -> -57
{-}57 -> none
2\times-21 -> -42
2\cdot(-21) -> -42
(-2)^2 -> 4
-2^2 -> -4
(-8)^{1/3} -> none
2^{-1}\cdot 84 -> 42
4^{0.5} -> 2
10^{5}-1 -> 99999
2^{16}+1 -> 65537
\frac12 \cdot 84 -> 42
6(7) -> 42
(6)(7) -> 42
\sqrt{36}\sqrt{49} -> 42
\sqrt9 -> 3
\sqrt16 -> none
\sqrt{\sqrt{16}} -> 2
\sqrt[3]{27}\cdot 14 -> 42
\sqrt{1764.0} -> 42
\sqrt{x} -> none
\lfloor \frac{100}{3} \rfloor + 9 -> 42
\left\lceil\frac{125}{3}\right\rceil -> 42
\lfloor \pi \rfloor -> none
\frac{2,468}{2} -> 1234
\sqrt{2}\cdot\sqrt{8} -> 4
\sqrt{2}\sqrt{882} -> 42
(\sqrt{42})^2 -> 42
\sqrt{42}^2 -> 42
\left\lfloor \frac{85}{2} \right\rfloor -> 42
\lceil \frac{83}{2} \rceil -> 42
\lfloor \sqrt{2} \rfloor -> 1
41\tfrac{2}{2} -> none
\sfrac{84}{2} -> 42
\nicefrac{84}{2} -> 42
\verb|57| -> 57
3\times 10^{4} -> 30000
\frac{42}{1} -> 42
x^{57} -> none
e^{57} -> none
\binom{7}{2}\cdot 2 -> 42
2\binom{7}{2} -> 42
-{57} -> -57
2^{2^{2^{2}}} -> 65536
\dfrac{1}{\frac{1}{42}} -> 42
\frac{\frac{84}{1}}{2} -> 42
\frac{1}{2}\cdot 84 -> 42
\frac{1}{2}84 -> none
\frac{1}{2} (84) -> 42
84(\frac{1}{2}) -> 42
84\frac{1}{2} -> none
\sqrt[n]{57} -> none
3\sqrt{2} -> none
\lfloor -\frac{1}{2} \rfloor -> -1
2⁻¹ -> none
((((57)))) -> 57
57\pi -> none
\varphi(100) -> none
\emptyset -> none
\varnothing -> none
A(57) -> none
f(57) -> none
(４２) -> 42
−57 -> -57
–57 -> -57
‑57 -> -57
\neg 57 -> none
−(−57) -> 57
(6)7 -> none
C(10,3) -> none
\frac{2026!}{2024!} -> 4102650
\binom{300}{298} -> 44850
|3 - 60| -> 57
\lceil 57.2 \rceil -> none
\lfloor \frac{7}{2} \rfloor -> 3
\sqrt[4]{6561} -> 9
3!!! -> none
\frac{100!}{99!} - 43 -> 57
(1+2)(3+4) -> 21
10^{10^{100}} - 10^{10^{100}} -> none
\sqrt{2} - \sqrt{2} -> none
"""
"""Exact arithmetic, and expressions that could mean two things."""

TABLES = {"arithmetic": ARITHMETIC}


@pytest.mark.parametrize("name", TABLES)
def test_forms_of_a_table_are_read_as_it_says(name: str) -> None:
    rows = form_rows(TABLES[name])
    assert {form: integer(form) for form, _ in rows} == dict(rows)
