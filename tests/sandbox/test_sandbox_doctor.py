"""The doctor tells what a real kernel reported and what was tried on it."""

import json

import pytest

from eightfold.sandbox.doctor import doctor, main
from eightfold.sandbox.isolation.privilege_drop import PROTECTIONS


def test_every_protection_is_told_once(capsys: pytest.CaptureFixture[str]) -> None:
    rows = {row.name: row.active for row in doctor()}
    assert set(PROTECTIONS) <= set(rows)
    code = main(["--json"])
    told = json.loads(capsys.readouterr().out.strip().splitlines()[-1])
    assert {entry["name"]: entry["active"] for entry in told} == rows
    assert (code == 0) == all(rows.values())
