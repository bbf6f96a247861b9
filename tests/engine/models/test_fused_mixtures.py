"""Quantized experts in the fused decoder: the kernels run in Triton's interpreter, in float32."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from helpers.engine_cases.engine_driver import greedy_reference, run_until_idle
from helpers.engine_cases.quantized_checkpoints import TOKENS, quantize_folder, save_mixture
from helpers.kernel_cases.kernel_devices import CUDA
from transformers import AutoModelForCausalLM

from eightfold.engine import Engine, EngineConfig, SamplingParams
from eightfold.engine.models.fused.fused_decoder import FusedDecoder
from eightfold.engine.models.hf_decoder import HFDecoder
from eightfold.engine.quantization.meta_modules import stored_linears
from eightfold.engine.quantization.split_experts import SplitExperts
from eightfold.kernels.experts.stored.expert_stack import StoredStack
from eightfold.kernels.quantized.stored_matrix import StoredMatrix

pytestmark = pytest.mark.skipif(CUDA, reason="the interpreter takes tensors of a CPU only")

NEW = 2
PROMPT = TOKENS[0, :5].tolist()
CONFIG = EngineConfig(
    device="cpu", fused=True, page_size=16, max_step_tokens=8, max_running=1, max_context=32
)
MODULES = replace(CONFIG, fused=False)
PARAMS = SamplingParams(temperature=0, max_new_tokens=NEW, stop_token_ids=())


@pytest.mark.parametrize(
    ("family", "name"), [("qwen3_moe", "fine_grained_fp8"), ("mixtral", "awq")]
)
def test_fused_tokens_equal_transformers(family: str, name: str, tmp_path: Path) -> None:
    folder, expanded = tmp_path / "stored", tmp_path / "expanded"
    folder.mkdir()
    expanded.mkdir()
    save_mixture(folder, family, layers=1)
    quantize_folder(folder, name, expanded)
    reference = AutoModelForCausalLM.from_pretrained(expanded, dtype=torch.float32)
    engine = Engine(folder, CONFIG)
    decoder = engine._runner.decoder
    assert isinstance(decoder, FusedDecoder)
    for layer in decoder.layers:
        assert isinstance(layer.qkv, StoredMatrix)
        assert layer.experts is not None
        assert isinstance(layer.experts.weights.gate_up, StoredStack)
        assert isinstance(layer.experts.weights.down, StoredStack)
    seq = engine.submit(PROMPT, PARAMS)
    assert run_until_idle(engine)[seq] == greedy_reference(reference, PROMPT, NEW)
    assert f"path: fused, a row of {family}" in engine.table()
    assert "1 layers of experts in" in engine.table()


def test_transformers_modules_over_the_kernels(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, expanded = tmp_path / "stored", tmp_path / "expanded"
    folder.mkdir()
    expanded.mkdir()
    save_mixture(folder, "qwen3_moe", layers=1)
    quantize_folder(folder, "w4_32", expanded)
    reference = AutoModelForCausalLM.from_pretrained(expanded, dtype=torch.float32)
    monkeypatch.setattr("eightfold.engine.engine.uses_kernels", lambda *_: True)
    engine = Engine(folder, MODULES)
    decoder = engine._runner.decoder
    assert isinstance(decoder, HFDecoder)
    assert decoder.capturable, decoder.path_reason
    assert all(layer.use_kernels for layer in stored_linears(decoder._model))
    (split,) = (each for each in decoder._model.modules() if isinstance(each, SplitExperts))
    assert split.weights is not None
    seq = engine.submit(PROMPT, PARAMS)
    assert run_until_idle(engine)[seq] == greedy_reference(reference, PROMPT, NEW)
