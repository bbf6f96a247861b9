"""Fixtures of the scheduler's tests."""

import pytest


@pytest.fixture(params=[0, 1], ids=["direct", "lookahead"])
def lookahead(request: pytest.FixtureRequest) -> int:
    return request.param
