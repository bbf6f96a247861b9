"""GPUs that run the kernels, plain PyTorch, or nothing."""

import logging
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from helpers.engine_cases import tiny_models
from helpers.engine_cases.engine_driver import run_until_idle

from eightfold.engine import (
    Engine,
    EngineConfig,
    ModelError,
    SamplingParams,
    UnsupportedModelError,
)
from eightfold.engine.inspection.architecture import inspect_architecture
from eightfold.engine.loading.checkpoint import read_config
from eightfold.engine.startup import device_selection
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


def test_large_checkpoints_in_bfloat16_keep_it_on_cpus_that_compute_in_it(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cpu, bytes_of = torch.device("cpu"), {"small": 1 << 29, "large": (1 << 29) + 1}
    monkeypatch.setattr(device_selection, "weight_bytes", lambda path: bytes_of[path.name])
    small, large = Path("small"), Path("large")
    for supported in (False, True):
        monkeypatch.setattr(device_selection, "cpu_has_bfloat16", lambda has=supported: has)
        kept = None if supported else torch.float32
        assert select_dtype(None, cpu, torch.bfloat16, large) is kept
        assert select_dtype(None, cpu, torch.bfloat16, small) is torch.float32
        assert select_dtype(None, cpu, torch.float16, large) is torch.float32
        assert select_dtype("float32", cpu, torch.bfloat16, large) is torch.float32
        assert select_dtype("bfloat16", cpu, torch.float32, small) is torch.bfloat16


@pytest.mark.skipif(not device_selection.cpu_has_bfloat16(), reason="the CPU has no bfloat16")
def test_an_engine_in_the_type_of_its_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny_models.build("qwen3").bfloat16().save_pretrained(tmp_path)
    for most, wanted in ((1 << 30, torch.float32), (1, torch.bfloat16)):
        monkeypatch.setattr(device_selection, "MAX_WIDENED_BYTES", most)
        engine = Engine(tmp_path, EngineConfig(device="cpu", max_context=64))
        assert engine._runner.model.dtype is wanted
        seq = engine.submit([3, 4, 5], SamplingParams(temperature=0, max_new_tokens=2))
        assert run_until_idle(engine)[seq]


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
