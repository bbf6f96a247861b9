"""Which quantizations are read, and which are refused by name."""

import pytest
from helpers.engine_cases.gpt_oss_checkpoints import QUANTIZATION

from eightfold.engine.model_errors import UnsupportedModelError
from eightfold.engine.quantization.quantization_config import Quantization, read_quantization


def gpt_oss(**entry: object) -> dict:
    return {"model_type": "gpt_oss", "quantization_config": {"quant_method": "mxfp4", **entry}}


def test_mxfp4_is_read() -> None:
    found = read_quantization({"model_type": "gpt_oss", "quantization_config": QUANTIZATION})
    assert found is not None
    assert found.method == "mxfp4"
    assert found.converts("model.layers.11.mlp.experts")
    assert not found.converts("model.layers.11.mlp.router")
    assert not found.converts("lm_head")
    assert read_quantization(gpt_oss()) == Quantization("mxfp4")
    for absent in ({}, {"quantization_config": None}, {"text_config": {}}):
        assert read_quantization({"model_type": "gpt_oss", **absent}) is None


@pytest.mark.parametrize(
    ("pattern", "module", "kept"),
    [
        ("model.layers.1", "model.layers.1.mlp.experts", True),
        ("model.layers.1", "model.layers.11.mlp.experts", False),
        ("model.layers.*.mlp", "model.layers.7.mlp.experts", True),
        ("model.layers.[1-3].mlp.experts", "model.layers.2.mlp.experts", True),
        ("model.layers.[1-3].mlp.experts", "model.layers.4.mlp.experts", False),
        ("experts", "model.layers.4.mlp.experts", True),
        ("mlp.expert", "model.layers.4.mlp.experts", False),
        ("model.layers.(", "model.layers.4.mlp.experts", False),
    ],
)
def test_modules_are_kept_by_name_prefix_expression_or_end(
    pattern: str, module: str, kept: bool
) -> None:
    assert Quantization("mxfp4", (pattern,)).converts(module) is not kept


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"quantization_config": {"bits": 4}}, "is quantized without a quant_method"),
        ({"quantization_config": {"quant_method": "bitsandbytes"}}, "as 'bitsandbytes', which"),
        ({"text_config": {"quantization_config": {"quant_method": "hqq"}}}, "as 'hqq', which"),
        ({"quantization_config": ["mxfp4"]}, "is not a JSON object"),
        (
            {"model_type": "llama", "quantization_config": {"quant_method": "mxfp4"}},
            "This llama checkpoint is quantized as 'mxfp4', which",
        ),
        (gpt_oss(block_size=16), "with the option 'block_size'"),
        (gpt_oss(modules_to_not_convert="lm_head"), "must be a list of names"),
        (gpt_oss(modules_to_not_convert=[1]), "must be a list of names"),
    ],
)
def test_everything_else_is_refused_by_name(config: dict, words: str) -> None:
    with pytest.raises(UnsupportedModelError, match=words) as error:
        read_quantization({"model_type": "gpt_oss", **config})
    assert "\n" not in str(error.value)
