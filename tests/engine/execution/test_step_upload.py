"""The upload of a step's arrays: their values and places, whatever was uploaded before."""

import numpy as np
import pytest
import torch

from eightfold.engine.execution.step_upload import StepUpload, packed_bytes

CPU = torch.device("cpu")


def step(number: int, rows: int) -> dict[str, np.ndarray]:
    """Return arrays of each type; one of them is not contiguous."""
    return {
        "tokens": np.arange(rows, dtype=np.int32) + number,
        "pairs": (np.arange(2 * rows, dtype=np.int32) * number).reshape(2, rows).T,
        "seeds": np.arange(rows, dtype=np.int64) << 40,
        "temperature": np.full(rows, number / 8, dtype=np.float32),
    }


def test_every_step_arrives_as_it_was_given() -> None:
    upload = StepUpload(CPU, packed_bytes(step(0, 9)))
    for number, rows in enumerate((9, 9, 9, 9, 3, 3, 9, 5, 5, 5, 5, 9)):
        arrays = step(number, rows)
        views = upload(arrays)
        for name, array in arrays.items():
            assert np.array_equal(views[name].numpy(), array), name


def test_a_captured_graph_finds_the_next_step_at_the_same_addresses() -> None:
    upload = StepUpload(CPU, packed_bytes(step(0, 6)))
    views = upload(step(1, 6))
    for number in range(2, 8):
        upload.copy(step(number, 6))
        for name, array in step(number, 6).items():
            assert np.array_equal(views[name].numpy(), array), name
            assert views[name].data_ptr() % 16 == 0


def test_too_many_bytes_are_refused_and_change_nothing() -> None:
    upload = StepUpload(CPU, packed_bytes(step(0, 4)))
    views = upload(step(1, 4))
    with pytest.raises(ValueError, match="do not fit"):
        upload.copy(step(2, 40))
    assert views["tokens"].tolist() == [1, 2, 3, 4]
    assert upload(step(3, 4))["tokens"].tolist() == [3, 4, 5, 6]
