"""An unquantized checkpoint is rounded to FP8 while it is loaded, and says the error it makes."""

from pathlib import Path

import pytest
import torch
import transformers
from helpers.engine_cases import tiny_models
from helpers.engine_cases.engine_driver import greedy_reference, run_until_idle
from helpers.engine_cases.quantized_checkpoints import (
    EXPERTS,
    LAYERS,
    TOKENS,
    fp8_expanded,
    logits,
    quantize_folder,
    relative_difference,
    save_mixture,
    save_plain,
)
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from eightfold.engine import Engine, EngineConfig, SamplingParams
from eightfold.engine.inspection.architecture import inspect_architecture
from eightfold.engine.loading import fp8_loader
from eightfold.engine.loading.checkpoint import load_weights, read_config
from eightfold.engine.model_errors import UnsupportedModelError
from eightfold.engine.quantization.meta_modules import stored_linears
from eightfold.engine.quantization.stored_linear import StoredLinear

CPU = torch.device("cpu")


def load_fp8(folder: Path, dtype: torch.dtype = torch.float32):
    architecture = inspect_architecture(read_config(folder), "fp8")
    return load_weights(folder, architecture, CPU, dtype)


@pytest.mark.parametrize("batch_bytes", [1, 1 << 30])
def test_every_linear_layer_is_rounded(
    batch_bytes: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_plain(tmp_path)
    monkeypatch.setattr(fp8_loader, "BATCH_BYTES", batch_bytes)
    monkeypatch.setattr(fp8_loader, "SLAB_ELEMENTS", 1000)
    model = load_fp8(tmp_path)
    reference = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32)
    layers = dict(model.named_modules())
    squared, whole = 0.0, 0.0
    for name, module in reference.named_modules():
        if type(module) is torch.nn.Linear and name != "lm_head":
            weight = module.weight.data.clone()
            module.weight.data = fp8_expanded(weight)
            assert torch.equal(layers[name].matrix.expand(torch.float32), module.weight.data)
            squared += float((module.weight.data - weight).square().sum())
            whole += float(weight.square().sum())
    assert len(list(stored_linears(model))) == 14
    assert type(model.lm_head) is torch.nn.Linear
    assert relative_difference(logits(model), logits(reference)) < 1e-6
    assert model.rounding_error == pytest.approx((squared / whole) ** 0.5, rel=1e-4)
    assert 0.01 < model.rounding_error < 0.04


def test_the_start_up_table_says_the_error(tmp_path: Path) -> None:
    save_plain(tmp_path)
    config = EngineConfig(weights="fp8", max_running=4, max_context=128)
    engine = Engine(tmp_path, config)
    (line,) = [line for line in engine.table().splitlines() if line.startswith("stored:")]
    assert line.startswith("stored: 14 linear layers in FP8 per channel, rounded while loading: 2.")
    assert line.endswith("% of the weights' norm")
    params = SamplingParams(temperature=0, max_new_tokens=12, stop_token_ids=())
    seq = engine.submit(TOKENS[0].tolist(), params)
    reference = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32)
    for name, module in reference.named_modules():
        if type(module) is torch.nn.Linear and name != "lm_head":
            module.weight.data = fp8_expanded(module.weight.data)
    assert run_until_idle(engine)[seq] == greedy_reference(reference, TOKENS[0].tolist(), 12)
    plain = Engine(tmp_path, EngineConfig(max_running=4, max_context=128))
    assert "stored:" not in plain.table()
    assert engine.bytes_of["weights"] < 0.4 * plain.bytes_of["weights"]


@pytest.mark.parametrize("name", ["gemma4_wrapped", "gpt_oss", "gemma4_e2b", "gemma4_moe"])
def test_other_architectures(name: str, tmp_path: Path) -> None:
    tiny_models.save(name, tmp_path)
    model = load_fp8(tmp_path)
    reference = load_weights(
        tmp_path, inspect_architecture(read_config(tmp_path)), CPU, torch.float32
    )
    rounded = {name for name, module in model.named_modules() if isinstance(module, StoredLinear)}
    assert rounded
    assert not [each for each in rounded if "lm_head" in each or "router" in each]
    for each in rounded:
        if ".experts." not in each:
            linear = reference.get_submodule(each)
            linear.weight = torch.nn.Parameter(fp8_expanded(linear.weight.data))
    if name == "gemma4_moe":
        round_experts(reference, rounded)
    assert relative_difference(logits(model), logits(reference)) < 1e-5


def round_experts(
    model: torch.nn.Module,
    rounded: set[str],
    layers: tuple[str, ...] = ("gate_proj", "up_proj", "down_proj"),
) -> None:
    """Round stacked experts, and check that each of their matrices is among what was rounded."""
    found = [module for module in model.named_modules() if hasattr(module[1], "gate_up_proj")]
    assert found
    for name, experts in found:
        for expert, both in enumerate(experts.gate_up_proj.data):
            for part in (*both.chunk(2), experts.down_proj.data[expert]):
                part.copy_(fp8_expanded(part))
            assert {f"{name}.{expert}.{layer}" for layer in layers} <= rounded


@pytest.mark.parametrize(
    ("family", "layers"),
    [("qwen3_moe", ("gate_proj", "up_proj", "down_proj")), ("mixtral", ("w1", "w3", "w2"))],
)
def test_experts_that_are_stored_one_by_one(
    family: str, layers: tuple[str, ...], tmp_path: Path
) -> None:
    save_mixture(tmp_path, family)
    model = load_fp8(tmp_path)
    reference = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32)
    for name, module in reference.named_modules():
        if type(module) is torch.nn.Linear and name != "lm_head":
            module.weight.data = fp8_expanded(module.weight.data)
    rounded = {name for name, module in model.named_modules() if isinstance(module, StoredLinear)}
    round_experts(reference, rounded, layers)
    assert len(rounded) == (4 + 3 * EXPERTS) * LAYERS
    assert not [each for each in rounded if each.endswith(".gate")]
    assert relative_difference(logits(model), logits(reference)) < 1e-6
    engine = Engine(tmp_path, EngineConfig(weights="fp8", max_running=4, max_context=128))
    assert "2 layers of experts in FP8 per channel, rounded while loading: 2." in engine.table()


@pytest.mark.parametrize(
    ("config", "layers_of_experts"),
    [
        (transformers.MiniMaxM2Config, 3 * EXPERTS),
        (transformers.PhimoeConfig, 3 * EXPERTS),
        (transformers.Lfm2MoeConfig, 3 * EXPERTS),
        (transformers.GraniteMoeConfig, 0),  # stacked under names of its own: as they are
    ],
)
def test_experts_under_names_of_their_own(config, layers_of_experts: int, tmp_path: Path) -> None:
    torch.manual_seed(0)
    settings = tiny_models.COMMON | {"num_hidden_layers": 1, "moe_intermediate_size": 64}
    settings |= {"layer_types": ["full_attention"], "num_dense_layers": 0, "num_experts_per_tok": 2}
    experts = {"num_local_experts": EXPERTS, "num_experts": EXPERTS}
    model = AutoModelForCausalLM.from_config(config(**settings, head_dim=8, **experts))
    tiny_models.randomize(model, 20.0).save_pretrained(tmp_path)
    found = load_fp8(tmp_path)
    assert len(list(stored_linears(found))) == 4 + layers_of_experts
    assert relative_difference(logits(found), logits(model)) < 0.1


def test_what_cannot_be_rounded_is_refused(tmp_path: Path) -> None:
    save_plain(tmp_path)
    quantize_folder(tmp_path, "w4_32")
    with pytest.raises(UnsupportedModelError, match="is quantized already, as compressed-tensors"):
        Engine(tmp_path, EngineConfig(weights="fp8"))
    with pytest.raises(ValueError, match="weights must be 'fp8' or None"):
        EngineConfig(weights="int4")
    with pytest.raises(ValueError, match="give its folder"):
        Engine(tiny_models.build("llama"), EngineConfig(weights="fp8"))


def test_broken_checkpoints_are_refused_as_ever(tmp_path: Path) -> None:
    save_plain(tmp_path)
    file = tmp_path / "model.safetensors"
    assert load_file(file)
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(ValueError, match="truncated"):
        Engine(tmp_path, EngineConfig(weights="fp8"))
