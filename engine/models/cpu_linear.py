"""Linear layers on a CPU, with their weights in oneDNN's layout."""

from typing import Any, cast

import torch
from torch import nn

# Up to this size of a model the plain weights stay beside those in oneDNN's layout. Those of a
# larger one are let go of, layer by layer.
MAX_KEPT_BYTES = 1 << 30
ACTIVATIONS = (("swish", ""), ("gelu", "tanh"), ("gelu", "none"))
"""Activations as oneDNN names them, with the algorithm."""
TOLERANCES = {torch.float32: 1e-5, torch.bfloat16: 2e-2}  # relative, of stand-ins


class OneDNNLinear(nn.Module):
    """Computes what ``linear`` computes, 1.5 to 3 times as fast for eight rows.

    With AVX-512 a row's result is bitwise independent of the rows beside it. That of ``nn.Linear``
    is not: with it a sequence's logits change with the number of its neighbors.

    Args:
        linear: the layer that this stands in for.
        keep: False to let go of its plain weight; ``weight`` then gives a copy.
    """

    def __init__(self, linear: nn.Linear, keep: bool = True) -> None:
        super().__init__()
        self.bias = linear.bias
        if keep:
            self.weight = linear.weight
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self._reordered = torch.ops.mkldnn._reorder_linear_weight(linear.weight.detach())

    def __getattr__(self, name: str) -> Any:
        if name == "weight" and "weight" not in self._parameters:
            return self._reordered.to_dense()
        return super().__getattr__(name)

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        """[..., in_features] -> [..., out_features]."""
        return self.activated(rows, "none", "")

    def activated(self, rows: torch.Tensor, activation: str, algorithm: str) -> torch.Tensor:
        """Return the activation of the outputs, by oneDNN's names."""
        out = torch.ops.mkldnn._linear_pointwise(
            rows, self._reordered, self.bias, activation, [], algorithm
        )
        return cast(torch.Tensor, out)

    def times(self, rows: torch.Tensor, factors: torch.Tensor) -> torch.Tensor:
        """Return the outputs times ``factors`` [..., out_features]."""
        out = torch.ops.mkldnn._linear_pointwise.binary(
            rows, factors, self._reordered, self.bias, "mul"
        )
        return cast(torch.Tensor, out)


class OneDNNGatedMLP(nn.Module):
    """Computes ``down(activation(gate(x)) * up(x))``, elementwise parts within the products.

    For hundreds of rows, apart from them they would take 5 to 15 % of the time.

    Args:
        projections: gate, up and down.
        activation: name and algorithm, one of ``ACTIVATIONS``.
    """

    def __init__(self, projections: list[OneDNNLinear], activation: tuple[str, str]) -> None:
        super().__init__()
        self.gate_proj, self.up_proj, self.down_proj = projections
        self._activation = activation

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        """[..., hidden] -> [..., hidden]."""
        gate = self.gate_proj.activated(rows, *self._activation)
        out: torch.Tensor = self.down_proj(self.up_proj.times(rows, gate))
        return out


def use_onednn_linear(model: nn.Module) -> bool:
    """Replace the linear layers of a model in float32, and in bfloat16 if the CPU computes in it.

    Returns:
        False if nothing is replaced, because oneDNN is missing.
    """
    # Inductor's operators; there are no public ones that do this.
    operators = ("_reorder_linear_weight", "_linear_pointwise", "_is_mkldnn_bf16_supported")
    if not torch.backends.mkldnn.is_available() or not all(
        hasattr(torch.ops.mkldnn, name) for name in operators
    ):
        return False
    dtypes = {torch.float32}
    if torch.ops.mkldnn._is_mkldnn_bf16_supported():
        dtypes.add(torch.bfloat16)
    places = [
        (parent, name)
        for parent in model.modules()
        for name, child in parent.named_children()
        if type(child) is nn.Linear and child.weight.dtype in dtypes
    ]
    keep = sum(_linear(*place).weight.nbytes for place in places) <= MAX_KEPT_BYTES
    for parent, name in places:
        setattr(parent, name, OneDNNLinear(_linear(parent, name), keep))
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if (fused := _fused_mlp(child)) is not None:
                setattr(parent, name, fused)
    return True


@torch.inference_mode()
def _fused_mlp(module: nn.Module) -> OneDNNGatedMLP | None:
    """Return what computes the same as a gated feed-forward module, found by trying it out."""
    projections = [getattr(module, f"{name}_proj", None) for name in ("gate", "up", "down")]
    layers = [layer for layer in projections if isinstance(layer, OneDNNLinear)]
    linears = sum(isinstance(child, OneDNNLinear) for child in module.modules())
    if len(layers) < 3 or linears > 3 or layers[0].out_features != layers[2].in_features:
        return None
    dtype = layers[0]._reordered.dtype
    rows = torch.linspace(-2, 2, 2 * layers[0].in_features).sin().to(dtype)
    rows = rows.view(1, 2, -1)
    try:
        wanted = module(rows)
    except Exception:  # it takes something else
        return None
    for activation in ACTIVATIONS:
        fused = OneDNNGatedMLP(layers, activation)
        error = (fused(rows).float() - wanted.float()).norm()
        if error <= TOLERANCES[dtype] * wanted.float().norm():
            return fused
    return None


def _linear(parent: nn.Module, name: str) -> nn.Linear:
    linear = getattr(parent, name)
    assert isinstance(linear, nn.Linear)
    return linear
