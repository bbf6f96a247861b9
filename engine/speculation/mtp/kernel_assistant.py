"""Drafts by Gemma 4's own drafters beside the fused decoder, with the GPU's attention kernels.

One pass of the drafter is a captured graph; a step's drafts are as many replays, which leave the
drafted token and the next hidden state where the next replay finds them.
"""

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import nn
from transformers import AttentionInterface, PreTrainedModel

from eightfold.kernels.attention.attention_dispatch import PagedBatch, attend
from eightfold.kernels.attention.one_copy_keys import OneCopy, fold_key_weight
from eightfold.kernels.sampling.torch_sampler import SamplingBatch
from eightfold.kernels.sampling.triton_sampler import sample_tokens, sampler_workspace_size

from ...execution.decoder_protocol import decode_workspace
from ...execution.draft_chain import DraftChain
from ...execution.gpu_batch import RowLayout, page_table_width, paged_arrays
from ...execution.gpu_runner import GpuRunner
from ...execution.hf_attention import NAME, attention_forward
from ...execution.runner_limits import padded_rows
from ...execution.step_arrays import sampling_arrays
from ...execution.step_upload import StepUpload, packed_bytes
from ...inspection.architecture import Architecture, attention_modules
from ...inspection.kv_geometry import LayerSpec
from ...scheduling.draft_tree import NO_DRAFTS, DraftTree
from ...scheduling.scheduled_step import ScheduledTokens
from ...scheduling.sequence import Sequence
from ..drafter import Draft
from .assistant_checkpoint import LoadedAssistant, row_options
from .draft_choice import DraftChoice

UNROTATED = "full_attention"  # layers of one copy: the kernel rotates their queries


class CacheAttention:
    """Attention of one of the drafter's layers over the cache of the model's layer.

    Attributes:
        spec: the model's layer.
        batch: rows and page tables, set before each pass.
    """

    def __init__(
        self, spec: LayerSpec, runner: GpuRunner, one_copy: OneCopy | None, workspace: torch.Tensor
    ) -> None:
        self.spec = spec
        self._keys, self._values = runner.cache.layers[spec.index]
        self._one_copy, self._workspace = one_copy, workspace
        self.batch: PagedBatch | None = None

    def attend(
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        scale: float,
        softcap: float | None,
        sinks: torch.Tensor | None,
    ) -> torch.Tensor:
        """Attend; [1, heads, T, head_dim] -> [1, T, heads, head_dim]. ``key`` is not read."""
        assert self.batch is not None
        queries = query[0].transpose(0, 1).contiguous()
        out = torch.empty_like(queries)
        # The newest token, whose keys are not there yet, is in its own window.
        window = None if self.spec.window is None else self.spec.window - 1
        attend(
            queries, self._keys, self._values, self.batch, out, window=window, scale=scale,
            one_copy=self._one_copy, workspace=self._workspace,
        )  # fmt: skip
        return out.unsqueeze(0)


class PartialRotation(nn.Module):
    """The drafter's rotary embedding, without rotation in layers whose kernel rotates."""

    def __init__(self, rotary: nn.Module, unrotated: str | None) -> None:
        super().__init__()
        self._rotary, self._unrotated = rotary, unrotated

    def forward(self, x: torch.Tensor, positions: torch.Tensor, kind: str) -> Any:
        if kind == self._unrotated:
            positions = torch.zeros_like(positions)
        return self._rotary(x, positions, kind)


class AssistantPass:
    """One pass of the drafter over ``rows`` sequences, as a captured graph on a GPU."""

    def __init__(self, drafter: "KernelAssistantDrafter", rows: int, most: int) -> None:
        self.rows = rows
        device = drafter.device
        self._drafter = drafter
        arrays = drafter.arrays([], rows)
        self._upload = StepUpload(device, packed_bytes(arrays))
        self._views = self._upload(arrays)
        self._hidden = torch.zeros(
            rows, drafter.hidden_size, device=device, dtype=drafter.model.dtype
        )
        self._drafted = torch.zeros(most, rows, device=device, dtype=torch.int64)
        self._depth = torch.zeros(1, device=device, dtype=torch.int64)
        self._token = torch.zeros(rows, device=device, dtype=torch.int64)
        self._first = torch.zeros(2, rows, device=device, dtype=torch.int64)
        self._first_of: tuple[int, ...] = ()  # sequences whose first drafts those are
        self._graphs: dict[int, torch.cuda.CUDAGraph] = {}  # by the number of drafts

    def draft(self, seqs: list[Sequence], states: list[int], count: int) -> list[list[int]]:
        """Return ``count`` drafts of each sequence.

        Args:
            states: row of the decoder's final states that gave the newest token of each.
        """
        arrays = self._drafter.arrays(seqs, self.rows)
        arrays["states"][: len(states)] = states
        self._first_of = ()
        self._upload(arrays)
        torch.index_select(self._drafter.final_states(), 0, self._views["states"], out=self._hidden)
        self._token.copy_(self._views["newest"])
        self._run(count)
        return self._drafted[:count, : len(seqs)].T.tolist()

    def draft_behind(self, scheduled: list[ScheduledTokens], chain: DraftChain, count: int) -> None:
        """Queue ``count`` drafts behind the step with drafts that was launched last.

        Args:
            scheduled: its entries.
            chain: what it left, which receives the drafts.
        """
        ids, step_rows = tuple(entry.seq.id for entry in scheduled), scheduled[0].count
        self._upload(self._drafter.arrays_behind(scheduled, self.rows))
        if ids == self._first_of and all(entry.count == step_rows for entry in scheduled):
            roots = self._drafter.drawn_tokens()[: self.rows * step_rows : step_rows]
            valid = torch.arange(self.rows, device=roots.device) < len(ids)
            self._drafter.choice.record(self._first, roots, valid)
        self._first_of = ids
        views, positions = self._views, chain.positions[: self.rows]
        states = chain.state_rows[: self.rows]
        torch.index_select(self._drafter.final_states(), 0, states, out=self._hidden)
        self._token.copy_(chain.newest[: self.rows])
        views["positions"][0].copy_(positions - 1)
        views["sample_positions"].copy_(positions + 1)
        for name, lengths in views.items():
            if name.startswith("seq_lens"):  # 0 for padding
                lengths.copy_(torch.where(lengths > 0, positions.int(), 0))
        self._run(count)
        chain.drafts[: self.rows, :count] = self._drafted[:count].T

    def _run(self, count: int) -> None:
        """Draft ``count`` tokens, one graph for all of them on a GPU."""
        device = self._drafter.device
        self._depth.zero_()
        if device.type != "cuda":
            for _ in range(count):
                self._compute()
            return
        if count not in self._graphs:
            self._capture(count)
        self._graphs[count].replay()

    def _capture(self, count: int) -> None:
        """Capture ``count`` passes; what they change is as before afterwards."""
        changed = (self._token, self._hidden, self._depth, self._views["sample_positions"])
        kept = [tensor.clone() for tensor in changed]
        self._compute()  # compiles, which must not happen during the capture
        for tensor, old in zip(changed, kept, strict=True):
            tensor.copy_(old)
        torch.cuda.synchronize(self._drafter.device)
        graph = self._graphs[count] = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self._drafter.graph_pool):
            for _ in range(count):
                self._compute()

    def _compute(self) -> None:
        """Draft one token; the token, its state, depth and position are changed in place."""
        views = self._views
        logits, hidden = self._drafter.forward(self._token, self._hidden, views, self.rows)
        batch = SamplingBatch(
            temperature=views["temperature"], top_k=views["top_k"], top_p=views["top_p"],
            min_p=views["min_p"], seeds=views["seeds"], positions=views["sample_positions"],
            max_top_k=0, all_greedy=False, any_filtered=True,
        )  # fmt: skip
        sample_tokens(logits, batch, self._token, self._drafter.sampler_space)
        likeliest = logits.argmax(-1)
        first = torch.stack([self._token, likeliest])
        self._first.copy_(torch.where(self._depth == 0, first, self._first))
        self._token.copy_(self._drafter.choice.choose(self._token, likeliest))
        self._hidden.copy_(hidden)
        self._drafted.index_copy_(0, self._depth, self._token[None])
        self._depth += 1
        views["sample_positions"].add_(1)


class KernelAssistantDrafter:
    """Drafts tokens with a drafter's weights, over the cache of the fused decoder.

    Args:
        loaded: the drafter.
        runner: a runner of the fused decoder.
        architecture: the model's, with its cache's layers.
        most: most drafts of a sequence in a step.
    """

    name = "mtp"
    branches = False
    gives_chances = False

    def __init__(
        self,
        loaded: LoadedAssistant,
        runner: GpuRunner,
        architecture: Architecture,
        most: int,
    ) -> None:
        decoder: Any = runner.decoder
        self.device = runner.device
        checkpoint, self.model = loaded.checkpoint, loaded.model
        self.hidden_size = checkpoint.config.backbone_hidden_size
        self.graph_pool = runner.graph_pool
        text: Any = self.model.config.get_text_config()
        self._runner, self._decoder, self._most = runner, decoder, most
        self._softcap = float(getattr(text, "final_logit_softcapping", None) or 0.0)
        self._suppressed = list(checkpoint.suppressed)
        own = replace(architecture, config=text, layers=checkpoint.sources)
        workspace = decode_workspace(own, runner.limits, runner.cache.page_size, runner.device)
        self._layers = self._attach(checkpoint.sources, workspace)
        empty = torch.empty(1, 1, 1, 1, device=runner.device, dtype=self.model.dtype)
        self._no_kv = dict.fromkeys(text.layer_types, (empty, empty))
        self._options = row_options(self.model)
        sequences = padded_rows(runner.limits.max_running)
        self.sampler_space = torch.empty(
            sampler_workspace_size(sequences, text.vocab_size), device=runner.device
        )
        self._passes: dict[int, AssistantPass] = {}
        self.choice = DraftChoice(runner.device)

    def _attach(
        self, sources: tuple[LayerSpec, ...], workspace: torch.Tensor
    ) -> list[CacheAttention]:
        """Give the drafter's layers the model's cache."""
        AttentionInterface.register(NAME, attention_forward)
        found = []
        for spec, module in zip(sources, attention_modules(self.model), strict=True):
            one_copy = self._decoder.layers[spec.index].one_copy if spec.one_copy else None
            if one_copy is not None:
                norm: Any = module.q_norm
                folded = fold_key_weight(norm.weight, one_copy.key_weight, one_copy.cos.shape[1])
                norm.weight = nn.Parameter(folded, requires_grad=False)
            layer = CacheAttention(spec, self._runner, one_copy, workspace)
            module.eightfold_layer = layer  # type: ignore[assignment]
            found.append(layer)
        unrotated = UNROTATED if any(spec.one_copy for spec in sources) else None
        self.model.model.rotary_emb = PartialRotation(self.model.model.rotary_emb, unrotated)
        self.model.set_attn_implementation(NAME)
        return found

    def observe(self, sequences: list[Sequence]) -> None:
        """Learn nothing from tokens."""

    def forget(self, seq: Sequence) -> None:
        """Nothing is kept about a sequence."""

    @torch.inference_mode()
    def draft(self, sequences: list[Sequence], count: int) -> list[Draft]:
        """Return ``count`` drafts for each sequence that the last step has advanced."""
        count = min(count, self._most)
        drawn_at = self._runner.drawn_at()
        rows = {seq.id: self._state_row(seq, drawn_at) for seq in sequences}
        known = [seq for seq in sequences if rows[seq.id] is not None]
        drafted = dict.fromkeys((seq.id for seq in sequences), Draft())
        if known:
            states = [row for seq in known if (row := rows[seq.id]) is not None]
            lines = self._passes_of(padded_rows(len(known))).draft(known, states, count)
            for seq, line in zip(known, lines, strict=True):
                drafted[seq.id] = Draft(DraftTree.line(line))
        return [drafted[seq.id] for seq in sequences]

    def draft_behind(self, scheduled: list[ScheduledTokens], sequences: int, count: int) -> None:
        """Queue drafts of the next step behind the last one (see ``DeviceDrafter``)."""
        self._passes_of(sequences).draft_behind(scheduled, self._runner.chain, count)

    def _passes_of(self, sequences: int) -> AssistantPass:
        if sequences not in self._passes:
            self._passes[sequences] = AssistantPass(self, sequences, self._most)
        return self._passes[sequences]

    def drawn_tokens(self) -> torch.Tensor:
        """Tokens that the last step drew, int64 [rows]."""
        return self._runner.sampled.tokens

    def final_states(self) -> torch.Tensor:
        """Normed output of the decoder's last layer in the last step, [rows, hidden_size]."""
        return self._decoder.buffers.x

    @staticmethod
    def _state_row(seq: Sequence, drawn_at: dict[int, tuple[int, int, int]]) -> int | None:
        """Return the row of the last step that gave the newest token of ``seq``."""
        position, row, count = drawn_at.get(seq.id, (0, 0, 0))
        index = len(seq.tokens) - 2 - position
        valid = 0 <= index < count and seq.computed >= len(seq.tokens) - 1
        return row + index if valid else None

    def arrays(self, seqs: list[Sequence], rows: int) -> dict[str, np.ndarray]:
        """Return the host arrays of the passes for up to ``rows`` sequences."""
        newest = [len(seq.tokens) - 1 for seq in seqs]
        before = [
            ScheduledTokens(seq, end - 1, 1, True, False, seq.epoch)
            for seq, end in zip(seqs, newest, strict=True)
        ]
        drawing = [replace(entry, start=entry.start + 1) for entry in before]
        arrays = self._arrays(before, drawing, rows)
        for row, (seq, end) in enumerate(zip(seqs, newest, strict=True)):
            arrays["newest"][row] = seq.tokens[-1]
            arrays["positions"][0, row] = max(0, end - 1)
        return arrays

    def arrays_behind(self, scheduled: list[ScheduledTokens], rows: int) -> dict[str, np.ndarray]:
        """Return the host arrays of passes behind a step whose results are not known yet.

        Positions and lengths are the least possible ones; the device replaces them.
        """
        before = [
            replace(entry, count=1, drafts=NO_DRAFTS, may_move=entry.may_move + len(entry.drafts))
            for entry in scheduled
        ]
        return self._arrays(before, before, rows)

    def _arrays(
        self, before: list[ScheduledTokens], drawing: list[ScheduledTokens], rows: int
    ) -> dict[str, np.ndarray]:
        """Return arrays of passes that see the tokens up to ``before`` and draw behind another."""
        arrays = {
            "newest": np.zeros(rows, dtype=np.int64),
            "states": np.zeros(rows, dtype=np.int64),
            "positions": np.zeros((1, rows), dtype=np.int64),
            **sampling_arrays(drawing, rows),
        }
        cache, layout = self._runner.cache, RowLayout.of_size(rows, 1)
        moves = 2 * self._most
        for g, window in enumerate(cache.windows):
            width = page_table_width(
                window, 1 + moves, self._runner.limits.max_context, cache.page_size
            )
            group = paged_arrays(before, layout, g, window, cache.page_size, width)
            arrays |= {f"{name}{g}": array for name, array in group.items()}
        return arrays

    def forward(
        self, tokens: torch.Tensor, hidden: torch.Tensor, views: dict[str, torch.Tensor], rows: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return float32 logits [rows, vocabulary] and the next hidden states."""
        for layer in self._layers:
            g = self._runner.cache.windows.index(layer.spec.window)
            layer.batch = PagedBatch(
                slot_mapping=views[f"slot_mapping{g}"], page_table=views[f"page_table{g}"],
                first_pos=views[f"first_pos{g}"], seq_lens=views[f"seq_lens{g}"],
                query_starts=views[f"query_starts{g}"], num_decodes=rows,
            )  # fmt: skip
        model: PreTrainedModel = self.model
        embedded = self._decoder._embedding[tokens] * self._decoder._scale
        joined = torch.cat([embedded, hidden], dim=-1)[None]
        state = model.model(
            inputs_embeds=model.pre_projection(joined),
            attention_mask=dict.fromkeys(self._no_kv),
            position_ids=views["positions"],
            shared_kv_states=self._no_kv,
            use_cache=False,
            **self._options,
        ).last_hidden_state
        logits = model.lm_head(state)[0].float()
        if self._softcap:
            logits = self._softcap * torch.tanh(logits / self._softcap)
        if self._suppressed:
            logits[:, self._suppressed] = float("-inf")
        return logits.contiguous(), model.post_projection(state)[0]
