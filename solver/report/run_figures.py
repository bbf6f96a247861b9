"""The figures of a run for its page: the table of scores, and the plots."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from ..attempts.voting import DEFAULT_RULE, RULES
from ..evaluation.run_curves import (
    Mean,
    decision_time,
    judged_attempts,
    largest_k,
    majority_curve,
    mean_amount,
    pass_curve,
    stop_curve,
)
from ..evaluation.run_reader import statistics_of
from ..evaluation.run_scores import (
    Run,
    Score,
    mean_score,
    pass_score,
    proportion_score,
    vote_score,
)
from .svg_plots import (
    Axis,
    Line,
    Point,
    amount_axis,
    bar_plot,
    line_plot,
    percent_axis,
    scatter_plot,
)


@dataclass(frozen=True)
class ScoreRow:
    """A row of the table of scores.

    Attributes:
        name: evaluation mode, such as "majority@8".
        note: what it means.
        score: accuracy over problems; None if no answer is known.
        no_answer: share of attempts or votes without an answer.
        tokens, seconds, calls, errors: means per attempt for pass@1, else per problem.
    """

    name: str
    note: str
    score: Score | None
    no_answer: Score
    tokens: Mean
    seconds: Mean
    calls: Mean
    errors: Mean


@dataclass(frozen=True)
class Plot:
    """A plot with its title, and a sentence that says how to read it."""

    title: str
    caption: str
    svg: Markup


def score_rows(run: Run, settings: dict[str, Any]) -> list[ScoreRow]:
    """Return the rows: the run as it voted, pass@1, each vote rule and pass@k over all attempts."""
    if not run:
        return []
    known = [problem for problem, _ in run if problem["truth"] is not None]
    right = sum(problem["answer"] == problem["truth"] for problem in known)
    own = proportion_score("", right, len(known)) if known else None
    unanswered = sum(problem["answer"] is None for problem, _ in run)
    voted = proportion_score("", unanswered, len(run))
    whole = _amounts(run, lambda tries: tries, sum, lambda problem: problem["seconds"])
    stop = settings.get("early_stop")
    note = f"{settings.get('rule', DEFAULT_RULE)}, early stop at {stop}" if stop else "as it voted"
    rows = [ScoreRow("this run", note, own, voted, *whole)]
    single = _amounts(run, judged_attempts, _mean, None)
    shares = [
        _mean([float(one["answer"] is None) for one in judged_attempts(tries)])
        for _, tries in run
        if judged_attempts(tries)
    ]
    k = largest_k(run)
    most = max((len(tries) for _, tries in run), default=0)
    note = "mean over attempts; amounts per attempt"
    name = f"pass@1[avg-of-{most}]"
    rows.append(ScoreRow(name, note, pass_score(run, 1), mean_score("", shares), *single))
    for rule in RULES:
        score = vote_score(run, rule)
        rows.append(ScoreRow(f"{rule}@{most}", "vote of all attempts", score, voted, *whole))
    note = "at least one attempt is right"
    best = pass_score(run, k) if k > 1 else None
    if best is not None:
        rows.append(ScoreRow(best.name, note, best, voted, *whole))
    return rows


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _amounts(
    run: Run,
    choose: Callable[[list[dict[str, Any]]], list[dict[str, Any]]],
    combine: Callable[[Sequence[float]], float],
    seconds: Callable[[dict[str, Any]], float] | None,
) -> tuple[Mean, Mean, Mean, Mean]:
    """Return tokens, seconds, calls and errors, each combined over a problem's attempts."""
    chosen = [(problem, choose(tries)) for problem, tries in run if choose(tries)]

    def mean_of(key: str) -> Mean:
        return mean_amount([combine([float(one[key]) for one in tries]) for _, tries in chosen])

    if seconds is None:
        time = mean_of("ended")
    else:
        time = mean_amount([float(seconds(problem)) for problem, _ in chosen])
    return mean_of("tokens"), time, mean_of("calls"), mean_of("errors")


def plots(run: Run, settings: dict[str, Any], link: Callable[[int], str]) -> list[Plot]:
    """Return the plots that the records of a run allow.

    Args:
        run: the records.
        settings: the settings of the run, as in its run.json.
        link: address of a problem's conversations, from its number in the run.
    """
    made = (
        accuracy_plot(run),
        stop_plot(run, settings.get("rule") or DEFAULT_RULE),
        problem_plot(run, link),
        consensus_plot(run, settings),
        error_plot(run),
        ending_plot(run),
    )
    return [plot for plot in made if plot is not None]


def accuracy_plot(run: Run) -> Plot | None:
    """Return accuracy against the number of attempts, or None if fewer than two can be judged."""
    curves = {"pass@k": pass_curve(run), "majority@k": majority_curve(run)}
    if DEFAULT_RULE != "majority":
        curves[f"{DEFAULT_RULE}@k"] = majority_curve(run, DEFAULT_RULE)
    if len(curves["pass@k"]) < 2:
        return None
    lines = [
        Line(
            name,
            [
                Point(k, s.value, f"{s.name}: {_share(s)}", *(() if color > 1 else (s.low, s.high)))
                for k, s in enumerate(scores, 1)
            ],
            color,
        )
        for color, (name, scores) in enumerate(curves.items())
    ]
    count = len(curves["pass@k"])
    stride = -(-count // 10)
    ticks = [(float(k), str(k)) for k in range(1, count + 1, stride)]
    x = Axis(1 - 0.03 * count, count + 0.03 * count, ticks, "attempts k")
    y = percent_axis(min(p.low or p.y for line in lines for p in line.points))
    caption = "Each value averages over the sets of k attempts; the bands are 95 % intervals."
    title = "Accuracy against the number of attempts"
    return Plot(title, caption, line_plot(lines, x, y, title))


def stop_plot(run: Run, rule: str) -> Plot | None:
    """Return accuracy against the early stop, or None if there is nothing to compare."""
    points = stop_curve(run, rule)
    if len(points) < 3:
        return None
    drawn = [
        Point(
            float(index),
            point.score.value,
            f"stop at {point.agree or 'no'} equal answers: {_share(point.score)}, "
            f"{point.seconds:,.1f} s",
            point.score.low,
            point.score.high,
        )
        for index, point in enumerate(points)
    ]
    last = len(points) - 1
    stride = -(-len(points) // 9)
    ticks = [
        (float(i), f"{points[i].agree or 'all'}\n{_short_time(points[i].seconds)}")
        for i in (*range(0, last - stride + 1, stride), last)
    ]
    x = Axis(-0.04 * last, 1.04 * last, ticks, "equal answers that end a problem, and mean time")
    y = percent_axis(min(point.low or 0.0 for point in drawn))
    title = "Accuracy against early stop"
    caption = f"Votes by {rule}, replayed in the order in which the attempts ended."
    return Plot(title, caption, line_plot([Line(rule, drawn, 1)], x, y, title))


def problem_plot(run: Run, link: Callable[[int], str]) -> Plot | None:
    """Return tokens and time of each problem as points that lead to it."""
    if not run:
        return None
    points = []
    for index, (problem, tries) in enumerate(run):
        tokens = sum(one["tokens"] for one in tries)
        title = f"{problem['id']}: {tokens:,} tokens, {problem['seconds']:,.1f} s"
        style = verdict(problem)
        points.append(
            Point(float(tokens), problem["seconds"], title, link=link(index), style=style)
        )
    x = amount_axis(max(point.x for point in points), "tokens of all attempts")
    y = amount_axis(max(point.y for point in points), "")
    title = "Tokens and seconds per problem"
    caption = "Each point is a problem, and leads to it; the vertical axis is seconds."
    return Plot(title, caption, scatter_plot(points, x, y, title))


def consensus_plot(run: Run, settings: dict[str, Any]) -> Plot | None:
    """Return the share of problems whose vote was decided, against the time since their start."""
    timed = [(problem, tries) for problem, tries in run if tries]
    most = max((len(tries) for _, tries in timed), default=0)
    if most < 2:
        return None
    agree = settings.get("early_stop") or min(4, most // 2 + 1)
    rule = settings.get("rule") or DEFAULT_RULE
    found = [decision_time([statistics_of(one) for one in t], rule, agree) for _, t in timed]
    times = sorted(seconds for seconds, decided in found if decided)
    if not times:
        return None
    x = amount_axis(max(problem["seconds"] for problem, _ in timed), "seconds since the start")
    end = x.high
    points = [Point(0.0, 0.0, "")]
    points += [Point(t, (i + 1) / len(timed), "") for i, t in enumerate(times)]
    points.append(Point(max(end, times[-1]), len(times) / len(timed), ""))
    y = Axis(0.0, 1.0, [(i / 4, f"{i / 4:.0%}") for i in range(5)])
    title = "When consensus was reached"
    caption = (
        f"Problems in which {agree} attempts agreed, or the lead could no more be caught: "
        f"{len(times)} of {len(timed)}."
    )
    return Plot(title, caption, line_plot([Line("decided", points, 0, steps=True)], x, y, title))


def error_plot(run: Run) -> Plot | None:
    """Return the numbers of failed calls by kind, or None if none failed."""
    kinds = Counter(str(kind) for _, tries in run for one in tries for kind in one["error_kinds"])
    calls = sum(one["calls"] for _, tries in run for one in tries)
    caption = f"{kinds.total():,} of {calls:,} calls failed."
    title = "Errors by kind"
    return Plot(title, caption, bar_plot(kinds.most_common(8), title)) if kinds else None


def ending_plot(run: Run) -> Plot | None:
    """Return the numbers of attempts by the reason of their end."""
    endings = Counter(str(one["ending"]) for _, tries in run for one in tries)
    caption = f"{endings.total():,} attempts."
    title = "How attempts ended"
    return Plot(title, caption, bar_plot(endings.most_common(8), title)) if endings else None


def verdict(problem: dict[str, Any]) -> str:
    """Return "right", "wrong", or "unknown" if the problem's answer is not known."""
    if problem["truth"] is None:
        return "unknown"
    return "right" if problem["answer"] == problem["truth"] else "wrong"


def _share(score: Score) -> str:
    return f"{score.value:.1%} [{score.low:.1%}, {score.high:.1%}]"


def _short_time(seconds: float) -> str:
    return f"{seconds:.0f}s" if seconds < 600 else f"{seconds / 60:.0f}m"
