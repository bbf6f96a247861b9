"""Effects of the LaTeX commands that stand in and around answers on the text they take."""

from __future__ import annotations


def _set(names: str) -> frozenset[str]:
    return frozenset(f"\\{name}" for name in names.split())


WORDED = _set(
    "text textbf textit textrm texttt textsf textnormal textup textsl textsc textmd emph "
    "mathrm mbox hbox makebox"
)
"""Commands whose one argument is shown, with words in it."""

SHOWN_AFTER = {
    **dict.fromkeys(WORDED, 0),
    **dict.fromkeys(
        _set(
            "mathbf mathit mathsf mathtt mathbb mathcal mathfrak mathscr mathnormal bm pmb "
            "bold boldsymbol symbf symrm symup operatorname operatorname* ensuremath "
            "underline uline uwave uuline boxed Boxed fbox framebox bbox doublebox shadowbox "
            "ovalbox Ovalbox tcbox mathord mathop mathbin mathrel mathopen mathclose "
            "mathpunct mathinner smash rlap llap clap mathrlap mathllap mathclap centerline "
            "num ang"
        ),
        0,
    ),
    **dict.fromkeys(
        _set(
            "textcolor colorbox scalebox raisebox href hyperref class style cssId enclose "
            "parbox hyperlink hypertarget htmlClass htmlStyle htmlId"
        ),
        1,
    ),
    **dict.fromkeys(_set("fcolorbox resizebox"), 2),
}
"""Commands whose last argument is shown, and how many arguments before it are not."""

QUANTITIES = _set("qty SI unit si")
"""Commands of siunitx that show a number, a unit or both."""

SWITCHES = _set(
    "bf rm it sf tt sc sl em bfseries itshape rmfamily sffamily ttfamily upshape mdseries "
    "tiny scriptsize footnotesize small normalsize large Large LARGE huge Huge left right "
    "middle big Big bigg Bigg bigl bigr Bigl Bigr biggl biggr Biggl Biggr bigm displaystyle "
    "textstyle scriptstyle scriptscriptstyle boldmath unboldmath normalfont centering "
    "raggedright raggedleft limits nolimits nonumber notag qedhere strut mathstrut null relax "
    "noindent nobreak allowbreak protect pounds textsterling euro texteuro textdollar yen "
    "textyen cents vfill dotfill hrulefill break smallskip medskip bigskip hline"
)
"""Commands that show nothing of themselves; `\\bf` and its like may also stand before a group."""

HIDDEN = _set(
    "phantom hphantom vphantom hspace hspace* vspace vspace* mspace label tag tag* footnote "
    "eqref ref color pagecolor"
)
"""Commands that show nothing, and neither their arguments."""

DIMENSIONS = _set("kern mkern hskip mskip vskip")
"""Commands that a bare length follows, as `\\kern1em`."""

DECORATIONS = _set(
    "therefore blacksquare square qed Box checkmark qedsymbol bigstar blacklozenge lozenge Diamond"
)
"""Signs that mean nothing before or after an answer."""

ENVIRONMENTS = _set(
    "aligned align align* alignat alignedat split equation equation* gather gather* gathered "
    "array center math displaymath multline multline* flushleft minipage tabular"
)
"""Environments that only place what they hold, written as commands are."""

ARITIES = {
    **dict.fromkeys(_set("frac dfrac tfrac cfrac sfrac nicefrac flatfrac binom dbinom tbinom"), 2),
    **dict.fromkeys(_set("sqrt pmod pod abs floor ceil"), 1),
}
"""Commands of arithmetic, and the number of their arguments."""

FRACTIONS = _set("frac dfrac tfrac cfrac sfrac nicefrac flatfrac")
BINOMIALS = _set("binom dbinom tbinom")

DEGREES = _set("circ degree deg textdegree celsius")

EQUALITIES = _set(
    "equiv coloneqq coloneq triangleq implies Rightarrow Longrightarrow Leftrightarrow "
    "Longleftrightarrow iff eqdef"
)
"""Relations after which the same value, or the conclusion, stands."""

RELATIONS = _set(
    "approx approxeq sim simeq cong neq ne not notin leq le leqslant geq ge geqslant lt gt ll "
    "gg pm mp in ni subset subseteq supset supseteq propto to rightarrow longrightarrow "
    "mapsto leadsto xrightarrow gets leftarrow uparrow downarrow nearrow searrow land lor "
    "wedge vee prec succ preceq succeq lesssim gtrsim nleq ngeq asymp thickapprox"
)
"""Relations after which another value may stand, or none."""

ARROWS = _set("to rightarrow longrightarrow")

SPELLED = {
    "\\colon": ":", "\\ratio": ":", "\\lbrace": "\\{", "\\rbrace": "\\}", "\\lbrack": "[",
    "\\rbrack": "]", "\\vert": "|", "\\lvert": "|", "\\rvert": "|", "\\Vert": "\\|",
    "\\lVert": "\\|", "\\rVert": "\\|", "\\lparen": "(", "\\rparen": ")", "\\&": "&",
    "\\cdot": "*", "\\cdotp": "*", "\\times": "*", "\\ast": "*", "\\bullet": "*", "\\div": "/",
    "\\slash": "/", "\\mod": "\\bmod", "\\minus": "-",
}  # fmt: skip
"""Commands that stand for a sign or for another command."""
