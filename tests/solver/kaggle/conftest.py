"""Every test of the Kaggle side ends its session."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from eightfold.solver.kaggle import predict_endpoint


@pytest.fixture(autouse=True)
def _end_session() -> Iterator[None]:
    yield
    predict_endpoint.stop()
