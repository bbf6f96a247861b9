"""A model folder's JSON files and end tokens are read without torch or transformers."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from eightfold.engine import CheckpointError
from eightfold.engine.loading.model_folder import (
    check_model_folder,
    end_token_ids,
    parse_token_ids,
    read_json,
)
from eightfold.engine.loading.safetensors_headers import weight_bytes


def test_json_files_hold_an_object_or_are_missing(tmp_path: Path) -> None:
    file = tmp_path / "config.json"
    assert read_json(file) == {}
    file.write_text('{"a": 1}')
    assert read_json(file) == {"a": 1}
    for content, words in (
        (b"{", "not valid JSON"),
        (b"\xff", "not valid JSON"),
        (b"[" * 100_000, "not valid JSON"),
        (b"[1]", "does not hold a JSON object"),
    ):
        file.write_bytes(content)
        with pytest.raises(CheckpointError, match=words):
            read_json(file)


def test_end_tokens_of_all_configurations_are_combined(tmp_path: Path) -> None:
    assert end_token_ids(tmp_path) == frozenset()
    config = {"eos_token_id": 1, "text_config": {"eos_token_id": [1, 2]}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "generation_config.json").write_text('{"eos_token_id": [106, 50]}')
    assert end_token_ids(tmp_path) == {1, 2, 50, 106}
    (tmp_path / "config.json").write_text('{"eos_token_id": null, "text_config": null}')
    assert end_token_ids(tmp_path) == {50, 106}


ODD_IDS = ["x", "1", -5, 1.5, 1.0, True, [1, "x"], [-5], [[1, 2]], [None], {"a": 1}, [[]], [True]]


@pytest.mark.parametrize("value", ODD_IDS, ids=repr)
def test_end_tokens_that_are_not_token_ids_are_refused(tmp_path: Path, value: object) -> None:
    (tmp_path / "generation_config.json").write_text(json.dumps({"eos_token_id": value}))
    with pytest.raises(CheckpointError, match=r"generation_config\.json: eos_token_id must be"):
        end_token_ids(tmp_path)


def test_end_tokens_in_nested_configurations_are_named_in_a_short_sentence(tmp_path: Path) -> None:
    config = {"text_config": {"eos_token_id": [list(range(10_000))]}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match=r"config\.json: eos_token_id must be") as caught:
        end_token_ids(tmp_path)
    assert len(str(caught.value)) < 300 + len(str(tmp_path))


def test_end_tokens_outside_the_vocabulary_are_left_out_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = {"vocab_size": 50, "eos_token_id": [1, 10**30], "text_config": {"vocab_size": 100}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "generation_config.json").write_text('{"eos_token_id": [99, 100]}')
    assert end_token_ids(tmp_path) == {1, 99}
    assert [record.levelname for record in caplog.records] == ["WARNING", "WARNING"]
    assert "eos_token_id 100 is not in the vocabulary of 100 tokens" in caplog.text


def test_token_ids_may_be_one_several_or_none() -> None:
    assert parse_token_ids(None) == frozenset()
    assert parse_token_ids(3) == {3}
    assert parse_token_ids((3, 4)) == parse_token_ids([4, 3]) == {3, 4}
    with pytest.raises(TypeError):
        parse_token_ids("3")


def test_what_a_folder_lacks_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="There is no model folder"):
        check_model_folder(tmp_path / "none")
    with pytest.raises(CheckpointError, match=r"has no config\.json"):
        check_model_folder(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(CheckpointError, match="has no weights"):
        check_model_folder(tmp_path)
    (tmp_path / "model.safetensors").touch()
    check_model_folder(tmp_path)


def test_a_folder_without_a_model_points_to_one_below(tmp_path: Path) -> None:
    (tmp_path / "1").mkdir()
    (tmp_path / "1" / "config.json").touch()
    with pytest.raises(CheckpointError, match=f"no config.json; give {tmp_path}/1, which has one"):
        check_model_folder(tmp_path)


def test_weights_that_are_not_all_there_are_named(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    shards = [f"model-0000{number}-of-00002.safetensors" for number in (1, 2)]
    index = {"weight_map": {"a": shards[0], "b": shards[1]}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    (tmp_path / shards[0]).touch()
    with pytest.raises(CheckpointError, match=f"{shards[1]} is missing; copy it there"):
        check_model_folder(tmp_path)
    (tmp_path / shards[1]).symlink_to("no-such-blob")
    with pytest.raises(CheckpointError, match=f"{shards[1]} is a link to a missing file"):
        check_model_folder(tmp_path)
    (tmp_path / shards[1]).unlink()
    (tmp_path / shards[1]).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:1\n")
    with pytest.raises(CheckpointError, match=r"Git LFS's pointer .*run `git lfs pull`"):
        check_model_folder(tmp_path)
    (tmp_path / shards[1]).write_bytes(b"weights")
    check_model_folder(tmp_path)
    (tmp_path / "config.json").unlink()
    (tmp_path / "config.json").symlink_to("no-such-blob")
    with pytest.raises(CheckpointError, match=r"config\.json is a link to a missing file"):
        check_model_folder(tmp_path)


def test_only_the_files_that_are_read_are_counted(tmp_path: Path) -> None:
    for name, size in (
        ("consolidated.safetensors", 100),
        ("adapter_model.safetensors", 10),
        ("original/consolidated.00.pth", 1000),
        ("model-00001-of-00001.safetensors", 7),
    ):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"0" * size)
    assert weight_bytes(tmp_path) == 0
    index = {"weight_map": {"a": "model-00001-of-00001.safetensors"}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    assert weight_bytes(tmp_path) == 7
    (tmp_path / "model.safetensors").write_bytes(b"0" * 8)
    assert weight_bytes(tmp_path) == 8, "a single file wins over an index, as for the loader"


def test_neither_torch_nor_transformers_is_imported() -> None:
    code = (
        "import sys, eightfold.engine.loading.model_folder;"
        "assert not {'torch', 'transformers'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
