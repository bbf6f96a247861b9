"""What wrong folders, checkpoints, settings and requests get: one sentence each."""

import json
import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import tiny_models
from safetensors.torch import load_file, save_file

from eightfold.engine import (
    CheckpointError,
    Engine,
    EngineConfig,
    ModelError,
    SamplingParams,
    UnsupportedModelError,
)
from eightfold.engine.inspection.architecture import inspect
from eightfold.engine.loading.checkpoint import read_config
from eightfold.engine.startup.device_selection import by_kernels, device_named, dtype_for


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    tiny_models.save("gemma4", tmp_path)
    return tmp_path


def one_sentence(error: pytest.ExceptionInfo[Exception]) -> str:
    text = str(error.value)
    assert "\n" not in text
    assert len(text) < 400
    return text


def test_folders_that_are_no_model(folder: Path, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    for path, words in ((tmp_path / "none", "no model folder"), (empty, "no config.json")):
        with pytest.raises(CheckpointError, match=words) as error:
            Engine(path)
        one_sentence(error)
    (folder / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match="no weights"):
        Engine(folder)
    (folder / "model.safetensors").write_bytes(b"")
    for text, words in (
        ("{", r"config\.json is not valid JSON"),
        ('{"model_type": "none"}', r"config\.json cannot be used"),
    ):
        (folder / "config.json").write_text(text)
        with pytest.raises(CheckpointError, match=words) as error:
            Engine(folder)
        one_sentence(error)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("missing", r"missing tensors: model\.layers\.2\.mlp\.up_proj\.weight"),
        ("unexpected", r"unexpected tensors: model\.layers\.9\.extra"),
        ("shape", r"wrong shape: model\.layers\.2\.mlp\.up_proj\.weight is \(3, 3\)"),
        ("truncated", "cannot be loaded"),
    ],
)
def test_broken_checkpoints_name_the_tensor(folder: Path, change: str, words: str) -> None:
    file = folder / "model.safetensors"
    tensors = load_file(file)
    name = "model.layers.2.mlp.up_proj.weight"
    if change == "missing":
        del tensors[name]
    elif change == "unexpected":
        tensors["model.layers.9.extra"] = torch.zeros(2)
    elif change == "shape":
        tensors[name] = torch.zeros(3, 3)
    save_file(tensors, file, metadata={"format": "pt"})
    if change == "truncated":
        file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(CheckpointError, match=words) as error:
        Engine(folder)
    one_sentence(error)


def test_missing_shard_is_named(tmp_path: Path) -> None:
    tiny_models.build("gemma4").save_pretrained(tmp_path, max_shard_size="20KB")
    shards = sorted(tmp_path.glob("model-*.safetensors"))
    assert len(shards) > 2
    shards[1].unlink()
    with pytest.raises(CheckpointError, match=shards[1].name) as error:
        Engine(tmp_path)
    one_sentence(error)


def test_quantized_checkpoints_are_refused(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    config["quantization_config"] = {"quant_method": "fp8"}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(UnsupportedModelError, match="quantized"):
        Engine(folder)


def test_layer_shapes_of_gemma4() -> None:
    layers = inspect(tiny_models.build("gemma4").config).layers
    assert [layer.window for layer in layers] == [tiny_models.WINDOW] * 5 + [None]
    assert [(layer.kv_heads, layer.head_dim) for layer in layers] == [(2, 8)] * 5 + [(1, 16)]
    shared = inspect(tiny_models.build("gemma4_e2b").config).layers
    assert [layer.source for layer in shared] == [0, 1, 2, 3, 2, 3]


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
def test_engine_settings_out_of_range(changes: dict) -> None:
    with pytest.raises(ValueError, match=next(iter(changes))):
        EngineConfig(**changes)


@pytest.mark.parametrize(
    "changes",
    [
        {"temperature": -1.0},
        {"temperature": float("nan")},
        {"top_k": -1},
        {"top_p": 0.0},
        {"top_p": 1.1},
        {"min_p": -0.1},
        {"seed": -1},
        {"seed": 2**64},
        {"max_new_tokens": 0},
        {"max_new_tokens": 2.5},
        {"temperature": 1e-9},
        {"temperature": "hot"},
        {"temperature": None},
        {"top_k": 5.0},
        {"seed": None},
        {"pause_token_ids": 5},
        {"pause_token_ids": (5, "6")},
        {"stop_token_ids": (1.0,)},
    ],
    ids=str,
)
def test_sampling_settings_out_of_range(changes: dict) -> None:
    with pytest.raises(ValueError, match=next(iter(changes))):
        SamplingParams(**changes)


def test_a_token_cannot_pause_and_stop() -> None:
    with pytest.raises(ValueError, match="pause and as stop"):
        SamplingParams(pause_token_ids=(5,), stop_token_ids=(5, 6))


def test_devices_and_memory(folder: Path) -> None:
    with pytest.raises(ValueError, match="not a device"):
        Engine(folder, EngineConfig(device="tpux"))
    if not torch.cuda.is_available():
        with pytest.raises(ValueError, match="no CUDA device"):
            Engine(folder, EngineConfig(device="cuda"))
    with pytest.raises(ModelError, match="GiB are free for the KV cache"):
        Engine(folder, EngineConfig(memory_fraction=1e-9))
    with pytest.raises(ModelError, match="lower max_step_tokens"):
        Engine(folder, EngineConfig(sliding_pages=4))


def test_prompts_beyond_the_context_or_the_vocabulary(folder: Path) -> None:
    engine = Engine(folder, EngineConfig(max_context=32))
    assert engine.max_context == 32
    with pytest.raises(ValueError, match="needs room for 41"):
        engine.submit([3] * 40)
    with pytest.raises(ValueError, match="token 128 is not in the vocabulary"):
        engine.submit([3, 128])
    with pytest.raises(ValueError, match="token -1"):
        engine.submit([-1])
    for tokens in ([3.0], ["3"], [None], 7):
        with pytest.raises(ValueError, match="must be whole numbers"):
            engine.submit(tokens)  # type: ignore[arg-type]
    assert not engine.has_work()


def test_token_ids_of_numpy_and_torch_are_taken(folder: Path) -> None:
    engine = Engine(folder, EngineConfig(max_context=64, page_size=4))
    params = SamplingParams(temperature=0, max_new_tokens=3)
    lists: list[Any] = [list(range(3, 20)), np.arange(3, 20), torch.arange(3, 20)]
    seqs = [engine.submit(tokens, params) for tokens in lists]
    drawn: dict[int, list[int]] = {seq: [] for seq in seqs}
    while engine.has_work():
        for event in engine.step():
            drawn[event.seq] += event.tokens
        engine.check()
    assert drawn[seqs[0]] == drawn[seqs[1]] == drawn[seqs[2]]


def test_a_fork_with_a_wrong_seed_makes_no_sequence(folder: Path) -> None:
    engine = Engine(folder, EngineConfig(max_context=64))
    seq = engine.submit([3, 4], SamplingParams(max_new_tokens=2))
    for seeds, words in (([1], "3 forks need 3 seeds"), ([1, 2, -1], "seed must be in")):
        with pytest.raises(ValueError, match=words):
            engine.fork(seq, 3, seeds)
    ended = set()
    while engine.has_work():
        ended |= {event.seq for event in engine.step()}
    assert ended == {seq}


def test_settings_that_a_model_already_made_does_not_have_are_refused() -> None:
    model = tiny_models.build("llama")
    with pytest.raises(ValueError, match=r"the model is in torch\.float32, but dtype says"):
        Engine(model, EngineConfig(dtype="bfloat16"))
    with pytest.raises(ValueError, match="the model is on cpu, but device says 'cuda'"):
        Engine(model, EngineConfig(device="cuda"))
    model.train()
    engine = Engine(model, EngineConfig(device="cpu", dtype="float32"))
    assert not engine._runner.model.training, "dropout would be asked for"


def test_gpus_run_the_kernels_or_plain_pytorch(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "eightfold.engine.startup.device_selection")
    architecture = inspect(read_config(folder))
    gpu = torch.device("cuda")
    for found, runs in (((7, 5), False), ((8, 9), False), ((9, 0), True), ((12, 0), False)):
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device, found=found: found)
        assert by_kernels(gpu, EngineConfig(), architecture) is runs
        assert not by_kernels(gpu, EngineConfig(kernels=False), architecture)
        assert dtype_for(None, gpu) is (torch.float32 if found < (8, 0) else None)
        capped = replace(architecture, softcap=True)
        assert not by_kernels(gpu, EngineConfig(), capped)
        with pytest.raises(UnsupportedModelError, match="caps its attention scores"):
            by_kernels(gpu, EngineConfig(kernels=True), capped)
        if not runs:
            with pytest.raises(UnsupportedModelError, match=r"compute capability .* at None"):
                by_kernels(gpu, EngineConfig(kernels=True), architecture)
    assert "plain PyTorch: a GPU of compute capability 8.9" in caplog.text
    with pytest.raises(UnsupportedModelError, match="no GPU in use"):
        Engine(folder, EngineConfig(device="cpu", kernels=True))
    with pytest.raises(ValueError, match="fused layers need kernels"):
        EngineConfig(kernels=False, fused=True)


def test_a_gpu_that_this_pytorch_has_no_code_for_is_told(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise RuntimeError("CUDA error: no kernel image is available for execution on the device")

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "Tesla P100")
    monkeypatch.setattr(torch, "zeros", refuse)
    assert device_named(None).type == "cpu"
    assert "the engine runs on the CPU: this PyTorch cannot use Tesla P100" in caplog.text
    with pytest.raises(ValueError, match=r"no kernel image .*; use device='cpu'"):
        device_named("cuda")


@pytest.mark.parametrize("name", [None, "cuda"])
def test_a_gpu_whose_memory_is_taken_is_not_left_for_the_cpu(
    name: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise RuntimeError("CUDA error: out of memory\nCUDA kernel errors might be reported later")

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch, "zeros", refuse)
    with pytest.raises(ModelError, match="memory is taken"):
        device_named(name)
