"""A run whose traces try to break the page that shows it, and one with ordinary conversations."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

SCRIPT = "</script><script>window.broken = 1</script>"
IMAGE = '<img src=x onerror="window.broken = 1">'
LONG_LINE = "x<b>" * 250_000  # a megabyte
SETTINGS = {"model": "tiny", "attempts": 3, "early_stop": 2, "rule": "majority", "seed": 0}


def call(code: str | None, output: str, status: str = "ok", error: str | None = None) -> Any:
    """Return the record of a call."""
    return {"code": code, "status": status, "error": error, "seconds": 0.5, "output": output}


def turn(text: str, *calls: Any, **more: Any) -> dict[str, Any]:
    """Return the record of a turn."""
    table = {"started": 0.0, "seconds": 1.0, "opener": "", "tokens": [1], "entropies": [0.5]}
    return {**table, "text": text, "calls": list(calls), "appended": [], **more}


def attempt(index: int, answer: int | None, *turns: Any, **more: Any) -> dict[str, Any]:
    """Return the record of an attempt."""
    calls = [one for each in turns for one in each["calls"]]
    failed = [one["error"] for one in calls if one["error"]]
    table = {
        "round": 1,
        "attempt": index,
        "seed": index,
        "ending": "answered" if answer is not None else "no valid answer",
        "detail": "",
        "answer": answer,
        "tokens": 100 * (index + 1),
        "calls": len(calls),
        "errors": len(failed),
        "error_kinds": failed,
        "entropy": 0.5,
        "ended": index + 1.0,
        "turns": list(turns),
    }
    return {**table, **more}


def problem(name: str, answer: int | None, truth: int | None, **more: Any) -> dict[str, Any]:
    """Return the record of a problem."""
    table = {
        "round": 1,
        "id": name,
        "problem": f"What is {name}?",
        "family": "",
        "truth": truth,
        "answer": answer,
        "votes": {} if answer is None else {str(answer): 2},
        "attempts": 3,
        "stopped": "all ended",
        "granted": 100.0,
        "seconds": 4.0,
        "faults": [],
    }
    return {**table, **more}


def write_run(folder: Path, *problems: tuple[dict[str, Any], list[dict[str, Any]]]) -> Path:
    """Write the records of a run into a folder, and return it."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "run.json").write_text(json.dumps({"settings": SETTINGS, "round": 1}))
    lines = [json.dumps(record) for record, _ in problems]
    (folder / "problems.jsonl").write_text("".join(f"{line}\n" for line in lines))
    tries = [{**one, "id": record["id"]} for record, attempts in problems for one in attempts]
    (folder / "attempts.jsonl").write_text("".join(f"{json.dumps(one)}\n" for one in tries))
    return folder


def plain_run(folder: Path, count: int = 12) -> Path:
    """Write a run of ordinary problems: of each three, one is wrong and one has no known answer."""
    problems = []
    for index in range(count):
        truth = None if index % 3 == 2 else 10 + index
        answer = 999 if index % 3 == 1 else 10 + index
        code = f"print({answer})"
        first = turn(
            f"<think>Maybe $x^2 < {index}$.</think>\n```python\n{code}\n```",
            call(code, str(answer)),
        )
        failed = turn("Try.", call("1/0", "ZeroDivisionError", "error", "ZeroDivisionError"))
        tries = [
            attempt(0, answer, first, turn(f"So \\boxed{{{answer}}}")),
            attempt(1, answer, failed, turn(f"So \\boxed{{{answer}}}")),
            attempt(2, 10 + index, turn(f"\\(\\frac{{1}}{{2}}\\) \\boxed{{{10 + index}}}")),
        ]
        seconds = float((index * 7) % 12 + 1)
        problems.append((problem(f"plain-{index}", answer, truth, seconds=seconds), tries))
    return write_run(folder, *problems)


def hostile_run(folder: Path) -> Path:
    """Write a run with markup, control characters and lines of a megabyte in every text."""
    bad = f"{SCRIPT}{IMAGE}\x00\x1b[31m\x07\u202e\ud800{{{{ 7 * 7 }}}}<!--"
    tries = [
        attempt(
            0,
            5,
            turn(f"<think>{bad}$\\text{{{IMAGE}}}$", call(f"s = '{bad}'", bad), opener=bad),
            turn(f"\\href{{javascript:window.broken=1}}{{x}} $\\href{{javascript:1}}{{y}}$ {bad}"),
            detail=bad,
        ),
        attempt(1, None, turn(LONG_LINE, call(LONG_LINE, LONG_LINE, "error", bad)), ending=bad),
        attempt(2, 5, turn(f"</style></template></details>{bad}", call(None, bad, "malformed"))),
    ]
    record = problem(
        f"id {bad}",
        5,
        6,
        problem=f"{bad} ${IMAGE}$ \\({SCRIPT}\\)",
        family=bad,
        stopped=bad,
        faults=[bad],
        votes={"5": 2, bad: 1},
    )
    quote = problem('"><a href="http://example.org/">', None, 1, attempts=1)
    return write_run(folder, (record, tries), (quote, [attempt(0, None, turn("'\"`"))]))
