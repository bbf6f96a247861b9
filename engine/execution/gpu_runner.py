"""Runs steps with the GPU kernels: decode steps as captured graphs, others as single launches."""

from dataclasses import replace

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
from .decoder_protocol import Decoder, UncertainCapture
from .draft_arrays import DraftArrays
from .draft_chain import ChainShape, DeviceDrafter, DraftChain
from .gpu_batch import (
    RowLayout,
    SteadyArrays,
    decode_layouts,
    page_table_width,
    paged_arrays,
)
from .in_flight_step import InFlightStep, SampledTokens
from .kv_cache import KVCache
from .runner_limits import RunnerLimits, padded_rows
from .step_arrays import sampling_arrays, token_arrays
from .step_upload import StepUpload, packed_bytes

Arrays = dict[str, np.ndarray]
Tensors = dict[str, torch.Tensor]


def flash_attn_candidates(architecture: Architecture, model: nn.Module) -> list[AttentionSpec]:
    """Return the kinds of layers that flash-attn could compute: those with two copies."""
    sinks = any(name.endswith(".sinks") for name, _ in model.named_parameters())
    heads = int(architecture.config.num_attention_heads)
    return [
        AttentionSpec(heads, layer.kv_heads, layer.head_dim, layer.window or 0, sinks)
        for layer in architecture.layers
        if not layer.one_copy
    ]


class DecodeGraph:
    """A captured step of single tokens and their drafts."""

    def __init__(self, runner: "GpuRunner", layout: RowLayout) -> None:
        self._layout = layout
        self._upload = StepUpload(runner.device, runner.upload_bytes(self._layout))
        views = self._upload(runner.arrays([], self._layout, layout.rows))
        runner.compute(views, self._layout)  # compiles, which must not happen during the capture
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph, pool=runner.graph_pool):
            runner.compute(views, self._layout)

    def launch(self, runner: "GpuRunner", scheduled: list[ScheduledTokens]) -> None:
        """Upload a step of single tokens, and replay the graph."""
        self._upload.copy(runner.arrays(scheduled, self._layout, self._layout.rows))
        self._graph.replay()


class GpuRunner:
    """A decoder, its cache, and the tokens that the last step sampled.

    Args:
        graphs: True to capture decode steps; the decoder must be capturable.
    """

    def __init__(
        self,
        decoder: Decoder,
        cache: KVCache,
        limits: RunnerLimits,
        vocabulary: int,
        device: torch.device,
        graphs: bool,
    ) -> None:
        self.decoder = decoder
        self.cache = cache
        self.device = device
        self.limits = limits
        # Kinds of layers whose prefill chunks flash-attn computes.
        self.flash_attn_specs: frozenset[AttentionSpec] = frozenset()
        sequences = padded_rows(limits.max_running)
        self.sampled = SampledTokens(limits.decode_rows, sequences, device)
        self.chain = DraftChain(
            sequences, padded_rows(1 + limits.max_drafts), self.sampled.accepted
        )
        self.device_drafter: DeviceDrafter | None = None
        self._last: tuple[StepPlan, RowLayout] | None = None
        self._steady: SteadyArrays | None = None
        self._draft_arrays = DraftArrays(cache.windows, cache.page_size, limits)
        self.graph_pool = torch.cuda.graph_pool_handle() if graphs else None
        self._graphs: dict[RowLayout, DecodeGraph] = {}
        rows = limits.decode_rows
        self._sampler_space = torch.empty(sampler_workspace_size(rows, vocabulary), device=device)
        self._entropy_space = torch.empty(entropy_workspace_size(rows, vocabulary), device=device)
        largest = RowLayout(max(rows, sequences), sequences, max(limits.rows, rows))
        lines = decode_layouts(limits)
        trees = [replace(line, tree=True) for line in lines if line.q_len > 1]
        self._upload = StepUpload(device, max(map(self.upload_bytes, [largest, *lines, *trees])))

    @torch.inference_mode()
    def launch(self, plan: StepPlan) -> InFlightStep:
        """Start a step; on a GPU this returns while the step runs."""
        self.cache.copy_pages(plan.page_copies)
        scheduled = plan.scheduled
        layout = RowLayout.of(scheduled, self.limits.max_running)
        if self.graph_pool and not layout.chunks and all(entry.samples for entry in scheduled):
            self._graph(layout).launch(self, scheduled)
        else:
            sampling = sum(entry.samples for entry in scheduled)
            rows = padded_rows(sampling) if sampling else 0
            rows = layout.rows if layout.q_len > 1 else rows
            self.compute(self._upload(self.arrays(scheduled, layout, rows)), layout)
        self._last = plan, layout
        drafted = layout.verifies_lines
        step = self.sampled.read_back(plan, self._drawn_rows(scheduled, layout), drafted)
        if drafted:
            self.chain.index_of = {entry.seq.id: i for i, entry in enumerate(scheduled)}
        if plan.next_drafts and self.device_drafter is not None:
            step.drafting = self._draft_behind(self.device_drafter, plan, layout)
        return step

    def _draft_behind(
        self, drafter: DeviceDrafter, plan: StepPlan, layout: RowLayout
    ) -> tuple[torch.cuda.Event, torch.cuda.Event] | None:
        """Queue the drafts of the next step; return events around them on a GPU."""
        timed = self.device.type == "cuda"
        began, ended = (
            (torch.cuda.Event(enable_timing=True) for _ in range(2)) if timed else (None, None)
        )
        if began is not None:
            began.record()
        drafter.draft_behind(plan.scheduled, layout.decodes, plan.next_drafts)
        if began is None or ended is None:
            return None
        ended.record()
        return began, ended

    def drawn_at(self) -> dict[int, tuple[int, int, int]]:
        """Return where the draws of the last step's sequences come from.

        Returns:
            By sequence id, position and row of the first token whose logits gave a draw, and how
            many such tokens there are. The step before the last must have been committed.
        """
        if self._last is None:
            return {}
        plan, layout = self._last
        return {
            e.seq.id: (e.start + e.count - e.draw_count, row + e.count - e.draw_count, e.draw_count)
            for e, row in zip(plan.scheduled, layout.row_starts(plan.scheduled), strict=True)
            if e.samples
        }

    @torch.inference_mode()
    def capture_graphs(self) -> None:
        """Capture the decode steps, largest first, so that later ones fit into its memory.

        transformers' modules may turn out not to be capturable. Then steps run without graphs, and
        the decoder's ``path_reason`` names the module.
        """
        if not self.graph_pool:
            return
        try:
            if isinstance(self.decoder, UncertainCapture):
                self._run_without_waiting(decode_layouts(self.limits)[-1])
            for layout in decode_layouts(self.limits):
                self._graph(layout)
        except RuntimeError as error:
            if not isinstance(self.decoder, UncertainCapture) or isinstance(
                error, torch.OutOfMemoryError
            ):
                raise
            self.decoder.give_up_graphs(error)
            self.graph_pool = None
            self._graphs.clear()
            torch.cuda.synchronize(self.device)

    def _run_without_waiting(self, layout: RowLayout) -> None:
        """Run a dummy decode step; raise RuntimeError if it waits for the device."""
        self.compile(layout)  # kernels may wait when they compile
        torch.cuda.set_sync_debug_mode("error")
        try:
            self.compile(layout)
        finally:
            torch.cuda.set_sync_debug_mode("default")

    @torch.inference_mode()
    def compile(self, layout: RowLayout) -> None:
        """Launch a dummy decode step, without a graph."""
        self.compute(self._upload(self.arrays([], layout, layout.rows)), layout)

    def _graph(self, layout: RowLayout) -> DecodeGraph:
        graph = self._graphs.get(layout)
        if graph is None:
            graph = self._graphs[layout] = DecodeGraph(self, layout)
        return graph

    @staticmethod
    def _drawn_rows(scheduled: list[ScheduledTokens], layout: RowLayout) -> list[int] | None:
        """Return the row of the sampled tokens that holds each draw of the entries in turn.

        ``None`` if each entry that samples draws one token, in order.
        """
        if layout.q_len == 1:
            return None
        sampling = [entry for entry in scheduled if entry.samples]
        starts = layout.row_starts(sampling)
        pairs = zip(starts, sampling, strict=True)
        return [row for start, e in pairs for row in range(start, start + e.count)]

    # ---- inputs of a step

    def arrays(
        self, scheduled: list[ScheduledTokens], layout: RowLayout, sample_rows: int
    ) -> Arrays:
        """Return the host arrays of a step that samples up to ``sample_rows`` rows.

        They may be overwritten by the next call.
        """
        steady, self._steady = self._steady, None
        if steady is not None and (found := steady.advance(scheduled, layout)) is not None:
            self._steady = steady
            return found
        if layout.q_len > 1:
            found = self._draft_arrays.arrays(scheduled, layout)
            if layout.verifies_lines:
                found |= self.chain.arrays(scheduled, layout.decodes, layout.q_len)
            return found
        step = token_arrays(scheduled, layout.row_starts(scheduled), layout.rows, np.int32)
        source = np.full(layout.rows, -1, dtype=np.int32)
        for row, seq in step.carried:
            source[row] = self.sampled.row_of[seq]
        arrays = {"tokens": step.tokens, "positions": step.positions, "source": source}
        page_size = self.cache.page_size
        for g, window in enumerate(self.cache.windows):
            tokens = self.limits.max_step_tokens if layout.chunks else 1
            width = page_table_width(window, tokens, self.limits.max_context, page_size)
            group = paged_arrays(scheduled, layout, g, window, page_size, width)
            arrays |= {f"{name}{g}": array for name, array in group.items()}
        sampling = [entry for entry in scheduled if entry.samples]
        arrays |= sampling_arrays(sampling, sample_rows)
        if layout.chunks or len(sampling) < len(scheduled):
            rows = np.zeros(sample_rows, dtype=np.int32)
            rows[: len(step.sample_rows)] = step.sample_rows
            arrays["sample_rows"] = rows
        elif scheduled:
            windows = self.cache.windows
            self._steady = SteadyArrays(scheduled, layout, arrays, windows, page_size)
        return arrays

    def upload_bytes(self, layout: RowLayout) -> int:
        """Return the bytes of the arrays of any step with this layout."""
        return packed_bytes(self.arrays([], layout, max(1, layout.decodes * layout.q_len)))

    # ---- on the device

    def compute(self, views: Tensors, layout: RowLayout) -> None:
        """Queue the launches of a step: the model, then sampling and entropies if it samples.

        Entropies are computed even if nothing asks for them: they take microseconds, while a second
        set of graphs would take memory and a pause for the capture.
        """
        shape = ChainShape(layout.decodes, layout.q_len, self.cache.windows, self.cache.page_size)
        if layout.verifies_lines:
            self.chain.advance(views, shape)
        tokens = fill_sampled_tokens(views["tokens"], views["source"], self.sampled.tokens)
        batches = {
            window: PagedBatch(
                slot_mapping=views[f"slot_mapping{g}"],
                page_table=views[f"page_table{g}"],
                first_pos=views[f"first_pos{g}"],
                seq_lens=views[f"seq_lens{g}"],
                query_starts=views[f"query_starts{g}"],
                num_decodes=layout.decodes,
                q_len=layout.q_len,
                tree=views.get("tree"),
                flash_attn_specs=self.flash_attn_specs,
            )
            for g, window in enumerate(self.cache.windows)
        }
        logits = self.decoder.logits(
            tokens, views["positions"], batches, self.cache, views.get("sample_rows")
        )
        rows, softcap = logits.shape[0], self.decoder.softcap
        if not rows:  # only chunks that do not end their prompts
            return
        batch = SamplingBatch(
            temperature=views["temperature"],
            top_k=views["top_k"],
            top_p=views["top_p"],
            min_p=views["min_p"],
            seeds=views["seeds"],
            positions=views["sample_positions"],
            max_top_k=0,
            all_greedy=False,
            any_filtered=True,
        )
        sample_tokens(
            logits, batch, self.sampled.tokens[:rows], self._sampler_space,
            softcap=softcap, pdl=True,
        )  # fmt: skip
        if layout.verifies_lines:
            self.chain.accept(views, shape, self.sampled.tokens[:rows])
        entropies = self.sampled.entropies[:rows]
        row_entropy(logits, entropies, self._entropy_space, softcap=softcap, pdl=True)
