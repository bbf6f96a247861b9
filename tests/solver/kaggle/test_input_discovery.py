"""Inputs are found wherever they are mounted, and a model that fits is chosen (2 s)."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path

import pytest
from helpers.engine_cases.gpt_oss_checkpoints import QUANTIZATION
from helpers.solver_cases.hub_caches import model_files, write_cached

from eightfold.solver import SolverError
from eightfold.solver.kaggle.input_discovery import choose_model, find_inputs
from eightfold.solver.kaggle.machine_detection import Machine
from eightfold.solver.kaggle.machine_sizing import GB

H100 = Machine(80 * GB, 26, 230 * GB)
SMALL_GPU = Machine(24 * GB, 4, 30 * GB)
WITHOUT_GPU = Machine(0, 4, 30 * GB)


def make_checkpoint(folder: Path, size: int) -> Path:
    """Make a model folder whose weights have `size` bytes."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({"num_hidden_layers": 2, "hidden_size": 8}))
    with open(folder / "model.safetensors", "wb") as file:
        file.truncate(size)  # a sparse file: only its size is read
    (folder / "tokenizer.json").write_text("{}")
    return folder


def test_inputs_are_found_and_the_largest_model_that_fits_is_chosen(tmp_path: Path) -> None:
    data = tmp_path / "competitions" / "aimo"
    (data / "kaggle_evaluation").mkdir(parents=True)
    (data / "test.csv").write_text("id,problem\n1,x\n")
    small = make_checkpoint(tmp_path / "models" / "owner" / "small" / "1", 10**6)
    large = make_checkpoint(tmp_path / "models" / "owner" / "large" / "1", 62 * GB)
    (tmp_path / "loop").symlink_to(tmp_path)
    inputs = find_inputs(tmp_path)
    assert inputs.test_file().samefile(data / "test.csv")
    assert {path.resolve() for path in inputs.models} == {small, large}
    assert [path.resolve() for path in inputs.servers] == [data]
    assert choose_model(WITHOUT_GPU, inputs.models).model == small
    assert choose_model(H100, inputs.models).model == large
    assert "do not fit" in choose_model(SMALL_GPU, (large,)).passed[0]
    assert choose_model(SMALL_GPU, (large,)).model is None


def test_models_that_the_engine_would_refuse_are_passed_over(tmp_path: Path) -> None:
    good = make_checkpoint(tmp_path / "good", 10**6)
    picture = make_checkpoint(tmp_path / "picture", 10**8)
    (picture / "config.json").write_text('{"architectures": ["ViTModel"], "hidden_size": 8}')
    packed = make_checkpoint(tmp_path / "packed", 10**7)
    (packed / "config.json").write_text('{"hidden_size": 8, "quantization_config": {}}')
    other = make_checkpoint(tmp_path / "other", 10**7)
    (other / "model.safetensors").rename(other / "pytorch_model.bin")
    choice = choose_model(H100, find_inputs(tmp_path).models)
    assert choice.model == good
    said = dict(zip(sorted((other, packed, picture)), choice.passed, strict=True))
    assert "no .safetensors" in said[other]
    assert "quantized" in said[packed]
    assert "ViTModel" in said[picture]


def test_gpt_oss_120b_is_taken_with_its_copies_beside_it(tmp_path: Path) -> None:
    folder = make_checkpoint(tmp_path / "gpt-oss-120b", 0)
    layers = ["sliding_attention", "full_attention"] * 18
    config = {
        "model_type": "gpt_oss", "architectures": ["GptOssForCausalLM"], "num_hidden_layers": 36,
        "layer_types": layers, "sliding_window": 128, "num_attention_heads": 64,
        "num_key_value_heads": 8, "head_dim": 64, "hidden_size": 2880,
        "max_position_embeddings": 131_072, "quantization_config": QUANTIZATION,
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config))
    header, offset = {}, 0
    experts = 36 * 128 * 3 * 2880
    for name, kind, size, shape in (
        ("blocks", "U8", 1, (experts, 90, 16)),
        ("scales", "U8", 1, (experts, 90)),
        ("rest", "BF16", 2, (2_170_000_000,)),
    ):
        length = size * math.prod(shape)
        header[name] = {"dtype": kind, "shape": shape, "data_offsets": [offset, offset + length]}
        offset += length
    text = json.dumps(header).encode()
    with open(folder / "model.safetensors", "wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(8 + len(text) + offset)
    make_checkpoint(folder / "original", 65 * GB)
    (folder / "original" / "model.safetensors").rename(
        folder / "original" / "model--00001-of-00001.safetensors"
    )
    (folder / "metal").mkdir()
    (folder / "metal" / "model.bin").write_bytes(b"x")
    choice = choose_model(H100, find_inputs(tmp_path).models)
    assert choice.model == folder
    assert (choice.sizes.attempts, choice.sizes.device) == (8, "cuda")
    assert [each.startswith(str(folder / "original")) for each in choice.passed] == [True]
    passed = choose_model(SMALL_GPU, (folder,)).passed[0]
    assert passed.endswith("65.3 GB do not fit a GPU with 24.0 GB; take a smaller model.")


def test_a_model_is_sized_by_the_files_that_are_read(tmp_path: Path) -> None:
    model = make_checkpoint(tmp_path / "model", 30 * GB)
    for name in ("consolidated.safetensors", "adapter_model.safetensors", "original/model.pth"):
        (model / name).parent.mkdir(exist_ok=True)
        with open(model / name, "wb") as file:
            file.truncate(60 * GB)
    choice = choose_model(H100, find_inputs(tmp_path).models)
    assert choice.model == model
    assert choice.sizes == choose_model(H100, (make_checkpoint(tmp_path / "b", 30 * GB),)).sizes


def test_a_model_in_the_layout_of_the_cache_is_found(tmp_path: Path) -> None:
    files = model_files(make_checkpoint(tmp_path / "made", 10**6))
    shutil.rmtree(tmp_path / "made")
    snapshot = write_cached(tmp_path / "hub", "org/name", files)
    assert find_inputs(tmp_path).models == (snapshot,)
    folder = tmp_path / "hub" / "models--org--name"
    assert choose_model(H100, (folder,)).model == choose_model(H100, (snapshot,)).model == snapshot


def test_folders_that_only_look_like_a_model_are_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "packed").mkdir()
    (tmp_path / "packed" / "model-Q4.gguf").write_bytes(b"GGUF")  # without a config.json
    odd = make_checkpoint(tmp_path / "odd", 10**6)
    (odd / "config.json").write_text('{"text_config": [1]}')
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "table.bin").write_bytes(b"0")
    models = find_inputs(tmp_path).models
    choice = choose_model(H100, models)
    assert choice.model is None
    broken, packed = choice.passed
    assert broken.startswith(f"{odd}: ")
    assert packed.startswith(str(tmp_path / "packed"))
    assert "GGUF" in packed

    def none() -> Path:
        raise SolverError("none is bundled")

    monkeypatch.setattr(
        "eightfold.solver.kaggle.input_discovery.bundled_model", none
    )  # --model-less
    with pytest.raises(SolverError, match=r"add one .*Candidates: .*packed"):
        choose_model(H100, models)


@pytest.mark.parametrize("capability", [6.0, 8.6, 9.0])
def test_the_cpu_is_used_if_the_gpu_is_too_small_for_the_bundled_model(capability: float) -> None:
    choice = choose_model(Machine(GB, 4, 16 * GB, capability), ())
    assert (choice.model, choice.sizes) == (None, choose_model(Machine(0, 4, 16 * GB), ()).sizes)
    assert "do not fit a GPU" in choice.passed[0]


def test_the_test_file_is_the_one_beside_the_server(tmp_path: Path) -> None:
    (tmp_path / "test.csv").write_text("other\n1\n")
    data = tmp_path / "competitions" / "aimo"
    (data / "kaggle_evaluation").mkdir(parents=True)
    (data / "test.csv").write_text("id,problem\n1,x\n")
    assert find_inputs(tmp_path).test_file() == data / "test.csv"


def test_without_a_test_file_the_candidates_are_listed(tmp_path: Path) -> None:
    (tmp_path / "reference.csv").write_text("id\n")
    (tmp_path / "test.csv.gz").write_bytes(b"\x1f\x8b")
    with pytest.raises(SolverError, match=r"unpacked.*: reference\.csv, test\.csv\.gz"):
        find_inputs(tmp_path).test_file()
    with pytest.raises(SolverError, match="no input folder"):
        find_inputs(tmp_path / "none")


def test_gpt_oss_is_chosen_as_its_repository_lies_there(tmp_path: Path) -> None:
    """Beside the model the repository holds the same weights in another layout, in folders."""
    tiny = Path(__file__).resolve().parents[2] / "data" / "tiny_gpt_oss"
    model = tmp_path / "gpt-oss" / "1"
    shutil.copytree(tiny, model)
    (model / "original").mkdir()
    shutil.copy(
        model / "model.safetensors", model / "original" / "model--00001-of-00001.safetensors"
    )
    (model / "original" / "config.json").write_text('{"num_hidden_layers": 6}')
    (model / "metal").mkdir()
    (model / "metal" / "model.bin").write_bytes(b"0")
    for machine in (H100, WITHOUT_GPU):
        choice = choose_model(machine, find_inputs(tmp_path).models)
        assert choice.model == model
        assert len(choice.passed) == 1
        assert choice.passed[0].startswith(str(model / "original"))
