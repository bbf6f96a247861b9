"""RMSNorm modules as one launch."""

import torch
from torch import nn

from eightfold.kernels.module_ops.strided_rms_norm import strided_rms_norm


class FusedRMSNorm(nn.Module):
    """``x / rms(x) * factor`` in one launch.

    Args:
        source: the module that this stands in for; its parameters stay where they are found.
        factor: float32 [N]; ``None`` for none.
        eps: added to the mean squares.
    """

    def __init__(self, source: nn.Module, factor: torch.Tensor | None, eps: float) -> None:
        super().__init__()
        for name, parameter in source.named_parameters(recurse=False):
            self.register_parameter(name, parameter)
        self._factor, self._eps = factor, eps

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[..., N] -> [..., N]."""
        return strided_rms_norm(x, self._factor, eps=self._eps, pdl=True)


def norm_candidates(module: nn.Module) -> list[FusedRMSNorm]:
    """Return stand-ins of which one may compute what a module computes; to be probed.

    A weight is a factor itself, or a difference to 1.
    """
    if next(module.children(), None) is not None or next(module.buffers(), None) is not None:
        return []
    parameters = list(module.parameters())
    eps = getattr(module, "variance_epsilon", getattr(module, "eps", None))
    if not isinstance(eps, float) or len(parameters) > 1:
        return []
    if not parameters:
        return [FusedRMSNorm(module, None, eps)]
    (weight,) = parameters
    if weight.dim() != 1:
        return []
    factor = weight.detach().float()
    return [FusedRMSNorm(module, factor, eps), FusedRMSNorm(module, 1.0 + factor, eps)]
