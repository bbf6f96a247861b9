"""Problems of the families, split into training and held out.

A problem is held out where a hash of its family and its numbers says so, whatever its wording: no
training trace has the same numbers in the same family. The last phrasing of each family is never
used in training either.

``python -m eightfold.demo.problems --split held_out --count 255 --out FILE`` writes JSON Lines
with the keys ``id, family, phrasing, problem, answer``.
"""

from __future__ import annotations

import argparse
import json
import sys
import zlib
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from random import Random

from eightfold.sandbox.text.inprocess_cell import new_namespace, run_cell

from .families import ANSWERS, FAMILIES, Family, Params, fill, fill_slots

HELD_OUT_SHARE = 64
"""One in this many draws of numbers is held out."""

SPLITS = ("held_out", "held_out_phrasing", "train")


@dataclass(frozen=True)
class Problem:
    """One problem: its wording, and its answer as an integer in 0..99999."""

    id: str
    family: str
    phrasing: int
    problem: str
    answer: int


def is_held_out(name: str, params: Params) -> bool:
    """Whether these numbers of family `name` are kept out of training."""
    key = name + ":" + ",".join(f"{k}={params[k]}" for k in sorted(params))
    return zlib.crc32(key.encode()) % HELD_OUT_SHARE == 0


def draw_params(family: Family, rng: Random, held_out: bool) -> Params:
    """Numbers for a problem of `family` from the wanted side of the split."""
    while True:
        params = family.draw(rng)
        if params is not None and is_held_out(family.name, params) == held_out:
            return params


def run_program(program: str, params: Params) -> str:
    """The output of a family's program for these numbers, in a fresh namespace."""
    return run_cell(fill_slots(program, params), new_namespace())


def parse_answer(output: str) -> int | None:
    """The output as an answer, or None where it is none."""
    return int(output) if output.isdecimal() and int(output) in ANSWERS else None


def agreed_answer(family: Family, params: Params) -> int | None:
    """The answer, or None where it is out of range.

    Raises:
        AssertionError: the family's programs disagree.
    """
    outputs = {run_program(program, params) for program in family.programs}
    assert len(outputs) == 1, f"{family.name} {params}: {outputs}"
    return parse_answer(outputs.pop())


def problems(split: str, seed: int) -> Iterator[Problem]:
    """Problems without end, family after family.

    Args:
        split: `held_out` (numbers not in training, phrasings of training), `held_out_phrasing`
        (numbers and phrasing not in training) or `train` (both as in training).
        seed: gives other problems for another seed.
    """
    if split not in SPLITS:
        raise ValueError(f"There is no split {split!r}; choose one of {', '.join(SPLITS)}.")
    rng = Random(f"{split} {seed}")
    index = 0
    while True:
        family = FAMILIES[index % len(FAMILIES)]
        last = len(family.phrasings) - 1
        params = draw_params(family, rng, held_out=split != "train")
        answer = agreed_answer(family, params)
        if answer is None:
            continue
        phrasing = last if split == "held_out_phrasing" else rng.randrange(last)
        text = fill(family.phrasings[phrasing], params, rng)
        yield Problem(f"{split}-{seed}-{index:04d}", family.name, phrasing, text, answer)
        index += 1


def take(split: str, n: int, seed: int) -> list[Problem]:
    """The first `n` problems of a split."""
    stream = problems(split, seed)
    return [next(stream) for _ in range(n)]


def held_out(n: int, seed: int = 0) -> list[Problem]:
    """`n` problems with numbers that are not in training, in phrasings that are."""
    return take("held_out", n, seed)


def held_out_phrasing(n: int, seed: int = 0) -> list[Problem]:
    """`n` problems with numbers and phrasings that are not in training."""
    return take("held_out_phrasing", n, seed)


def main(argv: list[str] | None = None) -> int:
    """Writes problems as JSON Lines."""
    parser = argparse.ArgumentParser(prog="eightfold.demo.problems", description=main.__doc__)
    parser.add_argument("--split", choices=SPLITS, default="held_out")
    parser.add_argument("--count", type=int, default=len(FAMILIES) * 5)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="a file; standard output without it")
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
