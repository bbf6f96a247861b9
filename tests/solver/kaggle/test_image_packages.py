"""A bundle holds the wheels that an image lacks, or has in unsuitable versions (1 s)."""

from __future__ import annotations

from pathlib import Path
from zipfile import ZipFile

import pytest

from eightfold.solver.kaggle.image_packages import unneeded_wheels, wheel_name


@pytest.mark.parametrize(
    ("image", "needed"),
    [
        ({}, "eightfold a b c"),
        ({"eightfold": "2", "a": "2", "b": "1", "c": "1"}, "eightfold"),
        ({"a": "2", "b": "1", "c": "1"}, "eightfold"),
        ({"a": "1", "b": "1", "c": "1"}, "eightfold a"),
        ({"a": "1", "c": "1"}, "eightfold a b"),
        ({"a": "2", "c": "1"}, "eightfold b"),
        ({"a": "2", "b": "0.9", "c": "0.9"}, "eightfold"),
        ({"a": "2", "c": "0.9"}, "eightfold b c"),
        ({"a": "2.0.dev1+here", "b": "0", "c": "0"}, "eightfold a"),
        ({"a": "unknown", "b": "1", "c": "1"}, "eightfold a"),
    ],
)
def test_what_the_image_has_in_versions_that_will_do_is_unneeded_wheels(
    image: dict[str, str], needed: str, tmp_path: Path
) -> None:
    requires = {"eightfold": ["a>=2", "torch>=2"], "a": ["b"], "b": ["c>=1", "other"], "c": ["a"]}
    for name, lines in {**requires, "torch": []}.items():
        with ZipFile(tmp_path / f"{name}-2-py3-none-any.whl", "w") as wheel:
            text = "".join(f"Requires-Dist: {line}\n" for line in lines)
            wheel.writestr(f"{name}-2.dist-info/METADATA", f"Name: {name}\n{text}")
    unneeded = {wheel_name(wheel) for wheel in unneeded_wheels(tmp_path, image)}
    assert {*requires, "torch"} - unneeded == set(needed.split())
