"""gpt-oss's experts with their matrices in MXFP4, in plain PyTorch."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from eightfold.kernels.experts.mxfp4_reference import BLOCK, BLOCK_BYTES, expand_mxfp4

from ..model_errors import UnsupportedModelError
from .expert_sum import sum_of_experts


class Mxfp4Experts(nn.Module):
    """Computes what transformers' ``GptOssExperts`` does, with the tensors of the checkpoint.

    An expert is expanded when it has a token, so that memory never holds two of them expanded.

    Attributes:
        gate_up_proj_blocks: uint8 [experts, 2 * intermediate, hidden / 32, 16]; rows alternate
            between gate and up.
        gate_up_proj_scales: uint8 [experts, 2 * intermediate, hidden / 32].
        gate_up_proj_bias: [experts, 2 * intermediate].
        down_proj_blocks: uint8 [experts, hidden, intermediate / 32, 16].
        down_proj_scales: uint8 [experts, hidden, intermediate / 32].
        down_proj_bias: [experts, hidden].
        alpha: gain of the sigmoid in the activation.
        limit: bound of the gate from above, and of the other half on both sides.

    Args:
        experts: the module of transformers that this one replaces.

    Raises:
        UnsupportedModelError: if a width is not a multiple of 32.
    """

    gate_up_proj_blocks: torch.Tensor
    gate_up_proj_scales: torch.Tensor
    gate_up_proj_bias: torch.Tensor
    down_proj_blocks: torch.Tensor
    down_proj_scales: torch.Tensor
    down_proj_bias: torch.Tensor

    def __init__(self, experts: nn.Module) -> None:
        super().__init__()
        source: Any = experts
        self.num_experts = int(source.num_experts)
        self.hidden_size = int(source.hidden_size)
        self.intermediate_size = int(source.intermediate_size)
        self.alpha, self.limit = float(source.alpha), float(source.limit)
        matrices = (
            ("gate_up_proj", 2 * self.intermediate_size, self.hidden_size),
            ("down_proj", self.hidden_size, self.intermediate_size),
        )
        for name, rows, width in matrices:
            if width % BLOCK:
                raise UnsupportedModelError(
                    f"Experts {width} wide cannot be in MXFP4, whose blocks have {BLOCK} elements; "
                    "copy config.json again."
                )
            shape = (self.num_experts, rows, width // BLOCK)
            bias = getattr(source, f"{name}_bias")
            self._add(f"{name}_blocks", torch.empty(*shape, BLOCK_BYTES, dtype=torch.uint8), bias)
            self._add(f"{name}_scales", torch.empty(*shape, dtype=torch.uint8), bias)
            self.register_parameter(f"{name}_bias", bias)

    def _add(self, name: str, tensor: torch.Tensor, like: torch.Tensor) -> None:
        self.register_parameter(name, nn.Parameter(tensor.to(like.device), requires_grad=False))

    def expert_weights(self, expert: int, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
        """Return an expert's matrices: [2 * intermediate, hidden] and [hidden, intermediate]."""
        gate_up = expand_mxfp4(
            self.gate_up_proj_blocks[expert], self.gate_up_proj_scales[expert], dtype
        )
        down = expand_mxfp4(self.down_proj_blocks[expert], self.down_proj_scales[expert], dtype)
        return gate_up, down

    def forward(
        self,
        hidden_states: torch.Tensor,
        router_indices: torch.Tensor,
        routing_weights: torch.Tensor,
    ) -> torch.Tensor:
        """Return the weighted sum of each token's experts.

        Args:
            hidden_states: [T, hidden].
            router_indices: [T, experts of a token], none of them twice.
            routing_weights: [T, experts of a token].

        Returns:
            [T, hidden].
        """
        return sum_of_experts(hidden_states, router_indices, routing_weights, self._expert)

    def _expert(self, expert: int, x: torch.Tensor) -> torch.Tensor:
        gate_up, down = self.expert_weights(expert, x.dtype)
        both = F.linear(x, gate_up, self.gate_up_proj_bias[expert])
        gate = both[..., ::2].clamp(max=self.limit)
        up = both[..., 1::2].clamp(-self.limit, self.limit)
        activated = (up + 1) * (gate * torch.sigmoid(gate * self.alpha))
        return F.linear(activated, down, self.down_proj_bias[expert])
