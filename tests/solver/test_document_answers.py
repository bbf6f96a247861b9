"""Every problem that the README and the documents solve with the bundled model (30 s)."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from eightfold.solver import Solver, SolverConfig

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
SOLVED = re.compile(
    r"eightfold solve (?:--show )?(['\"])([^'\"\n]{12,})\1|\.solve\(()\"([^\"\n]+)\"\)"
)

ANSWERS = {
    "How many prime numbers are below 100?": sum(
        all(n % d for d in range(2, n)) for n in range(2, 100)
    ),
    "What are the last three digits of 7^2026?": pow(7, 2026, 1000),
    "What is the remainder when $5^{8985}$ is divided by 66?": pow(5, 8985, 66),
}
"""The problems in the documents, with their answers computed here."""


def problems_in_documents() -> set[str]:
    found = set()
    for path in DOCUMENTS:
        for match in SOLVED.finditer(path.read_text(encoding="utf-8")):
            found.add(match[2] or match[4])
    return found


@pytest.mark.timeout(280)
def test_problems_in_the_documents_are_answered_right() -> None:
    if not DOCUMENTS[0].is_file():
        pytest.skip("the documents are part of a clone, not of the package")
    problems = problems_in_documents()
    assert problems, "the documents show no problem"
    assert problems <= set(ANSWERS), "add the answer of a new example"
    with Solver(SolverConfig(time=200, kernels=2)) as solver:
        for problem in sorted(problems):
            result = solver.solve(problem)
            assert result.answer == ANSWERS[problem], (problem, result.votes)
            assert not result.note, (problem, result.distance)
