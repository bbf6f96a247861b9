"""What compressed-tensors and transformers themselves store and expand is read the same way."""

from pathlib import Path

import pytest
import torch
from helpers.engine_cases.checkpoint_loading import load_checkpoint
from helpers.engine_cases.quantized_checkpoints import (
    FORMATS,
    logits,
    quantize_folder,
    relative_difference,
    save_mixture,
    save_plain,
)
from transformers import AutoModelForCausalLM, FineGrainedFP8Config

from eightfold.engine.quantization.quantization_config import read_quantization
from eightfold.engine.quantization.stored_linear import StoredLinear

OFFICIAL = [
    name for name, case in FORMATS.items() if case[0]["quant_method"] == "compressed-tensors"
]


@pytest.mark.parametrize("name", OFFICIAL)
def test_a_weight_that_compressed_tensors_stores_expands_as_it_says(name: str) -> None:
    quantization = pytest.importorskip("compressed_tensors.quantization")
    compressors = pytest.importorskip("compressed_tensors.compressors")
    entry, round_weight, store = FORMATS[name]
    (scheme,) = quantization.QuantizationConfig.model_validate(entry).config_groups.values()
    torch.manual_seed(2)
    weight = torch.randn(256, 384)
    matrix = round_weight(weight)
    by_hand = store(matrix)
    state = {
        "weight": weight.to(torch.bfloat16),
        "weight_scale": by_hand["weight_scale"].to(torch.bfloat16),
    }
    if matrix.zeros is not None:
        state["weight_zero_point"] = (matrix.zeros.to(torch.int8) - 8).contiguous()
    compressor = compressors.BaseCompressor.get_value_from_registry(entry["format"])
    compressed = compressor.compress(state, scheme)
    layer = StoredLinear(
        torch.nn.Linear(384, 256, bias=False),
        read_quantization({"quantization_config": entry}).linear_format("model.layers.0.q_proj"),
    )
    layer.load_state_dict(compressed)
    layer.finish_loading()
    expected = compressor.decompress(compressed, scheme)["weight"].float()
    # Their products are rounded to bfloat16.
    torch.testing.assert_close(layer.matrix.expand(torch.float32), expected, rtol=2**-8, atol=0)
    assert relative_difference(expected, weight) < (0.05 if matrix.is_fp8 else 0.2)


@pytest.mark.parametrize("name", ["fp8_block", "fp8_channel", "w4_128", "w4_32"])
def test_logits_equal_those_of_compressed_tensors(name: str, tmp_path: Path) -> None:
    pytest.importorskip("compressed_tensors")
    save_plain(tmp_path)
    quantize_folder(tmp_path, name)
    ours, _ = load_checkpoint(tmp_path)
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32)
    # They round inputs to FP8 and expanded weights to bfloat16.
    allowed = 0.1 if name.startswith("fp8") else 0.02
    assert relative_difference(logits(ours), logits(theirs)) < allowed


def test_logits_equal_those_of_fine_grained_fp8(tmp_path: Path) -> None:
    save_plain(tmp_path, hidden_size=256)  # transformers 5.5 expands whole blocks only
    quantize_folder(tmp_path, "fine_grained_fp8")
    ours, _ = load_checkpoint(tmp_path)
    theirs = AutoModelForCausalLM.from_pretrained(
        tmp_path, dtype=torch.float32, quantization_config=FineGrainedFP8Config(dequantize=True)
    )
    assert relative_difference(logits(ours), logits(theirs.float())) < 0.02


@pytest.mark.parametrize("family", ["qwen3_moe", "mixtral"])
def test_experts_equal_those_of_fine_grained_fp8(family: str, tmp_path: Path) -> None:
    save_mixture(tmp_path, family, hidden=256)
    plain = logits(AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32))
    quantize_folder(tmp_path, "fine_grained_fp8")
    ours, _ = load_checkpoint(tmp_path)
    theirs = AutoModelForCausalLM.from_pretrained(
        tmp_path, dtype=torch.float32, quantization_config=FineGrainedFP8Config(dequantize=True)
    )
    found = logits(theirs.float())
    if relative_difference(found, plain) > 0.7:
        pytest.skip("this transformers expands stacked experts wrongly, as 5.5 does")
    assert relative_difference(logits(ours), found) < 0.02
