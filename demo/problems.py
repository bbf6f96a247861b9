"""Problems of the families, split into training problems and held-out problems.

A hash of the family and its numbers decides whether a problem is held out, whatever its wording:
no training trace has the same numbers in the same family. The last phrasing of each family and a
tenth of its paraphrases are never used in training either.

``python -m eightfold.demo.problems --split held_out --count 255 --out FILE`` writes JSON Lines
with the keys ``id, family, phrasing, problem, answer``.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
import zlib
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from random import Random

from eightfold.sandbox.text.inprocess_cell import new_namespace, run_cell

from .families import ANSWERS, FAMILIES, Family, Params, fill, fill_slots, write_problem
from .paraphrases import paraphrases

HELD_OUT_SHARE = 64
"""One in this many draws of numbers is held out."""

MAX_DRAWS = 2000
"""Draws after which a family counts as one of which no numbers are held out."""

SPLITS = ("held_out", "held_out_phrasing", "held_out_paraphrase", "train")


@dataclass(frozen=True)
class Problem:
    """One problem.

    Attributes:
        id: unique among all splits and seeds.
        family: name of its family.
        phrasing: index of its phrasing in the family, or -1 for a paraphrase.
        problem: its text.
        answer: an integer in 0..99999.
    """

    id: str
    family: str
    phrasing: int
    problem: str
    answer: int


def is_held_out(name: str, params: Params) -> bool:
    """Return True if these numbers of the family `name` are kept out of training."""
    key = name + ":" + ",".join(f"{k}={params[k]}" for k in sorted(params))
    return zlib.crc32(key.encode()) % HELD_OUT_SHARE == 0


def draw_params(family: Family, rng: Random, held_out: bool) -> Params:
    """Draw numbers for a problem of `family` from one side of the split.

    A family of which so few numbers exist that none is held out gives any of them.
    """
    found = None
    for _ in range(MAX_DRAWS):
        params = family.draw(rng)
        if params is None:
            continue
        if is_held_out(family.name, params) == held_out:
            return params
        found = params
    assert found is not None, family.name
    return found


def run_program(program: str, params: Params) -> str:
    """Return the output of a family's program for these numbers, in a new namespace."""
    return run_cell(fill_slots(program, params), new_namespace())


def parse_answer(output: str) -> int | None:
    """Return a program's output as an answer, or None if it is not a valid one."""
    return int(output) if output.isdecimal() and int(output) in ANSWERS else None


def agreed_answer(family: Family, params: Params) -> int | None:
    """Return the answer that all programs of the family give, or None if it is out of range.

    Raises:
        AssertionError: the programs disagree.
    """
    outputs = {run_program(program, params) for program in family.programs}
    assert len(outputs) == 1, f"{family.name} {params}: {outputs}"
    return parse_answer(outputs.pop())


def draw_template(family: Family, split: str, rng: Random) -> tuple[int, str] | None:
    """Return a phrasing with its index, or a paraphrase with -1; None if a family has none."""
    last = len(family.phrasings) - 1
    if split == "held_out_paraphrase":
        templates = paraphrases(held_out=True).get(family.name, ())
        return (-1, rng.choice(templates)) if templates else None
    index = last if split == "held_out_phrasing" else rng.randrange(last)
    return index, family.phrasings[index]


def problems(split: str, seed: int, plain: bool = False) -> Iterator[Problem]:
    """Yield problems without end, one family after the other.

    Args:
        split: `held_out` (numbers that are not in training, in phrasings that are),
            `held_out_phrasing` (neither the numbers nor the phrasing are in training),
            `held_out_paraphrase` (a paraphrase that is not in training), or `train`.
        seed: another seed gives other problems.
        plain: write all problems in one spelling, with LaTeX and numbers in digits.

    Raises:
        ValueError: there is no such split.
    """
    if split not in SPLITS:
        raise ValueError(f"There is no split {split!r}; choose one of {', '.join(SPLITS)}.")
    rng = Random(f"{split} {seed}")
    made = 0
    for family in itertools.cycle(FAMILIES):
        drawn = draw_template(family, split, rng)
        if drawn is None:
            continue
        answer = None
        while answer is None:
            params = draw_params(family, rng, held_out=split != "train")
            answer = agreed_answer(family, params)
        if plain:
            text = fill(drawn[1], params, rng)
        else:
            text = write_problem(drawn[1], params, rng, literal=drawn[0] < 0)
        yield Problem(f"{split}-{seed}-{made:04d}", family.name, drawn[0], text, answer)
        made += 1


def take(split: str, n: int, seed: int, plain: bool = False) -> list[Problem]:
    """Return the first `n` problems of a split; see `problems`."""
    return list(itertools.islice(problems(split, seed, plain), n))


def main(argv: list[str] | None = None) -> int:
    """Write problems as JSON Lines."""
    parser = argparse.ArgumentParser(prog="eightfold.demo.problems", description=main.__doc__)
    parser.add_argument("--split", choices=SPLITS, default="held_out", help="(%(default)s)")
    parser.add_argument(
        "--count", type=int, default=len(FAMILIES) * 5, help="number of problems (%(default)s)"
    )
    parser.add_argument("--seed", type=int, default=0, help="(%(default)s)")
    parser.add_argument("--out", type=Path, help="file to write; default: standard output")
    options = parser.parse_args(argv)
    if options.count < 1:
        parser.error("--count must be at least 1")
    made = take(options.split, options.count, options.seed)
    lines = "".join(json.dumps(asdict(p), ensure_ascii=False) + "\n" for p in made)
    if options.out is None:
        sys.stdout.write(lines)
    else:
        options.out.write_text(lines, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
