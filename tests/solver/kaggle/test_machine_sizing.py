"""Settings follow from the machine; inputs are found wherever they are. Five seconds."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from eightfold.solver import SolverError
from eightfold.solver.kaggle import machine_sizing, predict_endpoint
from eightfold.solver.kaggle.input_discovery import choose_model, find_inputs
from eightfold.solver.kaggle.machine_sizing import (
    GB,
    Machine,
    Weights,
    best_gpu,
    look_at_machine,
    read_weights,
    sizes_for,
)
from eightfold.solver.model_defaults import bundled_model

# Gemma-4-31B in bfloat16: 10 full layers of 4 x 512, one copy of K and V; 50 sliding ones of
# 16 x 256, 1024 wide.
LARGE = Weights(62 * GB, 10 * 4 * 512 * 2, 50 * 16 * 256 * 4 * 1024, 262_144)
SMALL = Weights(3 * GB, 28 * 2 * 128 * 4, 0, 32_768, 28 * 2 * 128 * 4)
H100 = Machine(80 * GB, 26, 230 * GB)
SMALL_GPU = Machine(24 * GB, 4, 30 * GB)
A100 = Machine(40 * GB, 12, 83 * GB)
BOX = Machine(0, 4, 30 * GB)
T4 = Machine(15 * GB, 4, 30 * GB, 7.5)
L4 = Machine(23 * GB, 12, 48 * GB, 8.9)


@pytest.mark.parametrize(
    ("machine", "weights", "device", "attempts", "kernels", "threads"),
    [
        (H100, LARGE, "cuda", 8, 16, 8),
        (H100, SMALL, "cuda", 8, 16, 8),
        (A100, Weights(25 * GB, 81_920, 300_000_000, 131_072), "cuda", 8, 16, 6),
        (SMALL_GPU, SMALL, "cuda", 8, 15, 2),
        (SMALL_GPU, Weights(18 * GB, 100_000, GB, 8192), "cuda", 1, 2, 2),
        (T4, SMALL, "cuda", 8, 15, 2),
        (T4, Weights(5 * GB, 0, 0, 8192, 80_000), "cuda", 1, 2, 2),  # in float32
        (L4, Weights(6 * GB, 0, 0, 8192, 50_000), "cuda", 8, 16, 6),
        (BOX, SMALL, "cpu", 8, 15, 4),
        (BOX, Weights(30_000_000, 8192, 0, 4096), "cpu", 8, 15, 1),
        (Machine(0, 2, 8 * GB), Weights(30_000_000, 8192, 0, 4096), "cpu", 8, 4, 1),
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


@pytest.mark.parametrize("machine", [SMALL_GPU, A100, BOX])
def test_what_does_not_fit_is_said(machine: Machine) -> None:
    with pytest.raises(SolverError, match=r"62\.0 GB do not fit"):
        sizes_for(machine, LARGE)


@pytest.mark.parametrize(
    ("listing", "mebibytes", "capability"),
    [
        ("81559, 9.0\n", 81559, 9.0),
        ("15360, 7.5\n15360, 7.5\n", 15360, 7.5),  # T4
        ("23034, 8.9\n", 23034, 8.9),  # L4
        ("16384, 6.0\n", 16384, 6.0),  # P100
        ("32607, 12.0\n81559, 9.0\n97887, 12.0\n", 81559, 9.0),
        ("32607, 12.0\n143771, 9.0\n183359, 10.0\n", 183359, 10.0),
        ("", 0, 0.0),
    ],
)
def test_a_gpu_that_runs_the_kernels_comes_first(
    listing: str, mebibytes: int, capability: float
) -> None:
    assert best_gpu(listing) == (mebibytes << 20, capability)


def test_a_gpu_whose_size_is_not_told_is_passed_over(capsys: pytest.CaptureFixture[str]) -> None:
    assert best_gpu("[N/A], 9.0\n81559, 9.0\n") == (81559 << 20, 9.0)
    assert "'[N/A], 9.0'" in capsys.readouterr().err
    assert best_gpu("No devices were found\n") == (0, 0.0)


@pytest.mark.parametrize("capability", [7.5, 12.0])
@pytest.mark.parametrize("told", [None, True])
def test_whether_pytorch_computes_on_another_gpu_is_tried(
    capability: float,
    told: bool | None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    tool = tmp_path / "nvidia-smi"
    tool.write_text(f"#!/bin/sh\necho 15360, {capability}\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    runs = torch.cuda.is_available()
    if told:
        monkeypatch.setattr(machine_sizing, "torch_runs", lambda: True)
        runs = True
    found = look_at_machine()
    assert (found.gpu, found.capability) == ((15360 << 20, capability) if runs else (0, 0.0))
    said = capsys.readouterr().err
    assert ("plain PyTorch serves on the GPU" if runs else "passed over: a GPU of") in said
    assert f"compute capability {capability:g}" in said
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert look_at_machine().gpu == 0


@pytest.fixture
def _threads(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """As many threads as before, in this process and in those it starts."""
    monkeypatch.setenv("OMP_NUM_THREADS", "")
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("_threads")
@pytest.mark.parametrize("named", [None, "3"])
def test_torch_takes_the_threads_though_it_is_there_already(
    named: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.delenv("OMP_NUM_THREADS")
    if named:
        monkeypatch.setenv("OMP_NUM_THREADS", named)
    torch.set_num_threads(2)
    predict_endpoint.configure(tmp_path)
    assert torch.get_num_threads() == (2 if named else 1)
    assert os.environ["OMP_NUM_THREADS"] == (named or "1")


@pytest.mark.usefixtures("_threads")
def test_settings_are_the_engines_and_the_models(tmp_path: Path) -> None:
    config = predict_endpoint.configure(
        tmp_path, fallback=7, problems=3
    )  # nothing there: the bundled model
    assert config.solver.model is None
    assert (config.fallback, config.problems) == (7, 3)
    engine = config.solver.engine
    assert engine is not None
    assert engine.max_running == config.solver.attempts


def test_gemma_4_31b_is_measured_as_its_reference_says(tmp_path: Path) -> None:
    text = {
        "num_hidden_layers": 60,
        "layer_types": (["sliding_attention"] * 5 + ["full_attention"]) * 10,
        "hidden_size": 5376,
        "num_attention_heads": 32,
        "num_key_value_heads": 16,
        "num_global_key_value_heads": 4,
        "head_dim": 256,
        "global_head_dim": 512,
        "attention_k_eq_v": True,
        "sliding_window": 1024,
        "max_position_embeddings": 262_144,
    }
    (tmp_path / "config.json").write_text(json.dumps({"text_config": text}))
    with open(tmp_path / "model.safetensors", "wb") as file:
        file.truncate(62_546_173_024)
    weights = read_weights(tmp_path)
    assert (weights.token, weights.sequence) == (40_960, 838_860_800)
    sizes = sizes_for(Machine(81_559 << 20, 26, 230 * GB), weights)
    assert (sizes.attempts, sizes.early_stop, sizes.max_context) == (8, 4, 65_536)
    (tmp_path / "config.json").write_text(json.dumps({**text, "enable_moe_block": True}))
    assert read_weights(tmp_path).token == 2 * 40_960


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
    assert "do not fit" in choose_model(SMALL_GPU, (large,)).passed[0]
    assert choose_model(SMALL_GPU, (large,)).model is None


def test_what_the_engine_would_refuse_is_passed_over(tmp_path: Path) -> None:
    good = checkpoint(tmp_path / "good", 10**6)
    picture = checkpoint(tmp_path / "picture", 10**8)
    (picture / "config.json").write_text('{"architectures": ["ViTModel"], "hidden_size": 8}')
    packed = checkpoint(tmp_path / "packed", 10**7)
    (packed / "config.json").write_text('{"hidden_size": 8, "quantization_config": {}}')
    other = checkpoint(tmp_path / "other", 10**7)
    (other / "model.safetensors").rename(other / "pytorch_model.bin")
    choice = choose_model(H100, find_inputs(tmp_path).models)
    assert choice.model == good
    said = dict(zip(sorted((other, packed, picture)), choice.passed, strict=True))
    assert "no .safetensors" in said[other]
    assert "quantized" in said[packed]
    assert "ViTModel" in said[picture]


def test_folders_that_only_look_like_a_model_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "packed").mkdir()
    (tmp_path / "packed" / "model-Q4.gguf").write_bytes(b"GGUF")  # brings no config.json
    odd = checkpoint(tmp_path / "odd", 10**6)
    (odd / "config.json").write_text('{"text_config": [1]}')
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "table.bin").write_bytes(b"0")
    models = find_inputs(tmp_path).models
    choice = choose_model(H100, models)
    assert choice.model is None
    broken, packed = choice.passed
    assert broken.startswith(f"{odd}: ")
    assert packed.startswith(str(tmp_path / "packed"))
    assert "no config.json" in packed

    def none() -> Path:
        raise SolverError("none is bundled")

    monkeypatch.setattr(
        "eightfold.solver.kaggle.input_discovery.bundled_model", none
    )  # --model-less
    with pytest.raises(SolverError, match=r"add one .*Candidates: .*packed"):
        choose_model(H100, models)


@pytest.mark.parametrize("capability", [6.0, 8.6, 9.0])
def test_a_gpu_too_small_for_the_bundled_model_leaves_the_cpu(capability: float) -> None:
    choice = choose_model(Machine(GB, 4, 16 * GB, capability), ())
    assert (choice.model, choice.sizes) == (None, choose_model(Machine(0, 4, 16 * GB), ()).sizes)
    assert "do not fit a GPU" in choice.passed[0]


def test_the_test_file_is_the_one_beside_the_server(tmp_path: Path) -> None:
    (tmp_path / "test.csv").write_text("other\n1\n")
    data = tmp_path / "competitions" / "aimo"
    (data / "kaggle_evaluation").mkdir(parents=True)
    (data / "test.csv").write_text("id,problem\n1,x\n")
    assert find_inputs(tmp_path).test_file() == data / "test.csv"


def test_without_a_test_file_the_candidates_are_listed(tmp_path: Path) -> None:
    (tmp_path / "reference.csv").write_text("id\n")
    (tmp_path / "test.csv.gz").write_bytes(b"\x1f\x8b")
    with pytest.raises(SolverError, match=r"unpacked.*: reference\.csv, test\.csv\.gz"):
        find_inputs(tmp_path).test_file()
    with pytest.raises(SolverError, match="no input folder"):
        find_inputs(tmp_path / "none")


def test_the_bundled_model_is_read() -> None:
    weights = read_weights(bundled_model())
    assert 10**7 < weights.size < 10**8
    assert weights.token > 0
