"""The doctor reports what a real kernel says of itself and what was tried on it. About 2 s."""

import json

import pytest

from eightfold.sandbox.doctor import main
from eightfold.sandbox.isolation.privilege_drop import PROTECTIONS


def test_every_protection_is_reported_once(capsys: pytest.CaptureFixture[str]) -> None:
    code = main(["--json"])
    *table, last = capsys.readouterr().out.strip().splitlines()
    checks = {check["name"]: check for check in json.loads(last)}
    assert set(PROTECTIONS) <= set(checks)
    assert len(table) == len(checks) == len(json.loads(last))
    assert (code == 0) == all(
        check["active"] and check["tried"] != "broken" for check in checks.values()
    )
    for name, check in checks.items():
        assert check["by"]
        assert not check["active"] or check["tried"] != "broken", name
    assert "all together: " in checks["limits"]["by"]
