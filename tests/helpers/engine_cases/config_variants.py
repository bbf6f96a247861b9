"""Variants of configurations that the engine must run, in addition to those of tiny_models."""

import transformers
from helpers.engine_cases import tiny_models

LAYERS = {**tiny_models.COMMON, "num_hidden_layers": 2}
LAYER_TYPES = ["sliding_attention", "full_attention"]
ALTERNATING = {"sliding_window": tiny_models.WINDOW, "layer_types": LAYER_TYPES}


def rope(kind: str, **settings: object) -> dict:
    """Return the configuration entry of a kind of rotary position embedding."""
    return {"rope_parameters": {"rope_type": kind, "rope_theta": 10000.0, **settings}}


YARN = rope("yarn", factor=4.0, original_max_position_embeddings=32)
LLAMA3 = rope(
    "llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0,
    original_max_position_embeddings=32,
)  # fmt: skip
# Long enough for the tests' sequences.
LONG = {
    "short_factor": [1.0, 1.1, 1.3, 2.0], "long_factor": [2.0] * 4,
    "original_max_position_embeddings": 64,
}  # fmt: skip

VARIANTS = {
    "llama_yarn": lambda: transformers.LlamaConfig(**LAYERS, **YARN),
    "llama_llama3": lambda: transformers.LlamaConfig(**LAYERS, **LLAMA3),
    "llama_linear": lambda: transformers.LlamaConfig(**LAYERS, **rope("linear", factor=2.0)),
    "llama_dynamic": lambda: transformers.LlamaConfig(**LAYERS, **rope("dynamic", factor=2.0)),
    "phi3_longrope": lambda: transformers.Phi3Config(
        **LAYERS, original_max_position_embeddings=64, **rope("longrope", **LONG)
    ),
    "llama_tied": lambda: transformers.LlamaConfig(**LAYERS, tie_word_embeddings=True),
    "qwen2_upper_layers_slide": lambda: transformers.Qwen2Config(
        **LAYERS, use_sliding_window=True, sliding_window=tiny_models.WINDOW, max_window_layers=1
    ),
    "qwen2_window_unused": lambda: transformers.Qwen2Config(
        **LAYERS, use_sliding_window=False, sliding_window=tiny_models.WINDOW
    ),
    "gemma2_softcap": lambda: transformers.Gemma2Config(
        **LAYERS, **ALTERNATING, head_dim=8, attn_logit_softcapping=2.0, query_pre_attn_scalar=8
    ),
    "phi3_slides": lambda: transformers.Phi3Config(**LAYERS, sliding_window=tiny_models.WINDOW),
    "olmo3": lambda: transformers.Olmo3Config(**LAYERS, **ALTERNATING),
    "mixtral": lambda: transformers.MixtralConfig(**LAYERS, num_local_experts=4),
}
