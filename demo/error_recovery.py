"""How often the model corrects a faulty call that was put into its mouth.

``python -m eightfold.demo.error_recovery --count 100`` begins attempts at held-out problems with a
thought, a faulty version of a right program and its real error, as `training_traces` writes them,
and lets the model go on from there. What to think about the error is left to it.
"""

from __future__ import annotations

import argparse
import itertools
import json
import re
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from random import Random

from . import model_path
from .engine_accuracy import Attempt, Solving
from .families import FAMILIES, Family, write_problem
from .problems import Problem, agreed_answer, draw_params
from .training_rows import TraceEncoder
from .training_traces import GEMMA_FORM, DrawRejected, Trace, TraceWriter

ERROR = re.compile(r"\b[A-Z]\w*Error\b")

TRIES = 20
"""Draws of numbers and a fault for a family before it is passed over."""


def faulty_trace(family: Family, rng: Random) -> Trace | None:
    """Return the beginning of a trace at a held-out problem, up to the error of its first call."""
    for _ in range(TRIES):
        params = draw_params(family, rng, held_out=True)
        answer = agreed_answer(family, params)
        if answer is None:
            continue
        writer = TraceWriter(family, params, rng, GEMMA_FORM)
        writer.think(family.thoughts)
        try:
            writer.run_with_fault()
        except DrawRejected:
            continue
        problem = write_problem(rng.choice(family.phrasings[:-1]), params, rng)
        # The last piece is the remark about the error, which the model is to find itself.
        return Trace(family.name, "fault", problem, answer, tuple(writer.pieces[:-1]))
    return None


def faulty_attempts(encoder: TraceEncoder, seed: int) -> Iterator[tuple[Attempt, str]]:
    """Yield attempts that begin with a failed call, and the kind of its error, without end."""
    rng = Random(f"error recovery {seed}")
    for index, family in enumerate(itertools.cycle(FAMILIES)):
        made = faulty_trace(family, rng)
        if made is None:
            continue
        problem = Problem(f"fault-{seed}-{index}", family.name, -1, made.problem, made.answer)
        prompt = encoder.prefix + encoder.trace(made).ids
        found = ERROR.findall(made.pieces[-1].text)
        yield Attempt(problem, prompt, errors=1), found[-1] if found else "other"


def main(argv: list[str] | None = None) -> int:
    """Print how many attempts answer right after a faulty call, by the kind of the error."""
    parser = argparse.ArgumentParser(prog="eightfold.demo.error_recovery", description=main.__doc__)
    add = parser.add_argument
    add("--model", type=Path, default=model_path(), help="folder (%(default)s)")
    add("--count", type=int, default=100, help="attempts (%(default)s)")
    add("--seed", type=int, default=1, help="(%(default)s)")
    add("--rows", type=int, default=64, help="sequences at a time (%(default)s)")
    options = parser.parse_args(argv)
    if options.count < 1:
        parser.error("--count must be at least 1")
    solving = Solving(options.model, options.rows)
    try:
        begun = list(
            itertools.islice(faulty_attempts(solving.encoder, options.seed), options.count)
        )
        solving.run([attempt for attempt, _ in begun], options.seed)
    finally:
        solving.close()
    asked = Counter(error for _, error in begun)
    right = Counter(error for one, error in begun if one.answer == one.problem.answer)
    for error, count in asked.most_common():
        print(f"{error:20} {right[error]:4} of {count}")
    table = {"attempts": len(begun), "right": sum(right.values()), "seed": options.seed}
    print(json.dumps(table))
    return 0


if __name__ == "__main__":
    sys.exit(main())
