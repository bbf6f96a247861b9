"""Digits, scripts and decorations of a number (0.2 s)."""

from __future__ import annotations

import pytest
from helpers.solver_cases.form_table import form_rows

from eightfold.solver.answers.box_content import integer

GROUPING = r"""
42 or 43 -> none
12'345 -> 12345
12 345 -> 12345
12~345 -> 12345
12\;345 -> 12345
12 {,} 345 -> 12345
12,\!345 -> 12345
12, 345 -> none
12,\ 345 -> none
0,123 -> none
1,23,456 -> none
1,234 567 -> none
१२ -> 12
𝟒𝟐 -> 42
57₁₀ -> 57
52_8 -> none
42 \& 43 -> none
42 43 -> none
42 \quad 43 -> none
3,42 -> none
42,0 -> none
4,2 -> none
42_{16} -> none
4\,2 -> none
4 2 -> none
4\!2 -> none
12\,34 -> none
1\,234\,567 -> 1234567
1 234 567 -> 1234567
1'234'567 -> 1234567
1_234_567 -> 1234567
1,234{,}567 -> 1234567
१,२३४ -> 1234
١٢٬٣٤٥ -> 12345
12　345 -> 12345
４２． -> 42
１，２３４ -> 1234
99\,999 -> 99999
6 7 -> none
12\!,345 -> 12345
\texorpdfstring{57}{57} -> none
12{,}345 -> 12345
12.345 -> none
12、345 -> none
(57)_{10} -> 57
42_{(10)} -> 42
42′ -> none
④② -> none
57n -> none
57i -> none
1e4 -> none
42\\43 -> none
3; 42 -> none
42.50 -> none
1.234.567 -> none
42e0 -> none
4.2e1 -> none
4.2E1 -> none
0b101010 -> none
2A -> none
2a -> none
(101010)_2 -> none
\_ -> none
4.2 -> none
12\ 34 -> none
1{,}234{,}567 -> 1234567
"""
"""Digits in groups, in other scripts, and what only looks like them."""

DECORATIONS = r"""
<b>57</b> -> 57
\bbox[5px,border:2px solid red]{42} -> 42
\begin{aligned} x &= 6\cdot 7 \\ &= 42 \end{aligned} -> 42
\begin{aligned} x &= 1 \\ y &= 42 \end{aligned} -> none
\begin{cases} 42 & n=1 \end{cases} -> none
\href{http://x.y/12}{42} -> 42
{\color{blue} 57} -> 57
\begin{array}{c} 57 \end{array} -> 57
\begin{pmatrix} 57 \end{pmatrix} -> none
\begin{equation*} 57 \end{equation*} -> 57
57, -> 57
``57'' -> 57
__57__ -> 57
\color[rgb]{1,0,0}{42} -> 42
57 \blacksquare -> 57
57 \qed -> 57
57 ✓ -> 57
57 ∎ -> 57
42 \tag{1} -> 42
57 \square -> 57
4{2} -> 42
{4}{2} -> 42
4{}2 -> 42
{}57 -> 57
"57" -> 57
**57** -> 57
*57* -> 57
\texttt{57} -> 57
\mathfrak{57} -> 57
\mathbb{57} -> 57
\pmb{57} -> 57
\textcolor{red}{\mathbf{57}} -> 57
\color{red}57 -> 57
\fbox{57} -> 57
\Boxed{57} -> 57
∴ 57 -> 57
57\label{x} -> 57
42\kern1em -> 42
\raisebox{2pt}{42} -> 42
\scalebox{2}{42} -> 42
\overline{57} -> none
\cancel{57} -> none
\hat{57} -> none
\square 57 -> 57
\textit{57} -> 57
\mathrm{\mathbf{57}} -> 57
\Huge 57 -> 57
{\Huge 57} -> 57
\Huge{57} -> 57
\mathop{57} -> 57
\mathord{57} -> 57
\underline{\underline{57}} -> 57
\boxed{\boxed{57}} -> 57
\fbox{\textbf{57}} -> 57
\bbox[#F99]{42} -> 42
\mbox{57} -> 57
\hbox{57} -> 57
101₂ -> none
57\,. -> 57
57; -> 57
57\ldots -> none
57... -> 57
57… -> none
(57 -> none
57) -> none
57} -> none
{57 -> none
57? -> none
57。 -> 57
\begin{gather*} n = 57 \end{gather*} -> 57
57\hspace{2em} -> 57
\underline{\text{57}} -> 57
\mathrm{57}\,\square -> 57
\textls{57} -> none
{\bfseries 57} -> 57
\color{blue}{\textbf{57}}. -> 57
"""
"""Styles, boxes, spacing, layout and marks."""

TABLES = {"grouping": GROUPING, "decorations": DECORATIONS}


@pytest.mark.parametrize("name", TABLES)
def test_forms_of_a_table_are_read_as_it_says(name: str) -> None:
    rows = form_rows(TABLES[name])
    assert {form: integer(form) for form, _ in rows} == dict(rows)
