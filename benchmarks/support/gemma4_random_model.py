"""Models in Gemma 4's shapes with random weights, created on the device."""

import torch
import transformers
from accelerate import init_empty_weights
from torch import nn

SHAPES = {
    "gemma-4-31b-shapes": {
        "hidden_size": 5376, "num_hidden_layers": 60, "intermediate_size": 21504,
        "num_attention_heads": 32, "num_key_value_heads": 16, "num_global_key_value_heads": 4,
        "head_dim": 256, "global_head_dim": 512, "vocab_size": 262144,
    },
    "small-shapes": {
        "hidden_size": 1024, "num_hidden_layers": 12, "intermediate_size": 4096,
        "num_attention_heads": 8, "num_key_value_heads": 4, "num_global_key_value_heads": 1,
        "head_dim": 256, "global_head_dim": 512, "vocab_size": 262144,
    },
}  # fmt: skip


def random_model(name: str, device: torch.device) -> transformers.PreTrainedModel:
    """Return a `Gemma4ForCausalLM` in bfloat16 whose activations stay of order one."""
    shape = SHAPES[name]
    layers = range(shape["num_hidden_layers"])
    config = transformers.Gemma4TextConfig(
        **shape,
        layer_types=["full_attention" if i % 6 == 5 else "sliding_attention" for i in layers],
        attention_k_eq_v=True,
        sliding_window=1024,
        max_position_embeddings=262144,
        hidden_size_per_layer_input=0,
        num_kv_shared_layers=0,
        final_logit_softcapping=30.0,
        use_bidirectional_attention=None,
        dtype="bfloat16",
    )
    with init_empty_weights(include_buffers=False):
        model = transformers.Gemma4ForCausalLM(config)
    for module in model.modules():
        for key, parameter in list(module.named_parameters(recurse=False)):
            if module is not model.lm_head:
                tensor = torch.empty(parameter.shape, dtype=torch.bfloat16, device=device)
                _fill(tensor)
                setattr(module, key, nn.Parameter(tensor, requires_grad=False))
        for key, buffer in list(module.named_buffers(recurse=False)):
            setattr(module, key, buffer.to(device))
    model.lm_head.weight = model.model.embed_tokens.weight
    return model.eval()


def _fill(tensor: torch.Tensor) -> None:
    if tensor.dim() == 1:
        tensor.fill_(1.0)
    else:
        tensor.normal_(0, tensor.shape[1] ** -0.5)


def step_bytes(model: transformers.PreTrainedModel, lengths: list[int]) -> dict[str, int]:
    """Return the bytes that a decode step must read, by the kernel that reads them.

    They are every weight once (the embedding is also the head), and the KV cache, of which layers
    with full attention hold one copy. The first layer's qkv projection is a launch of its own; the
    other linear layers are part of `layer_tail`.

    Args:
        model: the model.
        lengths: tokens of each sequence.
    """
    parts = dict.fromkeys(
        ("qkv product", "layer_tail", "paged_decode_kernel", "one_copy_attention"), 0
    )
    for layer in model.model.layers:
        attention, mlp = layer.self_attn, layer.mlp
        shared = attention.v_proj is None
        joint = [attention.q_proj, attention.k_proj, *([] if shared else [attention.v_proj])]
        first = layer is model.model.layers[0]
        parts["qkv product" if first else "layer_tail"] += sum(p.weight.nbytes for p in joint)
        others = (attention.o_proj, mlp.gate_proj, mlp.up_proj, mlp.down_proj)
        parts["layer_tail"] += sum(part.weight.nbytes for part in others)
        window = attention.sliding_window if attention.is_sliding else max(lengths)
        token = attention.k_proj.out_features * (1 if shared else 2) * 2
        kind = "paged_decode_kernel" if attention.is_sliding else "one_copy_attention"
        parts[kind] += token * sum(min(length, window) for length in lengths)
    parts["layer_tail"] += model.lm_head.weight.nbytes
    return parts
