"""Checkpoints with linear layers in FP8 and 4 bits load as stored and compute what they mean."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from helpers.engine_cases import tiny_models
from helpers.engine_cases.checkpoint_loading import load_checkpoint
from helpers.engine_cases.engine_driver import greedy_reference, run_until_idle
from helpers.engine_cases.quantized_checkpoints import (
    FORMATS,
    LAYERS,
    TOKENS,
    logits,
    quantize_folder,
    relative_difference,
    save_plain,
)
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, PreTrainedModel

from eightfold.engine import CheckpointError, Engine, EngineConfig, SamplingParams
from eightfold.engine.inspection.meta_model import allocate_parameters
from eightfold.engine.loading import checkpoint
from eightfold.engine.model_errors import UnsupportedModelError
from eightfold.engine.quantization.meta_modules import stored_linears
from eightfold.engine.quantization.stored_linear import StoredLinear
from eightfold.kernels.quantized.stored_matrix import FP8


@pytest.fixture(params=FORMATS)
def quantized(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Path, PreTrainedModel]:
    """Return a quantized checkpoint, and a model in float32 with the values that it stores."""
    folder, expanded = tmp_path / "stored", tmp_path / "expanded"
    folder.mkdir()
    expanded.mkdir()
    save_plain(folder)
    quantize_folder(folder, request.param, expanded)
    return folder, AutoModelForCausalLM.from_pretrained(expanded, dtype=torch.float32)


def test_logits_are_those_of_the_expanded_weights(
    quantized: tuple[Path, PreTrainedModel], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, reference = quantized
    monkeypatch.setattr(checkpoint, "_load_with_transformers", None)  # it must not be needed
    for allocate in (None, allocate_parameters):
        model, _ = load_checkpoint(folder, allocate=allocate)
        assert relative_difference(logits(model), logits(reference)) < 1e-6
    assert type(model.lm_head) is torch.nn.Linear
    layers = list(stored_linears(model))
    assert len(layers) == 7 * LAYERS
    for layer in layers:
        assert not list(layer.parameters()), "what is stored is held once, as the matrix"
        weights = layer.in_features * layer.out_features
        assert layer.matrix.codes.nbytes == weights // (1 if layer.matrix.is_fp8 else 2)
    in_bfloat16, _ = load_checkpoint(folder, dtype=torch.bfloat16)
    assert relative_difference(logits(in_bfloat16), logits(reference)) < 0.05


@pytest.mark.parametrize("name", ["fp8_block", "w4_32_zeros"])
def test_greedy_tokens_equal_transformers(name: str, tmp_path: Path) -> None:
    folder, expanded = tmp_path / "stored", tmp_path / "expanded"
    folder.mkdir()
    expanded.mkdir()
    save_plain(folder)
    quantize_folder(folder, name, expanded)
    reference = AutoModelForCausalLM.from_pretrained(expanded, dtype=torch.float32)
    engine = Engine(folder, EngineConfig(max_step_tokens=16, max_running=4, max_context=128))
    params = SamplingParams(temperature=0, max_new_tokens=20, stop_token_ids=())
    prompts = [TOKENS[0, :n].tolist() for n in (3, 20, 11)]
    seqs = [engine.submit(prompt, params) for prompt in prompts]
    generated = run_until_idle(engine)
    assert [generated[seq] for seq in seqs] == [
        greedy_reference(reference, prompt, 20) for prompt in prompts
    ]


def test_the_text_model_of_a_multimodal_checkpoint(tmp_path: Path) -> None:
    folder, expanded = tmp_path / "stored", tmp_path / "expanded"
    folder.mkdir()
    expanded.mkdir()
    model = tiny_models.build("gemma4_wrapped")
    model.to(torch.bfloat16).save_pretrained(folder)
    quantize_folder(folder, "fp8_channel", expanded)
    config = json.loads((folder / "config.json").read_text())
    kept = "model.language_model.layers.1.mlp.down_proj"
    config["quantization_config"]["ignore"] = [
        "lm_head", "re:model\\.vision_tower.*", "re:.*vision.*", kept,
    ]  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config))
    stored = load_file(folder / "model.safetensors")
    plain = load_file(expanded / "model.safetensors")
    stored[f"{kept}.weight"] = plain[f"{kept}.weight"].to(torch.bfloat16)
    del stored[f"{kept}.weight_scale"]
    plain[f"{kept}.weight"] = stored[f"{kept}.weight"].float()
    save_file(stored, folder / "model.safetensors", metadata={"format": "pt"})
    save_file(plain, expanded / "model.safetensors", metadata={"format": "pt"})
    found, architecture = load_checkpoint(folder)
    assert architecture.wrapped
    expected, _ = load_checkpoint(expanded)
    assert relative_difference(logits(found), logits(expected)) < 1e-6
    assert type(found.model.layers[1].mlp.down_proj) is torch.nn.Linear
    assert isinstance(found.model.layers[0].mlp.down_proj, StoredLinear)


def test_layers_that_are_stored_plainly_stay_plain(tmp_path: Path) -> None:
    save_plain(tmp_path)
    plain = load_file(tmp_path / "model.safetensors")
    quantize_folder(tmp_path, "w4_32")
    with stored_tensors(tmp_path) as stored:
        prefix = "model.layers.0.self_attn.v_proj."
        for name in [name for name in stored if name.startswith(prefix)]:
            del stored[name]
        stored[f"{prefix}weight"] = plain[f"{prefix}weight"]
    model, _ = load_checkpoint(tmp_path)
    assert type(model.model.layers[0].self_attn.v_proj) is torch.nn.Linear
    assert len(list(stored_linears(model))) == 7 * LAYERS - 1


PROJECTION = "model.layers.1.mlp.down_proj"


@contextmanager
def stored_tensors(folder: Path) -> Iterator[dict[str, torch.Tensor]]:
    """Yield the tensors of a checkpoint, and store them again as they have been changed."""
    path = folder / "model.safetensors"
    tensors = load_file(path)
    yield tensors
    save_file(tensors, path, metadata={"format": "pt"})


@pytest.mark.parametrize(
    ("name", "part", "change", "words"),
    [
        ("fp8_channel", "weight_scale", None, "missing tensors: .*copy the checkpoint again"),
        ("w4_32_zeros", "weight_zero_point", None, "missing tensors: "),
        ("fp8_block", "weight_scale", lambda t: t[:, :-1], r"wrong shape: .* should be \(1, 3\)"),
        ("fp8_tensor", "weight", lambda t: t[:-1], "wrong shape: "),
        ("fp8_channel", "weight", lambda t: t.view(torch.uint8), "as U8 and should be F8_E4M3"),
        ("awq", "qweight", lambda t: t.T, "wrong shape: "),
        ("gptq", "qzeros", lambda t: t.long(), "as I64 and should be I32"),
    ],
)
def test_broken_checkpoints_name_the_tensor(
    name: str,
    part: str,
    change: Callable[[torch.Tensor], torch.Tensor] | None,
    words: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    save_plain(tmp_path)
    quantize_folder(tmp_path, name)
    with stored_tensors(tmp_path) as stored:
        tensor = stored.pop(f"{PROJECTION}.{part}")
        if change is not None:
            stored[f"{PROJECTION}.{part}"] = change(tensor).contiguous()
    monkeypatch.setattr(checkpoint, "map_weights", None)  # refused before a weight is read
    with pytest.raises(CheckpointError, match=words) as error:
        Engine(tmp_path)
    assert f"{PROJECTION}.{part}" in str(error.value)
    assert "\n" not in str(error.value)


def test_weights_in_fp8_are_never_read_without_their_scales(tmp_path: Path) -> None:
    save_plain(tmp_path)
    with stored_tensors(tmp_path) as stored:
        stored[f"{PROJECTION}.weight"] = stored[f"{PROJECTION}.weight"].to(FP8)
    with pytest.raises(CheckpointError, match="is stored as F8_E4M3 and should be BF16"):
        Engine(tmp_path)


def test_a_configuration_for_weights_that_are_not_quantized_is_refused(tmp_path: Path) -> None:
    save_plain(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    config["quantization_config"] = FORMATS["fp8_channel"][0]
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match="remove quantization_config"):
        Engine(tmp_path)


def test_gptq_columns_out_of_order_are_refused(tmp_path: Path) -> None:
    save_plain(tmp_path)
    quantize_folder(tmp_path, "gptq")
    with stored_tensors(tmp_path) as stored:
        stored[f"{PROJECTION}.g_idx"] = stored[f"{PROJECTION}.g_idx"].flip(0).contiguous()
    with pytest.raises(UnsupportedModelError, match="desc_act=False"):
        Engine(tmp_path)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize(("name", "part"), [("fp8_channel", "weight_scale"), ("awq", "scales")])
def test_scales_that_are_no_finite_numbers_are_refused(
    name: str, part: str, value: float, tmp_path: Path
) -> None:
    save_plain(tmp_path)
    quantize_folder(tmp_path, name)
    with stored_tensors(tmp_path) as stored:
        stored[f"{PROJECTION}.{part}"].view(-1)[3] = value
    with pytest.raises(CheckpointError, match=f"infinite or not a number: those of {PROJECTION};"):
        Engine(tmp_path)


@pytest.mark.parametrize("name", ["gptq", "gptq_v2"])
def test_gptq_weights_of_the_other_version_are_refused(name: str, tmp_path: Path) -> None:
    save_plain(tmp_path)
    quantize_folder(tmp_path, name)
    with stored_tensors(tmp_path) as stored:
        for key, each in stored.items():
            if key.endswith(".qzeros"):  # eight fours of bits, each 8 or, in the first version, 7
                each.fill_(0x77777777 if name == "gptq_v2" else -0x77777778)
    with pytest.raises(CheckpointError, match="zero points of GPTQ's other version"):
        Engine(tmp_path)


def test_a_quantized_embedding_is_refused_by_name(tmp_path: Path) -> None:
    save_plain(tmp_path)
    quantize_folder(tmp_path, "fp8_channel")
    with stored_tensors(tmp_path) as stored:
        name = "model.embed_tokens.weight"
        stored[name] = stored[name].to(FP8)
        stored[f"{name}_scale"] = torch.ones(len(stored[name]), 1)
    with pytest.raises(UnsupportedModelError, match=r"quantized embedding \(model.embed_tokens\)"):
        Engine(tmp_path)
