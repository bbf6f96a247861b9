"""The figures of an arm of `accuracy.py`, and the differences between arms."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from support.accuracy.arm_runs import ArmResult, Records

from eightfold.solver.attempts.voting import DEFAULT_RULE, RULES
from eightfold.solver.evaluation.confidence_intervals import bootstrap_interval
from eightfold.solver.evaluation.run_reader import statistics_of
from eightfold.solver.evaluation.run_scores import Score, pass_score, replay_vote, vote_score

CODE = re.compile(r"```\s*(?:python|py)\b|<tool_call>|\"name\"\s*:\s*\"python\"|<\|tool_call>")
"""Signs that an attempt wrote code or a call, in whatever form."""


def wrote_code(attempt: dict[str, Any]) -> bool:
    """Return whether an attempt made a call or wrote what looks like Python to be run."""
    return attempt["calls"] > 0 or any(
        CODE.search(turn["opener"] + turn["text"]) for turn in attempt["turns"]
    )


def ran_code(attempt: dict[str, Any]) -> bool:
    """Return whether a call of an attempt reached the sandbox."""
    return any(call["code"] is not None for turn in attempt["turns"] for call in turn["calls"])


def arm_figures(result: ArmResult, attempts: int) -> dict[str, Any]:
    """Return the figures of an arm, ready for JSON.

    Args:
        result: the arm's result.
        attempts: number of attempts at a problem.
    """
    records = result.records
    tries = [one for _, group in records for one in group]
    scores = {"pass@1": pass_score(records, 1), f"pass@{attempts}": pass_score(records, attempts)}
    scores |= {rule: vote_score(records, rule) for rule in RULES}
    tokens = sum(one["tokens"] for one in tries)
    coded = [one for one in tries if wrote_code(one)]
    return {
        "problems": len(records),
        "scores": {name: score_object(score) for name, score in scores.items()},
        "tokens": tokens,
        "tokens_per_attempt": round(tokens / max(1, len(tries)), 1),
        "calls": sum(one["calls"] for one in tries),
        "errors": sum(one["errors"] for one in tries),
        "errors_by_kind": counts(kind for one in tries for kind in one["error_kinds"]),
        "endings": counts(str(one["ending"]) for one in tries),
        "nudged": sum(one["nudged"] for one in tries),
        "attempts": len(tries),
        "answered": sum(one["answer"] is not None for one in tries),
        "attempts_with_code": len(coded),
        "of_these_ran_code": sum(map(ran_code, coded)),
        "faults": sum(len(problem["faults"]) for problem, _ in records),
        "seconds": round(result.seconds, 1),
        "tokens_per_second": round(tokens / max(result.seconds, 1e-9), 1),
    }


def counts(kinds: Iterator[str]) -> dict[str, int]:
    """Return how often each kind occurs, the most frequent first."""
    return dict(Counter(kinds).most_common())


def score_object(score: Score | None) -> dict[str, float] | None:
    """Return a score for JSON; None if nothing could be judged."""
    if score is None:
        return None
    return {
        "value": round(score.value, 4),
        "low": round(score.low, 4),
        "high": round(score.high, 4),
    }


def share_right(problem: dict[str, Any], tries: Sequence[dict[str, Any]]) -> float:
    """Return the share of a problem's attempts that are right."""
    return sum(one["answer"] == problem["truth"] for one in tries) / len(tries)


def vote_right(rule: str) -> Callable[[dict[str, Any], Sequence[dict[str, Any]]], float]:
    """Return a function that is 1 if the rule's vote at a problem is right, else 0."""
    return lambda problem, tries: float(
        replay_vote([statistics_of(one) for one in tries], rule) == problem["truth"]
    )


def difference(
    records: tuple[Records, Records], values: tuple[Callable[..., float], Callable[..., float]]
) -> dict[str, float] | None:
    """Return the mean of a value over problems less that of another one, problem by problem.

    Args:
        records: two runs at the same problems, in the same order.
        values: what is averaged in each of them, given a problem and its attempts.

    Returns:
        The difference with its 95 % interval from a bootstrap over problems; None without any.
    """
    first, second = (
        [value(*one) for one in run] for run, value in zip(records, values, strict=True)
    )
    parts = [a - b for a, b in zip(first, second, strict=True)]
    if not parts:
        return None
    low, high = bootstrap_interval(parts)
    mean = sum(parts) / len(parts)
    return {"value": round(mean, 4), "low": round(low, 4), "high": round(high, 4)}


def differences(results: Sequence[ArmResult]) -> dict[str, dict[str, float] | None]:
    """Return how much the tool, the votes and the early stop change, as far as these arms ran."""
    by_name = {result.arm.name: result.records for result in results}
    pairs = {
        "pass@1: tool - no tool": ("tool", share_right, "no tool", share_right),
        "tool's vote - pass@1 of no tool": (
            *("tool", vote_right(DEFAULT_RULE)),
            *("no tool", share_right),
        ),
        "vote: early stop - tool": (
            *("early stop", vote_right(DEFAULT_RULE)),
            *("tool", vote_right(DEFAULT_RULE)),
        ),
        "more_code - majority, tool": (
            *("tool", vote_right("more_code")),
            *("tool", vote_right("majority")),
        ),
    }
    return {
        name: difference((by_name[a], by_name[b]), (one, other))
        for name, (a, one, b, other) in pairs.items()
        if a in by_name and b in by_name
    }
