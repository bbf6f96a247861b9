"""The families of problems and their splits. 2 s."""

from __future__ import annotations

import json
from pathlib import Path
from random import Random

import pytest

from eightfold.demo.families import FAMILIES, Family, fill
from eightfold.demo.problems import agreed_answer, draw_params, is_held_out, main, take


def test_families_have_what_the_splits_need() -> None:
    assert len(FAMILIES) >= 24
    assert len({family.name for family in FAMILIES}) == len(FAMILIES)
    for family in FAMILIES:
        family.check()


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_programs_agree_and_phrasings_are_filled(family: Family) -> None:
    rng = Random(family.name)
    answers = set()
    for _ in range(3):
        params = draw_params(family, rng, held_out=False)
        answers.add(agreed_answer(family, params))
        for phrasing in family.phrasings:
            text = fill(phrasing, params, rng)
            assert "<find>" not in text
            assert any(str(value) in text for value in params.values())
    assert answers - {None}


def test_splits_are_disjoint_and_repeatable() -> None:
    rng = Random(1)
    family = FAMILIES[0]
    assert all(is_held_out(family.name, draw_params(family, rng, True)) for _ in range(20))
    assert not any(is_held_out(family.name, draw_params(family, rng, False)) for _ in range(20))
    assert take("held_out", 5, seed=3) == take("held_out", 5, seed=3)
    assert take("held_out", 5, seed=3) != take("held_out", 5, seed=4)
    last = {family.name: len(family.phrasings) - 1 for family in FAMILIES}
    assert all(p.phrasing < last[p.family] for p in take("held_out", 60, seed=0))
    assert all(p.phrasing == last[p.family] for p in take("held_out_phrasing", 60, seed=0))
    with pytest.raises(ValueError, match="no split 'other'"):
        take("other", 1, seed=0)


def test_the_command_writes_json_lines(tmp_path: Path) -> None:
    out = tmp_path / "problems.jsonl"
    assert main(["--split", "held_out", "--count", "3", "--out", str(out)]) == 0
    made = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
    assert [p["family"] for p in made] == [family.name for family in FAMILIES[:3]]
    assert all(p["answer"] in range(100_000) for p in made)
