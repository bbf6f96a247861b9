"""Settings follow from the machine; inputs are found wherever they are. A second."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from eightfold.solver import SolverError
from eightfold.solver.checkpoint import bundled_model
from eightfold.solver.inputs import choose_model, find_inputs
from eightfold.solver.machine import (
    GB,
    Machine,
    Weights,
    look_at_machine,
    read_weights,
    sizes_for,
)

# Gemma-4-31B in bfloat16: 10 full layers of 4 x 512, one copy of K and V; 50 sliding ones of
# 16 x 256, 1024 wide.
LARGE = Weights(62 * GB, 10 * 4 * 512 * 2, 50 * 16 * 256 * 4 * 1024, 262_144)
SMALL = Weights(3 * GB, 28 * 2 * 128 * 4, 0, 32_768)
H100 = Machine(80 * GB, 26, 230 * GB)
T4 = Machine(16 * GB, 4, 30 * GB)
BOX = Machine(0, 4, 30 * GB)


@pytest.mark.parametrize(
    ("machine", "weights", "device", "attempts", "kernels", "threads"),
    [
        (H100, LARGE, "cuda", 8, 16, 8),
        (H100, SMALL, "cuda", 8, 16, 8),
        (T4, SMALL, "cuda", 8, 15, 2),
        (T4, Weights(11 * GB, 100_000, GB, 8192), "cuda", 1, 2, 2),
        (BOX, Weights(30_000_000, 8192, 0, 4096), "cpu", 8, 15, 4),
        (Machine(0, 2, 4 * GB), Weights(30_000_000, 8192, 0, 4096), "cpu", 8, 2, 2),
    ],
)
def test_sizes(
    machine: Machine, weights: Weights, device: str, attempts: int, kernels: int, threads: int
) -> None:
    sizes = sizes_for(machine, weights)
    found = (sizes.device, sizes.attempts, sizes.kernels, sizes.threads)
    assert found == (device, attempts, kernels, threads)
    assert 1 <= sizes.early_stop <= sizes.attempts
    if sizes.max_context is not None:
        assert 8192 <= sizes.max_context <= min(65_536, weights.context)


@pytest.mark.parametrize("machine", [T4, BOX])
def test_what_does_not_fit_is_said(machine: Machine) -> None:
    with pytest.raises(SolverError, match=r"62\.0 GB do not fit"):
        sizes_for(machine, LARGE)


def test_this_machine() -> None:
    machine = look_at_machine()
    assert machine.cpus >= 1
    assert machine.ram > GB // 2


def checkpoint(folder: Path, size: int) -> Path:
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({"num_hidden_layers": 2, "hidden_size": 8}))
    with open(folder / "model.safetensors", "wb") as file:
        file.truncate(size)  # sparse: only its length is read
    (folder / "tokenizer.json").write_text("{}")
    return folder


def test_inputs_are_found_and_the_largest_that_fits_is_taken(tmp_path: Path) -> None:
    data = tmp_path / "competitions" / "aimo"
    (data / "kaggle_evaluation").mkdir(parents=True)
    (data / "test.csv").write_text("id,problem\n1,x\n")
    small = checkpoint(tmp_path / "models" / "owner" / "small" / "1", 10**6)
    large = checkpoint(tmp_path / "models" / "owner" / "large" / "1", 62 * GB)
    (tmp_path / "loop").symlink_to(tmp_path)
    inputs = find_inputs(tmp_path)
    assert inputs.test_file().samefile(data / "test.csv")
    assert {path.resolve() for path in inputs.models} == {small, large}
    assert [path.resolve() for path in inputs.servers] == [data]
    assert choose_model(BOX, inputs.models).model == small
    assert choose_model(H100, inputs.models).model == large
    assert "do not fit" in choose_model(T4, (large,)).passed[0]
    assert choose_model(T4, (large,)).model is None


def test_without_a_test_file_the_candidates_are_listed(tmp_path: Path) -> None:
    (tmp_path / "reference.csv").write_text("id\n")
    with pytest.raises(SolverError, match=r"reference\.csv"):
        find_inputs(tmp_path).test_file()
    with pytest.raises(SolverError, match="no input folder"):
        find_inputs(tmp_path / "none")


def test_the_bundled_model_is_read() -> None:
    weights = read_weights(bundled_model())
    assert 10**7 < weights.size < 10**8
    assert weights.token > 0
