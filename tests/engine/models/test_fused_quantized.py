"""Quantized linear layers in the fused decoder, and in transformers' modules over the kernels.

The kernels run in Triton's interpreter, in float32 and without graphs.
"""

import json
from pathlib import Path

import pytest
import torch
from helpers.engine_cases.engine_driver import greedy_reference, run_until_idle
from helpers.engine_cases.quantized_checkpoints import TOKENS, quantize_folder, save_plain
from helpers.kernel_cases.kernel_devices import CUDA
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from eightfold.engine import Engine, EngineConfig, ModelError, SamplingParams
from eightfold.engine.models.fused.fused_decoder import FusedDecoder
from eightfold.kernels.quantized.stored_matrix import StoredMatrix

pytestmark = pytest.mark.skipif(CUDA, reason="the interpreter takes tensors of a CPU only")

NEW = 2
PROMPT = TOKENS[0, :5].tolist()
CONFIG = {"device": "cpu", "max_step_tokens": 8, "max_running": 1, "max_context": 32}
PARAMS = SamplingParams(temperature=0, max_new_tokens=NEW, stop_token_ids=())
SHAPES = {"hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 1}


@pytest.fixture
def folders(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Path, Path]:
    """Return a checkpoint in the parameter's format, and one in float32 with the same values."""
    folder, expanded = tmp_path / "stored", tmp_path / "expanded"
    folder.mkdir()
    expanded.mkdir()
    save_plain(folder, **SHAPES)
    quantize_folder(folder, request.param, expanded)
    return folder, expanded


def tokens_of(engine: Engine) -> list[int]:
    seq = engine.submit(PROMPT, PARAMS)
    return run_until_idle(engine)[seq]


@pytest.mark.parametrize("folders", ["fp8_tensor", "w4_32_zeros"], indirect=True)
def test_fused_tokens_equal_transformers(folders: tuple[Path, Path]) -> None:
    folder, expanded = folders
    reference = AutoModelForCausalLM.from_pretrained(expanded, dtype=torch.float32)
    engine = Engine(folder, EngineConfig(fused=True, page_size=16, **CONFIG))
    decoder = engine._runner.decoder
    assert isinstance(decoder, FusedDecoder)
    for layer in decoder.layers:
        for weight in (layer.qkv, layer.out, layer.gate_up, layer.down):
            assert isinstance(weight, StoredMatrix)
    assert tokens_of(engine) == greedy_reference(reference, PROMPT, NEW)
    assert "path: fused, a row of llama" in engine.table()


@pytest.mark.parametrize("folders", ["fp8_channel"], indirect=True)
def test_tokens_of_transformers_modules_over_the_kernels(
    folders: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, expanded = folders
    reference = AutoModelForCausalLM.from_pretrained(expanded, dtype=torch.float32)
    monkeypatch.setattr("eightfold.engine.engine.uses_kernels", lambda *_: True)
    engine = Engine(folder, EngineConfig(fused=False, page_size=16, **CONFIG))
    assert tokens_of(engine) == greedy_reference(reference, PROMPT, NEW)


@pytest.mark.parametrize("folders", ["fp8_channel"], indirect=True)
def test_projections_that_are_stored_differently_are_refused(folders: tuple[Path, Path]) -> None:
    folder, _ = folders
    config = json.loads((folder / "config.json").read_text())
    name = "model.layers.0.self_attn.v_proj"
    config["quantization_config"]["ignore"] += [name]
    (folder / "config.json").write_text(json.dumps(config))
    stored = load_file(folder / "model.safetensors")
    stored[f"{name}.weight"] = stored[f"{name}.weight"].to(torch.bfloat16)
    del stored[f"{name}.weight_scale"]
    save_file(stored, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match="set fused to False"):
        Engine(folder, EngineConfig(fused=True, page_size=16, **CONFIG))
