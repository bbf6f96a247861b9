"""Linear layers of transformers' modules: few rows by our kernel, several as one product."""

import torch
import torch.nn.functional as F
from torch import nn

from eightfold.kernels.layers.linear_few_rows import MAX_ROWS, linear_few_rows


def few_rows(rows: int, x: torch.Tensor) -> bool:
    """Return whether our kernel computes a product of ``rows`` rows with the type of ``x``.

    On a GPU it would round float32 to tf32.
    """
    return 0 < rows <= MAX_ROWS and not (x.is_cuda and x.dtype == torch.float32)


def linear(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    """Compute ``F.linear``; up to ``MAX_ROWS`` rows stream the weights through our kernel.

    Args:
        x: [..., in].
        weight: [out, in].
        bias: [out] or ``None``.

    Returns:
        [..., out].
    """
    rows = x.numel() // x.shape[-1]
    if not few_rows(rows, x):
        return F.linear(x, weight, bias)
    out = torch.empty(rows, weight.shape[0], dtype=x.dtype, device=x.device)
    linear_few_rows(x.reshape(rows, -1).contiguous(), weight, out, bias=bias, pdl=True)
    return out.view(*x.shape[:-1], -1)


def join_weights(sources: list[nn.Linear]) -> torch.Tensor:
    """Copy the weights of linear layers into one tensor [sum of out, in]; they become its views."""
    weights = [source.weight.data for source in sources]
    joined = torch.cat(weights)
    for source, part in zip(sources, joined.split([len(w) for w in weights]), strict=True):
        source.weight.data = part
    if joined.is_cuda:
        # Otherwise the next joined tensor would take a part of the freed blocks and pin the rest.
        del weights
        torch.cuda.empty_cache()
    return joined


class FewRowsLinear(nn.Module):
    """Computes what ``source`` computes, with its parameters."""

    def __init__(self, source: nn.Linear) -> None:
        super().__init__()
        self.weight, self.bias = source.weight, source.bias
        self.in_features, self.out_features = source.in_features, source.out_features

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[..., in_features] -> [..., out_features]."""
        return linear(x, self.weight, self.bias)


class JointProduct:
    """The product of one input with the weights of several linear layers.

    Args:
        sources: layers with the same input, all with a bias or all without.
    """

    def __init__(self, sources: list[nn.Linear]) -> None:
        self._weight = join_weights(sources)
        biases = [source.bias for source in sources if source.bias is not None]
        self._bias = torch.cat([bias.detach() for bias in biases]) if biases else None
        self._sizes = [source.out_features for source in sources]
        self._input: torch.Tensor | None = None
        self._outputs: list[torch.Tensor] = []

    def part(self, x: torch.Tensor, index: int) -> torch.Tensor:
        """Return what the layer ``index`` gives for x; computed once for consecutive calls."""
        if self._input is not x:
            joint = linear(x, self._weight, self._bias)
            self._input, self._outputs = x, list(joint.split(self._sizes, dim=-1))
        out = self._outputs[index]
        if index + 1 == len(self._sizes):
            # Let go of the tensors: another input could come to lie at the same place.
            self._input, self._outputs = None, []
        return out


class JointPart(nn.Module):
    """One of the layers of a ``JointProduct``."""

    def __init__(self, source: nn.Linear, joint: JointProduct, index: int) -> None:
        super().__init__()
        self.weight, self.bias = source.weight, source.bias
        self.in_features, self.out_features = source.in_features, source.out_features
        self._joint, self._index = joint, index

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[..., in_features] -> [..., out_features], a view of the joint product."""
        return self._joint.part(x, self._index)


def joinable(layers: list[object]) -> bool:
    """Return whether modules are plain linear layers that can be computed as one product."""
    if not all(type(layer) is nn.Linear for layer in layers):
        return False
    linears = [layer for layer in layers if isinstance(layer, nn.Linear)]
    return (
        len({layer.in_features for layer in linears}) == 1
        and len({layer.bias is None for layer in linears}) == 1
    )
