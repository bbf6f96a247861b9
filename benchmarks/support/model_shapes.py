"""Configurations in the shapes of published models, for `random_model`."""

from collections.abc import Callable

import transformers
from transformers import PretrainedConfig


def _gemma4(layers: int, every: int = 6, **settings: object) -> PretrainedConfig:
    kinds = [
        "full_attention" if i % every == every - 1 else "sliding_attention" for i in range(layers)
    ]
    shared = {
        "num_hidden_layers": layers, "layer_types": kinds, "head_dim": 256, "global_head_dim": 512,
        "vocab_size": 262144, "sliding_window": 1024, "max_position_embeddings": 262144,
        "hidden_size_per_layer_input": 0, "num_kv_shared_layers": 0, "attention_k_eq_v": True,
        "final_logit_softcapping": 30.0, "use_bidirectional_attention": None,
    }  # fmt: skip
    return transformers.Gemma4TextConfig(**{**shared, **settings})


def _qwen3(**settings: object) -> PretrainedConfig:
    return transformers.Qwen3Config(
        hidden_size=5120, num_hidden_layers=64, intermediate_size=25600, num_attention_heads=64,
        num_key_value_heads=8, head_dim=128, vocab_size=151936, max_position_embeddings=40960,
        rope_parameters={"rope_type": "default", "rope_theta": 1e6}, **settings,
    )  # fmt: skip


def _qwen3_moe() -> PretrainedConfig:
    return transformers.Qwen3MoeConfig(
        hidden_size=2048, num_hidden_layers=48, intermediate_size=6144, moe_intermediate_size=768,
        num_experts=128, num_experts_per_tok=8, norm_topk_prob=True, num_attention_heads=32,
        num_key_value_heads=4, head_dim=128, vocab_size=151936, max_position_embeddings=40960,
        rope_parameters={"rope_type": "default", "rope_theta": 1e6},
    )  # fmt: skip


def _llama() -> PretrainedConfig:
    return transformers.LlamaConfig(
        hidden_size=4096, num_hidden_layers=32, intermediate_size=14336, num_attention_heads=32,
        num_key_value_heads=8, head_dim=128, vocab_size=128256, max_position_embeddings=131072,
        rope_parameters={
            "rope_type": "llama3", "rope_theta": 5e5, "factor": 8.0, "low_freq_factor": 1.0,
            "high_freq_factor": 4.0, "original_max_position_embeddings": 8192,
        },
    )  # fmt: skip


def _olmo2() -> PretrainedConfig:
    return transformers.Olmo2Config(
        hidden_size=4096, num_hidden_layers=32, intermediate_size=11008, num_attention_heads=32,
        num_key_value_heads=32, vocab_size=100352, max_position_embeddings=40960,
        rope_parameters={"rope_type": "default", "rope_theta": 5e5},
    )  # fmt: skip


def _gpt_oss(layers: int, experts: int) -> PretrainedConfig:
    kinds = ["sliding_attention", "full_attention"] * (layers // 2)
    return transformers.GptOssConfig(
        hidden_size=2880, num_hidden_layers=layers, intermediate_size=2880, num_attention_heads=64,
        num_key_value_heads=8, head_dim=64, vocab_size=201088, max_position_embeddings=131072,
        sliding_window=128, layer_types=kinds, num_local_experts=experts, num_experts_per_tok=4,
        rope_parameters={
            "rope_type": "yarn", "rope_theta": 150000.0, "factor": 32.0, "beta_fast": 32.0,
            "beta_slow": 1.0, "truncate": False, "original_max_position_embeddings": 4096,
        },
        quantization_config={
            "quant_method": "mxfp4",
            "modules_to_not_convert": [
                "model.layers.*.self_attn", "model.layers.*.mlp.router", "model.embed_tokens",
                "lm_head",
            ],
        },
    )  # fmt: skip


SHAPES: dict[str, Callable[[], PretrainedConfig]] = {
    "gemma-4-31b-shapes": lambda: _gemma4(
        60, hidden_size=5376, intermediate_size=21504, num_attention_heads=32,
        num_key_value_heads=16, num_global_key_value_heads=4,
    ),
    "gemma-4-26b-a4b-shapes": lambda: _gemma4(
        30, hidden_size=2816, intermediate_size=2112, num_attention_heads=16,
        num_key_value_heads=8, num_global_key_value_heads=2, enable_moe_block=True,
        num_experts=128, top_k_experts=8, moe_intermediate_size=704,
    ),
    "gemma-4-e4b-shapes": lambda: _gemma4(
        42, hidden_size=2560, intermediate_size=10240, num_attention_heads=8,
        num_key_value_heads=2, num_global_key_value_heads=None, attention_k_eq_v=False,
        sliding_window=512, num_kv_shared_layers=18, hidden_size_per_layer_input=256,
        vocab_size_per_layer_input=262144, max_position_embeddings=131072,
    ),
    "small-shapes": lambda: _gemma4(
        12, hidden_size=1024, intermediate_size=4096, num_attention_heads=8,
        num_key_value_heads=4, num_global_key_value_heads=1,
    ),
    "qwen3-32b-shapes": _qwen3,
    "qwen3-30b-a3b-shapes": _qwen3_moe,
    "llama-3.1-8b-shapes": _llama,
    "olmo-2-7b-shapes": _olmo2,
    "gpt-oss-20b-shapes": lambda: _gpt_oss(24, 32),
    "gpt-oss-120b-shapes": lambda: _gpt_oss(36, 128),
}  # fmt: skip
"""Makers of configurations, by the name of the shapes; gpt-oss's experts are in MXFP4."""
