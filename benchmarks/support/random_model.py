"""Models in the shapes of `model_shapes` with random weights, created on the device.

Weights are normal with a deviation of one over the root of their inputs, so that activations stay
of order one. A router whose rows are alike would spread tokens evenly; real ones prefer some
experts. So the rows of a router differ in length, by factors with a deviation of `ROUTER_SPREAD`,
and its biases, if it has some, are normal. What a benchmark counts are the experts chosen.
"""

from collections.abc import Sequence

import torch
import transformers
from accelerate import init_empty_weights
from support.model_shapes import SHAPES
from torch import nn

from eightfold.engine.inspection.families import FAMILIES
from eightfold.engine.inspection.kv_geometry import LayerSpec
from eightfold.engine.quantization.meta_modules import stored_linears, use_stored_weights
from eightfold.engine.quantization.quantization_config import read_quantization
from eightfold.engine.quantization.split_experts import SplitExperts

ROUTER_SPREAD = 0.3
MXFP4_SCALES = (117, 122)  # 2^-10 to 2^-6: weights of about the deviation that others have
INT4_DEVIATION = 4.6  # of codes from 0 to 15
# Linear layers in the formats of the releases on Hugging Face.
STORED = {
    "fp8": ("float-quantized", {"num_bits": 8, "type": "float", "strategy": "channel"}),
    "w4a16": (
        "pack-quantized",
        {"num_bits": 4, "type": "int", "strategy": "group", "group_size": 32},
    ),
}


def random_model(
    name: str, device: torch.device, weights: str | None = None
) -> transformers.PreTrainedModel:
    """Return a causal language model in bfloat16 whose activations stay of order one.

    Args:
        name: a key of `SHAPES`.
        device: the device.
        weights: a key of `STORED`, for linear layers in that format; None for bfloat16. The model's
            `stored_sizes` then are their bytes and their elements, without those of experts, and
            `expert_sizes` those of one expert of each layer.
    """
    torch.manual_seed(0)
    config = SHAPES[name]()
    if weights is not None:
        stored_as, format = STORED[weights]
        group = {"targets": ["Linear"], "weights": format}
        config.quantization_config = {
            "quant_method": "compressed-tensors", "format": stored_as, "ignore": ["lm_head"],
            "config_groups": {"group_0": group},
        }  # fmt: skip
    quantization = read_quantization(config.to_dict())
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    config.dtype = torch.bfloat16
    with init_empty_weights(include_buffers=False):
        model = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    if quantization is not None:
        use_stored_weights(model, quantization, {})
    offset = FAMILIES[config.model_type].norm_offset
    tied = model.lm_head.weight is model.get_input_embeddings().weight
    for path, module in model.named_modules():
        for key, meta in list(module.named_parameters(recurse=False)):
            if module is model.lm_head and tied:
                continue
            plain = meta.dtype in (torch.bfloat16, torch.float32) and "_scale" not in key
            dtype = torch.bfloat16 if plain else meta.dtype
            tensor = torch.empty(meta.shape, dtype=dtype, device=device)
            _fill(f"{path}.{key}", tensor, offset, config)
            setattr(module, key, nn.Parameter(tensor, requires_grad=False))
        for key, buffer in list(module.named_buffers(recurse=False)):
            setattr(module, key, buffer.to(device))
    if tied:
        model.lm_head.weight = model.get_input_embeddings().weight
    for layer in stored_linears(model):
        layer.finish_loading()
    split = [each for each in model.modules() if isinstance(each, SplitExperts)]
    first = [layer for each in split for layer in stored_linears(each.get_submodule("0"))]
    of_experts = {id(layer) for each in split for layer in stored_linears(each)}
    others = [layer for layer in stored_linears(model) if id(layer) not in of_experts]
    model.stored_sizes, model.expert_sizes = (
        (
            sum(layer.matrix.nbytes for layer in layers),
            sum(layer.matrix.rows * layer.matrix.columns for layer in layers),
        )
        for layers in (others, first)
    )
    return model.eval()


def _fill(
    name: str, tensor: torch.Tensor, offset: float, config: transformers.PretrainedConfig
) -> None:
    if name.endswith("weight_scale"):
        grouped = tensor.shape[-1] > 1
        scale = config.hidden_size**-0.5 / (INT4_DEVIATION if grouped else 1)
        tensor.fill_(torch.tensor(scale).bfloat16())  # as they are stored
    elif tensor.dtype == torch.float8_e4m3fn:
        for part in tensor.split(4096):
            part.copy_(torch.randn(part.shape, device=tensor.device))
    elif tensor.dtype == torch.int32:
        tensor.random_(-(2**31), 2**31 - 1)
    elif tensor.dtype == torch.int64:
        tensor.fill_(0)
    elif tensor.dtype == torch.uint8:
        bounds = MXFP4_SCALES if name.endswith("_scales") else (0, 256)
        tensor.random_(*bounds)
    elif "norm" in name or name.endswith("scale"):
        tensor.fill_(1.0 - offset)
    elif name.endswith(("bias", "sinks")):
        tensor.normal_(0, ROUTER_SPREAD if "router" in name else 0.1)
    else:
        transposed = config.model_type == "gpt_oss" and tensor.dim() == 3
        inner = tensor.shape[-2] if transposed else tensor.shape[-1]
        for part in tensor.unbind(0) if tensor.dim() == 3 else [tensor]:
            part.normal_(0, inner**-0.5)
        if name.endswith((".gate.weight", "router.weight", "router.proj.weight")):
            spread = torch.randn(tensor.shape[0], 1, device=tensor.device) * ROUTER_SPREAD
            tensor.mul_(spread.exp().to(tensor.dtype))


def step_bytes(
    model: transformers.PreTrainedModel,
    kv_bytes_of: dict[str, float],
    lengths: list[int],
    experts_touched: float = 0.0,
) -> dict[str, int]:
    """Return the bytes that a decode step must read.

    They are every weight once, of the experts only those touched, and the KV cache.

    Args:
        model: the model. Embeddings count once if they are also the head, else only the head does.
        kv_bytes_of: as from `kv_bytes`.
        lengths: tokens of each sequence.
        experts_touched: different experts that the rows of a step choose in one layer.
    """
    weights = getattr(model, "stored_sizes", (0, 0))[0]
    experts = round(getattr(model, "expert_sizes", (0, 0))[0] * experts_touched)
    embeddings = {id(model.get_input_embeddings().weight)}
    per_layer = getattr(model.base_model, "embed_tokens_per_layer", None)
    if per_layer is not None:
        embeddings.add(id(per_layer.weight))
    head = id(model.lm_head.weight)
    for name, parameter in model.named_parameters():
        if ".experts." in name:
            experts += round(parameter.nbytes / parameter.shape[0] * experts_touched)
        elif id(parameter) == head or id(parameter) not in embeddings:
            weights += parameter.nbytes
    found = {"weights": weights, "experts": experts}
    for kind, size in kv_bytes_of.items():
        window = int(kind.partition(" of ")[2] or 1 << 40)
        found[kind] = round(size * sum(min(length, window) for length in lengths))
    return {kind: size for kind, size in found.items() if size}


def expert_counts(config: transformers.PretrainedConfig) -> tuple[int, int]:
    """Return how many experts a layer has, and how many of them a row chooses; 0 if none."""
    found = (("num_experts", "num_local_experts"), ("num_experts_per_tok", "top_k_experts"))
    total, chosen = (
        next((int(getattr(config, name)) for name in names if getattr(config, name, None)), 0)
        for names in found
    )
    return total, chosen


def step_operations(model: transformers.PreTrainedModel, rows: int) -> int:
    """Return the operations of a step's products, without those of attention.

    Args:
        model: the model.
        rows: rows of the step, all of which go through the head.
    """
    total, (_, chosen) = getattr(model, "stored_sizes", (0, 0))[1], expert_counts(model.config)
    total += getattr(model, "expert_sizes", (0, 0))[1] * chosen
    embeddings = {id(model.get_input_embeddings().weight)} - {id(model.lm_head.weight)}
    for name, parameter in model.named_parameters():
        if parameter.dim() < 2 or id(parameter) in embeddings or "embed_tokens_per_layer" in name:
            continue
        if name.endswith("_scales") or (".experts." in name and parameter.dim() == 2):
            continue
        elements = parameter.numel() * (2 if parameter.dtype == torch.uint8 else 1)
        if ".experts." in name:
            elements = elements * chosen // parameter.shape[0]
        total += elements
    return 2 * rows * total


def attention_operations(
    config: transformers.PretrainedConfig, layers: Sequence[LayerSpec], lengths: list[int]
) -> int:
    """Return the operations of a step's attention: of queries and keys, and of their values.

    Args:
        config: configuration of the model; it has as many query heads in all layers.
        layers: specifications of the layers.
        lengths: tokens of each sequence.
    """
    heads, total = config.num_attention_heads, 0
    for layer in layers:
        keys = sum(min(length, layer.window or length) for length in lengths)
        total += 4 * heads * layer.head_dim * keys
    return total


def kv_bytes(layers: list, itemsize: int = 2) -> dict[str, float]:
    """Return the bytes of a token's keys and values that a step reads, by kind of layer.

    Args:
        layers: specifications of the layers as the runner keeps them; those that share keys and
            values read them, too.
        itemsize: bytes of an element that is not in FP8.
    """
    found: dict[str, float] = {}
    for layer in layers:
        kind = "one copy" if layer.one_copy else "full KV"
        if layer.window is not None:
            kind = f"windows of {layer.window}"
        size = (1 if layer.fp8 else itemsize) * layer.copies * layer.kv_heads * layer.head_dim
        found[kind] = found.get(kind, 0) + size
    return found
