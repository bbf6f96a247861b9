"""Turns a tiny checkpoint into a quantized one, by hand, as the tools of each format store it."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import torch
import transformers
from helpers.engine_cases import tiny_models
from safetensors.torch import load_file, save_file
from transformers import PreTrainedModel

from eightfold.kernels.quantized.stored_matrix import (
    StoredMatrix,
    round_to_fp8,
    round_to_int4,
    unpack_nibbles,
)

BLOCK = 128
LAYERS = 2  # of a checkpoint of `save_plain` or `save_mixture`
EXPERTS = 4  # of a checkpoint of `save_mixture`
TOKENS = torch.randint(
    3, tiny_models.VOCABULARY, (1, 24), generator=torch.Generator().manual_seed(1)
)
QUANTIZED = re.compile(r"(_proj|\.w[123])\.weight$")  # names of weights
AWQ_ORDER = (0, 2, 4, 6, 1, 3, 5, 7)  # of the columns in a word, as AutoAWQ packs them
Stored = dict[str, torch.Tensor]


def words(codes: torch.Tensor, order: tuple[int, ...] = tuple(range(8))) -> torch.Tensor:
    """Return codes of 4 bits [N, K] as int32 [N, K / 8]; `order` says which comes first."""
    found = sum(codes[:, place::8].long() << (4 * i) for i, place in enumerate(order))
    assert isinstance(found, torch.Tensor)
    return torch.where(found >= 2**31, found - 2**32, found).to(torch.int32)


def _fp8(weight: torch.Tensor, rows: int, columns: int) -> StoredMatrix:
    """Return a matrix in FP8 with a scale for each block of rows and columns (0 for all)."""
    height, width = weight.shape
    rows, columns = rows or height, columns or width
    tall, wide = -(-height // rows), -(-width // columns)
    padded = torch.zeros(tall * rows, wide * columns)
    padded[:height, :width] = weight
    largest = padded.view(tall, rows, wide, columns).abs().amax((1, 3))
    scales = (largest / 448).to(torch.bfloat16).float()
    spread = scales.repeat_interleave(rows, 0)[:height].repeat_interleave(columns, 1)[:, :width]
    codes = (weight / spread).clamp(-448, 448).to(torch.float8_e4m3fn)
    return StoredMatrix(codes, scales, rows_per_scale=rows, columns_per_scale=columns)


def _int4(weight: torch.Tensor, group: int, symmetric: bool = True) -> StoredMatrix:
    matrix = round_to_int4(weight, group or weight.shape[1], symmetric=symmetric)
    scales = matrix.scales.to(torch.bfloat16).float()
    return StoredMatrix(matrix.codes, scales, matrix.zeros, 1, matrix.columns_per_scale)


def _store_fp8(matrix: StoredMatrix, name: str, scale_type: torch.dtype) -> Stored:
    return {"weight": matrix.codes, name: matrix.scales.to(scale_type)}


def _store_packed(matrix: StoredMatrix) -> Stored:
    found = {
        "weight_packed": words(unpack_nibbles(matrix.codes)),
        "weight_scale": matrix.scales.to(torch.bfloat16),
        "weight_shape": torch.tensor([matrix.rows, matrix.columns]),
    }
    if matrix.zeros is not None:
        found["weight_zero_point"] = words(matrix.zeros.T).T.contiguous()
    return found


def _store_gptq(matrix: StoredMatrix, missing: int) -> Stored:
    assert matrix.zeros is not None
    columns = torch.arange(matrix.columns)
    return {
        "qweight": words(unpack_nibbles(matrix.codes)).T.contiguous(),
        "qzeros": words((matrix.zeros.T - missing) & 15),
        "scales": matrix.scales.T.contiguous().to(torch.bfloat16),
        "g_idx": (columns // matrix.columns_per_scale).to(torch.int32),
    }


def _store_awq(matrix: StoredMatrix) -> Stored:
    assert matrix.zeros is not None
    return {
        "qweight": words(unpack_nibbles(matrix.codes).T, AWQ_ORDER),
        "qzeros": words(matrix.zeros.T, AWQ_ORDER),
        "scales": matrix.scales.T.contiguous().to(torch.bfloat16),
    }


def compressed_tensors(stored_as: str, **weights: object) -> dict:
    """Return a quantization_config of compressed-tensors."""
    activations = {"num_bits": 8, "type": "float", "dynamic": True, "strategy": "token"}
    group = {
        "targets": ["Linear"],
        "weights": {"symmetric": True, "dynamic": False, **weights},
        "input_activations": activations if weights["type"] == "float" else None,
        "output_activations": None,
    }
    return {
        "quant_method": "compressed-tensors",
        "config_groups": {"group_0": group},
        "format": stored_as,
        "ignore": ["lm_head"],
        "kv_cache_scheme": None,
        "quantization_status": "compressed",
    }


def _ct_fp8(strategy: str, **more: object) -> dict:
    return compressed_tensors(
        "float-quantized", num_bits=8, type="float", strategy=strategy, **more
    )


def _ct_int4(group: int, symmetric: bool) -> dict:
    strategy = {"strategy": "group", "group_size": group} if group else {"strategy": "channel"}
    return compressed_tensors(
        "pack-quantized", num_bits=4, type="int", **strategy | {"symmetric": symmetric}
    )


def _ct_int4_case(group: int, symmetric: bool) -> tuple:
    config = _ct_int4(group, symmetric)
    return config, lambda weight: _int4(weight, group, symmetric), _store_packed


GPTQ = {"quant_method": "gptq", "bits": 4, "group_size": 32, "desc_act": False, "sym": False}
AWQ = {"quant_method": "awq", "bits": 4, "group_size": 32, "zero_point": True, "version": "gemm"}
FINE_GRAINED_FP8 = {
    "quant_method": "fp8", "activation_scheme": "dynamic", "weight_block_size": [BLOCK, BLOCK],
    "modules_to_not_convert": ["lm_head"],
}  # fmt: skip
FORMATS: dict[
    str, tuple[dict, Callable[[torch.Tensor], StoredMatrix], Callable[[StoredMatrix], Stored]]
] = {
    "fp8_tensor": (
        _ct_fp8("tensor"),
        lambda weight: _fp8(weight, 0, 0),
        lambda matrix: {"weight": matrix.codes, "weight_scale": matrix.scales.reshape(1)},
    ),
    "fp8_channel": (
        _ct_fp8("channel"),
        lambda weight: _fp8(weight, 1, 0),
        lambda matrix: _store_fp8(matrix, "weight_scale", torch.bfloat16),
    ),
    "fp8_block": (
        _ct_fp8("block", block_structure=[BLOCK, BLOCK]),
        lambda weight: _fp8(weight, BLOCK, BLOCK),
        lambda matrix: _store_fp8(matrix, "weight_scale", torch.bfloat16),
    ),
    "fine_grained_fp8": (
        FINE_GRAINED_FP8,
        lambda weight: _fp8(weight, BLOCK, BLOCK),
        lambda matrix: _store_fp8(matrix, "weight_scale_inv", torch.float32),
    ),
    "w4_32": _ct_int4_case(32, True),
    "w4_128": _ct_int4_case(128, True),
    "w4_rows": _ct_int4_case(0, True),
    "w4_32_zeros": _ct_int4_case(32, False),
    "w4_128_zeros": _ct_int4_case(128, False),
    "gptq": (
        GPTQ,
        lambda weight: _int4(weight, 32, False),
        lambda matrix: _store_gptq(matrix, 1),
    ),
    "gptq_v2": (
        {**GPTQ, "checkpoint_format": "gptq_v2"},
        lambda weight: _int4(weight, 32, False),
        lambda matrix: _store_gptq(matrix, 0),
    ),
    "awq": (AWQ, lambda weight: _int4(weight, 32, False), _store_awq),
}
"""By name: the quantization_config, how a weight is rounded, and how the result is stored."""


def quantize_folder(folder: Path, name: str, expanded: Path | None = None) -> None:
    """Quantize the projections of the layers of a checkpoint in one file, in place.

    Args:
        folder: the checkpoint, unquantized.
        name: a key of `FORMATS`.
        expanded: an existing folder that gets a float32 checkpoint with the same values.
    """
    entry, round_weight, store = FORMATS[name]
    plain, stored = {}, {}
    for key, tensor in load_file(folder / "model.safetensors").items():
        plain[key] = tensor.float() if tensor.is_floating_point() else tensor
        if "layers." in key and QUANTIZED.search(key) and "vision" not in key:
            matrix = round_weight(tensor.float())
            plain[key] = matrix.expand(torch.float32)
            prefix = key.removesuffix("weight")
            stored |= {prefix + part: each.contiguous() for part, each in store(matrix).items()}
        else:
            stored[key] = tensor
    config = json.loads((folder / "config.json").read_text())
    save_file(stored, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps(config | {"quantization_config": entry}))
    if expanded is not None:
        save_file(plain, expanded / "model.safetensors", metadata={"format": "pt"})
        (expanded / "config.json").write_text(json.dumps(config | {"dtype": "float32"}))


def fp8_expanded(weight: torch.Tensor) -> torch.Tensor:
    """Return a weight as `--weights fp8` rounds it, in float32."""
    return round_to_fp8(weight).expand(torch.float32)


def save_plain(folder: Path, **changes: object) -> None:
    """Write a checkpoint in bfloat16 whose layers are wide enough for every format.

    Args:
        folder: an existing folder.
        changes: values of the configuration that replace the usual ones.
    """
    torch.manual_seed(0)
    settings = {**tiny_models.COMMON, "hidden_size": 128, "intermediate_size": 384}
    config = transformers.LlamaConfig(**{**settings, "num_hidden_layers": LAYERS, **changes})
    model = tiny_models.randomize(transformers.LlamaForCausalLM(config), 20.0)
    model.to(torch.bfloat16).save_pretrained(folder)


def save_mixture(folder: Path, family: str, layers: int = LAYERS, hidden: int = 128) -> None:
    """Write a checkpoint of 4 experts in bfloat16, stored one by one as the releases are.

    Args:
        folder: an existing folder.
        family: "qwen3_moe" or "mixtral".
        layers: number of layers.
        hidden: width of the model.
    """
    torch.manual_seed(0)
    settings = {
        **tiny_models.COMMON, "hidden_size": hidden, "num_hidden_layers": layers,
        "num_experts_per_tok": 2,
    }  # fmt: skip
    config: transformers.PretrainedConfig
    if family == "mixtral":
        config = transformers.MixtralConfig(
            **settings | {"intermediate_size": 256, "num_local_experts": EXPERTS}
        )
    else:
        config = transformers.Qwen3MoeConfig(
            **settings, moe_intermediate_size=256, num_experts=EXPERTS, norm_topk_prob=True
        )
    model = tiny_models.randomize(transformers.AutoModelForCausalLM.from_config(config), 20.0)
    model.to(torch.bfloat16).save_pretrained(folder)


def relative_difference(found: torch.Tensor, expected: torch.Tensor) -> float:
    """Return the norm of a difference, divided by that of what is expected."""
    return float((found.float() - expected).norm() / expected.norm())


@torch.inference_mode()
def logits(model: PreTrainedModel) -> torch.Tensor:
    """Return a model's logits of `TOKENS`."""
    return model(TOKENS).logits
