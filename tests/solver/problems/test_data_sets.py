"""Problems from Parquet, saved data sets, and repositories of Hugging Face (1 s)."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from helpers.solver_cases.hub_caches import COMMIT

from eightfold.solver import SolverError
from eightfold.solver.problem_set import Columns, Problem, ProblemSet
from eightfold.solver.problems.dataset_files import repository_files
from eightfold.solver.problems.dataset_source import open_problems

pyarrow = pytest.importorskip("pyarrow")
parquet = pytest.importorskip("pyarrow.parquet")

ROWS = [{"unique": f"u{i}", "question": f"text {i}", "solution": i} for i in range(1200)]
COLUMNS = Columns("unique", "question", "solution")


def write_parquet(path: Path, rows: list[dict[str, Any]]) -> Path:
    """Write rows as a Parquet file of several row groups."""
    path.parent.mkdir(parents=True, exist_ok=True)
    parquet.write_table(pyarrow.Table.from_pylist(rows), path, row_group_size=500)
    return path


def write_arrow(path: Path, rows: list[dict[str, Any]]) -> Path:
    """Write rows as `save_to_disk` does."""
    path.parent.mkdir(parents=True, exist_ok=True)
    table = pyarrow.Table.from_pylist(rows)
    with pyarrow.OSFile(str(path), "wb") as sink, pyarrow.ipc.new_stream(sink, table.schema) as out:
        out.write_table(table)
    return path


def expected(rows: list[dict[str, Any]]) -> list[Problem]:
    """Return the problems that the rows stand for."""
    return [Problem(row["unique"], row["question"], row["solution"]) for row in rows]


def test_parquet_is_read_by_the_names_of_its_columns(tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "p.parquet", ROWS)
    problems = open_problems(str(path), COLUMNS)
    assert list(problems) == list(problems) == expected(ROWS), "each iteration reads anew"
    assert list(open_problems(str(path), COLUMNS, first=3)) == expected(ROWS[:3])
    numbered = list(open_problems(str(path), Columns("row", "question"), first=2))
    assert numbered == [Problem("0", "text 0", None), Problem("1", "text 1", None)]
    with pytest.raises(SolverError, match="no column 'id'; its columns are unique, question"):
        list(open_problems(str(path)))
    with pytest.raises(SolverError, match="no column 'truth'"):
        list(open_problems(str(path), Columns("unique", "question", "truth")))
    (tmp_path / "broken.parquet").write_bytes(b"no table")
    with pytest.raises(SolverError, match="is not a Parquet file"):
        list(open_problems(str(tmp_path / "broken.parquet")))


def test_whole_numbers_beside_gaps_are_answers(tmp_path: Path) -> None:
    rows = [{"id": i, "problem": "x", "answer": value} for i, value in enumerate((7.0, None, 9.0))]
    path = write_parquet(tmp_path / "p.parquet", rows)
    assert [problem.answer for problem in open_problems(str(path))] == [7, None, 9]
    rows[0]["answer"] = 7.5
    write_parquet(path, rows)
    with pytest.raises(SolverError, match=r"not an integer: 7\.5"):
        list(open_problems(str(path)))


@pytest.mark.parametrize("name", ["p.csv", "p.jsonl"])
def test_columns_may_have_other_names_in_every_kind_of_file(tmp_path: Path, name: str) -> None:
    lines = [json.dumps(row) for row in ROWS[:3]]
    table = ["unique,question,solution", *(",".join(map(str, row.values())) for row in ROWS[:3])]
    (tmp_path / name).write_text("\n".join(table if name.endswith("csv") else lines))
    assert list(open_problems(str(tmp_path / name), COLUMNS)) == expected(ROWS[:3])
    wrong = Columns("unique", "text")
    with pytest.raises(SolverError, match=r"no column 'text'|no text; it has unique, question"):
        list(open_problems(str(tmp_path / name), wrong))
    with pytest.raises(SolverError, match="--split are for data sets"):
        open_problems(str(tmp_path / name), COLUMNS, split="test")


def test_a_survey_is_the_same_for_every_kind_of_file(tmp_path: Path) -> None:
    rows = [{"id": f"p{i}", "problem": f"é {i}", "answer": i} for i in range(5)]
    lines = tmp_path / "p.jsonl"
    lines.write_text("\n".join(map(json.dumps, rows)))
    table = write_parquet(tmp_path / "p.parquet", rows)
    one, other = (open_problems(str(path)).survey(1, 3) for path in (lines, table))
    assert one == other
    assert (one.count, one.outside) == (5, ("p0", "p4"))
    text = json.dumps([[row["id"], row["problem"], row["answer"]] for row in rows])
    assert one.digest == hashlib.blake2b(text.encode(), digest_size=8).hexdigest()
    write_parquet(table, [*rows, rows[0]])
    with pytest.raises(SolverError, match="the id 'p0' twice"):
        open_problems(str(table)).survey()


def test_row_numbers_go_on_from_file_to_file(tmp_path: Path) -> None:
    files = [write_parquet(tmp_path / f"{i}.parquet", ROWS[i * 2 : i * 2 + 2]) for i in range(2)]
    problems = ProblemSet(files, Columns("row", "question", "solution"))
    assert [problem.id for problem in problems] == ["0", "1", "2", "3"]


def test_folders_that_save_to_disk_wrote(tmp_path: Path) -> None:
    for split, rows in (("train", ROWS[:2]), ("test", ROWS[2:5])):
        write_arrow(tmp_path / "saved" / split / "data-0.arrow", rows)
        state = {"_data_files": [{"filename": "data-0.arrow"}]}
        (tmp_path / "saved" / split / "state.json").write_text(json.dumps(state))
    (tmp_path / "saved" / "dataset_dict.json").write_text('{"splits": ["train", "test"]}')
    saved = str(tmp_path / "saved")
    assert list(open_problems(saved, COLUMNS)) == expected(ROWS[2:5])
    assert list(open_problems(saved, COLUMNS, split="train")) == expected(ROWS[:2])
    assert list(open_problems(f"{saved}/train", COLUMNS)) == expected(ROWS[:2])
    with pytest.raises(SolverError, match="no split 'dev'; it has train, test"):
        open_problems(saved, COLUMNS, split="dev")


CARD = """---
configs:
- config_name: algebra
  data_files:
  - {split: train, path: algebra/train-*}
  - {split: test, path: "algebra/test-*"}
- config_name: geometry
  data_files: geometry/*.parquet
---
# A data set
"""
FILES = ["algebra/train-0.parquet", "algebra/test-0.parquet", "geometry/x.parquet", "README.md"]


def test_files_of_a_repository_are_found_by_its_card_or_their_names() -> None:
    def find(card: str, subset: str | None = None, split: str | None = None) -> list[str]:
        return repository_files("d", FILES, card, subset, split)

    assert find(CARD, "algebra") == ["algebra/test-0.parquet"]
    assert find(CARD, "algebra", "train") == ["algebra/train-0.parquet"]
    assert find(CARD, "geometry") == ["geometry/x.parquet"]
    with pytest.raises(SolverError, match="several subsets; give one with --subset: algebra, geo"):
        find(CARD)
    with pytest.raises(SolverError, match="no subset 'analysis'; it has algebra, geometry"):
        find(CARD, "analysis")
    assert find("no card") == ["algebra/test-0.parquet"]
    assert find("", "algebra", "train") == ["algebra/train-0.parquet"]
    assert find("---\n[broken\n---\n", "geometry") == ["geometry/x.parquet"]
    with pytest.raises(SolverError, match="no data files"):
        repository_files("d", ["README.md", "x.zip"], "", None, None)
    assert repository_files("d", ["a/dev.csv", "b_valid/x.csv"], "", None, None) == [
        *("a/dev.csv", "b_valid/x.csv"),
    ]
    declared = (
        "---\nconfigs:\n- data_files: [{split: a, path: 1.csv}, {split: b, path: 2.csv}]\n---"
    )
    with pytest.raises(SolverError, match="several splits; give one with --split: a, b"):
        repository_files("d", ["1.csv", "2.csv"], declared, None, None)


def test_a_data_set_in_the_cache_is_read_without_internet(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    folder = tmp_path / "cache" / "datasets--org--problems"
    (folder / "refs").mkdir(parents=True)
    (folder / "refs" / "main").write_text(COMMIT)
    snapshot = folder / "snapshots" / COMMIT
    write_parquet(snapshot / "data" / "test-00000-of-00001.parquet", ROWS[:3])
    assert list(open_problems("org/problems", COLUMNS)) == expected(ROWS[:3])
    with pytest.raises(SolverError, match="HF_HUB_OFFLINE forbids"):
        open_problems("org/others")
    with pytest.raises(SolverError, match=r"There is no file of problems org/problems\.csv"):
        list(open_problems("org/problems.csv"))
