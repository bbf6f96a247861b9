"""A model is named by a folder or by an id of Hugging Face (4 s)."""

from __future__ import annotations

import os
import subprocess
import sys
from fnmatch import fnmatch
from pathlib import Path

import huggingface_hub
import pytest
from helpers.solver_cases.hub_caches import COMMIT, Files, model_files, write_cached

from eightfold.solver import SolverConfig, SolverError
from eightfold.solver.cli import main
from eightfold.solver.kaggle import KaggleConfig, preload
from eightfold.solver.model_defaults import (
    bundled_model,
    read_model_inputs,
    resolve_model_folder,
)
from eightfold.solver.models.model_source import locate_model

OTHER = "e" * 40
MODEL = {
    name: content
    for name, content in model_files(bundled_model()).items()
    if not name.startswith("drafter/")
}
"""The bundled model without its drafter, which is not downloaded."""
LIGHT = {name: name.encode() if name.endswith(".safetensors") else MODEL[name] for name in MODEL}
"""The bundled model with weights of a few bytes, which are looked at only when they are loaded."""


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache; downloads are forbidden."""
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    return tmp_path / "hub"


@pytest.fixture
def online(cache: Path, monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Downloads are allowed and come from `MODEL`; holds the files of each one."""
    monkeypatch.delenv("HF_HUB_OFFLINE")
    monkeypatch.delenv("TRANSFORMERS_OFFLINE", raising=False)
    fetched: list[list[str]] = []

    def snapshot_download(
        name: str, *, revision: str | None, cache_dir: Path, allow_patterns: list[str], **_: object
    ) -> str:
        chosen = {
            file: content
            for file, content in REMOTE.items()
            if any(fnmatch(file, pattern) for pattern in allow_patterns)
        }
        fetched.append(sorted(chosen))
        for file in chosen:
            path = cache_dir / "models--org--remote" / "snapshots" / COMMIT / file
            path.unlink(missing_ok=True)
        return str(write_cached(cache_dir, name, chosen, revision=revision or "main"))

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    return fetched


REMOTE: Files = MODEL | {
    "README.md": b"",
    "consolidated.safetensors": b"0",
    "consolidated.safetensors.index.json": b"{}",
    "original/params.json": b"{}",
    "original/tokenizer.json": b"{}",
    "original/model.safetensors": b"0",
    "pytorch_model.bin": b"0",
    "pytorch_model.bin.index.json": b"{}",
    "model-Q8.gguf": b"GGUF",
    "flax_model.msgpack": b"0",
    "onnx/config.json": b"{}",
    "onnx/tokenizer.json": b"{}",
    "chat_template.json": b"{}",
    "additional_chat_templates/rag.jinja": b"x",
}


def test_an_id_stands_for_the_model_in_the_cache(cache: Path) -> None:
    new = write_cached(cache, "org/name", LIGHT)
    old = write_cached(cache, "org/name", LIGHT, commit=OTHER, revision="v1")
    for model, expected in (
        ("org/name", new),
        ("org/name@main", new),
        (f"org/name@{COMMIT}", new),
        ("org/name@v1", old),
        (f"org/name@{OTHER[:9]}", old),
        ("models--org--name", new),
        (cache / "models--org--name", new),
        (cache / "models--org--name" / "snapshots" / OTHER, old),
        (str(cache / "models--org--name") + "/", new),
    ):
        assert resolve_model_folder(model) == expected, model
    config = SolverConfig(model="org/name@v1")
    inputs = read_model_inputs(config)
    assert inputs.folder == old
    assert inputs.end_token_ids == read_model_inputs(SolverConfig()).end_token_ids
    reading = preload(KaggleConfig(solver=config))
    assert reading is not None
    reading.wait()
    assert reading.total == sum(len(content) for content in LIGHT.values())


def test_an_existing_path_wins_over_an_id(cache: Path) -> None:
    write_cached(cache, "org/name", LIGHT)
    assert resolve_model_folder("org/name").is_relative_to(cache)
    Path("org").mkdir()
    Path("org/name").symlink_to(bundled_model())
    assert resolve_model_folder("org/name") == Path("org/name")
    Path("org/name").unlink()
    Path("org/name").mkdir()
    with pytest.raises(SolverError, match=r"org/name is not a model folder: it has no config"):
        resolve_model_folder("org/name")


def test_a_path_object_is_never_an_id(cache: Path) -> None:
    write_cached(cache, "org/name", LIGHT)
    with pytest.raises(SolverError, match="There is no model folder org/name"):
        resolve_model_folder(Path("org/name"))


def test_a_cached_folder_without_a_main_branch_must_be_unambiguous(
    cache: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = cache / "models--org--name"
    only = write_cached(cache, "org/name", LIGHT, revision="v1")
    assert resolve_model_folder(folder) == resolve_model_folder(folder / "snapshots") == only
    assert resolve_model_folder("org/name") == only
    assert f"the cache holds revision {COMMIT} alone" in caplog.text
    write_cached(cache, "org/name", LIGHT, commit=OTHER, revision=None)
    with pytest.raises(SolverError, match=f"several snapshots .*: {COMMIT}, {OTHER}"):
        resolve_model_folder(folder)
    with pytest.raises(SolverError, match=f"only as {COMMIT}, {OTHER}, and HF_HUB_OFFLINE"):
        resolve_model_folder("org/name")
    for path in (cache, cache.parent):
        (path / "hub").mkdir(exist_ok=True)
        with pytest.raises(SolverError, match=r"a cache of models; give one of them: .*org--name"):
            resolve_model_folder(path)
    (cache / "models--org--empty" / "snapshots").mkdir(parents=True)
    with pytest.raises(SolverError, match="holds no snapshot"):
        resolve_model_folder(cache / "models--org--empty")


@pytest.mark.parametrize(
    ("model", "said"),
    [
        (
            "org/nane",
            r"no folder org/nane, .*HF_HUB_OFFLINE forbids .*unset .*\(.*holds org/name\)",
        ),
        ("Org/Name", r"There is no folder Org/Name, .*\(the cache holds org/name\)"),
        ("org/name@v9", r"holds org/name only as .*forbids downloading org/name@v9; unset it"),
        ("modle", r"There is no model folder modle \(there is model\); give a folder"),
        ("name", "There is no model folder name; give a folder .*such as org/name"),
        ("./org/name", "There is no model folder org/name"),
        ("/no/such/place", "There is no model folder /no/such/place"),
        ("https://huggingface.co/org/name", "a web address; give the model's id, org/name"),
        ("https://huggingface.co/org/name/tree/main", "the model's id, org/name"),
        ("hf://org/name", "the model's id, org/name"),
        ("huggingface.co/org/name", "a web address; give the model's id, org/name"),
        ("hf.co/org/name?x=1", "the model's id, org/name"),
        ("org/empty", r"the cache .* does not hold it, and HF_HUB_OFFLINE .* folder\.$"),
        ("", "The model's name is empty"),
        ("org/name\0", "There is no model folder"),
        ("x" * 5000, "There is no model folder"),
        ("~no-user/model", "There is no model folder ~no-user/model"),
    ],
)
def test_typos_get_one_sentence(
    model: str, said: str, cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_cached(cache, "org/name", LIGHT)
    (cache / "models--org--empty" / "snapshots").mkdir(parents=True)
    Path("model").mkdir()
    with pytest.raises(SolverError, match=said) as caught:
        resolve_model_folder(model)
    assert "\n" not in str(caught.value)
    assert str(caught.value).endswith(".")
    if "\0" not in model:
        assert main(["solve", "x", "--model", model]) == 2
        assert len(capsys.readouterr().err.splitlines()) == 1


@pytest.mark.parametrize(
    ("lacking", "said"),
    [
        ("config.json", "is not a model folder|no config.json"),
        ("tokenizer.json", "no tokenizer"),
        ("model-00002-of-00005.safetensors", "model-00002-of-00005.safetensors is missing"),
    ],
)
def test_a_cached_model_that_lacks_files_is_completed(
    lacking: str, said: str, cache: Path, online: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    present = {name: content for name, content in LIGHT.items() if name != lacking}
    write_cached(cache, "org/remote", present)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(SolverError, match=f"HF_HUB_OFFLINE forbids .*({said})"):
        resolve_model_folder("org/remote")
    assert not online
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    assert (resolve_model_folder("org/remote") / lacking).is_file()
    count = len(online)
    resolve_model_folder("org/remote")
    assert len(online) == count, "now it is in the cache"


def test_only_what_is_read_is_downloaded(
    cache: Path, online: list[list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    folder = resolve_model_folder("org/remote@v2")
    assert folder == cache / "models--org--remote" / "snapshots" / COMMIT
    assert (cache / "models--org--remote" / "refs" / "v2").read_text() == COMMIT
    small, weights = online
    extra = ["additional_chat_templates/rag.jinja", "chat_template.json"]
    shards = [name for name in MODEL if name.endswith(".safetensors")]
    assert small == sorted({*set(MODEL) - set(shards), *extra})
    assert weights == sorted(shards)
    captured = capsys.readouterr()
    assert "downloading org/remote@v2" in captured.err


def test_ids_work_on_the_command_line(
    cache: Path, online: list[list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    words = [
        "solve",
        "What is 6 times 7?",
        "--attempts",
        "1",
        "--max-tokens",
        "1",
        "--kernels",
        "1",
    ]
    assert main([*words, "--quiet", "--model", "org/remote"]) == 1, "one token holds no answer"
    assert capsys.readouterr().err == ""
    assert len(online) == 2
    assert main(["preload", "org/remote", "--quiet"]) == 0
    assert "files of" in capsys.readouterr().out
    assert main(["preload", str(cache / "models--org--remote"), "--quiet"]) == 0
    assert len(online) == 2


def test_nothing_is_imported_for_what_is_in_the_cache(cache: Path) -> None:
    write_cached(cache, "org/name", LIGHT)
    code = (
        "import sys; from eightfold.solver.model_defaults import resolve_model_folder as resolve;"
        "resolve('org/name');"
        "assert not {'torch', 'transformers', 'huggingface_hub'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, env=dict(os.environ))


def test_the_location_of_a_folder_is_not_checked(tmp_path: Path) -> None:
    assert locate_model(tmp_path) == tmp_path
    assert locate_model(str(tmp_path / ".")) == tmp_path
