"""Drafts by Gemma 4's own drafters, in plain PyTorch.

From the hidden state that gave the newest token, and that token, a drafter of few layers guesses
the next one; its own output state takes the hidden state's place for the guess after that. Its
layers have queries only and attend to the keys and values of the model's last layers, up to the
last verified position. The position of the queries is that one at every depth, as in vLLM and
SGLang.
"""

import numpy as np
import torch
from torch.nn.attention import sdpa_kernel
from transformers import PreTrainedModel

from eightfold.kernels.attention.torch_fallback import TorchAttentionBatch
from eightfold.kernels.sampling.torch_sampler import sample

from ...execution.cpu_batch import pad_slots, sampling_batch
from ...execution.cpu_runner import SDPA_BACKENDS, CpuRunner
from ...execution.hf_attention import attach_drafter
from ...scheduling.draft_tree import DraftTree
from ...scheduling.scheduled_step import ScheduledTokens
from ...scheduling.sequence import Sequence
from ..drafter import Draft
from .assistant_checkpoint import LoadedAssistant, row_options
from .draft_choice import DraftChoice


class AssistantDrafter:
    """Drafts tokens with a drafter's weights, over the cache of its model.

    Drafts are drawn with the noise and the filters with which the step that verifies them draws:
    where drafter and model nearly agree, both then draw the same token, also at temperature 1. If
    the likeliest tokens turn out right more often, they are taken instead (see ``DraftChoice``).

    Args:
        loaded: the drafter.
        runner: the model's runner.
    """

    name = "mtp"
    branches = False
    gives_chances = False

    def __init__(self, loaded: LoadedAssistant, runner: CpuRunner) -> None:
        target, checkpoint = runner.model, loaded.checkpoint
        self._runner = runner
        self._model = loaded.model
        self._embed = target.get_input_embeddings()
        self._suppressed = list(checkpoint.suppressed)
        text = self._model.config.get_text_config()
        self._softcap = float(getattr(text, "final_logit_softcapping", None) or 0.0)
        self._context = attach_drafter(self._model, checkpoint.sources, runner.cache)
        self._no_kv = self._placeholders(self._model)
        self._options = row_options(self._model)
        self._choice = DraftChoice(runner.device)
        # Place of the newest first draft of each sequence, drawn and likeliest.
        self._first: dict[int, tuple[int, torch.Tensor]] = {}
        runner.keep_hidden()

    @staticmethod
    def _placeholders(model: PreTrainedModel) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
        """Keys and values by layer kind, which attention does not read: it has the cache."""
        empty = torch.empty(1, 1, 1, 1, device=model.device, dtype=model.dtype)
        return dict.fromkeys(model.config.get_text_config().layer_types, (empty, empty))

    def observe(self, sequences: list[Sequence]) -> None:
        """Learn nothing from tokens."""

    def forget(self, seq: Sequence) -> None:
        """Drop the hidden states of a sequence that has ended."""
        self._first.pop(seq.id, None)
        self._runner.hidden.pop(seq.id, None)

    @torch.inference_mode()
    def draft(self, sequences: list[Sequence], count: int) -> list[Draft]:
        """Return ``count`` drafts for each sequence whose last hidden state is at hand."""
        self._compare(sequences)
        states = {seq.id: self._state(seq) for seq in sequences}
        known = [seq for seq in sequences if states[seq.id] is not None]
        drafted = dict.fromkeys((seq.id for seq in sequences), Draft())
        if known:
            hidden = torch.stack([h for seq in known if (h := states[seq.id]) is not None])
            with sdpa_kernel(SDPA_BACKENDS):
                lines = self._lines(known, hidden, count)
            for seq, line in zip(known, lines, strict=True):
                drafted[seq.id] = Draft(DraftTree.line(line))
        return [drafted[seq.id] for seq in sequences]

    def _compare(self, sequences: list[Sequence]) -> None:
        """Compare first drafts with the tokens that came in their place."""
        known = [
            (self._first.pop(seq.id)[1], seq.tokens[place])
            for seq in sequences
            if (place := self._first.get(seq.id, (1 << 40, None))[0]) < len(seq.tokens)
        ]
        if known:
            tokens = torch.tensor([token for _, token in known], device=self._runner.device)
            candidates = torch.stack([pair for pair, _ in known], dim=1)
            self._choice.record(candidates, tokens, torch.ones_like(tokens, dtype=torch.bool))

    def _state(self, seq: Sequence) -> torch.Tensor | None:
        """Return the hidden state [hidden_size] before the newest token, if it was kept."""
        begin, rows = self._runner.hidden.get(seq.id, (0, None))
        index = len(seq.tokens) - 2 - begin
        valid = rows is not None and 0 <= index < len(rows) and seq.computed >= len(seq.tokens) - 1
        return rows[index] if rows is not None and valid else None

    def _lines(self, seqs: list[Sequence], hidden: torch.Tensor, count: int) -> list[list[int]]:
        device = hidden.device
        newest = [len(seq.tokens) - 1 for seq in seqs]
        batches = {
            window: self._attention(seqs, newest, group, window)
            for group, window in enumerate(self._runner.cache.windows)
        }
        positions = torch.tensor([[max(0, p - 1) for p in newest]], device=device)
        tokens = torch.tensor([seq.tokens[-1] for seq in seqs], device=device)
        found = []
        for depth in range(count):
            self._context.batches = dict(batches)  # a new object for each pass
            logits, hidden = self._forward(tokens, hidden, positions)
            entries = [
                ScheduledTokens(seq, p + depth, 1, True, False, seq.epoch)
                for seq, p in zip(seqs, newest, strict=True)
            ]
            drawn, likeliest = sample(logits, sampling_batch(entries, device)), logits.argmax(-1)
            if not depth:
                pairs = torch.stack([drawn, likeliest]).unbind(1)
                for seq, place, pair in zip(seqs, newest, pairs, strict=True):
                    self._first[seq.id] = (place + 1, pair)
            tokens = self._choice.choose(drawn, likeliest)
            found.append(tokens)
        return torch.stack(found, dim=1).tolist()

    def _forward(
        self, tokens: torch.Tensor, hidden: torch.Tensor, positions: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return logits [B, vocabulary] and the next hidden states [B, hidden_size]."""
        model = self._model
        joined = torch.cat([self._embed(tokens), hidden.to(model.dtype)], dim=-1)[None]
        state = model.model(
            inputs_embeds=model.pre_projection(joined),
            attention_mask=dict.fromkeys(self._no_kv),
            position_ids=positions,
            shared_kv_states=self._no_kv,
            use_cache=False,
            **self._options,
        ).last_hidden_state
        if model.masked_embedding is None:
            logits = model.lm_head(state)[0].float()
        else:  # what it does not compute gets a value below all others
            logits = model.masked_embedding(state, model.lm_head.weight)[0].float()
            logits = logits.masked_fill(logits <= logits.min(), float("-inf"))
        if self._softcap:
            logits = self._softcap * torch.tanh(logits / self._softcap)
        if self._suppressed:
            logits[:, self._suppressed] = float("-inf")
        return logits, model.post_projection(state)[0]

    def _attention(
        self, seqs: list[Sequence], newest: list[int], group: int, window: int | None
    ) -> TorchAttentionBatch:
        """The keys before each newest token, those in its window."""
        size, device = self._runner.cache.page_size, self._runner.device
        rows = []
        for seq, end in zip(seqs, newest, strict=True):
            begin = 0 if window is None else max(0, end - window + 1)
            first = begin // size
            pages = np.array(seq.tables[group][first : -(-end // size)], dtype=np.int64)
            slots = (pages[:, None] * size + np.arange(size)).reshape(-1)
            rows.append(slots[begin - first * size : end - first * size])
        padded, mask = pad_slots(rows)
        return TorchAttentionBatch(
            write_slots=torch.empty(0, dtype=torch.int64, device=device),
            decode_rows=torch.arange(len(seqs), device=device),
            decode_slots=torch.from_numpy(padded).to(device),
            decode_mask=torch.from_numpy(mask[:, None, None, :]).to(device),
            chunks=(),
        )
