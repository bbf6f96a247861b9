"""Rounds the linear layers of an unquantized checkpoint to FP8 while it is loaded.

A layer's weight is read to the device whole, rounded, and dropped, so that no more than a batch of
them is there in its own type. Experts are linear layers of their own, however they are stored.
"""

import logging
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Any

import torch
from transformers import PreTrainedModel

from eightfold.kernels.quantized.stored_matrix import round_to_fp8

from ..inspection.meta_model import Allocate, materialize, named_tensors
from ..model_errors import UnsupportedModelError
from ..quantization.meta_modules import use_fp8_linear
from ..quantization.quantization_config import stored_names
from ..quantization.split_experts import DOWN, GATE_UP, layer_names, split_experts
from ..quantization.stored_linear import StoredLinear
from .gpu_loader import LoadReport, read_tensors
from .safetensors_headers import StoredTensor

logger = logging.getLogger(__name__)

BATCH_BYTES = 1 << 30  # of weights that are read before they are rounded
SLAB_ELEMENTS = 1 << 25  # of a weight that is rounded at once, in float32

Pairs = Sequence[tuple[StoredTensor, str]]


def divide_experts(model: PreTrainedModel, stored: Sequence[StoredTensor]) -> list[StoredTensor]:
    """Divide the experts of a model on the meta device, and stacked tensors of a checkpoint.

    Experts that are stored neither stacked under the model's names nor one by one stay as they are.

    Returns:
        The checkpoint's tensors, those of experts one by one: parts of the stacked tensors' bytes,
        or what is stored.
    """
    at = {tensor.name.rsplit(".", parts)[0] for tensor in stored for parts in (1, 3)}
    names = [name for name, _ in model.named_modules() if not at.isdisjoint(stored_names(name))]
    own = layer_names(str(model.config.model_type), [tensor.name for tensor in stored])
    divided = {each for name in split_experts(model, names, own) for each in stored_names(name)}
    gate, up, down = own
    layers: dict[str, tuple[str, ...]] = {GATE_UP: (gate, up), DOWN: (down,)}
    found: list[StoredTensor] = []
    for tensor in stored:
        module, _, kind = tensor.name.rpartition(".")
        if module in divided and kind in layers and len(tensor.shape) == 3:
            found += _parts(tensor, module, layers[kind])
        else:
            found.append(tensor)
    return found


def _parts(tensor: StoredTensor, module: str, names: Sequence[str]) -> Iterator[StoredTensor]:
    experts, rows, columns = tensor.shape
    size = tensor.nbytes // (experts * len(names))
    for number in range(experts * len(names)):
        expert, begin = number // len(names), tensor.begin + number * size
        yield replace(
            tensor,
            name=f"{module}.{expert}.{names[number % len(names)]}.weight",
            shape=(rows // len(names), columns),
            begin=begin,
            end=begin + size,
        )


def load_rounded(
    pairs: Pairs,
    model: PreTrainedModel,
    device: torch.device,
    allocate: Allocate | None,
    during_load: Any,
) -> LoadReport:
    """Read a checkpoint, and round its linear layers to FP8 with a scale for each output.

    The head and the embedding keep their type. ``model.rounding_error`` becomes the norm of the
    difference that rounding makes, divided by the norm of the weights.

    Args:
        pairs: each stored tensor, and the model's name for it.
        model: a model on the meta device, unquantized; its linear layers are replaced.
        device: the device to load to.
        allocate: allocates the parameters (see :func:`.checkpoint.load_weights`).
        during_load: as of :func:`.checkpoint.load_weights`.

    Raises:
        CheckpointError: if a file cannot be read to the end.
        UnsupportedModelError: if the model has no linear layers to round.
    """
    began, dtype = time.monotonic(), model.dtype
    names = {f"{name}.weight" for name in use_fp8_linear(model)}
    if not names:
        raise UnsupportedModelError(
            f"This {model.config.model_type} model has no linear layers to round to FP8; leave "
            "weights at None."
        )
    materialize(model, device, dtype, allocate)
    plain = [pair for pair in pairs if pair[1] not in names]
    error = torch.zeros(2, dtype=torch.float64, device=device)
    context: AbstractContextManager[object] = during_load(model)
    with context:
        report = read_tensors(plain, named_tensors(model), device)
        for batch in _batches([pair for pair in pairs if pair[1] in names]):
            weights = {
                name: torch.empty(tensor.shape, dtype=dtype, device=device)
                for tensor, name in batch
            }
            read_tensors(batch, weights, device)
            for name, weight in weights.items():
                layer = model.get_submodule(name.removesuffix(".weight"))
                assert isinstance(layer, StoredLinear)
                error += _round_into(layer, weight)
            del weights
    squared, whole = error.tolist()
    model.rounding_error = (squared / whole) ** 0.5 if whole else 0.0
    logger.info(
        "%d linear layers rounded to FP8: relative error %.4f", len(names), model.rounding_error
    )
    tensors = report.tensors + len(names)
    nbytes = sum(tensor.nbytes for tensor, _ in pairs)
    return LoadReport(tensors, nbytes, time.monotonic() - began, report.converted)


def _batches(pairs: Pairs) -> Iterator[Pairs]:
    """Divide tensors, in the order of their bytes, into batches of about :data:`BATCH_BYTES`."""
    batch: list[tuple[StoredTensor, str]] = []
    for pair in sorted(pairs, key=lambda pair: (pair[0].file, pair[0].begin)):
        batch.append(pair)
        if sum(tensor.nbytes for tensor, _ in batch) >= BATCH_BYTES:
            yield batch
            batch = []
    if batch:
        yield batch


def _round_into(layer: StoredLinear, weight: torch.Tensor) -> torch.Tensor:
    """Fill a layer's parameters; return the squared norms of the error and of the weight."""
    codes, scales = layer.get_parameter("weight"), layer.get_parameter("weight_scale")
    sums = torch.zeros(2, dtype=torch.float64, device=weight.device)
    step = max(1, SLAB_ELEMENTS // weight.shape[1])
    for first in range(0, weight.shape[0], step):
        rows = slice(first, first + step)
        matrix = round_to_fp8(weight[rows])
        codes.data[rows].copy_(matrix.codes)
        scales.data[rows].copy_(matrix.scales)
        wide = weight[rows].float()
        difference = matrix.expand(torch.float32) - wide
        sums += torch.stack([difference.square().sum(), wide.square().sum()]).double()
    return sums
