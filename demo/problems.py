"""Problems of the families, split into training problems and held-out problems.

A hash of the family and its numbers decides whether a problem is held out, whatever its wording:
no training trace has the same numbers in the same family. The last phrasing of each family is
never used in training either.

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
    """One problem.

    Attributes:
        id: unique among all splits and seeds.
        family: name of its family.
        phrasing: index of its phrasing in the family.
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
    """Draw numbers for a problem of `family` from one side of the split."""
    while True:
        params = family.draw(rng)
        if params is not None and is_held_out(family.name, params) == held_out:
            return params


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


def problems(split: str, seed: int) -> Iterator[Problem]:
    """Yield problems without end, one family after the other.

    Args:
        split: `held_out` (numbers that are not in training, in phrasings that are),
            `held_out_phrasing` (neither the numbers nor the phrasing are in training), or `train`
            (both are).
        seed: another seed gives other problems.

    Raises:
        ValueError: there is no such split.
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
    """Return the first `n` problems of a split; see `problems`."""
    stream = problems(split, seed)
    return [next(stream) for _ in range(n)]


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
