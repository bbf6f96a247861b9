"""A checkpoint of random numbers in the shape of Gemma 4 31B, with as many layers as wanted."""

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
    import transformers

    sizes = WIDE if gb >= 8 else NARROW

    def config(layers: int) -> Any:
        kinds = [("full" if i % 6 == 5 else "sliding") + "_attention" for i in range(layers)]
        return transformers.Gemma4TextConfig(
            **sizes, num_hidden_layers=layers, layer_types=kinds, attention_k_eq_v=True,
            hidden_size_per_layer_input=0, num_kv_shared_layers=0, max_position_embeddings=32768,
            dtype="bfloat16", pad_token_id=0, eos_token_id=1, bos_token_id=2,
        )  # fmt: skip

    attention = 3 * sizes["num_attention_heads"] * sizes["head_dim"]
    layer = 2 * sizes["hidden_size"] * (3 * sizes["intermediate_size"] + attention)
    embedding = 2 * sizes["hidden_size"] * sizes["vocab_size"]
    # Whole periods: the last layer sees everything.
    return config(6 * max(1, math.ceil((gb * 1e9 - embedding) / layer / 6)))


def write_checkpoint(folder: Path, gb: float) -> int:
    """Shards of one random buffer, each tensor beginning elsewhere in it; bytes of all tensors."""
    import torch

    from eightfold.engine.inspection.meta_model import build, places

    config = model_config(gb)
    folder.mkdir(parents=True, exist_ok=True)
    config.architectures = ["Gemma4ForCausalLM"]
    config.save_pretrained(folder)
    shapes = places(build(config, torch.bfloat16))
    shapes.pop("lm_head.weight")  # tied
    names = list(shapes)
    size = sum(2 * place.numel() for place in shapes.values())
    random = torch.randn(64 * MIB + 4099).mul(0.02).to(torch.bfloat16)
    raw = memoryview(random.view(torch.uint8).numpy())
    one = memoryview(torch.ones(1, dtype=torch.bfloat16).view(torch.uint8).numpy())
    shard, at, nbytes, weight_map = 0, 0, 0, {}
    threads, header, work = [], {}, []
    for index, name in enumerate(names):
        count = 2 * shapes[name].numel()
        shape = list(shapes[name].shape)
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [at, at + count]}
        # An odd number of elements on: every tensor differs from the ones before it.
        begin = 2 * (index * 7919 % 4099)
        work.append((at, count, one if name.endswith("layer_scalar") else raw[begin:]))
        weight_map[name] = f"model-{shard + 1:05}-of-{SHARDS:05}.safetensors"
        at += count
        nbytes += count
        if nbytes >= (shard + 1) * size / SHARDS or name == names[-1]:
            arguments = (folder / weight_map[name], header, work)
            threads.append(threading.Thread(target=write_shard, args=arguments))
            threads[-1].start()
            shard, at, header, work = shard + 1, 0, {}, []
    for thread in threads:
        thread.join()
    index_file = folder / "model.safetensors.index.json"
    index_file.write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    return nbytes


def write_shard(file: Path, header: dict, work: list[tuple[int, int, memoryview]]) -> None:
    text = json.dumps({"__metadata__": {"format": "pt"}, **header}).encode()
    text += b" " * (-len(text) % 8)
    with file.open("wb") as stream:
        stream.write(len(text).to_bytes(8, "little") + text)
        for _, count, source in work:
            while count:
                count -= stream.write(source[:count])
        stream.flush()
        os.fsync(stream.fileno())
