"""What fits a GPU is computed from a checkpoint's headers, in 16, 8 and 4 bits."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from helpers.engine_cases import tiny_models
from helpers.engine_cases.checkpoint_loading import CPU, load_checkpoint
from helpers.engine_cases.gpt_oss_checkpoints import save_gpt_oss
from helpers.engine_cases.quantized_checkpoints import quantize_folder, save_mixture, save_plain

from eightfold.engine.inspection.architecture import inspect_architecture
from eightfold.engine.loading.checkpoint import load_weights, read_config
from eightfold.engine.quantization.meta_modules import stored_linears
from eightfold.solver.cli import main
from eightfold.solver.kaggle.machine_sizing import BFLOAT16_BYTES, CheckpointSize
from eightfold.solver.kaggle.memory_table import (
    GIB,
    kinds_of_weights,
    memory_table,
    room_for_tokens,
)


def write_shapes(folder: Path, config: dict, shapes: dict[str, tuple[int, ...]]) -> None:
    """Write a checkpoint in bfloat16 whose weights take no room on the disk."""
    header, offset = {}, 0
    for name, shape in shapes.items():
        size = BFLOAT16_BYTES
        for length in shape:
            size *= length
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [offset, offset + size]}
        offset += size
    text = json.dumps(header).encode()
    with open(folder / "model.safetensors", "wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(8 + len(text) + offset)
    (folder / "config.json").write_text(json.dumps(config))


def qwen3_32b(folder: Path) -> None:
    config = {
        "model_type": "qwen3", "architectures": ["Qwen3ForCausalLM"], "num_hidden_layers": 64,
        "hidden_size": 5120, "num_attention_heads": 64, "num_key_value_heads": 8, "head_dim": 128,
        "intermediate_size": 25600, "max_position_embeddings": 40_960, "vocab_size": 151_936,
    }  # fmt: skip
    shapes: dict[str, tuple[int, ...]] = {
        "model.embed_tokens.weight": (151_936, 5120),
        "lm_head.weight": (151_936, 5120),
        "model.norm.weight": (5120,),
    }
    for layer in range(64):
        prefix = f"model.layers.{layer}."
        shapes |= {
            f"{prefix}self_attn.q_proj.weight": (8192, 5120),
            f"{prefix}self_attn.k_proj.weight": (1024, 5120),
            f"{prefix}self_attn.v_proj.weight": (1024, 5120),
            f"{prefix}self_attn.o_proj.weight": (5120, 8192),
            f"{prefix}mlp.gate_proj.weight": (25600, 5120),
            f"{prefix}mlp.up_proj.weight": (25600, 5120),
            f"{prefix}mlp.down_proj.weight": (5120, 25600),
        }
    write_shapes(folder, config, shapes)


def test_a_32b_in_16_8_and_4_bits(tmp_path: Path) -> None:
    qwen3_32b(tmp_path)
    sizes = {kind.name.partition(",")[0]: kind.size for kind in kinds_of_weights(tmp_path)}
    linear = 64 * (2 * 8192 * 5120 + 2 * 1024 * 5120 + 3 * 25600 * 5120)
    rest = 2 * 151_936 * 5120
    for name, each in (("as stored", 2), ("FP8", 1), ("4 bits", 0.5625)):
        expected = BFLOAT16_BYTES * rest + each * linear
        assert sizes[name].weight_bytes == pytest.approx(expected, rel=1e-3), name
    fits = {
        (gib, name): room_for_tokens(gib * GIB, size)
        for gib in (24, 48, 80)
        for name, size in sizes.items()
    }
    assert [fits[24, name] > 0 for name in sizes] == [False, False, True]
    assert [fits[48, name] > 0 for name in sizes] == [False, True, True]
    assert all(fits[80, name] > 0 for name in sizes)
    assert fits[80, "4 bits"] > fits[80, "FP8"] > fits[80, "as stored"]
    eight_bits = room_for_tokens(80 * GIB, sizes["FP8"], kv_fp8=True)
    assert eight_bits == pytest.approx(2 * fits[80, "FP8"], rel=1e-3)
    table = memory_table(tmp_path).splitlines()
    assert len([line for line in table if "GiB" in line]) == 9
    assert any("24 GiB" in line and "does not fit" in line for line in table)
    (eight,) = (line.split() for line in table if "80 GiB" in line and "FP8" in line)
    assert eight[-2] != "40,960" == eight[-1], "a KV cache in FP8 holds whole contexts"


@pytest.mark.parametrize("family", ["llama", "qwen3_moe", "mixtral", "gemma4_moe", "gpt_oss"])
def test_the_sizes_are_those_that_the_loader_makes(family: str, tmp_path: Path) -> None:
    if family == "llama":
        save_plain(tmp_path)
    elif family in ("qwen3_moe", "mixtral"):
        save_mixture(tmp_path, family)
    else:
        tiny_models.build(family).to(torch.bfloat16).save_pretrained(tmp_path)
    stored, fp8, int4 = kinds_of_weights(tmp_path)
    architecture = inspect_architecture(read_config(tmp_path), "fp8")
    model = load_weights(tmp_path, architecture, CPU, None)
    loaded = sum(parameter.nbytes for parameter in model.parameters())
    loaded += sum(layer.matrix.nbytes for layer in stored_linears(model))
    header = stored.size.weight_bytes - sum(
        parameter.nbytes for parameter in load_checkpoint(tmp_path, dtype=None)[0].parameters()
    )
    assert fp8.size.weight_bytes - header == pytest.approx(loaded, abs=64)  # and buffers
    assert int4.size.weight_bytes < fp8.size.weight_bytes


@pytest.mark.parametrize("family", ["llama", "mixtral"])
def test_quantized_checkpoints(family: str, tmp_path: Path) -> None:
    if family == "llama":
        save_plain(tmp_path)
    else:
        save_mixture(tmp_path, family)
    plain = kinds_of_weights(tmp_path)[0].size
    quantize_folder(tmp_path, "w4_32")
    (only,) = kinds_of_weights(tmp_path)
    assert only.name == "as stored: compressed-tensors (4 bits in groups of 32)"
    assert 0 < only.size.quantized_bytes < only.size.weight_bytes < plain.weight_bytes / 2


def test_experts_in_mxfp4(tmp_path: Path) -> None:
    save_gpt_oss(tmp_path, mxfp4=True)
    (only,) = kinds_of_weights(tmp_path)
    assert only.name == "as stored: mxfp4"


def test_windows_count_once_for_each_attempt() -> None:
    size = CheckpointSize(10 * GIB, 1000, GIB, 100_000)
    assert room_for_tokens(80 * GIB, size) == (int(80 * GIB * 0.95) - 2 * 10**9 - 18 * GIB) // 1000
    assert room_for_tokens(12 * GIB, size) == 0


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save_plain(tmp_path)
    assert main(["budget", "memory", str(tmp_path), "--gpu", "1", "24"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [sum(f"{gib} GiB" in line for line in lines) for gib in (1, 24)] == [3, 3]
    assert main(["budget", "memory", str(tmp_path), "--gpu", "0"]) == 2
    assert "at least 1" in capsys.readouterr().err
    assert main(["budget", "memory", str(tmp_path / "none")]) == 2
    (tmp_path / "model.safetensors").write_bytes(b"x" * 100)
    assert main(["budget", "memory", str(tmp_path)]) == 2
    assert "model.safetensors" in capsys.readouterr().err
