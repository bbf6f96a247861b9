"""Write the problems that are to be paraphrased.

``python -m eightfold.demo.paraphrases.seeds --each 20 --out seeds.jsonl``
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from random import Random

from ..families import FAMILIES, Family
from ..problems import agreed_answer, draw_params
from .templates import Seed, make_seed, seed_table

LEFT_OUT = {"expression", "story_chain", "sum_of_list"}
"""Families whose texts are mostly slots, which no paraphrase changes."""

TRIES = 400


def family_seeds(family: Family, each: int, seed: int) -> list[Seed]:
    """Return up to `each` seeds of a family, spread over its phrasings; fewer if few will do."""
    rng = Random(f"paraphrases {family.name} {seed}")
    found: dict[str, Seed] = {}
    for _ in range(TRIES):
        if len(found) >= each:
            break
        params = draw_params(family, rng, held_out=False)
        answer = agreed_answer(family, params)
        made = None if answer is None else make_seed(family, rng, answer, params)
        if made is not None:
            found[made.text] = made
    return list(found.values())


def main(argv: list[str] | None = None) -> int:
    """Write seeds of all families as JSON Lines."""
    parser = argparse.ArgumentParser(
        prog="eightfold.demo.paraphrases.seeds", description=main.__doc__
    )
    parser.add_argument("--each", type=int, default=20, help="seeds of a family (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="(%(default)s)")
    parser.add_argument("--out", type=Path, required=True, help="file to write")
    options = parser.parse_args(argv)
    with options.out.open("w", encoding="utf-8") as file:
        for family in FAMILIES:
            if family.name in LEFT_OUT:
                continue
            for made in family_seeds(family, options.each, options.seed):
                file.write(json.dumps(seed_table(made), ensure_ascii=False) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
