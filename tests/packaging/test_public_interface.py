"""Every name of docs/api.md can be imported, and the packages export nothing undocumented."""

import importlib
import re
from pathlib import Path

import pytest

API = Path(__file__).resolve().parents[2] / "docs" / "api.md"


def documented() -> dict[str, list[str]]:
    """Names by package, from the tables under each heading."""
    found: dict[str, list[str]] = {}
    package = ""
    for line in API.read_text(encoding="utf-8").splitlines():
        if heading := re.fullmatch(r"## `(eightfold[\w.]*)`", line):
            package = heading[1]
            found[package] = []
        elif line.startswith("| `"):
            found[package] += re.findall(r"`(\w+)`", line.split("|")[1])
    return found


@pytest.mark.parametrize("package", documented())
def test_documented_names_can_be_imported(package: str) -> None:
    module = importlib.import_module(package)
    for name in documented()[package]:
        assert getattr(module, name) is not None, name


@pytest.mark.parametrize("package", [each for each in documented() if "demo" not in each])
def test_all_exports_are_documented(package: str) -> None:
    assert sorted(importlib.import_module(package).__all__) == sorted(documented()[package])


def test_each_name_has_a_description() -> None:
    rows = [line for line in API.read_text(encoding="utf-8").splitlines() if line.startswith("| `")]
    assert len(rows) > 25
    assert all(len(row.split("|")[2].strip()) > 10 for row in rows)
