"""Cross-check of what is read against math-verify, with every difference explained (6 s)."""

from __future__ import annotations

import pytest

from eightfold.solver.answers.box_content import integer

math_verify = pytest.importorskip("math_verify")
sympy = pytest.importorskip("sympy")

AGREED = r"""
42
-42
042
42.0
42.4
1,234
1{,}234
1,\!234
12,345
1,234,567
(42)
\left(42\right)
\{3, 42\}
(3, 42)
x=42
f(3) = 42
x = 6\cdot 7 = 42
f(x) = 42x
N := 42
S_{5,3} = 42
\lim_{n\to\infty} a_n = 42
\sum_{n\geq 1} a_n = 42
x = 3, 42
42n
2x + 42
\text{42}
\textbf{42}
\mathbf{42}
\mathrm{42}
{42}
42^\circ
42\text{ cm}
42\text{ cm}^2
42 \text{ km/h}
\$42
84/2
\frac{84}{2}
\frac{85}{2}
\frac84
\dfrac{84}{2}
\frac{1}{2}\cdot 84
\frac{1}{2}(84)
10^3
10^{5}-1
2^{2^{4}}
2^{10} - 1
6 \times 7
6 * 7
4.2\times 10^{1}
50-8
-(-42)
5!
\binom{10}{3}
\binom{447}{2}
\sqrt{1764}
\sqrt[3]{74088}
\sqrt{2}
|-42|
\left|-42\right|
\lfloor \frac{85}{2} \rfloor
\lceil \frac{83}{2} \rceil
\pi
\infty
"""
"""Forms that both read as the same integer, or neither as an integer."""

DIFFERENCES = {
    "Brackets and separators: it takes a pair for a number and adds up numbers side by side": r"""
\langle 1,234\rangle ; none ; 1234
12 345 ; 12345 ; 357
99\,999 ; 99999 ; 1098
1_234 ; 1234 ; 1
4 2 ; none ; 6
42 \quad 43 ; none ; 85
[42] ; none ; 42
""",
    "Products without a sign: it takes them for mixed numbers": r"""
2(21) ; 42 ; 23
2\binom{7}{2} ; 42 ; 23
\frac{1}{2}84 ; none ; 6
""",
    "Relations: it drops them": r"""
\approx 42 ; none ; 42
\le 42 ; none ; 42
x \to 42 ; none ; 42
x \not= 42 ; none ; 42
x \overset{?}{=} 42 ; none ; 42
n = 42 = m ; none ; 42
5!=120 ; 120 ; none
""",
    "Words and conditions: it drops words, and takes a condition for the value": r"""
42\text{ million} ; none ; 42
21 \text{ dozen} ; none ; 21
42\text{ (approximately)} ; none ; 42
\text{not } x = 42 ; none ; 42
42 \text{ where } n = 3 ; none ; 3
42 cm ; none ; 42
""",
    "Moduli: it has no remainder": r"""
142 \bmod 100 ; 42 ; 100
42\ (\operatorname{mod} 100) ; 42 ; 100
x \equiv 142 \pmod{100} ; none ; 142
42 \pmod{100} ; 42 ; none
7^{2} \bmod 10 ; 9 ; 10
""",
    "Ambiguities: it decides for one meaning": r"""
--42 ; none ; 42
3!! ; none ; 720
2^3^2 ; none ; 64
\lfloor 42.5 \rfloor ; none ; 42
42^\circ 30' ; none ; 72
52_8 ; none ; 52
\sqrt16 ; none ; 6
""",
    "Styles, layout, units and Unicode: it does not know them": r"""
\textcolor{red}{42} ; 42 ; none
\boldsymbol{\text{42}} ; 42 ; none
\Large{42} ; 42 ; none
42 \blacksquare ; 42 ; none
42 ✓ ; 42 ; none
42. ; 42 ; none
42\ \frac{\mathrm{km}}{\mathrm{h}} ; 42 ; none
\SI{42}{\meter} ; 42 ; none
42^{\text{th}} ; 42 ; none
42₁₀ ; 42 ; none
４２ ; 42 ; none
2³ ; 8 ; none
√1764 ; 42 ; none
84⋅½ ; 42 ; none
\text{The answer is } 42 ; 42 ; none
\textbf{(D)}~42 ; 42 ; none
The answer is 42 ; 42 ; none
""",
}
"""Forms, what we read, and what math-verify reads, by the reason of the difference."""


def _theirs(form: str) -> int | None:
    """Return our integer if math-verify holds the box to be equal, else the one it reads."""
    parsed = math_verify.parse(f"$\\boxed{{{form}}}$", parsing_timeout=None)
    ours = integer(form)
    gold = math_verify.parse(f"${ours}$", parsing_timeout=None)
    if ours is not None and math_verify.verify(gold, parsed, timeout_seconds=None):
        return ours
    value = parsed[0] if parsed else None
    value = value.rhs if isinstance(value, sympy.Eq) else value
    value = sympy.simplify(value) if isinstance(value, sympy.Expr) else sympy.nan
    return int(value) if value.is_Integer else None


def _value(text: str) -> int | None:
    return None if text == "none" else int(text)


def test_forms_that_both_read_alike() -> None:
    forms = AGREED.strip().split("\n")
    ours = {form: integer(form) for form in forms}
    assert sum(value is not None for value in ours.values()) > 40
    assert {form: _theirs(form) for form in forms} == ours


@pytest.mark.parametrize("reason", DIFFERENCES)
def test_forms_that_we_read_otherwise(reason: str) -> None:
    rows = [row.split(" ; ") for row in DIFFERENCES[reason].strip().split("\n")]
    found = {form: (integer(form), _theirs(form)) for form, _, _ in rows}
    assert found == {form: (_value(ours), _value(theirs)) for form, ours, theirs in rows}
    assert all(ours != theirs for ours, theirs in found.values())
