"""Tells words that leave a number what it is, such as units, from words that change it."""

from __future__ import annotations

import re


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


# Words that make another value of a number, several values, a bound, or part of an answer. Any
# other word is a unit, an introduction or a comment. English first, then what other languages have
# for the same.
_CHANGES = _words(
    "or and not no nor mod modulo about approx approximately approximate around roughly nearly "
    "almost circa ca than least most to upto up tens ten hundred hundreds thousand thousands "
    "million millions billion billions trillion half halves third thirds quarter quarters fourths "
    "fifths sixths sevenths eighths ninths tenths hundredths thousandths dozen dozens score gross "
    "percent percentage permille base if unless except excluding minus plus times negative over "
    "under above below more less fewer squared cubed factorial double twice triple thrice choose "
    "divided multiplied multiple multiples until till between each apiece respectively ish "
    "nearest rounded "
    "case step part problem question claim method option choice wrong incorrect false invalid "
    "impossible never without but i e k lakh crore "
    "ou oder o et und y environ ungefähr etwa aproximadamente cerca presque fast mille mil tausend "
    "cent hundert cien millones millionen pas nicht kein или и около почти тысяч миллион не"
)
_CHANGING_WORD = re.compile(
    rf"(?<![^\W\d_])(?:{'|'.join(map(re.escape, sorted(_CHANGES)))}|(?-i:[MB]))(?![^\W\d_])"
    r"|%|[万萬億亿千百十兆半约約或负負]|不|大约|以上|以下|未満|未满|超过|至少|至多|最多|分之",
    re.IGNORECASE,
)
_HARMLESS = re.compile(
    r"\b(?:no|nos|num)\.\s*(?=of\b)|\bi\.\s*e\.|\bper cent(?=\s+of\b)|\bas much as\b"
    r"|\b(?:equals?|equivalent|congruent|comes?(?: out)?|amounts?|evaluates?|simplif(?:y|ies)"
    r"|reduces?|sums?(?: up)?|adds?(?: up)?|leads?|works? out) to\b"
    r"|(?<=[a-z] )to (?!the\b|nearest\b|power\b)[a-z]+"
    r"|\b(?:option|choice|answer)\s*\(?[A-J]\)?(?=[\s:.]|$)",
    re.IGNORECASE,
)
# Words that make a statement about a name something else than an equation.
_QUALIFIES = re.compile(
    r"\b(?:or|not|if|unless|except|about|approx\w*|roughly|nearly|almost|otherwise|assum\w+"
    r"|suppos\w+|let)\b|\b(?:case|step|part|problem|question|claim|method|option|choice)\b"
    r"\s*\(?\s*(?:\d|[a-z]\b|[ivx]+\b)|\b(?:or|oder|ou|或)\b",
    re.IGNORECASE,
)
# An introduction that ends so computes with the number: the square root of, the digits in.
_COMPUTES = re.compile(
    r"\b(?:of|by|from|at|after|before|with|for|on|into|per|beyond|within|among|through|via|in)\s*$",
    re.IGNORECASE,
)
_AMOUNT = re.compile(
    r"\b(?:an?|the) (?:final |grand |total |correct )?"
    r"(?:total|answer|result|value|remainder|count|sum) of\s*$",
    re.IGNORECASE,
)
CONCLUSIONS = _words("so then thus hence therefore and but")
CLAUSES = CONCLUSIONS | _words(
    "where with when whenever while for at since because given that satisfying iff"
)
"""Words that begin a clause, in which an equality may be a condition; `CONCLUSIONS` may open it."""


FUNCTIONS = _words(
    "sin cos tan cot sec csc log ln exp sqrt cbrt root gcd lcm max min lim sup inf floor ceil "
    "round frac binom choose factorial mod arcsin arccos arctan sinh cosh tanh det trace"
)
RELATION_WORDS = _words("is are was equals equal gives yields becomes")


def changing_word(phrase: str) -> str | None:
    """Return the first word beside a number that changes what the number says, or None."""
    found = _CHANGING_WORD.search(_HARMLESS.sub(" ", phrase))
    return found[0] if found else None


def qualifying_word(phrase: str) -> str | None:
    """Return the first word left of an equality that makes it no plain equation, or None."""
    found = _QUALIFIES.search(_HARMLESS.sub(" ", phrase))
    return found[0] if found else None


def computing_words(introduction: str, unit: str) -> str | None:
    """Return the end of an introduction that computes with the number after it, or None.

    Args:
        introduction: words before the number, as "the square root of".
        unit: words after it: "in 42 ways" is a number, "the digits in 42" are not.
    """
    found = _COMPUTES.search(introduction)
    if found is None or _AMOUNT.search(introduction):
        return None
    word = found[0].strip()
    return None if word.lower() == "in" and unit.strip() else word
