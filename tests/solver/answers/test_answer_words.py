"""Words, units and labels around a number (0.2 s)."""

from __future__ import annotations

import pytest
from helpers.solver_cases.form_table import form_rows

from eightfold.solver.answers.box_content import integer

WORDS = r"""
\text{Thus } 57 -> 57
\text{Hence, the answer is } 57 -> 57
\text{57 is} -> none
The answer is 57 -> 57
the answer is 57. -> 57
about 57 -> none
approximately 57 -> none
\text{approx. } 57 -> none
\text{exactly } 57 -> 57
\text{at least } 57 -> none
\text{at most } 57 -> none
\text{up to } 57 -> none
\text{comes to } 57 -> 57
\text{adds up to } 57 -> 57
\text{is congruent to } 57 -> 57
42 \text{ oder } 43 -> none
\text{La respuesta es } 57 -> 57
\text{remainder } 57 -> 57
\fcolorbox{red}{white}{57} -> 57
57 \quad \text{(as desired)} -> 57
57\text{ (approximately)} -> none
\text{yes} -> none
\text{No solution} -> none
42\text{ and }43 -> none
42 \text{ out of } 100 -> none
3 \text{ and } 42 -> none
\text{forty two } (57) -> 57
\text{half of } 84 -> none
\text{negative } 57 -> none
\text{0x2A} -> none
57_{\text{ten}} -> none
\text{unknown} -> none
\text{None} -> none
\text{No} -> none
57 \text{ if } n \text{ is odd} -> none
57 \text{ for all } n -> 57
\text{\textbf{57}} -> 57
\mathbf{\text{57}} -> 57
\colorbox{green}{57} -> 57
\text{So, } 57 -> 57
\text{There are } 57 \text{ such numbers} -> 57
\text{There are exactly } 57 \text{ ways to do it} -> 57
\text{57 possible values} -> 57
\text{3 of the 42} -> none
\text{the sum of } a \text{ and } b \text{ is } 57 -> 57
约57 -> none
答案是57 -> 57
\text{the square root of } 1764 -> none
\text{a total of } 57 -> 57
\text{digits in } 57 -> none
\text{in } 57 \text{ ways} -> 57
\text{divisible by } 57 -> none
57 \text{, to the nearest integer} -> none
57 \text{ ways to choose them} -> 57
5 \text{ squared} -> none
x = 57 \text{ is not a solution} -> none
\text{environ } 57 -> none
\text{57 或 43} -> none
"""
"""Words around a number may be an introduction, a comment, or change it."""

UNITS = r"""
\underset{x>0}{\min} f = 42 -> 42
57 ways -> 57
57 square units -> 57
57 thousand -> none
\text{more than } 57 -> none
57^{\text{th}} -> 57
57^{th} -> 57
57nd -> 57
57\text{nd} -> 57
42\ \text{m/s}^2 -> 42
42\ \mathrm{m\,s^{-1}} -> 42
42\,\text{kg}\cdot\text{m}^2 -> 42
57\ \frac{\mathrm{km}}{\mathrm{h}} -> 57
57 \text{ dollars} -> 57
57\text{ cents} -> 57
57\text{¢} -> 57
\$1{,}234 -> 1234
\$42.00 -> 42
57\text{ percent} -> none
57\text{ per cent} -> none
57‰ -> none
57°C -> 57
42^\circ 30' -> none
180^\circ - 138^\circ -> 42
57\degree -> 57
57 \text{ degrees} -> 57
\SI{57}{\meter} -> 57
\SI{57}{\meter\per\second} -> 57
\qty{57}{\percent} -> none
\num{57} -> 57
\num{12345} -> 12345
57万 -> none
57\text{万} -> none
57个 -> 57
\text{共} 57 \text{种} -> 57
57\text{ Euro} -> 57
57 \text{ mètres} -> 57
\colorbox{yellow}{$57$} -> 57
\framebox[2cm][c]{42} -> 42
\enclose{circle}{57} -> 57
57\ \checkmark -> 57
\angle ABC = 57^\circ -> 57
\text{\$57} -> 57
42\text{ m}^2 -> 42
42\text{ m}^{2} -> 42
\mathrm{lcm}(6,14) -> 42
\operatorname{lcm}(6, 14) -> 42
42\text{ units}, 43 -> none
57\text{ k} -> none
57\text{K} -> none
57\text{ million} -> none
1.5\text{ thousand} -> none
57 \text{ pairs} -> 57
21 \text{ dozen} -> none
\text{minus } 57 -> none
42\text{ feet } 3 \text{ inches} -> none
3 \text{ h } 42 \text{ min} -> none
42^{2} \text{ cm} -> 1764
42 cm^2 -> none
42 \mathrm{cm}^2 -> 42
57 \cdot \text{cm} -> 57
42\text{ cm} \times 3 -> none
42\text{ cm}^3 -> 42
\text{cm } 57 -> 57
42\text{ units}^2 -> 42
57 \text{ sq. units} -> 57
57\text{-gon} -> 57
42\text{ edges} + 1 -> none
57\text{ edges} = 57 -> 57
\$57\text{ million} -> none
\text{approximately } \$57 -> none
42.0\text{ cm} -> 42
\makebox[2cm]{42} -> 42
\text{max} = 57 -> 57
\text{Total } = 57 \text{ apples} -> 57
42 \text{ apples and 3 pears} -> none
57 \text{ apples and pears} -> none
57^\circ\text{C} -> 57
\text{Area} = 42\text{ cm}^2 -> 42
57\ \text{cm}^{-2} -> 57
57\,\frac{\text{kg}}{\text{m}^3} -> 57
57\text{°F} -> 57
\unit{57} -> none
57\text{ sq ft} -> 57
57\ \text{hundred} -> none
"""
"""Units, currencies, degrees and counted things are left out; parts and multiples are not."""

LABELS = r"""
\text{Step 3}: 42 -> none
\text{(A)}\ 57 -> 57
(D) 57 -> 57
D. 57 -> 57
D) 57 -> 57
\textbf{(D)}~57 -> 57
\mathbf{(D)}\ 57 -> 57
\text{Option D: } 57 -> 57
\text{Option } 4 -> none
\text{Case 2: } 42 -> none
(a) 57 -> none
\text{DNE} -> none
\text{A} -> none
\textbf{(D)} -> none
57 \text{ (Option C)} -> 57
\text{C: } 57 -> 57
(C): 57 -> 57
\text{Answer C: } 57 -> 57
\text{Answer: } C -> none
\text{The answer is (C) } 57 -> 57
E) 57 -> 57
e) 57 -> none
\text{B} 57 -> none
D -> none
"""
"""The letter of a multiple choice, but not the number of a case, goes."""

TABLES = {"words": WORDS, "units": UNITS, "labels": LABELS}


@pytest.mark.parametrize("name", TABLES)
def test_forms_of_a_table_are_read_as_it_says(name: str) -> None:
    rows = form_rows(TABLES[name])
    assert {form: integer(form) for form, _ in rows} == dict(rows)
