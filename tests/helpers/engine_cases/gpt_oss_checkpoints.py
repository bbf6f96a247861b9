"""Writes tiny random gpt-oss checkpoints, with experts in MXFP4 or bfloat16, as released ones are.

They have what the large ones have: attention sinks and biases, a window in every other layer, YaRN,
a router with a bias, and matrices whose rows are an odd number of MXFP4 blocks.
"""

import json
from pathlib import Path

import torch
import transformers
from helpers.engine_cases import tiny_models
from safetensors.torch import save_file
from transformers import PreTrainedModel

from eightfold.kernels.experts.mxfp4_reference import expand_mxfp4, round_to_mxfp4

EXPERT_MATRICES = ("gate_up_proj", "down_proj")
QUANTIZATION = {
    "modules_to_not_convert": [
        "model.layers.*.self_attn",
        "model.layers.*.mlp.router",
        "model.embed_tokens",
        "lm_head",
    ],
    "quant_method": "mxfp4",
}
SHAPES = {
    "vocab_size": tiny_models.VOCABULARY,
    "hidden_size": 96,
    "intermediate_size": 160,
    "num_hidden_layers": 4,
    "num_attention_heads": 8,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "num_local_experts": 8,
    "num_experts_per_tok": 4,
    "sliding_window": tiny_models.WINDOW,
    "max_position_embeddings": 512,
    "pad_token_id": 0,
    "eos_token_id": 1,
    "bos_token_id": 2,
}
YARN = {
    "rope_type": "yarn",
    "rope_theta": 150000.0,
    "factor": 4.0,
    "beta_fast": 32.0,
    "beta_slow": 1.0,
    "truncate": False,
    "original_max_position_embeddings": 128,
}


def build_gpt_oss(*, mxfp4: bool, seed: int = 0, **changes: object) -> PreTrainedModel:
    """Return a random model in float32 whose weights are exact in bfloat16, experts' in MXFP4.

    Args:
        mxfp4: round the experts' matrices to values that MXFP4 has.
        seed: seed of the weights.
        changes: values of the configuration that replace those of `SHAPES`.
    """
    torch.manual_seed(seed)
    settings = {**SHAPES, "rope_parameters": dict(YARN), **changes}
    model = transformers.GptOssForCausalLM(transformers.GptOssConfig(**settings))
    tiny_models.randomize(model, tiny_models.EMBED_SCALE["gpt_oss"])
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if mxfp4 and name.endswith(EXPERT_MATRICES):
                rows = expand_mxfp4(*round_to_mxfp4(parameter.transpose(1, 2)), torch.float32)
                parameter.copy_(rows.transpose(1, 2))
            else:
                parameter.copy_(parameter.to(torch.bfloat16))
    return model.eval()


def stored_tensors(model: PreTrainedModel, *, mxfp4: bool) -> dict[str, torch.Tensor]:
    """Return a checkpoint's tensors for a model of `build_gpt_oss`."""
    found = {}
    for name, tensor in model.state_dict().items():
        if mxfp4 and name.endswith(EXPERT_MATRICES):
            blocks, scales = round_to_mxfp4(tensor.transpose(1, 2))
            found |= {f"{name}_blocks": blocks, f"{name}_scales": scales}
        else:
            found[name] = tensor.to(torch.bfloat16)
    return found


def save_gpt_oss(
    folder: Path, *, mxfp4: bool, seed: int = 0, shards: int = 1, **changes: object
) -> PreTrainedModel:
    """Write a checkpoint into an existing folder; return the model as transformers runs it.

    Args:
        folder: gets config.json, generation_config.json and the weights.
        mxfp4: store the experts' matrices in MXFP4, else in bfloat16.
        seed: seed of the weights.
        shards: number of files of weights; more than one have an index.
        changes: values of the configuration that replace those of `SHAPES`.

    Returns:
        The model in float32, with the values that the checkpoint stores.
    """
    model = build_gpt_oss(mxfp4=mxfp4, seed=seed, **changes)
    config = model.config.to_dict() | {"dtype": "bfloat16"}
    if mxfp4:
        config["quantization_config"] = QUANTIZATION
    (folder / "config.json").write_text(json.dumps(config))
    model.generation_config.save_pretrained(folder)
    write_weights(folder, stored_tensors(model, mxfp4=mxfp4), shards)
    return model


def write_weights(folder: Path, tensors: dict[str, torch.Tensor], shards: int = 1) -> None:
    """Write the weights of a checkpoint, in one file or as many as `shards` with an index."""
    if shards == 1:
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
        return
    weight_map = {}
    for shard in range(shards):
        name = f"model-{shard + 1:05}-of-{shards:05}.safetensors"
        part = dict(list(tensors.items())[shard::shards])
        save_file(part, folder / name, metadata={"format": "pt"})
        weight_map |= dict.fromkeys(part, name)
    index = {"metadata": {}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
