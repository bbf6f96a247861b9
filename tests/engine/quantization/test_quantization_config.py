"""Which quantizations are read, and which are refused by name."""

import copy

import pytest
from helpers.engine_cases.gpt_oss_checkpoints import QUANTIZATION
from helpers.engine_cases.quantized_checkpoints import FORMATS

from eightfold.engine.model_errors import UnsupportedModelError
from eightfold.engine.quantization.quantization_config import Quantization, read_quantization


def gpt_oss(**entry: object) -> dict:
    return {"model_type": "gpt_oss", "quantization_config": {"quant_method": "mxfp4", **entry}}


def changed(name: str, **changes: object) -> dict:
    return {"quantization_config": {**FORMATS[name][0], **changes}}


def with_weights(name: str, **changes: object) -> dict:
    config = copy.deepcopy(changed(name))
    config["quantization_config"]["config_groups"]["group_0"]["weights"] |= changes
    return config


def with_group(name: str, **changes: object) -> dict:
    config = copy.deepcopy(changed(name))
    config["quantization_config"]["config_groups"]["group_0"] |= changes
    return config


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
        (with_weights("w4_32", num_bits=8), "weights of 8 bits, int, per group of 32"),
        (with_weights("w4_32", group_size=48), "per group of 48"),
        (with_weights("w4_32", actorder="group"), "actorder"),
        (with_weights("w4_32", actorder="GROUP"), "actorder"),
        (with_weights("w4_32", actorder="dynamic"), "actorder"),
        (with_weights("w4_32", hadamard=True), "the option hadamard"),
        (with_group("w4_32", rotate=True), "the option rotate"),
        (with_weights("fp8_channel", scale_dtype="torch.float8_e8m0fnu"), "in float8_e8m0fnu"),
        (with_weights("fp8_block", block_structure=[64, 64]), "per block"),
        (with_weights("fp8_channel", symmetric=False), "8 bits, float"),
        (with_group("fp8_channel", input_activations={"dynamic": False}), "inputs with fixed"),
        (with_group("fp8_channel", output_activations={"num_bits": 8}), "quantized outputs"),
        (with_group("fp8_channel", targets="Linear"), "without a list of targets"),
        (with_group("w4_32", format="nvfp4-pack-quantized"), "stored as nvfp4-pack-quantized"),
        (changed("w4_32", config_groups={"W4A16": ["Linear"]}), "a group that is only named"),
        (changed("w4_32", config_groups={}), "no config_groups"),
        (changed("w4_32", kv_cache_scheme={"num_bits": 8}), "the option kv_cache_scheme"),
        (changed("w4_32", transform_config={"a": {}}), "the option transform_config"),
        (changed("w4_32", sparsity_config={"format": "sparse"}), "the option sparsity_config"),
        (changed("w4_32", quantization_status="frozen"), "the status 'frozen'"),
        (changed("w4_32", more=1), "the option more"),
        (changed("w4_32", ignore="lm_head"), "ignore .* must be a list of names"),
        (changed("gptq", bits=8), "8 bits in groups of 32"),
        (changed("gptq", desc_act=True), "desc_act"),
        (changed("gptq", dynamic={"x": {}}), "modules of different kinds"),
        (changed("gptq", dynamic={"+:.*up_proj": {"bits": 8}}), "modules of different kinds"),
        (changed("gptq", lm_head=True), "a quantized head"),
        (changed("gptq", format="marlin"), "the checkpoint_format 'marlin'"),
        (changed("gptq", adapter={"rank": 8}), "the option adapter"),
        (changed("gptq", quant_method=["gptq"]), "as .*gptq"),
        (changed("fine_grained_fp8", weight_block_size=5), "blocks of 5"),
        (changed("gptq", checkpoint_format="marlin"), "the checkpoint_format 'marlin'"),
        (changed("awq", version="gemv"), "the version 'gemv'"),
        (changed("awq", group_size=16), "4 bits in groups of 16"),
        (changed("fine_grained_fp8", activation_scheme="static"), "activation_scheme 'static'"),
        (changed("fine_grained_fp8", weight_block_size=[64, 128]), "blocks of"),
        (changed("fine_grained_fp8", fmt="e5m2"), "fmt 'e5m2'"),
        (changed("fine_grained_fp8", more=1), "the option more"),
        (gpt_oss(block_size=16), "with the option block_size"),
        (gpt_oss(modules_to_not_convert="lm_head"), "must be a list of names"),
        (gpt_oss(modules_to_not_convert=[1]), "must be a list of names"),
    ],
)
def test_everything_else_is_refused_by_name(config: dict, words: str) -> None:
    with pytest.raises(UnsupportedModelError, match=words) as error:
        read_quantization({"model_type": "gpt_oss", **config})
    assert len(str(error.value)) < 500
    assert "\n" not in str(error.value)


def test_formats_of_linear_layers() -> None:
    projection = "model.layers.3.mlp.down_proj"
    words = {
        "fp8_tensor": "FP8 per tensor",
        "fp8_channel": "FP8 per channel",
        "fp8_block": "FP8 in blocks of 128",
        "fine_grained_fp8": "FP8 in blocks of 128",
        "w4_32": "4 bits in groups of 32",
        "w4_rows": "4 bits in rows",
        "w4_128_zeros": "4 bits in groups of 128 with zero points",
        "awq": "4 bits in groups of 32 with zero points",
    }
    for name, expected in words.items():
        found = read_quantization(changed(name))
        assert found is not None
        assert str(found.linear_format(projection)) == expected
        assert found.linear_format("lm_head") is None
        assert str(found) == f"{found.method} ({expected})"
    whole = read_quantization(changed("fine_grained_fp8", weight_block_size=None))
    assert str(whole.linear_format(projection)) == "FP8 per tensor"


def test_groups_and_ignored_modules_of_compressed_tensors() -> None:
    config = with_group("fp8_channel", targets=["re:.*mlp\\..*", "model.layers.0.self_attn.q_proj"])
    config["quantization_config"]["ignore"] = ["re:.*layers\\.7\\..*", "model.layers.1.mlp.up_proj"]
    found = read_quantization(config)
    assert found is not None
    for module, quantized in (
        ("model.layers.0.mlp.up_proj", True),
        ("model.layers.1.mlp.up_proj", False),
        ("model.layers.7.mlp.up_proj", False),
        ("model.layers.0.self_attn.q_proj", True),
        ("model.layers.1.self_attn.q_proj", False),
        ("lm_head", False),
    ):
        assert (found.linear_format(module) is not None) is quantized, module
    # Names of a multimodal checkpoint mean the modules of its text model.
    config["quantization_config"]["ignore"] = ["model.language_model.layers.0.mlp.up_proj"]
    found = read_quantization(config)
    assert found is not None
    assert found.linear_format("model.layers.0.mlp.up_proj") is None


def test_the_narrowest_target_of_compressed_tensors_counts() -> None:
    wide = with_group("w4_32", targets=["Linear"])["quantization_config"]
    for targets in (["re:.*down_proj$"], ["model.layers.0.mlp.down_proj"]):
        narrow = with_group("fp8_channel", targets=targets, format="float-quantized")
        groups = [wide["config_groups"]["group_0"]]
        groups += narrow["quantization_config"]["config_groups"].values()
        for order in (groups, groups[::-1]):
            entry = {**wide, "config_groups": dict(enumerate(order))}
            found = read_quantization({"quantization_config": entry})
            assert found is not None
            assert str(found.linear_format("model.layers.0.mlp.down_proj")) == "FP8 per channel"
            assert str(found.linear_format("model.layers.0.mlp.up_proj")).startswith("4 bits")


def test_a_gptq_configuration_may_name_its_version_as_the_format() -> None:
    found = read_quantization(changed("gptq", format="gptq_v2"))
    assert found is not None
    assert found.linear[0][1].packing == "gptq_v2"


def test_modules_that_a_gptq_checkpoint_excludes() -> None:
    excluded = {"-:.*mlp\\.gate$": {}, "-:.*shared_expert.*": {}}
    found = read_quantization(changed("gptq", dynamic=excluded))
    assert found is not None
    for module, quantized in (
        ("model.layers.0.mlp.gate", False),
        ("model.layers.0.mlp.experts.3.gate_proj", True),
        ("model.layers.0.mlp.shared_expert.up_proj", False),
    ):
        assert (found.linear_format(module) is not None) is quantized, module


def test_mixtral_names_its_experts_by_other_modules() -> None:
    config = with_group("fp8_channel", targets=["re:.*block_sparse_moe\\.experts.*"])
    config["quantization_config"]["ignore"] = ["model.layers.1.block_sparse_moe.experts.0.w1"]
    found = read_quantization(config)
    assert found is not None
    assert found.linear_format("model.layers.1.mlp.experts.1.w1") is not None
    assert found.linear_format("model.layers.1.mlp.experts.0.w1") is None
    assert found.linear_format("model.layers.1.self_attn.q_proj") is None
