"""Engine settings with a wrong type or value are refused."""

import pytest

from eightfold.engine import EngineConfig


@pytest.mark.parametrize(
    "changes",
    [
        {"dtype": "int8"},
        {"page_size": 12},
        {"max_running": 0},
        {"max_step_tokens": 4, "max_running": 8},
        {"full_pages": 1},
        {"memory_fraction": 1.5},
        {"memory_fraction": 0.0},
        {"offload_bytes": -1},
        {"lookahead": 2},
        {"lookahead": True},
        {"max_running": 4.0},
        {"max_context": "64"},
        {"page_size": 16.0},
    ],
    ids=str,
)
def test_settings_out_of_range_are_refused(changes: dict) -> None:
    with pytest.raises(ValueError, match=next(iter(changes))):
        EngineConfig(**changes)
