"""gpt-oss checkpoints with experts in MXFP4 load as stored, run as transformers runs them expanded,
and are refused in one sentence if they are broken.
"""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from helpers.engine_cases import tiny_models
from helpers.engine_cases.checkpoint_loading import CPU, load_checkpoint
from helpers.engine_cases.engine_driver import NEW_TOKENS, greedy_reference, run_until_idle
from helpers.engine_cases.gpt_oss_checkpoints import (
    EXPERT_MATRICES,
    QUANTIZATION,
    build_gpt_oss,
    save_gpt_oss,
    stored_tensors,
    write_weights,
)
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, Mxfp4Config

from eightfold.engine import CheckpointError, Engine, EngineConfig, SamplingParams
from eightfold.engine.inspection.meta_model import allocate_parameters, named_tensors
from eightfold.engine.loading import checkpoint, cpu_loader, gpu_loader
from eightfold.engine.loading.model_folder import check_model_folder
from eightfold.engine.loading.safetensors_headers import read_stored_tensors
from eightfold.engine.model_errors import ModelError, UnsupportedModelError
from eightfold.engine.quantization import mxfp4_experts
from eightfold.engine.quantization.mxfp4_experts import Mxfp4Experts

GREEDY = SamplingParams(temperature=0, max_new_tokens=NEW_TOKENS, stop_token_ids=())
CONFIG = EngineConfig(max_step_tokens=16, max_running=8, max_context=160, page_size=8)
EXPERTS = "model.layers.1.mlp.experts"


def prompts() -> list[list[int]]:
    generator = torch.Generator().manual_seed(7)
    return [
        torch.randint(3, tiny_models.VOCABULARY, (n,), generator=generator).tolist()
        for n in (3, 40, 17, 1)
    ]


@pytest.mark.parametrize("mxfp4", [True, False], ids=["mxfp4", "bfloat16"])
def test_greedy_tokens_equal_transformers(mxfp4: bool, tmp_path: Path) -> None:
    reference = save_gpt_oss(tmp_path, mxfp4=mxfp4, shards=3)
    expected = [greedy_reference(reference, prompt) for prompt in prompts()]
    assert len(set(expected[1])) > 5, "a reference that repeats one token proves little"
    engine = Engine(tmp_path, CONFIG)
    seqs = [engine.submit(prompt, GREEDY) for prompt in prompts()]
    generated = run_until_idle(engine)
    assert [generated[seq] for seq in seqs] == expected


def test_logits_equal_those_of_transformers_own_loader(tmp_path: Path) -> None:
    reference = save_gpt_oss(tmp_path, mxfp4=True)
    theirs = AutoModelForCausalLM.from_pretrained(
        tmp_path, quantization_config=Mxfp4Config(dequantize=True), dtype=torch.float32
    ).float()  # transformers 5.5 expands to bfloat16, which loses nothing
    ours, _ = load_checkpoint(tmp_path)
    tokens = torch.tensor([prompts()[1]])
    with torch.inference_mode():
        found, expected, exact = (model(tokens).logits for model in (ours, theirs, reference))
    torch.testing.assert_close(expected, exact)
    torch.testing.assert_close(found, exact, atol=1e-4 * float(exact.std()), rtol=0)


@pytest.mark.parametrize("allocate", [None, allocate_parameters], ids=["mapped", "read"])
def test_blocks_and_scales_are_held_as_stored(
    allocate: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_gpt_oss(tmp_path, mxfp4=True, shards=2)
    readers = []
    monkeypatch.setattr(checkpoint, "_load_with_transformers", None)  # it must not be needed
    for name, module in (("map_weights", cpu_loader), ("read_tensors", gpu_loader)):
        original = getattr(module, name)

        def note(*args: object, name: str = name, original: Callable = original) -> object:
            readers.append(name)
            return original(*args)

        monkeypatch.setattr(checkpoint, name, note)
    model, _ = load_checkpoint(tmp_path, dtype=torch.bfloat16, allocate=allocate)
    assert readers == ["map_weights" if allocate is None else "read_tensors"]
    stored: dict[str, torch.Tensor] = {}
    for file in {tensor.file for tensor in read_stored_tensors(tmp_path)}:
        stored |= load_file(file)
    found = named_tensors(model)
    assert found.keys() == stored.keys()
    for name, tensor in stored.items():
        assert found[name].dtype == tensor.dtype, name
        assert torch.equal(found[name], tensor), name
        assert not (tensor.dtype == torch.uint8 and found[name].requires_grad)
    assert sum(tensor.nbytes for tensor in model.parameters()) == sum(
        tensor.nbytes for tensor in stored.values()
    )


def test_no_two_experts_are_expanded_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_gpt_oss(tmp_path, mxfp4=True)
    model, _ = load_checkpoint(tmp_path)
    expanded = []
    original = mxfp4_experts.expand_mxfp4

    def note(blocks: torch.Tensor, *args: object) -> torch.Tensor:
        expanded.append(blocks.shape)
        return original(blocks, *args)

    monkeypatch.setattr(mxfp4_experts, "expand_mxfp4", note)
    with torch.inference_mode():
        model(torch.tensor([[5]]))
    assert {len(shape) for shape in expanded} == {3}, "one expert's rows, blocks and bytes"
    layers, each = model.config.num_hidden_layers, model.config.num_experts_per_tok
    assert len(expanded) == len(EXPERT_MATRICES) * layers * each, "only experts with a token"


def test_modules_that_are_not_converted_stay_in_bfloat16(tmp_path: Path) -> None:
    reference = save_gpt_oss(tmp_path, mxfp4=True)
    kept = "model.layers.2.mlp.experts"
    config = json.loads((tmp_path / "config.json").read_text())
    config["quantization_config"]["modules_to_not_convert"] += [kept]
    (tmp_path / "config.json").write_text(json.dumps(config))
    tensors = stored_tensors(reference, mxfp4=True)
    plain = stored_tensors(reference, mxfp4=False)
    tensors = {name: tensor for name, tensor in tensors.items() if not name.startswith(kept)}
    tensors |= {name: tensor for name, tensor in plain.items() if name.startswith(kept)}
    write_weights(tmp_path, tensors)
    model, _ = load_checkpoint(tmp_path)
    kinds = [isinstance(layer.mlp.experts, Mxfp4Experts) for layer in model.model.layers]
    assert kinds == [True, True, False, True]
    tokens = torch.tensor([prompts()[1]])
    with torch.inference_mode():
        found, expected = model(tokens).logits, reference(tokens).logits
    torch.testing.assert_close(found, expected, atol=1e-4 * float(expected.std()), rtol=0)


def rename(old: str, new: str) -> Callable[[dict], None]:
    def change(tensors: dict[str, torch.Tensor]) -> None:
        tensors[new] = tensors.pop(old)

    return change


def replace(name: str, make: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[dict], None]:
    def change(tensors: dict[str, torch.Tensor]) -> None:
        tensors[name] = make(tensors[name]).contiguous()

    return change


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            lambda tensors: tensors.pop(f"{EXPERTS}.down_proj_scales"),
            rf"missing tensors: {EXPERTS}\.down_proj_scales; .*copy the checkpoint again",
        ),
        (
            lambda tensors: tensors.pop(f"{EXPERTS}.gate_up_proj_blocks"),
            rf"missing tensors: {EXPERTS}\.gate_up_proj_blocks; ",
        ),
        (
            replace(f"{EXPERTS}.down_proj_blocks", lambda blocks: blocks[:, :, :-1]),
            rf"wrong shape: {EXPERTS}\.down_proj_blocks is \(8, 96, 4, 16\) and should be "
            r"\(8, 96, 5, 16\)",
        ),
        (
            replace(f"{EXPERTS}.gate_up_proj_scales", lambda scales: scales.transpose(1, 2)),
            rf"wrong shape: {EXPERTS}\.gate_up_proj_scales is \(8, 3, 320\)",
        ),
        (
            replace(f"{EXPERTS}.gate_up_proj_scales", lambda scales: scales.to(torch.int8)),
            rf"wrong type: {EXPERTS}\.gate_up_proj_scales is stored as I8 and should be U8",
        ),
        (
            replace(f"{EXPERTS}.down_proj_blocks", lambda blocks: blocks.to(torch.bfloat16)),
            rf"wrong type: {EXPERTS}\.down_proj_blocks is stored as BF16 and should be U8",
        ),
        (
            replace(
                f"{EXPERTS}.down_proj_scales", lambda scales: scales.view(torch.float8_e8m0fnu)
            ),
            rf"wrong type: {EXPERTS}\.down_proj_scales is stored as F8_E8M0 and should be U8",
        ),
        (
            rename(f"{EXPERTS}.down_proj_blocks", f"{EXPERTS}.down_proj.blocks"),
            rf"missing tensors: {EXPERTS}\.down_proj_blocks",
        ),
    ],
)
def test_broken_checkpoints_name_the_tensor(
    change: Callable[[dict], None], words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_gpt_oss(tmp_path, mxfp4=True)
    tensors = load_file(tmp_path / "model.safetensors")
    change(tensors)
    save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    monkeypatch.setattr(checkpoint, "map_weights", None)  # refused before a weight is read
    with pytest.raises(CheckpointError, match=words) as error:
        Engine(tmp_path)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 500


def test_a_configuration_that_contradicts_the_weights_is_named(tmp_path: Path) -> None:
    model = save_gpt_oss(tmp_path, mxfp4=True)
    config = json.loads((tmp_path / "config.json").read_text())
    del config["quantization_config"]
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match=r"but config\.json has no quantization_config"):
        Engine(tmp_path)
    kept = [*QUANTIZATION["modules_to_not_convert"], "model.layers.*.mlp.experts"]
    config["quantization_config"] = QUANTIZATION | {"modules_to_not_convert": kept}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match=r"mxfp4, but names all of them as not quantized"):
        Engine(tmp_path)
    config["quantization_config"] = QUANTIZATION
    (tmp_path / "config.json").write_text(json.dumps(config))
    write_weights(tmp_path, stored_tensors(model, mxfp4=False))
    with pytest.raises(CheckpointError, match=r"config\.json says that weights .* mxfp4"):
        Engine(tmp_path)


@pytest.mark.parametrize("written", ["mxfp4", ["mxfp4"], 4])
def test_a_quantization_that_is_no_object_is_refused(written: object, tmp_path: Path) -> None:
    save_gpt_oss(tmp_path, mxfp4=True)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"quantization_config": written}))
    with pytest.raises(CheckpointError, match=r"config\.json cannot be used: "):
        Engine(tmp_path)


def test_the_authors_own_layout_is_recognized(tmp_path: Path) -> None:
    """A repository of gpt-oss has such a folder, `original`, beside the checkpoint."""
    own = {"num_hidden_layers": 4, "num_experts": 8, "swiglu_limit": 7.0, "head_dim": 16}
    (tmp_path / "config.json").write_text(json.dumps(own))
    (tmp_path / "dtypes.json").write_text(json.dumps({"block.0.attn.sinks": "BF16"}))
    save_file({"block.0.attn.sinks": torch.zeros(8)}, tmp_path / "model.safetensors")
    said = "gpt-oss's weights in its authors' own layout; give the folder above it"
    with pytest.raises(CheckpointError, match=said):
        Engine(tmp_path)
    with pytest.raises(CheckpointError, match=said):
        check_model_folder(tmp_path)


def test_what_cannot_be_expanded_is_refused(tmp_path: Path) -> None:
    save_gpt_oss(tmp_path, mxfp4=True)
    with pytest.raises(UnsupportedModelError, match="MXFP4 do not fit float16; set dtype to"):
        Engine(tmp_path, EngineConfig(dtype="float16"))
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"intermediate_size": 100}))
    with pytest.raises(ModelError, match="100 wide cannot be in MXFP4"):
        Engine(tmp_path)


def test_models_that_transformers_has_quantized_are_refused(tmp_path: Path) -> None:
    model = build_gpt_oss(mxfp4=True)
    model.config.quantization_config = Mxfp4Config()
    with pytest.raises(UnsupportedModelError, match="give the engine the checkpoint's folder"):
        Engine(model)
    save_gpt_oss(tmp_path, mxfp4=True)
    ours, _ = load_checkpoint(tmp_path, device=CPU)
    assert Engine(ours, CONFIG).device == CPU


@pytest.mark.parametrize("scale", [253, 255])
def test_scales_that_are_no_finite_numbers_are_refused(scale: int, tmp_path: Path) -> None:
    save_gpt_oss(tmp_path, mxfp4=True)
    stored = load_file(tmp_path / "model.safetensors")
    stored[f"{EXPERTS}.down_proj_scales"].view(-1)[5] = scale
    save_file(stored, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match=f"infinite or not a number: those of {EXPERTS};"):
        Engine(tmp_path)
