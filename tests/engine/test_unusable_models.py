"""Folders and checkpoints that the engine cannot use get one sentence each."""

import json
from pathlib import Path

import pytest
import torch
from helpers.engine_cases import tiny_models
from safetensors.torch import load_file, save_file

from eightfold.engine import (
    CheckpointError,
    Engine,
    EngineConfig,
    ModelError,
    UnsupportedModelError,
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    tiny_models.save("gemma4", tmp_path)
    return tmp_path


def one_sentence(error: pytest.ExceptionInfo[Exception]) -> str:
    text = str(error.value)
    assert "\n" not in text
    assert len(text) < 400
    return text


def test_folders_without_a_model_are_refused(folder: Path, tmp_path: Path) -> None:
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
        ('{"model_type": "llama", "num_attention_heads": 0}', r"config\.json cannot be used"),
        ('{"model_type": "llama", "text_config": 5}', "text_config of this llama model is not"),
    ):
        (folder / "config.json").write_text(text)
        with pytest.raises(ModelError, match=words) as error:
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


def test_a_missing_shard_is_named(tmp_path: Path) -> None:
    tiny_models.build("gemma4").save_pretrained(tmp_path, max_shard_size="20KB")
    shards = sorted(tmp_path.glob("model-*.safetensors"))
    assert len(shards) > 2
    shards[1].unlink()
    with pytest.raises(CheckpointError, match=shards[1].name) as error:
        Engine(tmp_path)
    one_sentence(error)


def test_quantized_checkpoints_are_refused(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    config["quantization_config"] = {"quant_method": "bitsandbytes"}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(UnsupportedModelError, match="quantized"):
        Engine(folder)


def test_devices_and_memory_that_do_not_suffice_are_refused(folder: Path) -> None:
    with pytest.raises(ValueError, match="not a device"):
        Engine(folder, EngineConfig(device="tpux"))
    if not torch.cuda.is_available():
        with pytest.raises(ValueError, match="no CUDA device"):
            Engine(folder, EngineConfig(device="cuda"))
    with pytest.raises(ModelError, match="GiB are free for the KV cache"):
        Engine(folder, EngineConfig(memory_fraction=1e-9))
    with pytest.raises(ModelError, match="lower max_step_tokens"):
        Engine(folder, EngineConfig(sliding_pages=4))


def test_settings_that_contradict_an_existing_model_are_refused() -> None:
    model = tiny_models.build("llama")
    with pytest.raises(ValueError, match=r"The model is in torch\.float32, but dtype says"):
        Engine(model, EngineConfig(dtype="bfloat16"))
    with pytest.raises(ValueError, match="The model is on cpu, but device says 'cuda'"):
        Engine(model, EngineConfig(device="cuda"))
    model.train()
    engine = Engine(model, EngineConfig(device="cpu", dtype="float32"))
    assert not engine._runner.model.training, "dropout would be active"
