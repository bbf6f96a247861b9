"""Runs the experts of a layer, and the dense block beside them if there is one."""

from collections.abc import Callable

import torch

from eightfold.kernels.experts.expert_config import clears_counter, expert_config
from eightfold.kernels.experts.experts_forward import (
    COUNTERS,
    LEFT_AT_0,
    experts_forward,
    experts_workspace_size,
)
from eightfold.kernels.experts.grouping import PAIRS
from eightfold.kernels.experts.router import Routing
from eightfold.kernels.layers.beside_experts.expert_norms import join_branches, norms_and_router
from eightfold.kernels.layers.beside_experts.linear_prefetched import (
    linear_prefetched_fits,
    sum_norm_linear,
)
from eightfold.kernels.layers.linear_few_rows import MAX_ROWS, linear_few_rows
from eightfold.kernels.layers.rms_norm import add_rms_norm

from .activation_buffers import narrow
from .expert_block import ExpertBlock
from .layer_weights import FusedLayer


class ExpertRunner:
    """The memory in which the experts of all layers are computed.

    Attributes:
        step_tokens: numbers of rows, one for each set of kernels that steps launch.
        residual: memory for the residual of few rows, beside that of the decoder: norms are written
            to the one while the other is read.
        chosen: experts that the latest step of single tokens chose, int32
            [layers, rows, top_k].

    Args:
        rows: most rows of a step.
        decode_rows: most rows of a step of single tokens.
        like: tensor whose device and dtype the activations take.
    """

    def __init__(
        self,
        layers: list[FusedLayer],
        rows: int,
        decode_rows: int,
        eps: float,
        like: torch.Tensor,
    ) -> None:
        blocks = [layer.experts for layer in layers if layer.experts is not None]
        assert blocks, "only made for models with experts"
        first, self._eps = blocks[0], eps
        hidden, device = first.weights.hidden, like.device
        self._logits = torch.empty(rows, first.router.shape[0], device=device, dtype=like.dtype)
        few = min(rows, MAX_ROWS)
        self._few_logits = torch.empty(few, first.router.shape[0], device=device)
        self._ids = torch.zeros(rows, first.top_k, device=device, dtype=torch.int32)
        self.chosen = torch.zeros(
            len(layers), decode_rows, first.top_k, device=device, dtype=torch.int32
        )
        self._weights = torch.zeros(rows, first.top_k, device=device)
        self._parts = torch.empty(first.top_k * few * hidden, device=device)
        self.residual = torch.zeros(few, hidden, device=device, dtype=like.dtype)
        self._branches = torch.empty(
            3 if first.branch is not None else 0, rows, hidden, device=device, dtype=like.dtype
        )
        kinds: dict[object, int] = {}
        for count in range(1, rows + 1):
            several = count * first.top_k > PAIRS  # programs that group the rows
            config = expert_config(count, first.top_k, first.weights)
            kinds.setdefault((config, several, count > MAX_ROWS), count)
        self.step_tokens = tuple(kinds.values())
        size = experts_workspace_size(rows, first.top_k, first.weights, like.dtype)
        self._workspace = torch.empty(size, device=device)
        self._counters = torch.zeros(COUNTERS, dtype=torch.int32, device=device)

    def logits(self, x: torch.Tensor, block: ExpertBlock) -> torch.Tensor:
        """Return the router's logits [rows, experts]: float32 for few rows."""
        rows, bias = x.shape[0], block.router_bias
        if rows > MAX_ROWS:
            out = self._logits[:rows]
            if bias is None:
                return torch.mm(x, block.router.T, out=out)
            return torch.addmm(bias, x, block.router.T, out=out)
        few = self._few_logits[:rows]
        return linear_few_rows(x, block.router, few, bias=bias, pdl=True)

    def forward(
        self,
        layer: FusedLayer,
        x: torch.Tensor,
        logits: torch.Tensor,
        y: torch.Tensor,
    ) -> torch.Tensor:
        """Return the sum of each row's experts: in y, or for few rows as float32 parts.

        Args:
            layer: a layer with experts.
            x: [rows, hidden].
            logits: [rows, experts], the router's.
            y: [rows, hidden], overwritten if the result is in it.

        Returns:
            [rows, hidden], or [top_k, rows, hidden] as ``add_rms_norm`` takes it.
        """
        block, (rows, hidden) = layer.experts, x.shape
        assert block is not None
        ids = self.chosen[layer.spec.index] if rows <= self.chosen.shape[1] else self._ids
        ids, weights = ids[:rows], self._weights[:rows]
        out = y
        if rows <= MAX_ROWS:
            out = self._parts[: block.top_k * rows * hidden].view(block.top_k, rows, hidden)
        routing = Routing(logits, block.kind, block.expert_scale)
        return experts_forward(
            x, ids, weights, block.weights, out, self._workspace, routing=routing,
            counters=self._counters, pdl=True,
        )  # fmt: skip

    def few_rows(
        self,
        layer: FusedLayer,
        following: FusedLayer | None,
        next_norm: torch.Tensor,
        y: torch.Tensor,
        residuals: tuple[torch.Tensor, torch.Tensor],
        x: torch.Tensor,
        dense: Callable[[], None],
    ) -> torch.Tensor | None:
        """Run what follows the output projection of a layer with experts, for few rows.

        Args:
            following: the next layer, if there is one.
            next_norm: [hidden], the norm before the next layer.
            y: [rows, hidden], output of the projection; overwritten.
            residuals: the residual, and memory for the new one, [rows, hidden].
            x: [rows, hidden], receives the input of the next layer.
            dense: computes the dense block beside the experts from x into y.

        Returns:
            What :meth:`add_and_project` is to add to the residual; ``None`` if that is done.
        """
        block, rows, eps = layer.experts, len(y), self._eps
        assert block is not None
        assert layer.pre_feedforward_norm is not None
        residual, logits, own, branch = residuals[1], self._few_logits[:rows], block.branch, None
        if own is not None:
            expert_x, spare, _ = (narrow(each, rows, x.shape[1]) for each in self._branches)
            branch = (own.router, own.pre_experts, expert_x)
        norms_and_router(
            y, residuals[0], residual, layer.post_attention_norm, layer.pre_feedforward_norm, x,
            block.router, logits, bias=layer.out_bias, router_bias=block.router_bias,
            branch=branch, eps=eps, pdl=True,
        )  # fmt: skip
        if own is None:
            parts = self.forward(layer, x, logits, y)
            if self._defers_sum(layer, following, parts):
                return parts
            add_rms_norm(
                parts, residual, layer.post_feedforward_norm, next_norm, x, scale=layer.scalar,
                eps=eps, pdl=True,
            )  # fmt: skip
            return None
        assert layer.post_feedforward_norm is not None
        dense()
        parts = self.forward(layer, expert_x, logits, spare)
        norms = (own.post_dense, own.post_experts, layer.post_feedforward_norm, next_norm)
        join_branches(y, parts, residual, norms, x, scale=layer.scalar, eps=eps, pdl=True)
        return None

    def _defers_sum(
        self, layer: FusedLayer, following: FusedLayer | None, parts: torch.Tensor
    ) -> bool:
        """Return whether the next layer's q/k/v projection adds the experts' outputs."""
        block = layer.experts
        if following is None or following.input_norm is None or block is None or parts.dim() != 3:
            return False
        count, rows, _ = parts.shape
        return (
            layer.post_feedforward_norm is None
            and layer.scalar == 1.0
            and isinstance(following.qkv, torch.Tensor)
            and clears_counter(rows, block.top_k, block.weights)
            and linear_prefetched_fits(rows, following.qkv, count, following.input_norm.dtype)
        )

    def add_and_project(
        self,
        parts: torch.Tensor,
        residual: torch.Tensor,
        layer: FusedLayer,
        x: torch.Tensor,
        qkv: torch.Tensor,
    ) -> None:
        """Add what :meth:`few_rows` has returned, normalize, and compute the layer's q/k/v.

        Args:
            residual: [rows, hidden], overwritten.
            x: [rows, hidden], overwritten.
            qkv: [rows, n], written.
        """
        assert layer.input_norm is not None
        assert isinstance(layer.qkv, torch.Tensor)
        sum_norm_linear(
            parts, residual, layer.input_norm, x, layer.qkv, qkv, self._counters[LEFT_AT_0:],
            eps=self._eps, pdl=True,
        )  # fmt: skip

    def beside_dense(
        self, layer: FusedLayer, residual: torch.Tensor, dense: torch.Tensor
    ) -> torch.Tensor:
        """Add the experts of a layer to its dense block, each with its norms; return the sum.

        Args:
            residual: [rows, hidden], not changed.
            dense: output of the dense block, [rows, hidden].
        """
        rows, block, eps = residual.shape[0], layer.experts, self._eps
        branch = None if block is None else block.branch
        assert branch is not None, "the layer has no dense block beside its experts"
        assert block is not None
        normed, total, spare = (narrow(each, rows, residual.shape[1]) for each in self._branches)
        add_rms_norm(None, dense, None, branch.post_dense, total, eps=eps, pdl=True)
        add_rms_norm(None, residual, None, branch.router, normed, eps=eps, pdl=True)
        logits = self.logits(normed, block)
        add_rms_norm(None, residual, None, branch.pre_experts, normed, eps=eps, pdl=True)
        experts = self.forward(layer, normed, logits, spare)
        add_rms_norm(experts, total, branch.post_experts, None, None, eps=eps, pdl=True)
        return total
