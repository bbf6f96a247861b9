"""Attempts by transformers' `generate`, with the solver's prompts, parsing, sandbox and noise."""

from __future__ import annotations

import time
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import torch
from support.accuracy.generate_hooks import EngineNoise, TurnEnd
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedModel

from eightfold.engine import SamplingParams
from eightfold.solver.attempts.attempt import Action, Attempt, CallTools, Ending, Feed
from eightfold.solver.attempts.calls.python_tool import PythonTool

ROUND_TOKENS = 128


@dataclass
class Row:
    """An attempt, its conversation as tokens, and what it asks for at the end of a turn."""

    attempt: Attempt
    tokens: list[int]
    tool: PythonTool
    params: SamplingParams
    action: Action = None
    waits: bool = False

    def take(self, token: int) -> None:
        """Add a sampled token; note the end of a turn, of a block of code, or of the attempt."""
        self.tokens.append(token)
        self.attempt.add_tokens([token], [])
        if token in self.params.pause_token_ids:
            self.action = self.attempt.on_pause(0.0)
        elif stop := self.attempt.stop_at_code(0.0):
            del self.tokens[len(self.tokens) - (stop.rewind or 0) :]
            self.action = stop
        elif self.attempt.tokens == self.params.max_new_tokens and not self.attempt.over:
            self.attempt.on_finish("length", 0.0)
        self.waits = self.action is not None or self.attempt.over

    def open(self) -> bool:
        """Return whether the attempt goes on; if it does not, its kernel is given back."""
        if self.attempt.over:
            self.tool.close()
        return not self.attempt.over

    def reply(self) -> None:
        """Run the calls, and append what the solver would append."""
        if isinstance(self.action, CallTools):
            self.attempt.await_results()
            outcome: Future[Any] = Future()
            self.tool.run(self.action.calls, outcome.set_result)
            self.action = self.attempt.on_results(outcome.result(), 0.0)
        if isinstance(self.action, Feed):
            self.tokens[len(self.tokens) - self.action.drop_last :] = self.action.ids
        self.action, self.waits = None, False


def run_reference(model: PreTrainedModel, rows: list[Row], deadline: float) -> None:
    """Run all attempts to their ends; each round computes every conversation from its start.

    A round is short, because rows that wait for their calls do so until its end.
    """
    while rows := [row for row in rows if row.open()]:
        tokens = [torch.tensor(row.tokens, device=model.device) for row in rows]
        ids = pad_sequence(tokens, batch_first=True, padding_value=-1, padding_side="left")
        options: dict[str, Any] = {"max_time": max(1.0, deadline - time.monotonic())}
        options |= {"max_new_tokens": ROUND_TOKENS, "pad_token_id": 0}
        options |= {"logits_processor": [EngineNoise(rows)], "stopping_criteria": [TurnEnd(rows)]}
        options["repetition_penalty"] = 1.0  # a checkpoint may suggest another; the engine has none
        model.generate(ids.clamp(0), attention_mask=(ids >= 0).long(), do_sample=False, **options)
        for row in [row for row in rows if not row.waits and time.monotonic() >= deadline]:
            row.attempt.end(Ending.TIME, 0.0)
        with ThreadPoolExecutor(32) as executor:
            list(executor.map(Row.reply, rows))
