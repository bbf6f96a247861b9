"""The public names of ``eightfold.kernels``, which are imported on first use."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from eightfold import kernels

pytest.importorskip("triton")


def test_names_are_imported_on_first_use() -> None:
    code = """
import sys
import eightfold.kernels as kernels
assert not {"torch", "triton"} & set(sys.modules)
assert kernels.is_supported(9.0)
assert not {"torch", "triton"} & set(sys.modules)
kernels.paged_decode
assert {"torch", "triton"} <= set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


@pytest.mark.parametrize("name", kernels.__all__)
def test_names_exist(name: str) -> None:
    assert getattr(kernels, name).__name__ == name


def test_lists_of_names_agree() -> None:
    assert dir(kernels) == kernels.__all__ == sorted(kernels._MODULE_OF_NAME)
    tree = ast.parse(Path(kernels.__file__).read_text())
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.level]
    assert {
        node.module: tuple(alias.name for alias in node.names) for node in imports
    } == kernels._NAMES_OF_MODULE


def test_unknown_names_are_refused() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'paged_encode'"):
        kernels.paged_encode  # noqa: B018
    with pytest.raises(ImportError, match="paged_encode"):
        exec("from eightfold.kernels import paged_encode")
