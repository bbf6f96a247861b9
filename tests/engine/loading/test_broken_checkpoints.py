"""Broken checkpoints are reported in one sentence before anything is allocated."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from helpers.engine_cases import tiny_models
from helpers.engine_cases.checkpoint_loading import load_checkpoint
from safetensors.torch import load_file, save_file

from eightfold.engine import CheckpointError


def with_header(**changes: object) -> Callable[[bytes], bytes]:
    """Return a function that changes the header's entry for model.norm.weight in a file."""

    def change(raw: bytes) -> bytes:
        length = int.from_bytes(raw[:8], "little")
        header = json.loads(raw[8 : 8 + length])
        header["model.norm.weight"] |= changes
        text = json.dumps(header).encode()
        return len(text).to_bytes(8, "little") + text + raw[8 + length :]

    return change


def header_only(text: bytes) -> Callable[[bytes], bytes]:
    return lambda raw: len(text).to_bytes(8, "little") + text


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda raw: raw[:-100], "truncated"),
        (lambda raw: raw + b"12345678", "8 bytes after its last tensor"),
        (lambda raw: raw[:100], "ends within its header"),
        (lambda raw: raw[:4], "no header"),
        (lambda raw: b"", "no header"),
        (lambda raw: b"\xff" * 8 + raw[8:], "no header"),
        (lambda raw: len(raw).to_bytes(8, "little") + raw[8:], "ends within its header"),
        (lambda raw: raw[:8] + b"x" + raw[9:], "not a readable safetensors file"),
        (lambda raw: raw.replace(b'"F32"', b'"F33"', 1), "unknown type F33"),
        (lambda raw: raw.replace(b'"F32"', b'"F16"', 1), "contradict"),
        (
            lambda raw: raw.replace(b"layers.0.mlp.up_proj", b"layers.1.mlp.up_proj", 1),
            r"model\.layers\.1\.mlp\.up_proj\.weight is in it twice",
        ),
        (with_header(data_offsets=[0, 128]), "does not begin where"),
        (with_header(data_offsets=[-128, 0]), "does not begin where"),
        (with_header(data_offsets=[1, 2, 3]), "header of model.safetensors is broken"),
        (with_header(shape=[32.0]), "not an integer"),
        (with_header(shape=[float("inf")]), "not an integer"),
        (with_header(shape=[2**62, 2**62]), "contradict"),
        (with_header(dtype=["F32"]), "header of model.safetensors is broken"),
        (header_only(b"[1]"), "header of model.safetensors is broken"),
        (header_only(b"[" * 100_000), "not a readable safetensors file"),
    ],
)
def test_broken_files_are_reported_before_anything_is_read(tmp_path: Path, change, words) -> None:
    tiny_models.save("llama", tmp_path)
    file = tmp_path / "model.safetensors"
    file.write_bytes(change(file.read_bytes()))
    with pytest.raises(CheckpointError, match=words) as error:
        load_checkpoint(tmp_path, allocate=lambda *_: pytest.fail("nothing must be allocated"))
    assert "model.safetensors" in str(error.value)
    assert "\n" not in str(error.value)
    assert str(error.value).endswith("; copy it again.")


def test_duplicate_tensors_and_inconvertible_types_are_refused(tmp_path: Path) -> None:
    tiny_models.build("llama").save_pretrained(tmp_path, max_shard_size="20KB")
    shards = sorted(tmp_path.glob("model-*.safetensors"))
    tensors = load_file(shards[0]) | dict([next(iter(load_file(shards[1]).items()))])
    save_file(tensors, shards[0])
    with pytest.raises(CheckpointError, match="is in both"):
        load_checkpoint(tmp_path)
    single = tmp_path / "single"
    tiny_models.save("llama", single)
    tensors = load_file(single / "model.safetensors")
    weight = tensors["model.norm.weight"]
    for kind, name in ((torch.int8, "I8"), (torch.float8_e4m3fn, "F8_E4M3")):
        save_file(tensors | {"model.norm.weight": weight.to(kind)}, single / "model.safetensors")
        with pytest.raises(CheckpointError, match=rf"model\.norm\.weight is stored as {name}"):
            load_checkpoint(single, allocate=lambda *_: pytest.fail("nothing must be allocated"))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda map: map | {"x": "gone.safetensors"}, r"gone\.safetensors is missing"),
        (lambda map: map | {"x": "/etc/passwd"}, "outside its folder"),
        (lambda map: map | {"x": "../model.safetensors"}, "outside its folder"),
        (lambda map: map | {"x": ["model.safetensors"]}, "has no table weight_map"),
        (lambda map: map | {"x": 5}, "has no table weight_map"),
        (lambda map: [], "not an index of weights: .*; copy it again"),
        (lambda map: {}, "names no files of weights"),
    ],
)
def test_broken_indexes_are_refused(tmp_path: Path, change, words: str) -> None:
    tiny_models.build("llama").save_pretrained(tmp_path, max_shard_size="20KB")
    index = tmp_path / "model.safetensors.index.json"
    weight_map = json.loads(index.read_text())["weight_map"]
    index.write_text(json.dumps({"weight_map": change(weight_map)}))
    with pytest.raises(CheckpointError, match=words):
        load_checkpoint(tmp_path)


@pytest.mark.parametrize("index", [{}, {"metadata": None}], ids=["without metadata", "null"])
@pytest.mark.parametrize("tied_twice", [False, True], ids=["loaded here", "loaded by transformers"])
def test_an_index_without_metadata_is_accepted_unless_transformers_loads(
    tmp_path: Path, index: dict, tied_twice: bool
) -> None:
    reference = tiny_models.save("gemma4", tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    (tmp_path / "model.safetensors").rename(tmp_path / "one.safetensors")
    if tied_twice:
        tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].clone()
        save_file(tensors, tmp_path / "one.safetensors")
    weight_map = {"weight_map": dict.fromkeys(tensors, "one.safetensors")}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index | weight_map))
    if tied_twice:
        words = r"transformers, which .*\((KeyError: 'metadata'|TypeError: .*)\)"
        with pytest.raises(CheckpointError, match=words) as error:
            load_checkpoint(tmp_path)
        assert "\n" not in str(error.value)
    else:
        assert torch.equal(load_checkpoint(tmp_path)[0].lm_head.weight, reference.lm_head.weight)
