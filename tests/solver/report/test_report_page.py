"""The report in a real browser: no complaint, no request, and what a reader does works (20 s)."""

from __future__ import annotations

import json
import re
import signal
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from helpers.headless_chromium import Page, open_browser
from helpers.solver_cases.hostile_run import (
    LONG_LINE,
    attempt,
    hostile_run,
    plain_run,
    problem,
    turn,
    write_run,
)

from eightfold.solver import SolverError
from eightfold.solver.report import report_writer
from eightfold.solver.report.report_writer import write_report

IDS = "[...document.querySelectorAll('#problems tbody tr:not([hidden]) .what a')]"


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    with open_browser(tmp_path_factory.mktemp("profile")) as opened:
        yield opened


def quiet(page: Page) -> bool:
    """Return True if nothing was logged, asked for, or put into a dialog."""
    assert page.complaints == []
    assert [one for one in page.requests if not one.startswith("data:")] == []
    assert page.dialogs == []
    return True


def names(page: Page) -> list[str]:
    """Return the ids of the problems in the list, as they are shown."""
    found: list[str] = page.run(f"{IDS}.map((link) => link.textContent)")
    return found


def test_sorting_and_filtering(page: Page, tmp_path: Path) -> None:
    [file] = write_report(plain_run(tmp_path / "run"), tmp_path / "report.html")
    page.open(file.as_uri())
    in_order = [f"plain-{index}" for index in range(12)]
    assert names(page) == in_order
    sort = "document.querySelectorAll('#problems thead button')[{}].click()"
    seconds = "[...document.querySelectorAll('[data-label=seconds]')].map((c) => +c.dataset.value)"
    page.run(sort.format(6))
    assert page.run(seconds) == sorted(page.run(seconds))
    assert names(page) != in_order
    page.run(sort.format(6))
    assert page.run(seconds) == sorted(page.run(seconds), reverse=True)
    page.run(sort.format(1))  # plain-2 stands before plain-10
    assert names(page) == in_order
    page.run(sort.format(2))  # problems without a known answer come last, both ways
    assert names(page)[-4:] == ["plain-2", "plain-5", "plain-8", "plain-11"]
    page.run(sort.format(2))
    assert names(page)[-4:] == ["plain-2", "plain-5", "plain-8", "plain-11"]
    page.run("document.querySelector('[data-filter=wrong]').click()")
    assert sorted(names(page)) == ["plain-1", "plain-10", "plain-4", "plain-7"]
    type_in = "search.value = '{}'; search.dispatchEvent(new Event('input'))"
    page.run(type_in.format("PLAIN-10"))
    assert names(page) == ["plain-10"]
    page.run(type_in.format("nothing such"))
    assert not page.run("document.getElementById('none').hidden")
    assert quiet(page)


def test_links_and_folding(page: Page, tmp_path: Path) -> None:
    [file] = write_report(plain_run(tmp_path / "run"), tmp_path / "report.html")
    page.open(file.as_uri())
    page.follow("#problems tbody tr:nth-child(4) a")
    assert page.run("problem.querySelector('h1').textContent") == "plain-3"
    assert page.run("overview.hidden && !problem.hidden")
    opened = "[...document.querySelectorAll('details.{}')].map((fold) => fold.open)"
    assert page.run(opened.format("attempt")) == [True, False, False]
    assert page.run(opened.format("thought")) == [False]
    page.run("document.querySelector('.thought summary').click()")
    assert page.run(opened.format("thought")) == [True]
    assert page.run("document.querySelector('.thought math').getBoundingClientRect().width") > 10
    page.run("document.querySelector('[data-open=thought]').click()")
    assert page.run(opened.format("thought")) == [False]
    page.run("document.querySelector('[data-open=attempt]').click()")
    assert page.run(opened.format("attempt")) == [True] * 3
    assert page.run("document.querySelectorAll('.call .code span').length") > 3
    assert page.run("document.querySelector('.failed .status').textContent").startswith("ZeroDivis")
    page.follow("nav [rel=next]")
    assert page.run("problem.querySelector('h1').textContent") == "plain-4"
    assert page.run("document.querySelector('.alerts .vote b').textContent") == "lost vote"
    page.follow("nav .up")
    assert page.run("!overview.hidden && problem.hidden")
    page.follow("svg a")
    assert page.run("problem.querySelector('h1').textContent") == "plain-0"
    page.run("history.back()")
    page.wait_for("!overview.hidden && problem.hidden")
    page.open(f"{file.as_uri()}#problem-3-attempt-2")
    assert page.run(opened.format("attempt")) == [False, False, True]
    assert quiet(page)


def test_hostile_traces_are_shown_as_text(page: Page, tmp_path: Path) -> None:
    [file] = write_report(hostile_run(tmp_path / "run"), tmp_path / "report.html")
    assert file.stat().st_size < 200_000
    page.open(file.as_uri())
    shown = "</script><script>window.broken = 1</script>"
    assert shown in page.run("document.querySelector('.what a').textContent")
    page.follow("#problems .what a")
    page.run("document.querySelectorAll('#problem details').forEach((fold) => (fold.open = true))")
    assert page.run("typeof window.broken") == "undefined"
    assert page.run("document.querySelectorAll('#problem script, #problem img').length") == 0
    assert page.run("document.querySelectorAll('#problem a[href^=java], [onerror]').length") == 0
    text = page.run("problem.textContent")
    for part in (shown, '<img src=x onerror="window.broken = 1">', "\u2400\u241b[31m\u2407"):
        assert text.count(part) >= 5
    assert "{{ 7 * 7 }}" in text
    assert "\\u202e\\ud800" in text
    assert "</style></template></details>" in text
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f\u202e]", text)
    # The same line as text, code and output, whole; it wraps and does not widen the page.
    assert text.count(LONG_LINE) == 2  # the text of the turn is that of its call
    for width in (390, 1280):
        page.open(f"{file.as_uri()}#problem-0-attempt-1", width)
        assert page.run("document.documentElement.scrollWidth") <= width
    page.open(f"{file.as_uri()}#problem-1")
    assert page.run("problem.querySelector('h1').textContent") == '"><a href="http://example.org/">'
    assert quiet(page)


def test_pages_fit_phones_and_have_dark_colors(page: Page, tmp_path: Path) -> None:
    [file] = write_report(plain_run(tmp_path / "run"), tmp_path / "report.html")
    background = "getComputedStyle(document.body).backgroundColor"
    for address in ("", "#problem-1"):
        for width in (390, 1280):
            page.open(file.as_uri() + address, width)
            assert page.run("document.documentElement.scrollWidth") <= width
            page.screenshot(tmp_path / "light.png", dark=False)
            light = page.run(background)
            page.screenshot(tmp_path / "dark.png", dark=True)
            assert page.run(background) != light
    assert quiet(page)


def test_words_of_a_mark_stay_together(page: Page, tmp_path: Path) -> None:
    long = {"problem": "What is one and one? " * 20, "distance": 2.0, "attempts": 2}
    tries = [attempt(0, 2), attempt(1, None, turn("\\boxed{n}"), ending="no valid answer")]
    folder = write_run(tmp_path / "run", (problem("p", 1, 2, **long), tries))
    [file] = write_report(folder, tmp_path / "report.html")
    page.open(file.as_uri())
    marks = "[...document.querySelectorAll('.list .mark')]"
    words = ["lost vote", "answer not read", "unfamiliar"]
    assert page.run(f"{marks}.map((one) => one.textContent)") == words
    assert page.run(f"Math.max(...{marks}.map((one) => one.offsetHeight))") < 30
    assert quiet(page)


def test_large_runs_are_split_by_problem(page: Page, tmp_path: Path) -> None:
    out = tmp_path / "some name" / "r & d.html"
    files = write_report(plain_run(tmp_path / "run", 3), out, page_limit=20_000)
    assert [file.name for file in files] == ["r & d.html", "0.html", "1.html", "2.html"]
    page.open(out.as_uri())
    assert page.run("document.querySelectorAll('script[id^=data]').length") == 0
    page.open(page.run(f"{IDS}[1].href"))
    assert page.run("problem.querySelector('h1').textContent") == "plain-1"
    assert page.run("document.querySelectorAll('.attempt').length") == 3
    page.open(page.run("document.querySelector('nav [rel=next]').href"))
    assert page.run("problem.querySelector('h1').textContent") == "plain-2"
    page.open(page.run("document.querySelector('nav .up').href"))
    assert len(names(page)) == 3
    assert quiet(page)


def test_two_runs_are_compared_problem_by_problem(page: Page, tmp_path: Path) -> None:
    """Of the second run's problems one is gained, one is lost, and one is not finished."""
    first = plain_run(tmp_path / "first")
    second = plain_run(tmp_path / "second & last", 11)
    file = second / "problems.jsonl"
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    lines[1]["answer"], lines[3]["answer"] = lines[1]["truth"], 777
    file.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    [out] = write_report(first, tmp_path / "report.html", second)
    page.open(out.as_uri())
    chips = page.run("document.querySelector('.changes').textContent")
    assert chips == "both right 3gained 1lost 1both wrong 3unknown 3"
    assert "finished by first only (1) and by second & last only (0)" in page.run(
        "document.body.textContent"
    )
    rows = "[...document.querySelectorAll('#compared tbody tr')].map((row) => row.innerText)"
    assert len(page.run(rows)) == 11
    page.run("document.querySelectorAll('#compared thead button')[2].click()")
    assert "lost" in page.run(rows)[7]
    assert names(page) == [f"plain-{index}" for index in range(12)]  # the other table is not sorted
    page.follow("#compared tbody tr:nth-child(8) a")
    assert page.run("problem.querySelector('h1').textContent") == "plain-3"
    assert page.run("document.querySelectorAll('.attempt').length") == 6
    assert "answer 777 · lost" in page.run("document.querySelector('.tools.other').textContent")
    ids = "new Set([...document.querySelectorAll('[id]')].map((one) => one.id)).size"
    assert page.run(f"document.querySelectorAll('[id]').length - {ids}") == 0
    assert quiet(page)


def test_a_run_without_problems_or_attempts(page: Page, tmp_path: Path) -> None:
    [file] = write_report(write_run(tmp_path / "empty"), tmp_path / "empty.html")
    page.open(file.as_uri())
    assert "No problem of this run is finished" in page.run("document.body.innerText")
    record = problem("p", None, 1, attempts=0)
    [file] = write_report(write_run(tmp_path / "none", (record, [])), tmp_path / "none.html")
    page.open(f"{file.as_uri()}#problem-0")
    assert page.run("problem.querySelector('h1').textContent") == "p"
    assert quiet(page)


def test_drafted_tokens_are_shown_if_they_are_recorded(tmp_path: Path, page: Page) -> None:
    drafted = attempt(0, 1, turn("\\boxed{1}"), drafted=[30, 10], accepted=[25, 6])
    run = write_run(tmp_path / "run", (problem("p", 1, 1, attempts=1), [drafted]))
    [file] = write_report(run, tmp_path / "report.html")
    page.open(f"{file.as_uri()}#problem-0")
    assert "40 drafted, 31 accepted" in page.run("document.querySelector('.figures').textContent")


def test_200_problems_with_traces_stay_below_10_megabytes(tmp_path: Path) -> None:
    files = write_report(plain_run(tmp_path / "run", 200), tmp_path / "report.html")
    assert len(files) == 1
    assert files[0].stat().st_size < 10_000_000


def test_what_cannot_be_written_or_read_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(SolverError, match="holds no run"):
        write_report(tmp_path, tmp_path / "report.html")
    with pytest.raises(SolverError, match=r"cannot be written: Is a directory\."):
        write_report(plain_run(tmp_path / "run", 1), tmp_path)


def test_long_conversations_are_set_by_several_processes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = plain_run(tmp_path / "run")
    [alone] = write_report(run, tmp_path / "alone.html")
    monkeypatch.setattr(report_writer, "PARALLEL_TOKENS", 0)
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    [together] = write_report(run, tmp_path / "together.html")
    assert together.read_bytes() == alone.read_bytes()


def masked(entry: object) -> str:
    """Return the signals that this process does not take; for the processes of a test."""
    return " ".join(number.name for number in signal.pthread_sigmask(signal.SIG_BLOCK, ()))


def test_a_terminals_interrupt_does_not_reach_these_processes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(report_writer, "PARALLEL_TOKENS", 0)
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    monkeypatch.setattr(report_writer, "_packed", masked)
    entries: list[Any] = [SimpleNamespace(tokens=1)] * 2
    assert list(report_writer._packed_all(entries)) == ["SIGINT"] * 2
    assert masked(None) == ""
