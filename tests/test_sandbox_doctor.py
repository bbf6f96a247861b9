"""The doctor tells what a real kernel reported, nothing else."""

import json

import pytest

from eightfold.sandbox.doctor import doctor, main
from eightfold.sandbox.isolation import PROTECTIONS


def test_every_protection_is_told_once(capsys: pytest.CaptureFixture[str]) -> None:
    findings = doctor()
    assert [finding.name for finding in findings] == list(PROTECTIONS)
    assert all(finding.detail for finding in findings)
    code = main(["--json"])
    told = json.loads(capsys.readouterr().out)
    assert {name: entry["active"] for name, entry in told.items()} == {
        finding.name: finding.active for finding in findings
    }
    assert code == (0 if all(finding.active for finding in findings) else 1)
