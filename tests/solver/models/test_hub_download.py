"""The library of Hugging Face downloads from a server on this machine (20 s)."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from helpers.engine_cases import tiny_models
from helpers.solver_cases.hub_caches import COMMIT, Files, model_files, serve_models

OTHER = "d" * 40

LOCATE = """
import json, sys
from eightfold.engine import ModelError
from eightfold.solver import SolverError
from eightfold.solver.models.model_source import locate_model
for model in sys.argv[1:]:
    try:
        said = str(locate_model(model))
    except (SolverError, ModelError) as error:
        said = f"{type(error).__name__}: {error}"
    print(json.dumps(said))
"""


def variables(address: str, cache: Path) -> dict[str, str]:
    """Return the variables of a process that downloads from a server on this machine."""
    return {
        **{"HF_ENDPOINT": address, "HF_HUB_CACHE": str(cache), "HF_HUB_OFFLINE": "0"},
        **{"HF_HUB_DISABLE_XET": "1", "TRANSFORMERS_OFFLINE": "0", "HF_HOME": str(cache)},
    }


def locate(address: str, cache: Path, *models: str) -> tuple[list[str], str]:
    """Locate models in a process that may download; return what became of each, and stderr."""
    done = subprocess.run(
        [sys.executable, "-c", LOCATE, *models],
        env=os.environ | variables(address, cache),
        capture_output=True,
        text=True,
        check=True,
    )
    return [json.loads(line) for line in done.stdout.splitlines()], done.stderr


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Files:
    """The files of a sharded checkpoint, with a tokenizer and with copies that are not read."""
    folder = tmp_path_factory.mktemp("checkpoint")
    tiny_models.build("llama").save_pretrained(folder, max_shard_size="20KB")
    files = model_files(folder)
    assert "model.safetensors.index.json" in files
    others = (
        *("tokenizer.json", "chat_template.jinja", "additional_chat_templates/tool_use.jinja"),
        *("README.md", "consolidated.safetensors", "pytorch_model.bin", "model-Q4.gguf"),
        *("original/params.json", "original/consolidated.00.pth", "onnx/config.json"),
    )
    return files | {name: f'"{name}"'.encode() for name in others}


def test_a_model_is_downloaded_once_and_only_what_is_read(
    checkpoint: Files, tmp_path: Path
) -> None:
    unread = ("README.md", "consolidated", "original/", "pytorch_model", "model-Q4", "onnx/")
    wanted = sorted(name for name in checkpoint if not name.startswith(unread))
    revisions = {"main": COMMIT, "v1": OTHER}
    with serve_models({"org/model": checkpoint}, revisions) as server:
        (first, second, tagged), errors = locate(
            server.address, tmp_path, "org/model", "org/model", "org/model@v1"
        )
        assert first == second == str(tmp_path / "models--org--model" / "snapshots" / COMMIT)
        assert tagged.endswith(OTHER)
        assert sorted(server.fetched) == wanted, "blobs that two revisions share are fetched once"
        assert sorted(model_files(Path(first))) == wanted
        assert errors.count("downloading org/model") == 2
        assert "100%" in errors
        shard = next(name for name in wanted if name.endswith(".safetensors"))
        (Path(first) / shard).resolve().unlink()
        server.fetched.clear()
        (again,), _ = locate(server.address, tmp_path, "org/model")
        assert again == first
        assert server.fetched == [shard], "the rest was there"
    (offline,), _ = locate(server.address, tmp_path, "org/model")
    assert offline == first, "no server is needed for what is in the cache"


def test_what_cannot_be_downloaded_is_told_in_one_sentence(
    checkpoint: Files, tmp_path: Path
) -> None:
    config = {"config.json": checkpoint["config.json"], "tokenizer.json": b"{}"}
    strange = json.loads(checkpoint["config.json"]) | {"quantization_config": {"bits": 4}}
    models: dict[str, Files] = {
        "org/model": checkpoint,
        "org/gated": checkpoint,
        "org/gguf": {"model-Q4.gguf": b"x", "README.md": b"x"},
        "org/lora": {"adapter_config.json": b"{}", "adapter_model.safetensors": b"x"},
        "org/bin": config | {"pytorch_model.bin": b"x"},
        "org/quantized": checkpoint | {"config.json": json.dumps(strange).encode()},
        "org/untold": config | {"model.safetensors.index.json": checkpoint["tokenizer.json"]},
        "org/bare": config | {"model.safetensors": b"x", "tokenizer.json": b"{}"},
        "org/empty": {".gitattributes": b"x"},
    }
    del models["org/bare"]["tokenizer.json"]  # type: ignore[attr-defined]
    expected = {
        "org/modell": "no public model org/modell; check the spelling",
        "org/model@v9": "org/model has no revision v9",
        "org/gated": "accept its terms",
        "org/gguf": 'gguf_file="model-Q4.gguf"',
        "org/lora": "LoRA adapter",
        "org/bin": "only PyTorch's .bin",
        "org/quantized": "is quantized",
        "org/untold": "is not an index of weights",
        "org/bare": "has no tokenizer",
        "org/empty": "org/empty lacks config.json",
    }
    with serve_models(models) as server:
        said, errors = locate(server.address, tmp_path, *expected)
        assert not [name for name in server.fetched if name.startswith("model-0")]
    for model, sentence, words in zip(expected, said, expected.values(), strict=True):
        assert words in sentence, model
        assert sentence.endswith(".")
        assert "\n" not in sentence
    assert "No files matched" not in errors
    (tmp_path / "file").touch()
    with serve_models(models) as server:
        (told,), _ = locate(server.address, tmp_path / "file" / "hub", "org/model")
    assert f"org/model cannot be stored in {tmp_path}/file/hub: " in told
    assert "set HF_HOME" in told
    assert "Traceback" not in errors


def test_an_interrupt_ends_a_download_within_a_file(checkpoint: Files, tmp_path: Path) -> None:
    names = ("config.json", "tokenizer.json")
    files = {name: checkpoint[name] for name in names} | {"model.safetensors": bytes(100 << 20)}
    command = [sys.executable, "-m", "eightfold.solver.cli", "solve", "x", "--model", "org/model"]
    with serve_models({"org/model": files}, pause=0.5) as server:
        with subprocess.Popen(
            [*command, "--quiet"],
            env=os.environ | variables(server.address, tmp_path),
            stderr=subprocess.PIPE,
            text=True,
        ) as process:
            while not server.sent:
                time.sleep(0.05)
                assert process.poll() is None
            process.send_signal(signal.SIGINT)
            _, said = process.communicate(timeout=120)
        assert server.sent < 60
    assert (process.returncode, said) == (130, "Interrupted.\n")


def test_without_a_server_the_cache_and_the_network_are_named(tmp_path: Path) -> None:
    (tmp_path / "models--org--model" / "snapshots").mkdir(parents=True)
    snapshot = tmp_path / "models--org--part" / "snapshots" / COMMIT
    snapshot.mkdir(parents=True)
    (snapshot / "model-Q4.gguf").touch()
    (snapshot.parent.parent / "refs").mkdir()
    (snapshot.parent.parent / "refs" / "main").write_text(COMMIT)
    said, _ = locate("http://127.0.0.1:9", tmp_path, "org/modell", "org/part")
    for words in (
        *("There is no folder org/modell", f"the cache {tmp_path} does not hold it"),
        *("Hugging Face cannot be reached", "(the cache holds org/model)"),
    ):
        assert words in said[0]
    assert "cannot be reached" in said[1]
    assert "what the cache holds of org/part cannot be used" in said[1]
    assert "GGUF" in said[1]
    assert not any("\n" in sentence for sentence in said)
