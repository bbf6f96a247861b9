"""Runs planned steps by the GPU kernels: decode steps as captured graphs, the rest as launches."""

import numpy as np
import torch
from torch import nn

from eightfold.kernels.attention.attention_dispatch import PagedBatch
from eightfold.kernels.attention.flash_attn.flash_attn_prefill import AttentionSpec
from eightfold.kernels.layers.token_embedding import fill_sampled_tokens
from eightfold.kernels.sampling.row_entropy import entropy_workspace_size, row_entropy
from eightfold.kernels.sampling.torch_sampler import SamplingBatch
from eightfold.kernels.sampling.triton_sampler import sample_tokens, sampler_workspace_size

from ..inspection.architecture import Architecture
from ..scheduling.scheduled_step import ScheduledTokens, StepPlan
from .decoder import Decoder, Limits
from .gpu_batch import (
    Layout,
    group_arrays,
    padded_rows,
    row_starts,
    sampling_arrays,
    step_arrays,
    table_width,
)
from .in_flight_step import Draws, Flight
from .kv_cache import KVCache
from .step_upload import Upload, packed_bytes

Tensors = dict[str, torch.Tensor]


def attention_specs(architecture: Architecture, model: nn.Module) -> list[AttentionSpec]:
    """Kinds of the layers that flash-attn might compute: those of two copies, without sinks."""
    if any(name.endswith(".sinks") for name, _ in model.named_parameters()):
        return []
    heads = int(architecture.config.num_attention_heads)
    return [
        AttentionSpec(heads, layer.kv_heads, layer.head_dim, layer.window or 0)
        for layer in architecture.layers
        if not layer.one_copy
    ]


class DecodeGraph:
    """A captured step of ``size`` single tokens."""

    def __init__(self, runner: "GpuRunner", size: int) -> None:
        self._layout = Layout(size, 0, size)
        self._upload = Upload(runner.device, runner.upload_bytes(self._layout))
        views = self._upload(runner.arrays([], self._layout, size))
        runner.compute(views, self._layout)  # compiles, and must not be captured
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph, pool=runner.graph_pool):
            runner.compute(views, self._layout)

    def launch(self, runner: "GpuRunner", scheduled: list[ScheduledTokens]) -> None:
        self._upload(runner.arrays(scheduled, self._layout, self._layout.rows))
        self._graph.replay()


class GpuRunner:
    """A decoder, its cache, and the tokens that the last step drew.

    Args:
        graphs: whether to capture decode steps; the decoder must be capturable.
    """

    def __init__(
        self,
        decoder: Decoder,
        cache: KVCache,
        limits: Limits,
        vocabulary: int,
        device: torch.device,
        graphs: bool,
    ) -> None:
        self.decoder = decoder
        self.cache = cache
        self.device = device
        self.limits = limits
        # Layers whose prefill chunks flash-attn computes.
        self.flash_attn_specs: frozenset[AttentionSpec] = frozenset()
        self.draws = Draws(limits.decode_rows, device)
        self.graph_pool = torch.cuda.graph_pool_handle() if graphs else None
        self._graphs: dict[int, DecodeGraph] = {}
        rows = limits.decode_rows
        self._sampler_space = torch.empty(sampler_workspace_size(rows, vocabulary), device=device)
        self._entropy_space = torch.empty(entropy_workspace_size(rows, vocabulary), device=device)
        largest = Layout(rows, rows, max(limits.rows, rows))
        self._upload = Upload(device, self.upload_bytes(largest))

    @torch.inference_mode()
    def launch(self, plan: StepPlan) -> Flight:
        """Start a step; on a GPU this returns while it runs."""
        self.cache.make(plan.page_copies)
        scheduled = plan.scheduled
        layout = Layout.of(scheduled, self.limits.running)
        if self.graph_pool and not layout.chunks and all(entry.samples for entry in scheduled):
            self._graph(layout.rows).launch(self, scheduled)
        else:
            drawn = sum(entry.samples for entry in scheduled)
            views = self._upload(self.arrays(scheduled, layout, padded_rows(drawn) if drawn else 0))
            self.compute(views, layout)
        return self.draws.depart(plan)

    @torch.inference_mode()
    def warm_up(self) -> None:
        """Compile and capture the decode steps, largest first: later ones fit into its memory."""
        if self.graph_pool:
            for size in self.limits.decode_sizes:
                self._graph(size)

    @torch.inference_mode()
    def compile(self, size: int) -> None:
        """Launch a step of ``size`` single tokens of nobody, without a graph."""
        layout = Layout(size, 0, size)
        self.compute(self._upload(self.arrays([], layout, size)), layout)

    def _graph(self, size: int) -> DecodeGraph:
        graph = self._graphs.get(size)
        if graph is None:
            graph = self._graphs[size] = DecodeGraph(self, size)
        return graph

    # ---- one step's inputs

    def arrays(
        self, scheduled: list[ScheduledTokens], layout: Layout, sampling: int
    ) -> dict[str, np.ndarray]:
        """Host arrays of a step that draws for up to ``sampling`` rows."""
        arrays = step_arrays(scheduled, self.draws.row_of, layout)
        for g, window in enumerate(self.cache.windows):
            tokens = 1 if not layout.chunks else self.limits.step_tokens
            width = table_width(window, tokens, self.limits.context, self.cache.page_size)
            group = group_arrays(scheduled, g, window, self.cache.page_size, layout, width)
            arrays |= {f"{name}{g}": array for name, array in group.items()}
        drawn = [entry for entry in scheduled if entry.samples]
        arrays |= sampling_arrays(drawn, sampling)
        if layout.chunks or len(drawn) < len(scheduled):
            rows = np.zeros(sampling, dtype=np.int32)
            pairs = zip(scheduled, row_starts(scheduled, layout), strict=True)
            last = [row + entry.count - 1 for entry, row in pairs if entry.samples]
            rows[: len(last)] = last
            arrays["rows"] = rows
        return arrays

    def upload_bytes(self, layout: Layout) -> int:
        """Bytes of the arrays of any step of this layout."""
        return packed_bytes(self.arrays([], layout, max(1, layout.decodes)))

    # ---- on the device

    def compute(self, views: Tensors, layout: Layout) -> None:
        """Queue a step's launches: model, and draw and entropies where it samples.

        Entropies nobody asked for are computed too: they cost microseconds, a second set of graphs
        would cost memory and a pause for its capture.
        """
        tokens = fill_sampled_tokens(views["tokens"], views["source"], self.draws.tokens)
        batches = {
            window: PagedBatch(
                slot_mapping=views[f"slots{g}"],
                page_table=views[f"table{g}"],
                first_pos=views[f"first_pos{g}"],
                seq_lens=views[f"lens{g}"],
                query_starts=views[f"starts{g}"],
                num_decodes=layout.decodes,
                flash_attn_specs=self.flash_attn_specs,
            )
            for g, window in enumerate(self.cache.windows)
        }
        logits = self.decoder.logits(
            tokens, views["positions"], batches, self.cache, views.get("rows")
        )
        rows, softcap = logits.shape[0], self.decoder.softcap
        if not rows:  # a step of chunks that end no prompt
            return
        batch = SamplingBatch(
            temperature=views["temperature"],
            top_k=views["top_k"],
            top_p=views["top_p"],
            min_p=views["min_p"],
            seeds=views["seeds"],
            positions=views["places"],
            max_top_k=0,
            all_greedy=False,
            any_filtered=True,
        )
        sample_tokens(
            logits, batch, self.draws.tokens[:rows], self._sampler_space, softcap=softcap, pdl=True
        )
        out = self.draws.entropies[:rows]
        row_entropy(logits, out, self._entropy_space, softcap=softcap, pdl=True)
