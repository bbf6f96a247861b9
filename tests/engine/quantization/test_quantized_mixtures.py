"""Checkpoints with experts in FP8 and 4 bits load as stored and compute what they mean."""

import json
from pathlib import Path

import pytest
import torch
from helpers.engine_cases import tiny_models
from helpers.engine_cases.checkpoint_loading import load_checkpoint
from helpers.engine_cases.engine_driver import greedy_reference, run_until_idle
from helpers.engine_cases.quantized_checkpoints import (
    EXPERTS,
    FORMATS,
    LAYERS,
    TOKENS,
    logits,
    quantize_folder,
    relative_difference,
    save_mixture,
)
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, PreTrainedModel

from eightfold.engine import CheckpointError, Engine, EngineConfig, SamplingParams
from eightfold.engine.inspection.meta_model import allocate_parameters
from eightfold.engine.loading import checkpoint
from eightfold.engine.model_errors import UnsupportedModelError
from eightfold.engine.quantization.meta_modules import stored_linears
from eightfold.engine.quantization.split_experts import SplitExperts

GATES = {
    "qwen3_moe": [f"model.layers.{i}.mlp.gate" for i in range(LAYERS)],
    "mixtral": [f"model.layers.{i}.block_sparse_moe.gate" for i in range(LAYERS)],
}


def quantized_mixture(family: str, name: str, root: Path) -> tuple[Path, Path]:
    """Return a quantized checkpoint, and one in float32 with the values that it stores.

    As in the releases, the routers are named among what is not quantized.
    """
    folder, expanded = root / "stored", root / "expanded"
    folder.mkdir()
    expanded.mkdir()
    save_mixture(folder, family)
    quantize_folder(folder, name, expanded)
    config = json.loads((folder / "config.json").read_text())
    entry = config["quantization_config"]
    key = "ignore" if entry["quant_method"] == "compressed-tensors" else "modules_to_not_convert"
    entry[key] = ["lm_head", *GATES[family]]
    (folder / "config.json").write_text(json.dumps(config))
    return folder, expanded


@pytest.fixture(params=[("qwen3_moe", name) for name in FORMATS] + [
    ("mixtral", name) for name in ("fp8_tensor", "w4_128_zeros", "gptq", "awq")
], ids="-".join)  # fmt: skip
def mixture(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Path, PreTrainedModel]:
    """Return a quantized checkpoint, and a model in float32 with the values that it stores."""
    folder, expanded = quantized_mixture(*request.param, tmp_path)
    return folder, AutoModelForCausalLM.from_pretrained(expanded, dtype=torch.float32)


def test_logits_are_those_of_the_expanded_weights(
    mixture: tuple[Path, PreTrainedModel], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, reference = mixture
    stored = load_file(folder / "model.safetensors")
    experts = {name for name in stored if ".experts." in name}
    assert not any("gate_up_proj" in name for name in experts), "the releases have none"
    monkeypatch.setattr(checkpoint, "_load_with_transformers", None)  # it must not be needed
    for allocate in (None, allocate_parameters):
        model, _ = load_checkpoint(folder, allocate=allocate)
        assert relative_difference(logits(model), logits(reference)) < 1e-6
    assert type(model.lm_head) is torch.nn.Linear
    layers = list(stored_linears(model))
    assert len(layers) == (4 + 3 * EXPERTS) * LAYERS
    for layer in layers:
        weights = layer.in_features * layer.out_features
        assert layer.matrix.codes.nbytes == weights // (1 if layer.matrix.is_fp8 else 2)
    assert all(isinstance(layer.mlp.experts, SplitExperts) for layer in model.model.layers)


@pytest.mark.parametrize(
    ("family", "name", "words"),
    [
        ("qwen3_moe", "fine_grained_fp8", "FP8 in blocks of 128"),
        ("mixtral", "gptq", "4 bits in groups of 32 with zero points"),
    ],
)
def test_tokens_and_the_start_up_table(family: str, name: str, words: str, tmp_path: Path) -> None:
    folder, expanded = quantized_mixture(family, name, tmp_path)
    reference = AutoModelForCausalLM.from_pretrained(expanded, dtype=torch.float32)
    engine = Engine(folder, EngineConfig(max_step_tokens=16, max_running=4, max_context=128))
    (line,) = [line for line in engine.table().splitlines() if line.startswith("stored:")]
    assert line == f"stored: 8 linear layers in {words}, 2 layers of experts in {words}"
    params = SamplingParams(temperature=0, max_new_tokens=12, stop_token_ids=())
    prompts = [TOKENS[0, :n].tolist() for n in (3, 20)]
    seqs = [engine.submit(prompt, params) for prompt in prompts]
    generated = run_until_idle(engine)
    assert [generated[seq] for seq in seqs] == [
        greedy_reference(reference, prompt, 12) for prompt in prompts
    ]


def test_experts_of_one_layer_may_stay_plain(tmp_path: Path) -> None:
    folder, expanded = quantized_mixture("mixtral", "fp8_channel", tmp_path)
    config = json.loads((folder / "config.json").read_text())
    config["quantization_config"]["ignore"].append("re:.*layers.0.block_sparse_moe.*")
    (folder / "config.json").write_text(json.dumps(config))
    stored = load_file(folder / "model.safetensors")
    plain = load_file(expanded / "model.safetensors")
    for name in [name for name in stored if "layers.0.block_sparse_moe.experts" in name]:
        tensor = stored.pop(name)
        if name.endswith(".weight"):
            stored[name] = plain[name] = plain[name].bfloat16().to(tensor.dtype).bfloat16()
    save_file(stored, folder / "model.safetensors", metadata={"format": "pt"})
    save_file(plain, expanded / "model.safetensors", metadata={"format": "pt"})
    model, _ = load_checkpoint(folder)
    reference = AutoModelForCausalLM.from_pretrained(expanded, dtype=torch.float32)
    assert len(list(stored_linears(model))) == 4 * LAYERS + 3 * EXPERTS
    assert relative_difference(logits(model), logits(reference)) < 1e-6


def declare_fp8(folder: Path) -> None:
    """Let a checkpoint's configuration say that its weights are in FP8."""
    config = json.loads((folder / "config.json").read_text())
    config["quantization_config"] = FORMATS["fp8_channel"][0]
    (folder / "config.json").write_text(json.dumps(config))


def test_stacked_experts_are_refused_if_they_are_quantized(tmp_path: Path) -> None:
    tiny_models.save("gemma4_moe", tmp_path)
    declare_fp8(tmp_path)
    stored = load_file(tmp_path / "model.safetensors")
    name = next(name for name in stored if name.endswith("experts.gate_up_proj"))
    stored[name] = stored[name].to(torch.float8_e4m3fn)
    save_file(stored, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UnsupportedModelError, match="all its experts in one tensor"):
        Engine(tmp_path)


def test_experts_that_cannot_be_divided_are_refused(tmp_path: Path) -> None:
    tiny_models.save("gpt_oss", tmp_path)
    declare_fp8(tmp_path)
    stored = load_file(tmp_path / "model.safetensors")
    stored = {name: each for name, each in stored.items() if "gate_up_proj" not in name}
    save_file(stored, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UnsupportedModelError, match="has experts quantized as compressed-tensors"):
        Engine(tmp_path)


@pytest.mark.parametrize("part", ["weight_scale_inv", "weight"])
def test_missing_tensors_are_named(part: str, tmp_path: Path) -> None:
    folder, _ = quantized_mixture("qwen3_moe", "fine_grained_fp8", tmp_path)
    stored = load_file(folder / "model.safetensors")
    name = f"model.layers.1.mlp.experts.3.down_proj.{part}"
    del stored[name]
    save_file(stored, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match="missing tensors: ") as error:
        Engine(folder)
    assert name in str(error.value)


def test_unquantized_mixtures_load_as_before(tmp_path: Path) -> None:
    save_mixture(tmp_path, "qwen3_moe")
    model, _ = load_checkpoint(tmp_path)
    assert not isinstance(model.model.layers[0].mlp.experts, SplitExperts)
    reference = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32)
    assert torch.equal(logits(model), logits(reference))


def test_mixtral_with_the_names_of_llm_compressor(tmp_path: Path) -> None:
    folder, expanded = quantized_mixture("mixtral", "w4_32", tmp_path)
    stored = load_file(folder / "model.safetensors")
    for old, new in (("w1", "gate_proj"), ("w3", "up_proj"), ("w2", "down_proj")):
        stored = {name.replace(f".{old}.", f".{new}."): each for name, each in stored.items()}
    save_file(stored, folder / "model.safetensors", metadata={"format": "pt"})
    model, _ = load_checkpoint(folder)
    reference = AutoModelForCausalLM.from_pretrained(expanded, dtype=torch.float32)
    assert relative_difference(logits(model), logits(reference)) < 1e-6
