"""Small configurations of every family of the fused decoder, and variants of their options."""

from collections.abc import Callable

import transformers
from helpers.engine_cases import tiny_models
from helpers.engine_cases.config_variants import LAYERS, LLAMA3, YARN
from transformers import PretrainedConfig, PreTrainedModel

KINDS = ["sliding_attention", "full_attention"]
WINDOW = 8
SLIDING = {"sliding_window": WINDOW, "layer_types": KINDS}
EXPERTS = {"moe_intermediate_size": 32, "num_experts_per_tok": 2, "num_experts": 4}
HEADS = {"head_dim": 16}


def _gemma4(**changes: object) -> PretrainedConfig:
    settings = {
        **LAYERS, **SLIDING, **HEADS, "global_head_dim": 32, "num_global_key_value_heads": 1,
        "attention_k_eq_v": True, "hidden_size_per_layer_input": 0,
        "vocab_size_per_layer_input": tiny_models.VOCABULARY, "num_kv_shared_layers": 0,
    }  # fmt: skip
    return transformers.Gemma4TextConfig(**{**settings, **changes})


def _phi3() -> PretrainedConfig:
    rope = {"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 0.75}
    return transformers.Phi3Config(**LAYERS, rope_parameters=rope, sliding_window=WINDOW)


CONFIGS: dict[str, Callable[[], PretrainedConfig]] = {
    "llama": lambda: transformers.LlamaConfig(**LAYERS, **LLAMA3),
    "llama_biases": lambda: transformers.LlamaConfig(**LAYERS, **YARN, attention_bias=True),
    "mistral": lambda: transformers.MistralConfig(**LAYERS, sliding_window=WINDOW),
    "qwen2": lambda: transformers.Qwen2Config(
        **LAYERS, use_sliding_window=True, sliding_window=WINDOW, max_window_layers=1
    ),
    "qwen3": lambda: transformers.Qwen3Config(**LAYERS, **HEADS),
    "seed_oss": lambda: transformers.SeedOssConfig(
        **LAYERS, **HEADS, attention_bias=True, attention_out_bias=True
    ),
    "ernie4_5": lambda: transformers.Ernie4_5Config(**LAYERS, **HEADS),
    "qwen3_moe": lambda: transformers.Qwen3MoeConfig(
        **LAYERS, **HEADS, **EXPERTS, norm_topk_prob=True
    ),
    "qwen3_moe_some_layers": lambda: transformers.Qwen3MoeConfig(
        **LAYERS, **HEADS, **EXPERTS, norm_topk_prob=False, mlp_only_layers=[0]
    ),
    "mixtral": lambda: transformers.MixtralConfig(
        **LAYERS, num_local_experts=4, num_experts_per_tok=2
    ),
    "phi3": _phi3,
    "olmo2": lambda: transformers.Olmo2Config(**LAYERS),
    "olmo3": lambda: transformers.Olmo3Config(**LAYERS, **SLIDING),
    "glm4": lambda: transformers.Glm4Config(**LAYERS, **HEADS, attention_bias=True),
    "gemma3_text": lambda: transformers.Gemma3TextConfig(
        **LAYERS, **SLIDING, **HEADS, query_pre_attn_scalar=20
    ),
    "gemma4_text": _gemma4,
    "gemma4_text_e2b": lambda: _gemma4(
        attention_k_eq_v=False, num_global_key_value_heads=None, hidden_size_per_layer_input=8,
        num_kv_shared_layers=2, num_hidden_layers=4, layer_types=KINDS * 2,
        use_double_wide_mlp=True,
    ),
    "gemma4_text_experts": lambda: _gemma4(
        enable_moe_block=True, num_experts=4, top_k_experts=2, moe_intermediate_size=32
    ),
    "gemma4_text_experts_and_layer_inputs": lambda: _gemma4(
        enable_moe_block=True, num_experts=4, top_k_experts=2, moe_intermediate_size=32,
        hidden_size_per_layer_input=8,
    ),
    "gpt_oss": lambda: transformers.GptOssConfig(
        **LAYERS, **SLIDING, **HEADS, **YARN, num_local_experts=4, num_experts_per_tok=2
    ),
}  # fmt: skip


def build(config: PretrainedConfig) -> PreTrainedModel:
    """Return a random model whose outputs depend on its inputs."""
    scale = 1.0 if "gemma" in config.model_type else 20.0
    model = transformers.AutoModelForCausalLM.from_config(config)
    return tiny_models.randomize(model, 0.1 if config.tie_word_embeddings and scale > 1 else scale)
