"""Writes checkpoints of random numbers with layers in Gemma 4 31B's shapes."""

from __future__ import annotations

import json
import math
import os
import threading
from pathlib import Path
from typing import Any

SHARDS = 6
MIB = 1 << 20
WIDE = {
    **{"hidden_size": 5376, "intermediate_size": 21504, "num_attention_heads": 32},
    **{"num_key_value_heads": 16, "num_global_key_value_heads": 4, "head_dim": 256},
    **{"global_head_dim": 512, "vocab_size": 262144, "sliding_window": 1024},
}
NARROW = {
    **{"hidden_size": 768, "intermediate_size": 3072, "num_attention_heads": 4},
    **{"num_key_value_heads": 2, "num_global_key_value_heads": 1, "head_dim": 64},
    **{"global_head_dim": 128, "vocab_size": 8192, "sliding_window": 128},
}


def model_config(gb: float) -> Any:
    """Return the configuration of a model of at least `gb` GB; a small one has narrow layers."""
    import transformers

    sizes = WIDE if gb >= 8 else NARROW
    attention = 3 * sizes["num_attention_heads"] * sizes["head_dim"]
    layer_bytes = 2 * sizes["hidden_size"] * (3 * sizes["intermediate_size"] + attention)
    embedding_bytes = 2 * sizes["hidden_size"] * sizes["vocab_size"]
    # Whole periods of six, so that the last layer has full attention.
    layers = 6 * max(1, math.ceil((gb * 1e9 - embedding_bytes) / layer_bytes / 6))
    return transformers.Gemma4TextConfig(
        **sizes, num_hidden_layers=layers, attention_k_eq_v=True,
        layer_types=[("full" if i % 6 == 5 else "sliding") + "_attention" for i in range(layers)],
        hidden_size_per_layer_input=0, num_kv_shared_layers=0, max_position_embeddings=32768,
        dtype="bfloat16", pad_token_id=0, eos_token_id=1, bos_token_id=2,
    )  # fmt: skip


def write_checkpoint(folder: Path, gb: float) -> int:
    """Write a checkpoint of about `gb` GB in several shards, and return the bytes of its tensors.

    All tensors are views of one random buffer, each beginning elsewhere in it.
    """
    import torch

    from eightfold.engine.inspection.meta_model import build_meta_model, named_tensors

    config = model_config(gb)
    folder.mkdir(parents=True, exist_ok=True)
    config.architectures = ["Gemma4ForCausalLM"]
    config.save_pretrained(folder)
    tensors = named_tensors(build_meta_model(config, torch.bfloat16))
    tensors.pop("lm_head.weight")  # tied
    size = sum(2 * tensor.numel() for tensor in tensors.values())
    random = torch.randn(64 * MIB + 4099).mul(0.02).to(torch.bfloat16)
    raw = random.view(torch.uint8).numpy().data
    one = torch.ones(1, dtype=torch.bfloat16).view(torch.uint8).numpy().data
    shard, offset, nbytes, weight_map = 0, 0, 0, {}
    threads, header, parts = [], {}, []
    last = list(tensors)[-1]
    for index, (name, tensor) in enumerate(tensors.items()):
        count = 2 * tensor.numel()
        offsets = [offset, offset + count]
        header[name] = {"dtype": "BF16", "shape": list(tensor.shape), "data_offsets": offsets}
        # Shifted by another number of elements each time, so that neighboring tensors differ.
        begin = 2 * (index * 7919 % 4099)
        parts.append((count, one if name.endswith("layer_scalar") else raw[begin:]))
        weight_map[name] = f"model-{shard + 1:05}-of-{SHARDS:05}.safetensors"
        offset += count
        nbytes += count
        if nbytes >= (shard + 1) * size / SHARDS or name == last:
            arguments = (folder / weight_map[name], header, parts)
            threads.append(threading.Thread(target=write_shard, args=arguments))
            threads[-1].start()
            shard, offset, header, parts = shard + 1, 0, {}, []
    for thread in threads:
        thread.join()
    index_file = folder / "model.safetensors.index.json"
    index_file.write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    return nbytes


def write_shard(file: Path, header: dict[str, Any], parts: list[tuple[int, memoryview]]) -> None:
    """Write a safetensors file.

    Args:
        file: the file.
        header: its header, without the metadata.
        parts: for each tensor its size in bytes, and the bytes, which are repeated as needed.
    """
    text = json.dumps({"__metadata__": {"format": "pt"}, **header}).encode()
    text += b" " * (-len(text) % 8)
    with file.open("wb") as stream:
        stream.write(len(text).to_bytes(8, "little") + text)
        for count, source in parts:
            while count:
                count -= stream.write(source[:count])
        stream.flush()
        os.fsync(stream.fileno())
