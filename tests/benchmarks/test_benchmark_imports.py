"""Every name that a benchmark imports from this package exists, in lazy imports as well."""

import ast
import importlib
import importlib.util
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("triton")
FOLDER = Path(__file__).parents[2] / "benchmarks"


def imported_names() -> Iterator[tuple[str, str, str]]:
    """Yield the benchmark's file, the module, and the name that is imported from it."""
    for file in sorted(FOLDER.rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("eightfold"):
                for alias in node.names:
                    yield str(file.relative_to(FOLDER)), node.module or "", alias.name


def test_imported_names_exist() -> None:
    names = list(imported_names())
    assert len(names) > 50
    for file, module_name, name in names:
        module = importlib.import_module(module_name)
        if not hasattr(module, name):
            # A submodule is an attribute of its package only once it has been imported.
            assert importlib.util.find_spec(f"{module_name}.{name}"), (file, module_name, name)
