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


@pytest.mark.parametrize("value", ["x", -5, 1.5, [1, "x"], [-5], {"a": 1}], ids=repr)
def test_end_tokens_that_are_not_token_ids_are_refused(tmp_path: Path, value: object) -> None:
    (tmp_path / "generation_config.json").write_text(json.dumps({"eos_token_id": value}))
    with pytest.raises(CheckpointError, match=r"generation_config\.json: eos_token_id must be"):
        end_token_ids(tmp_path)


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


def test_neither_torch_nor_transformers_is_imported() -> None:
    code = (
        "import sys, eightfold.engine.loading.model_folder;"
        "assert not {'torch', 'transformers'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
