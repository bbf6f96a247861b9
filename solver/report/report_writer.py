"""Writes the page of a run, and one page per problem if a single page would be too large."""

from __future__ import annotations

import base64
import errno
import hashlib
import os
import signal
import zlib
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import cache
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, Undefined
from markupsafe import Markup

from ..evaluation.run_curves import judged_attempts
from ..evaluation.run_folder import read_settings
from ..evaluation.run_reader import read_run
from ..evaluation.run_scores import Run
from ..solver_config import SolverError
from .conversation import pieces_of
from .problem_warnings import WarningMark, problem_warnings
from .run_comparison import ComparedProblem, Comparison, compare_runs
from .run_figures import plots, score_rows, verdict
from .safe_markup import code_styles, plain, prose, python_code

FOLDER = Path(__file__).parent
PAGE_LIMIT = 9_500_000
"""Bytes of a page beyond which each problem gets a page of its own."""

PARALLEL_TOKENS = 500_000
"""Tokens of a run from which its conversations are set by several processes."""

FORESEEN_FROM = 8
"""Number of problems from whose size that of the page is foreseen."""

FOLDED_OUTPUT = 2000
"""Characters of an output beyond which it is folded."""

SHOWN_SETTINGS = (
    *("model", "attempts", "early_stop", "rule", "time", "turns", "temperature", "top_p", "top_k"),
    *("min_p", "max_tokens", "max_context", "tool_timeout", "limit_time", "seed"),
)


@dataclass(frozen=True)
class ProblemEntry:
    """A problem in the list.

    Attributes:
        index: its number in the run, from 0.
        record: its record.
        tries: the records of its attempts.
        warnings: its warning marks.
        verdict: see `run_figures.verdict`.
        link, before, after: addresses of its conversations and of its neighbors', or "".
        other: the same problem in the run that this one is compared with, or None.
    """

    index: int
    record: dict[str, Any]
    tries: list[dict[str, Any]]
    warnings: list[WarningMark]
    verdict: str
    link: str
    before: str
    after: str
    other: ComparedProblem | None = None

    @property
    def agreement(self) -> float:
        """Share of the attempts that support the answer."""
        answer = self.record["answer"]
        votes = sum(answer is not None and one["answer"] == answer for one in self.tries)
        return votes / len(self.tries) if self.tries else 0.0

    @property
    def tokens(self) -> int:
        """Tokens of all attempts."""
        return sum(one["tokens"] for one in self.tries)

    @property
    def calls(self) -> int:
        """Calls of all attempts."""
        return sum(one["calls"] for one in self.tries)

    @property
    def errors(self) -> int:
        """Failed calls of all attempts."""
        return sum(one["errors"] for one in self.tries)


def write_report(
    folder: Path, out: Path, compared: Path | None = None, page_limit: int = PAGE_LIMIT
) -> list[Path]:
    """Write the report of a run.

    Args:
        folder: the folder of the run.
        out: the page; a folder of the same name with "_problems" is made beside it if the page
            would be larger than `page_limit`.
        compared: the folder of another run of the same problems, shown beside this one.
        page_limit: largest size of a page that holds all problems, in bytes.

    Returns:
        The files that were written, the page first.

    Raises:
        SolverError: a folder holds no run or is damaged, the runs are of different problems, or the
            page cannot be written.
    """
    run = read_run(folder)
    earlier = read_settings(folder)
    settings = earlier["settings"] if earlier else {}
    name = folder.resolve().name
    comparison = None
    if compared is not None:
        comparison = compare_runs(run, read_run(compared), (name, compared.resolve().name))
    environment = _environment()
    entries = _entries(run, comparison, lambda index: f"#problem-{index}")
    bodies: list[str] = []
    with closing(_packed_all(entries)) as packed:
        for body in packed:
            bodies.append(body)
            if _too_large(bodies, len(entries), page_limit):
                break
    if len(bodies) == len(entries) and sum(map(len, bodies)) <= page_limit:
        page = _page(environment, name, run, settings, entries, bodies, comparison=comparison)
        if len(page) <= page_limit:
            return [_write(out, page)]
    parts = out.with_name(f"{out.stem}_problems")
    entries = _entries(run, comparison, lambda index: f"{index}.html")
    files = []
    for entry, body in zip(entries, _packed_all(entries), strict=True):
        page = _page(environment, name, (), settings, [entry], [body], f"../{out.name}")
        files.append(_write(parts / f"{entry.index}.html", page))
    entries = _entries(run, comparison, lambda index: f"{parts.name}/{index}.html")
    return [
        _write(out, _page(environment, name, run, settings, entries, [], comparison=comparison)),
        *files,
    ]


def _entries(
    run: Run, comparison: Comparison | None, link: Callable[[int], str]
) -> list[ProblemEntry]:
    return [
        ProblemEntry(
            index,
            problem,
            tries,
            problem_warnings(problem, tries),
            verdict(problem),
            link(index),
            link(index - 1) if index else "",
            link(index + 1) if index + 1 < len(run) else "",
            comparison.problems.get(problem["id"]) if comparison else None,
        )
        for index, (problem, tries) in enumerate(run)
    ]


@cache
def _environment() -> Environment:
    """Return the templates. A string that is no `Markup` is made visible and escaped."""
    environment = Environment(
        loader=FileSystemLoader(FOLDER),
        autoescape=True,
        undefined=Undefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=lambda value: value if isinstance(value, Markup) else plain(str(value)),
    )
    environment.filters |= {"prose": prose, "python_code": python_code}
    environment.globals |= {"pieces_of": pieces_of, "FOLDED_OUTPUT": FOLDED_OUTPUT}
    environment.globals["attempt_mark"] = attempt_mark
    environment.globals["draft_counts"] = draft_counts
    return environment


def attempt_mark(attempt: dict[str, Any], problem: dict[str, Any]) -> str:
    """Return "right", "wrong", "voted", "none" or "cut": how an attempt's square is drawn."""
    if attempt["answer"] is None:
        return "none" if judged_attempts([attempt]) else "cut"
    if problem["truth"] is None:
        return "voted" if attempt["answer"] == problem["answer"] else "other"
    return "right" if attempt["answer"] == problem["truth"] else "wrong"


def draft_counts(attempt: dict[str, Any]) -> tuple[int, int] | None:
    """Return the drafted and accepted tokens of an attempt, or None if nothing was drafted.

    Records count them by depth.
    """
    drafted, accepted = sum(attempt.get("drafted", ())), sum(attempt.get("accepted", ()))
    return (drafted, accepted) if drafted else None


def _too_large(bodies: Sequence[str], count: int, page_limit: int) -> bool:
    """Return whether a page of `count` problems, of which these are the first, will be too large.

    After the first few problems, a size far beyond the limit is foreseen.
    """
    size = sum(map(len, bodies))
    foreseen = size / len(bodies) * count if len(bodies) >= FORESEEN_FROM else 0
    return size > page_limit or foreseen > 2 * page_limit


def _packed_all(entries: Sequence[ProblemEntry]) -> Generator[str, None, None]:
    """Yield the conversations of each problem; long ones are set on all cores."""
    tokens = sum(entry.tokens for entry in entries)
    workers = min(len(entries), os.cpu_count() or 1)
    if workers < 2 or tokens < PARALLEL_TOKENS:
        yield from map(_packed, entries)
        return
    pool = ProcessPoolExecutor(workers, mp_context=get_context("spawn"))
    try:
        with _interrupts_kept_here():
            bodies = pool.map(_packed, entries)
        yield from bodies
    finally:
        pool.shutdown(cancel_futures=True)


@contextmanager
def _interrupts_kept_here() -> Iterator[None]:
    """Start processes that a terminal's Ctrl-C does not end, each with a traceback of its own."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # which they inherit
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _packed(entry: ProblemEntry) -> str:
    """Return the conversations of a problem as HTML, compressed, in base64."""
    html = _environment().get_template("problem.html").render(entry=entry)
    return base64.b64encode(zlib.compress(html.encode("utf-8"), 9)).decode("ascii")


def _page(
    environment: Environment,
    name: str,
    run: Run,
    settings: dict[str, Any],
    entries: Sequence[ProblemEntry],
    bodies: Sequence[str],
    overview: str = "",
    comparison: Comparison | None = None,
) -> bytes:
    """Return a page: of the run, or of one problem if `overview` is the address of the run's."""
    script = (FOLDER / "report.js").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode("utf-8")).digest()).decode("ascii")
    text = environment.get_template("page.html").render(
        name=name,
        run=run,
        tries=[one for _, tries in run for one in tries],
        cut=sum(len(tries) - len(judged_attempts(tries)) for _, tries in run),
        rows=score_rows(run, settings),
        plots=plots(run, settings, lambda index: entries[index].link),
        shown={k: settings[k] for k in SHOWN_SETTINGS if settings.get(k) is not None},
        prompt=next((problem["system"] for problem, _ in run if problem.get("system")), ""),
        entries=entries,
        bodies=[(entry.index, Markup(body)) for entry, body in zip(entries, bodies, strict=False)],
        overview=overview,
        comparison=comparison,
        script=Markup(script),
        script_digest=digest,
        styles=Markup((FOLDER / "report.css").read_text(encoding="utf-8") + code_styles()),
    )
    return text.encode("utf-8")


def _write(path: Path, page: bytes) -> Path:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(page)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):  # no other --out is asked for
            raise OSError(error.errno, error.strerror, str(path)) from error
        raise SolverError(f"The report {path} cannot be written: {error.strerror}.") from error
    return path
