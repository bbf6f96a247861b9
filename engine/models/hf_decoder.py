"""Any model that the engine can page, run by transformers' own modules on a GPU."""

import logging

import torch
from transformers import PreTrainedModel

from eightfold.common.error_text import first_line
from eightfold.kernels.attention.attention_dispatch import PagedBatch

from ..execution.decoder_protocol import decode_workspace
from ..execution.hf_attention import attach
from ..execution.kv_cache import KVCache
from ..execution.runner_limits import RunnerLimits
from ..inspection.architecture import Architecture
from .transformers_modules.fused_modules import fuse_modules
from .transformers_modules.host_decisions import module_at_fault

logger = logging.getLogger(__name__)


class HFDecoder:
    """transformers' modules over the GPU attention kernels; a ``Decoder``.

    Modules of known kinds are replaced by fused ones (see ``fuse_modules``). Attaches the cache to
    the model for good.

    Attributes:
        capturable: True if no module reads values on the host.
        path: "graph" if decode steps can be captured, else "plain".
        path_reason: why, as a clause.
    """

    softcap = 0.0

    def __init__(
        self,
        model: PreTrainedModel,
        architecture: Architecture,
        cache: KVCache,
        limits: RunnerLimits,
    ) -> None:
        self._model = model
        self._context = attach(model, architecture, cache)
        self._context.workspace = decode_workspace(
            architecture, limits, cache.page_size, model.device
        )
        fused = fuse_modules(model, limits.max_context)
        self.capturable = fused.decision is None
        kinds = ", ".join(f"{count} {kind}" for kind, count in fused.replaced.items() if count)
        self.path = "graph" if self.capturable else "plain"
        self.path_reason = fused.decision or f"transformers' modules, of which {kinds} are fused"
        logger.info("%s runs as %s: %s", type(model).__name__, self.path, self.path_reason)

    def give_up_graphs(self, error: Exception) -> None:
        """Take note that the capture of a step failed, and in which module."""
        self.capturable, self.path = False, "plain"
        module = module_at_fault(error, self._model)
        self.path_reason = f"{module} cannot be captured: {first_line(error)}"
        logger.warning("decode steps run without graphs: %s", self.path_reason)

    def logits(
        self,
        tokens: torch.Tensor,
        positions: torch.Tensor,
        batches: dict[int | None, PagedBatch],
        cache: KVCache,
        rows: torch.Tensor | None,
    ) -> torch.Tensor:
        """Return logits [R, vocabulary] in the model's type (see ``Decoder``)."""
        self._context.batches = batches
        output = self._model(
            input_ids=tokens[None].long(),
            position_ids=positions[None].long(),
            use_cache=False,
            logits_to_keep=0 if rows is None else rows.long(),
        )
        return output.logits[0].contiguous()
