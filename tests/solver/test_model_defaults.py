"""What the solver reads from a model folder before the model is loaded (1 s)."""

from __future__ import annotations

from pathlib import Path

import pytest

from eightfold.solver import SolverConfig, SolverError
from eightfold.solver.model_defaults import sampling_values


def test_sampling_values_come_from_the_user_then_from_the_checkpoint(tmp_path: Path) -> None:
    (tmp_path / "generation_config.json").write_text('{"top_k": 64, "temperature": 0.7}')
    values = sampling_values(tmp_path, SolverConfig(temperature=0.5))
    assert values == {"temperature": 0.5, "top_p": 1.0, "top_k": 64, "min_p": 0.0}
    (tmp_path / "generation_config.json").write_text("{")
    with pytest.raises(SolverError, match="not valid JSON"):
        sampling_values(tmp_path, SolverConfig())
