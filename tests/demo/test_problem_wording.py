"""Grammars, spellings and paraphrases of problems. 2 s."""

from __future__ import annotations

import re
from pathlib import Path
from random import Random

import pytest

from eightfold.demo.families import FAMILIES, write_problem
from eightfold.demo.families.grammar import draw_text, variants
from eightfold.demo.families.phrasing_files import read_phrasings
from eightfold.demo.families.spelling import (
    fill_text,
    mistype,
    number_in_words,
    ordinal,
    plain_notation,
    rename_letters,
)
from eightfold.demo.paraphrases import paraphrases
from eightfold.demo.paraphrases.library import is_held_out_text
from eightfold.demo.paraphrases.templates import NotATemplate, Seed, numbers_in, to_template
from eightfold.demo.problems import draw_params, take

SEED = Seed(
    "tickets",
    {"a": 12, "p": 30, "c": 7},
    {"who": "Anna", "items": "apples"},
    "Anna buys 12 apples at 30 cents and 7 more.",
    0,
)


def test_groups_nest_and_other_brackets_stay() -> None:
    template = "[Find|[Compute|Give]] $[{a}, {b}]$ and [x, y)"
    assert variants(template) == 3
    drawn = {draw_text(template, Random(i)) for i in range(40)}
    assert drawn == {f"{w} $[{{a}}, {{b}}]$ and [x, y)" for w in ("Find", "Compute", "Give")}


def test_families_have_dozens_of_phrasings() -> None:
    assert len(FAMILIES) >= 80
    spellings = 2 * 2 * 2  # letters' case, final sign, notation or numbers: at the very least
    for family in FAMILIES:
        count = sum(variants(phrasing) for phrasing in family.phrasings[:-1])
        assert count * spellings >= 24, family.name


def test_phrasing_files_name_families_and_hold_nothing_twice() -> None:
    names = {family.name for family in FAMILIES}
    held_out = {family.phrasings[-1] for family in FAMILIES}
    more = read_phrasings()
    assert set(more) <= names
    for name, templates in more.items():
        assert len(set(templates)) == len(templates), name
        assert not held_out & set(templates), name


def test_a_faulty_phrasing_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "shapes.txt"
    path.write_text("# one\nWhat is {a}?\n\n# two\nAnd {b}?\nHow much is {b}?\n")
    assert read_phrasings(tmp_path) == {
        "one": ("What is {a}?",),
        "two": ("And {b}?", "How much is {b}?"),
    }
    path.write_text("What is {a}?\n")
    with pytest.raises(ValueError, match="line 1: no '# name'"):
        read_phrasings(tmp_path)
    path.write_text("# one\nA {a}.\n# one\n")
    with pytest.raises(ValueError, match="line 3: one stands twice"):
        read_phrasings(tmp_path)


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_no_part_of_a_template_is_left_in_a_problem(family: object) -> None:
    rng = Random(repr(family)[:60])
    for phrasing in family.phrasings:  # type: ignore[attr-defined]
        params = draw_params(family, rng, held_out=False)  # type: ignore[arg-type]
        text = write_problem(phrasing, params, rng)
        assert not re.search(r"\[[^\]$]*\|[^\[$]*\]", text), text
        assert not re.search(r"<[a-z]+>", text), text
        slots = set(re.findall(r"\{(\w+)\}", phrasing)) & {"who", "he", "items", "box", "money"}
        assert not any(f"{{{slot}}}" in text for slot in slots), text


@pytest.mark.parametrize(
    ("latex", "plain"),
    [
        ("7^{2026} \\bmod 1000", r"7(\^|\*\*)2026 (mod|%) 1000"),
        ("3 \\cdot 4", r"3 ?[*·] ?4"),
        ("a \\le b", r"a ?(<=|≤) ?b"),
        ("\\frac{x}{4} + 1", r"x/4 ?\+ ?1"),
        ("a_{n+1}", r"a_\(n\+1\)"),
        ("\\binom{9}{3}", r"C\(9, 3\)"),
        ("40^\\circ + x", r"40(°| degrees) ?\+ ?x"),
        ("3 \\circ 5", r"3 (∘|o) 5"),
    ],
)
def test_latex_has_a_plain_notation(latex: str, plain: str) -> None:
    for seed in range(12):
        assert re.fullmatch(plain, plain_notation(latex, Random(seed)))


def test_numbers_are_written_in_words_and_as_ordinals() -> None:
    assert number_in_words(0) == "zero"
    assert number_in_words(45) == "forty-five"
    assert number_in_words(2026) == "two thousand twenty-six"
    assert [ordinal(n) for n in (1, 12, 23, 111)] == ["1st", "12th", "23rd", "111th"]
    text = "the {n}th of {n} and ${n}$"
    assert fill_text(text, {"n": 22}, "words") == "the 22nd of twenty-two and $22$"
    assert fill_text("{n}", {"n": 12_345}, "commas") == "12,345"


def test_letters_are_renamed_alike_everywhere() -> None:
    text = rename_letters("If $x + 2 = \\gcd(x, y)$, find $x$.", Random(3))
    new = re.findall(r"\$(\w)\$", text)[0]
    assert text.count(new) >= 3
    assert re.fullmatch(
        r"\$(\w) \* (\w) = \1\2 \+ \1 \\gcd\$", rename_letters("$a * b = ab + a \\gcd$", Random(4))
    )
    assert "\\gcd" in text
    assert mistype("How many marbles", Random(1)) != "How many marbles"


def test_a_paraphrase_with_other_numbers_is_no_template() -> None:
    good = "At thirty cents each, Anna takes 12 apples, then 7 more."
    made = to_template(SEED, good)
    assert made == "At {p} cents each, {who} takes {a} {items}, then {c} more."
    assert numbers_in(good) == ["30", "12", "7"]
    for bad in (
        "Anna buys 12 apples at 30 cents.",
        "Anna buys 12 apples at 30 cents, 7 pears and 3 plums.",
        SEED.text,
        "12, 30, 7",
    ):
        with pytest.raises(NotATemplate):
            to_template(SEED, bad)


def test_paraphrases_are_split_and_fill_their_slots() -> None:
    trained, held_out = paraphrases(held_out=False), paraphrases(held_out=True)
    assert sum(map(len, trained.values())) > 5000
    assert all(is_held_out_text(t) for group in held_out.values() for t in group)
    assert not set().union(*trained.values()) & set().union(*held_out.values())
    names = {family.name for family in FAMILIES}
    assert set(trained) <= names
    for one in take("held_out_paraphrase", 60, seed=2):
        assert one.phrasing == -1
        assert not re.search(r"(?<![\\^_])\{[a-z]\w*\}", one.problem.replace("$", "")), one
