"""Settings follow from the machine and the checkpoint. About 5 s."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from helpers.engine_cases.gpt_oss_checkpoints import save_gpt_oss, stored_tensors

from eightfold.engine import CheckpointError
from eightfold.solver import SolverError
from eightfold.solver.kaggle import predict_endpoint
from eightfold.solver.kaggle.machine_detection import Machine
from eightfold.solver.kaggle.machine_sizing import (
    BFLOAT16_BYTES,
    GB,
    CheckpointSize,
    choose_sizes,
    read_checkpoint_size,
)
from eightfold.solver.model_defaults import bundled_model

# Gemma-4-31B in bfloat16: 10 full layers of 4 x 512, one copy of K and V; 50 sliding ones of
# 16 x 256, 1024 wide.
LARGE = CheckpointSize(62 * GB, 10 * 4 * 512 * 2, 50 * 16 * 256 * 4 * 1024, 262_144)
SMALL = CheckpointSize(3 * GB, 28 * 2 * 128 * 4, 0, 32_768, 28 * 2 * 128 * 4)
H100 = Machine(80 * GB, 26, 230 * GB)
SMALL_GPU = Machine(24 * GB, 4, 30 * GB)
A100 = Machine(40 * GB, 12, 83 * GB)
WITHOUT_GPU = Machine(0, 4, 30 * GB)
T4 = Machine(15 * GB, 4, 30 * GB, 7.5)
L4 = Machine(23 * GB, 12, 48 * GB, 8.9)


@pytest.mark.parametrize(
    ("machine", "checkpoint", "device", "attempts", "kernels", "threads"),
    [
        (H100, LARGE, "cuda", 8, 16, 8),
        (H100, SMALL, "cuda", 8, 16, 8),
        (A100, CheckpointSize(25 * GB, 81_920, 300_000_000, 131_072), "cuda", 8, 16, 6),
        (SMALL_GPU, SMALL, "cuda", 8, 15, 2),
        (SMALL_GPU, CheckpointSize(18 * GB, 100_000, GB, 8192), "cuda", 1, 2, 2),
        (T4, SMALL, "cuda", 8, 15, 2),
        (T4, CheckpointSize(5 * GB, 0, 0, 8192, 80_000), "cuda", 1, 2, 2),  # in float32
        (L4, CheckpointSize(6 * GB, 0, 0, 8192, 50_000), "cuda", 8, 16, 6),
        (WITHOUT_GPU, SMALL, "cpu", 8, 15, 4),
        (WITHOUT_GPU, CheckpointSize(30_000_000, 8192, 0, 4096), "cpu", 8, 15, 1),
        (Machine(0, 2, 8 * GB), CheckpointSize(30_000_000, 8192, 0, 4096), "cpu", 8, 4, 1),
    ],
)
def test_sizes(
    machine: Machine,
    checkpoint: CheckpointSize,
    device: str,
    attempts: int,
    kernels: int,
    threads: int,
) -> None:
    sizes = choose_sizes(machine, checkpoint)
    found = (sizes.device, sizes.attempts, sizes.kernels, sizes.threads)
    assert found == (device, attempts, kernels, threads)
    assert 1 <= sizes.early_stop <= sizes.attempts
    if sizes.max_context is not None:
        assert 8192 <= sizes.max_context <= min(65_536, checkpoint.max_positions)


@pytest.mark.parametrize("machine", [SMALL_GPU, A100, WITHOUT_GPU])
def test_a_checkpoint_that_does_not_fit_is_refused(machine: Machine) -> None:
    with pytest.raises(SolverError, match=r"62\.0 GB do not fit"):
        choose_sizes(machine, LARGE)


@pytest.fixture
def _threads(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Restore the number of threads, in this process and in those that it starts."""
    monkeypatch.setenv("OMP_NUM_THREADS", "")
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("_threads")
@pytest.mark.parametrize("named", [None, "3"])
def test_torch_gets_its_threads_even_if_it_is_already_imported(
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
def test_settings_follow_from_the_bundled_model(tmp_path: Path) -> None:
    config = predict_endpoint.configure(
        tmp_path, fallback=7, problems=3
    )  # no model there: the bundled one
    assert config.solver.model is None
    assert (config.fallback, config.problems) == (7, 3)
    engine = config.solver.engine
    assert engine is not None
    assert engine.max_running == config.solver.attempts


def test_sizes_of_gemma_4_31b(tmp_path: Path) -> None:
    text = {
        "model_type": "gemma4_text",
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
    checkpoint = read_checkpoint_size(tmp_path)
    assert (checkpoint.kv_bytes_per_token, checkpoint.window_bytes_per_sequence) == (
        40_960,
        838_860_800,
    )
    sizes = choose_sizes(Machine(81_559 << 20, 26, 230 * GB), checkpoint)
    assert (sizes.attempts, sizes.early_stop, sizes.max_context) == (8, 4, 65_536)
    (tmp_path / "config.json").write_text(json.dumps({**text, "hidden_activation": "relu"}))
    assert read_checkpoint_size(tmp_path).kv_bytes_per_token == 2 * 40_960


# gpt-oss-120b: 18 full layers and 18 with a window of 128, each of 8 x 64 twice; experts in MXFP4.
GPT_OSS_120B = CheckpointSize(
    65 * GB, 18 * 8 * 64 * 4, 18 * 8 * 64 * 4 * 128, 131_072, 18 * 8 * 64 * 4, 61 * GB
)


def test_mxfp4_takes_its_stored_size() -> None:
    sizes = choose_sizes(Machine(81_559 << 20, 26, 230 * GB), GPT_OSS_120B)
    assert (sizes.attempts, sizes.max_context) == (8, 65_536)
    # What is not quantized takes twice its bytes in float32, the experts do not.
    assert GPT_OSS_120B.loaded_bytes(2) == 69 * GB
    assert choose_sizes(Machine(0, 16, 140 * GB), GPT_OSS_120B).device == "cpu"
    with pytest.raises(SolverError, match=r"65\.0 GB do not fit"):
        choose_sizes(Machine(0, 16, 130 * GB), GPT_OSS_120B)
    assert choose_sizes(Machine(80 * GB, 8, 99 * GB, 7.5), GPT_OSS_120B).attempts == 8
    with pytest.raises(SolverError, match=r"65\.0 GB do not fit a GPU with 48"):
        choose_sizes(Machine(48 * GB, 8, 99 * GB), GPT_OSS_120B)


def test_only_the_files_that_are_read_count(tmp_path: Path) -> None:
    model = save_gpt_oss(tmp_path, mxfp4=True, shards=2)
    stored = stored_tensors(model, mxfp4=True)
    for copy in ("original", "metal"):
        (tmp_path / copy).mkdir()
        (tmp_path / copy / "model.safetensors").write_bytes(bytes(10**6))
        (tmp_path / copy / "model.bin").write_bytes(bytes(10**6))
    checkpoint = read_checkpoint_size(tmp_path)
    assert checkpoint.quantized_bytes == sum(
        tensor.nbytes for tensor in stored.values() if tensor.dtype == torch.uint8
    )
    weights = sum(tensor.nbytes for tensor in stored.values())
    assert weights < checkpoint.weight_bytes < weights + 20_000, "the headers alone come on top"
    assert checkpoint.loaded_bytes(1) == checkpoint.weight_bytes
    assert checkpoint.kv_bytes_per_token == 2 * 2 * 16 * 2 * BFLOAT16_BYTES
    (tmp_path / "model-00002-of-00002.safetensors").write_bytes(b"x")
    with pytest.raises(CheckpointError, match="has no header"):
        read_checkpoint_size(tmp_path)


def test_the_bundled_model_is_read() -> None:
    checkpoint = read_checkpoint_size(bundled_model())
    assert 10**7 < checkpoint.weight_bytes < 10**8
    assert checkpoint.kv_bytes_per_token > 0
