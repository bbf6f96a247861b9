"""Formats that are not loaded are recognized by file names, with the way to convert them."""

from __future__ import annotations

from pathlib import Path

import pytest

from eightfold.engine import CheckpointError
from eightfold.engine.loading.model_folder import check_model_folder
from eightfold.engine.loading.refusals.foreign_weights import explain_names

FOLDERS = [
    (["model-Q4_K_M.gguf"], ("GGUF", 'gguf_file="model-Q4_K_M.gguf"', "save_pretrained")),
    (["config.json", "README.md", "a.GGUF", "b.gguf"], ("GGUF", "AutoTokenizer")),
    (["config.json", "pytorch_model.bin"], ("no .safetensors", ".bin", "save_pretrained")),
    (["config.json", "pytorch_model-00001-of-00002.bin"], (".bin", "save_pretrained")),
    (["pytorch_model.bin.index.json"], (".bin", "save_pretrained")),
    (["adapter_config.json", "adapter_model.safetensors"], ("LoRA", "merge_and_unload")),
    (["adapter_config.json", "adapter_model.bin", "config.json"], ("LoRA", "merge_and_unload")),
    (["adapter_model.safetensors"], ("LoRA", '"BASE"')),
    (["consolidated.safetensors", "params.json", "tekken.json"], ("Mistral's own format",)),
    (["config.json", "consolidated.00.pth", "params.json"], ("Llama's original weights",)),
    (["config.json", "model-00001-of-00002.safetensors"], ("model.safetensors.index.json",)),
    (["config.json", "qwen.safetensors"], ("rename qwen.safetensors to model.safetensors",)),
    (["model.safetensors", "tokenizer.json"], ("no config.json", "copy the model's config.json")),
    (["config.json", "a.safetensors", "b.safetensors"], ("neither model.safetensors nor",)),
    (["config.json", "tf_model.h5"], ("TensorFlow",)),
    (["config.json", "flax_model.msgpack"], ("Flax",)),
    (["config.json", "model.onnx"], ("ONNX",)),
    (["config.json", "weights.pt", "training_args.bin"], ("weights.pt", "save_pretrained")),
    (["model_index.json"], ("diffusers",)),
]


@pytest.mark.parametrize(("names", "words"), FOLDERS, ids=lambda value: str(value[0]))
def test_a_folder_gets_one_sentence_that_says_how_to_convert(
    names: list[str], words: tuple[str, ...], tmp_path: Path
) -> None:
    for name in names:
        (tmp_path / name).write_text("{}")
    with pytest.raises(CheckpointError) as caught:
        check_model_folder(tmp_path)
    said = str(caught.value)
    assert said == explain_names(names, str(tmp_path))
    assert str(tmp_path) in said
    assert all(word in said for word in words)
    assert said.endswith(".")
    assert "\n" not in said
    assert ". " not in said.replace("(...). ", "")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("model-Q4.gguf", ("GGUF", 'gguf_file="model-Q4.gguf"')),
        ("model.safetensors", ("holds tensors alone", "config.json")),
        ("adapter_model.safetensors", ("LoRA",)),
        ("pytorch_model.bin", ("PyTorch", "save_pretrained")),
        ("model.tar.gz", ("archive", "unpack")),
        ("model.onnx", ("ONNX",)),
        ("notes.txt", ("is a file; give the folder",)),
        ("config.json", ("is a file; give the folder",)),
    ],
)
def test_a_single_file_gets_one_sentence(name: str, words: tuple[str, ...], tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(b"1")
    with pytest.raises(CheckpointError) as caught:
        check_model_folder(tmp_path / name)
    assert all(word in str(caught.value) for word in words)
    assert "\n" not in str(caught.value)


def test_a_file_of_a_whole_checkpoint_points_to_its_folder(tmp_path: Path) -> None:
    for name in ("config.json", "model-00001-of-00002.safetensors"):
        (tmp_path / name).write_text("{}")
    with pytest.raises(CheckpointError, match=f"give its folder, {tmp_path}"):
        check_model_folder(tmp_path / "model-00001-of-00002.safetensors")


@pytest.mark.parametrize("content", ["{}", "[", '{"base_model_name_or_path": null}', "[1]", None])
def test_an_adapter_need_not_say_what_it_adapts(content: str | None, tmp_path: Path) -> None:
    (tmp_path / "adapter_model.safetensors").touch()
    if content is not None:
        (tmp_path / "adapter_config.json").write_text(content)
    with pytest.raises(CheckpointError, match="LoRA adapter; merge"):
        check_model_folder(tmp_path)
    (tmp_path / "adapter_config.json").write_text('{"base_model_name_or_path": "org/base"}')
    with pytest.raises(CheckpointError, match=r'adapter of org/base; .*pretrained\("org/base"\)'):
        check_model_folder(tmp_path)


def test_quantizations_in_folders_of_their_own_are_recognized(tmp_path: Path) -> None:
    for name in ("Q8", "Q4"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "model.gguf").touch()
    with pytest.raises(CheckpointError, match=r'GGUF; .*gguf_file="Q4/model\.gguf"'):
        check_model_folder(tmp_path)
    assert "Q4/model.gguf" in str(explain_names(["Q8/model.gguf", "Q4/model.gguf"], "org/name"))


def test_nothing_is_guessed_from_other_files() -> None:
    assert explain_names([], "x") is None
    assert explain_names(["README.md", "notes.txt", "sub/model.bin"], "x") is None
    assert explain_names(["training_args.bin", "optimizer.pt"], "x") is None
