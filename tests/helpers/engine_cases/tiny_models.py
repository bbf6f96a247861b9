"""Tiny random models of the architectures that the engine must run."""

from collections.abc import Callable
from pathlib import Path

import torch
import transformers
from transformers import PreTrainedModel

VOCABULARY = 128
WINDOW = 16
# With the default of 0.02, a model that does not scale its embeddings would repeat one token.
EMBED_SCALE = {"llama": 20.0, "mistral": 20.0, "qwen3": 20.0, "gpt_oss": 40.0}

COMMON = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "pad_token_id": 0,
    "eos_token_id": 1,
    "bos_token_id": 2,
}


def _gemma4(**changes: object) -> PreTrainedModel:
    settings = {
        **COMMON,
        "num_hidden_layers": 6,
        "head_dim": 8,
        "global_head_dim": 16,
        "num_global_key_value_heads": 1,
        "attention_k_eq_v": True,
        "sliding_window": WINDOW,
        "hidden_size_per_layer_input": 0,
        "vocab_size_per_layer_input": VOCABULARY,
        "num_kv_shared_layers": 0,
        "layer_types": ["sliding_attention"] * 5 + ["full_attention"],
        **changes,
    }
    return transformers.Gemma4ForCausalLM(transformers.Gemma4TextConfig(**settings))


def _gemma4_e2b() -> PreTrainedModel:
    kinds = ["sliding_attention", "full_attention"] * 3
    return _gemma4(
        attention_k_eq_v=False,
        num_global_key_value_heads=None,
        hidden_size_per_layer_input=4,
        num_kv_shared_layers=2,
        layer_types=kinds,
    )


def _gemma4_moe() -> PreTrainedModel:
    return _gemma4(enable_moe_block=True, num_experts=4, top_k_experts=2, moe_intermediate_size=16)


def _gemma4_wrapped() -> PreTrainedModel:
    text = _gemma4().config
    vision = transformers.Gemma4VisionConfig(
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=2,
        head_dim=8,
    )
    config = transformers.Gemma4Config(text_config=text, vision_config=vision, audio_config=None)
    return transformers.Gemma4ForConditionalGeneration(config)


def _gemma3() -> PreTrainedModel:
    config = transformers.Gemma3TextConfig(
        **COMMON,
        num_hidden_layers=4,
        head_dim=8,
        sliding_window=WINDOW,
        layer_types=["sliding_attention", "full_attention"] * 2,
    )
    return transformers.Gemma3ForCausalLM(config)


def _llama() -> PreTrainedModel:
    return transformers.LlamaForCausalLM(transformers.LlamaConfig(**COMMON, num_hidden_layers=2))


def _mistral() -> PreTrainedModel:
    config = transformers.MistralConfig(**COMMON, num_hidden_layers=2, sliding_window=WINDOW)
    return transformers.MistralForCausalLM(config)


def _qwen3() -> PreTrainedModel:
    config = transformers.Qwen3Config(**COMMON, num_hidden_layers=2, head_dim=8)
    return transformers.Qwen3ForCausalLM(config)


def _gpt_oss() -> PreTrainedModel:
    config = transformers.GptOssConfig(
        **COMMON,
        num_hidden_layers=4,
        head_dim=8,
        sliding_window=WINDOW,
        num_local_experts=4,
        num_experts_per_tok=2,
        layer_types=["sliding_attention", "full_attention"] * 2,
        rope_parameters={"rope_type": "default", "rope_theta": 10000.0},
    )
    return transformers.GptOssForCausalLM(config)


BUILDERS: dict[str, Callable[[], PreTrainedModel]] = {
    "gemma4": _gemma4,
    "gemma4_kv": lambda: _gemma4(attention_k_eq_v=False, num_global_key_value_heads=None),
    "gemma4_e2b": _gemma4_e2b,
    "gemma4_moe": _gemma4_moe,
    "gemma4_wrapped": _gemma4_wrapped,
    "gemma3": _gemma3,
    "llama": _llama,
    "mistral": _mistral,
    "qwen3": _qwen3,
    "gpt_oss": _gpt_oss,
}


def _gemma4_fused(**changes: object) -> PreTrainedModel:
    """Return a model of few layers whose global heads are wide enough for one-copy layers."""
    kinds = ["sliding_attention", "full_attention"]
    settings = {"num_hidden_layers": 2, "global_head_dim": 32, "layer_types": kinds}
    return _gemma4(**{**settings, "sliding_window": 8, **changes})


# For the fused kernels, which run in the Triton interpreter if there is no GPU.
FUSED_BUILDERS: dict[str, Callable[[], PreTrainedModel]] = {
    "gemma4_one_copy": _gemma4_fused,
    "gemma4_two_copies": lambda: _gemma4_fused(
        attention_k_eq_v=False, num_global_key_value_heads=None
    ),
}
# Wide enough for the kernels for Hopper GPUs.
WIDE_BUILDERS: dict[str, Callable[[], PreTrainedModel]] = {
    "gemma4_wide": lambda: _gemma4_fused(
        hidden_size=256,
        intermediate_size=768,
        head_dim=64,
        global_head_dim=128,
        num_hidden_layers=4,
        layer_types=["sliding_attention", "full_attention"] * 2,
    ),
}


def build(name: str, seed: int = 0) -> PreTrainedModel:
    """Return a random model whose outputs depend on its inputs."""
    torch.manual_seed(seed)
    model = (BUILDERS | FUSED_BUILDERS | WIDE_BUILDERS)[name]()
    return randomize(model, EMBED_SCALE.get(name, 1.0))


def randomize(model: PreTrainedModel, embed_scale: float = 1.0) -> PreTrainedModel:
    """Enlarge the weights and randomize norms and biases, so that tokens differ."""
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            if parameter.dim() == 1:
                parameter.add_(torch.randn_like(parameter) * 0.2)
                if "q_norm" in key and len(parameter) >= 64:
                    # Otherwise wide heads would attend to one key alone, chosen by rounding.
                    parameter.mul_(len(parameter) ** -0.5)
            elif "embed" in key:
                parameter.mul_(embed_scale)
            else:
                parameter.mul_(4.0)
        for key, buffer in model.named_buffers():
            if key.endswith("layer_scalar"):
                buffer.fill_(0.7)
    return model.eval()


def save(name: str, folder: Path, seed: int = 0) -> PreTrainedModel:
    """Build a model, save it into ``folder``, and return it as transformers runs it."""
    model = build(name, seed)
    model.save_pretrained(folder)
    return model
