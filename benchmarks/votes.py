"""Rules of the vote, and the early stop, on recorded attempts of another solver.

    python benchmarks/votes.py FILE [--family REGEX] [--draws 400]

FILE has a line of JSON for each attempt: problem, answer, right, generated_tokens, code_tokens,
tool_output_tokens, calls, errors, timeouts. `eightfold replay` does the same for runs of our own.

Each problem is drawn many times: --attempts of its attempts, in random order and without
repetition. The value of a rule is the share of draws in which it is right, averaged over problems;
beside it stands the difference from the majority. The rules under the line are none of the
solver's. Early stops are replayed with `majority` and `more_code`, and compared with the same rule
without a stop. The attempts at a problem advance together, so that the one with fewer
tokens ends first and each has sampled as many tokens as the one that ends the problem, or all of
its own.

Intervals are of 95 %, from a bootstrap over problems. --family takes the part of a problem's name
that variants of one problem share; then whole families are resampled, which is the honest
interval. A rule that is best among many on the same data is partly so by chance.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from support.accuracy.candidate_rules import CANDIDATES, RecordedAttempt

from eightfold.common.terminal_table import Column, format_table
from eightfold.solver import SolverError
from eightfold.solver.attempts.voting import DEFAULT_RULE, RULES, Rule, early_stop_reason, vote
from eightfold.solver.evaluation.confidence_intervals import pass_at_k
from eightfold.solver.evaluation.run_reader import read_lines

KEYS = (
    *("problem", "answer", "right", "generated_tokens", "code_tokens", "tool_output_tokens"),
    *("calls", "errors", "timeouts"),
)
STOPS = (2, 3, 4, 5, 6)
Draw = list[RecordedAttempt]


def read_attempts(path: Path) -> dict[str, list[dict[str, Any]]]:
    """Return the attempts of a file by problem.

    Raises:
        SolverError: if the file is missing, empty, or a line is not an attempt.
    """
    problems: dict[str, list[dict[str, Any]]] = {}
    for row in read_lines(path, KEYS):
        problems.setdefault(str(row["problem"]), []).append(row)
    if not problems:
        raise SolverError(f"{path} has no attempts; give a file with a line of JSON for each.")
    return problems


def draw(rows: Sequence[dict[str, Any]], count: int, rng: random.Random) -> Draw:
    """Return a random choice of attempts, numbered in the order in which they were drawn."""
    chosen = rng.sample(list(rows), min(count, len(rows)))
    return [RecordedAttempt.of(row, index) for index, row in enumerate(chosen)]


def truth(rows: Sequence[dict[str, Any]]) -> int | None:
    """Return the right answer, or None if no attempt has it."""
    return next((row["answer"] for row in rows if row["right"]), None)


def share_right(draws: Sequence[Draw], right: int | None, rule: str | Rule) -> float:
    """Return the share of draws in which a rule finds the right answer."""
    hits = sum(right is not None and vote(one, rule).answer == right for one in draws)
    return hits / len(draws)


def stopped_early(attempts: Draw, rule: str, agree: int) -> tuple[int | None, float]:
    """Return the answer after an early stop, and the share of the tokens that were sampled."""
    order = sorted(attempts, key=lambda one: (one.ended, one.index))
    total = sum(one.ended for one in order)
    for count in range(1, len(order)):
        outcome = vote(order[:count], rule)
        if early_stop_reason(outcome, len(order) - count, agree):
            last = order[count - 1].ended
            return outcome.answer, sum(min(one.ended, last) for one in order) / total
    return vote(order, rule).answer, 1.0


def interval(values: Sequence[float], families: Sequence[str], seed: int = 0) -> list[float]:
    """Return the 95 % bootstrap interval of the mean of `values`, resampling whole families."""
    groups: dict[str, list[float]] = {}
    for value, family in zip(values, families, strict=True):
        groups.setdefault(family, []).append(value)
    rng = random.Random(seed)
    means = []
    for _ in range(2000):
        chosen = [value for g in rng.choices(list(groups.values()), k=len(groups)) for value in g]
        means.append(sum(chosen) / len(chosen))
    means.sort()
    return [round(means[50], 4), round(means[1949], 4)]


def mean(values: Sequence[float]) -> float:
    """Return the mean."""
    return sum(values) / len(values)


def compare(
    name: str, values: Sequence[float], base: Sequence[float], families: Sequence[str]
) -> dict[str, Any]:
    """Return a rule's value and its difference from the majority, problem by problem."""
    gains = [value - other for value, other in zip(values, base, strict=True)]
    return {
        "rule": name,
        "value": round(mean(values), 4),
        "gain": round(mean(gains), 4),
        "interval": interval(gains, families),
        "better": sum(gain > 0.02 for gain in gains),
        "worse": sum(gain < -0.02 for gain in gains),
    }


def early_stop(
    draws: dict[str, list[Draw]],
    rights: dict[str, int | None],
    rule: str,
    agree: int,
    families: Sequence[str],
) -> dict[str, Any]:
    """Return how a stop at `agree` equal answers changes a rule, and its share of the tokens."""
    values, full, tokens = [], [], []
    for name, right in rights.items():
        ended = [stopped_early(one, rule, agree) for one in draws[name]]
        values.append(mean([float(right is not None and answer == right) for answer, _ in ended]))
        full.append(share_right(draws[name], right, rule))
        tokens.append(mean([share for _, share in ended]))
    found = compare(f"{rule}, stop at {agree}", values, full, families)
    return {**found, "tokens": round(mean(tokens), 4)}


def replay(options: argparse.Namespace) -> dict[str, Any]:
    """Return the figures of all rules and early stops."""
    problems = read_attempts(options.file)
    found = {name: re.match(options.family, name) for name in problems}
    names = [match[0] if match else name for name, match in found.items()]
    rng = random.Random(options.seed)
    draws = {
        name: [draw(rows, options.attempts, rng) for _ in range(options.draws)]
        for name, rows in problems.items()
    }
    rights = {name: truth(rows) for name, rows in problems.items()}

    def shares(rule: str | Rule) -> list[float]:
        return [share_right(draws[name], rights[name], rule) for name in problems]

    base = shares("majority")
    rules = [compare(name, shares(name), base, names) for name in RULES]
    tried = [compare(rule.__name__, shares(rule), base, names) for rule in CANDIDATES]
    stops = [
        early_stop(draws, rights, rule, agree, names)
        for rule in ("majority", "more_code")
        for agree in STOPS
    ]
    counts = [(len(rows), sum(row["right"] for row in rows)) for rows in problems.values()]
    return {
        "benchmark": "votes",
        "problems": len(problems),
        "families": len(set(names)),
        "attempts": sum(count for count, _ in counts),
        "pass@1": round(mean([right / count for count, right in counts]), 4),
        f"pass@{options.attempts}": round(
            mean([pass_at_k(n, right, min(options.attempts, n)) for n, right in counts]), 4
        ),
        "default": DEFAULT_RULE,
        "rules": rules,
        "tried": tried,
        "early_stop": stops,
    }


def print_tables(figures: dict[str, Any]) -> None:
    """Print the rules, those that were only tried, and the early stops."""
    columns = (
        *(Column(""), Column("right", right=True), Column("gain", right=True)),
        *(Column("95 %"), Column("better", right=True), Column("worse", right=True)),
    )

    def cells(one: dict[str, Any]) -> list[str]:
        low, high = one["interval"]
        return [
            one["rule"],
            f"{one['value']:.3f}",
            f"{one['gain']:+.3f}",
            f"[{low:+.3f}, {high:+.3f}]",
            *(str(one["better"]), str(one["worse"])),
        ]

    names = ("problems", "families", "attempts")
    print(", ".join(f"{figures[name]} {name}" for name in names))
    print(f"pass@1 {figures['pass@1']:.3f}, default rule {figures['default']}")
    line = [""] * len(columns)
    print(
        format_table(columns, [*map(cells, figures["rules"]), line, *map(cells, figures["tried"])])
    )
    print()
    stops = [[*cells(one), f"{one['tokens']:.1%}"] for one in figures["early_stop"]]
    print(format_table((*columns, Column("tokens", right=True)), stops))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("file", type=Path, help="JSON Lines file of attempts")
    parser.add_argument("--attempts", type=int, default=8, help="in a draw (%(default)s)")
    parser.add_argument("--draws", type=int, default=400, help="for each problem (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the draws (%(default)s)")
    parser.add_argument(
        "--family", default=".*", metavar="REGEX", help="part of the name that variants share"
    )
    options = parser.parse_args()
    if options.attempts < 1 or options.draws < 1:
        parser.error("--attempts and --draws must be at least 1")
    try:
        figures = replay(options)
    except (SolverError, re.error) as error:
        parser.error(str(error))
    print_tables(figures)
    print(json.dumps(figures))
    return 0


if __name__ == "__main__":
    sys.exit(main())
