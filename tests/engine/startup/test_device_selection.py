"""GPUs that run the kernels, plain PyTorch, or nothing."""

import logging
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from helpers.engine_cases import tiny_models

from eightfold.engine import Engine, EngineConfig, ModelError, UnsupportedModelError
from eightfold.engine.inspection.architecture import inspect_architecture
from eightfold.engine.loading.checkpoint import read_config
from eightfold.engine.startup.device_selection import (
    kernels_experience,
    select_device,
    select_dtype,
    uses_kernels,
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    tiny_models.save("gemma4", tmp_path)
    return tmp_path


def test_gpus_run_the_kernels_or_plain_pytorch(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "eightfold.engine.startup.device_selection")
    architecture = inspect_architecture(read_config(folder))
    gpu = torch.device("cuda")
    for found in ((7, 5), (8, 0), (8, 9), (9, 0), (12, 0), (13, 0)):
        runs = (8, 0) <= found < (13, 0)
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device, found=found: found)
        assert uses_kernels(gpu, EngineConfig(), architecture) is runs
        assert not uses_kernels(gpu, EngineConfig(kernels=False), architecture)
        assert select_dtype(None, gpu) is (torch.float32 if found < (8, 0) else None)
        capped = replace(architecture, softcap=True)
        assert uses_kernels(gpu, EngineConfig(), capped) is runs
        if not runs:
            with pytest.raises(UnsupportedModelError, match=r"compute capability .* at None"):
                uses_kernels(gpu, EngineConfig(kernels=True), architecture)
    assert "plain PyTorch: a GPU of compute capability 7.5" in caplog.text
    with pytest.raises(UnsupportedModelError, match="no GPU in use"):
        Engine(folder, EngineConfig(device="cpu", kernels=True))
    with pytest.raises(ValueError, match="fused layers need the GPU kernels"):
        EngineConfig(kernels=False, fused=True)


@pytest.mark.parametrize(
    ("capability", "words"),
    [
        ((9, 0), "the kernels have run on an H100 and an H200"),
        ((8, 9), "the kernels have only been compiled for compute capability 8.9, not run"),
    ],
)
def test_the_start_says_where_the_kernels_have_run(
    capability: tuple[int, int], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    assert kernels_experience(torch.device("cuda")) == words


def test_a_gpu_that_pytorch_has_no_code_for_is_reported(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise RuntimeError("CUDA error: no kernel image is available for execution on the device")

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "Tesla P100")
    monkeypatch.setattr(torch, "zeros", refuse)
    assert select_device(None).type == "cpu"
    assert "the engine runs on the CPU: this PyTorch cannot use Tesla P100" in caplog.text
    with pytest.raises(ValueError, match=r"no kernel image .*; use device='cpu'"):
        select_device("cuda")


@pytest.mark.parametrize("name", [None, "cuda"])
def test_a_gpu_without_free_memory_is_not_replaced_by_the_cpu(
    name: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise RuntimeError("CUDA error: out of memory\nCUDA kernel errors might be reported later")

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch, "zeros", refuse)
    with pytest.raises(ModelError, match="memory is taken"):
        select_device(name)
