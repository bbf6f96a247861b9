"""Reads a layer's tensors by name, and tells which ones nobody has read."""

from collections.abc import Iterable

import torch
from torch import nn

from eightfold.kernels.quantized.stored_matrix import Weight

from ...inspection.meta_model import named_tensors
from ...quantization.split_experts import SplitExperts
from ...quantization.stored_linear import StoredLinear


class TensorReader:
    """The parameters and persistent buffers of a module, by name.

    A decoder that leaves a tensor of a layer out would compute something else than the model, so
    :meth:`unread` has to be empty in the end.
    """

    def __init__(self, module: nn.Module) -> None:
        self._tensors = named_tensors(module)
        # A layer that is stored quantized has no tensors, but a matrix.
        self._stored = {
            name: child for name, child in module.named_modules() if isinstance(child, StoredLinear)
        }
        self._experts = {
            name: child for name, child in module.named_modules() if isinstance(child, SplitExperts)
        }
        self._unread = set(self._tensors) | {f"{name}.matrix" for name in self._stored}

    def __contains__(self, name: str) -> bool:
        return name in self._tensors

    def __getitem__(self, name: str) -> torch.Tensor:
        self._unread.discard(name)
        return self._tensors[name].data

    def get(self, name: str) -> torch.Tensor | None:
        """Return a tensor; ``None`` if the module has none of this name."""
        return self[name] if name in self._tensors else None

    def weight(self, name: str) -> Weight | None:
        """Return the weight of a linear layer, [out, in]; ``None`` if there is none."""
        if name in self._stored:
            self._unread.discard(f"{name}.matrix")
            return self._stored[name].matrix
        return self.get(f"{name}.weight")

    def split_experts(self, name: str) -> SplitExperts | None:
        """Return experts that are linear layers of their own; ``None`` if there are none."""
        if name in self._experts:
            self._unread = {each for each in self._unread if not each.startswith(f"{name}.")}
        return self._experts.get(name)

    def norm(self, name: str, offset: float = 0.0) -> torch.Tensor | None:
        """Return the weight of a norm, with an offset in float32; ``None`` if there is none."""
        weight = self.get(f"{name}.weight") if name else None
        return weight if weight is None or not offset else weight.float() + offset

    def read_modules(self, parent: str, names: Iterable[str]) -> None:
        """Count the tensors of a module's children as read."""
        prefixes = tuple(f"{parent}.{name}." for name in names)
        self._unread = {name for name in self._unread if not name.startswith(prefixes)}

    def unread(self) -> list[str]:
        """Return the names that nobody has read."""
        return sorted(self._unread)
