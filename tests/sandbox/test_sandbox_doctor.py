"""The doctor reports what a real kernel says of itself and what was tried on it. About 3 s."""

import json

import pytest

from eightfold.sandbox.doctor import doctor, main
from eightfold.sandbox.isolation.privilege_drop import PROTECTIONS


def test_every_protection_is_reported_once(capsys: pytest.CaptureFixture[str]) -> None:
    active = {check.name: check.active for check in doctor()}
    assert set(PROTECTIONS) <= set(active)
    code = main(["--json"])
    printed = json.loads(capsys.readouterr().out.strip().splitlines()[-1])
    assert {entry["name"]: entry["active"] for entry in printed} == active
    assert (code == 0) == all(active.values())
