"""Recorded attempts as token ids, and how many of their tokens drafts would have saved."""

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from eightfold.engine.sampling_params import SamplingParams
from eightfold.engine.scheduling.draft_tree import NO_DRAFTS, DraftTree
from eightfold.engine.scheduling.sequence import Sequence
from eightfold.engine.speculation.drafter import Drafter

CALL, END, START = 200012, 200007, 200006  # control tokens of the Harmony format


@dataclass
class RecordedAttempt:
    """An attempt that is sampled again, token by token as recorded.

    Attributes:
        tokens: prompt, sampled tokens and tool results.
        sampled: for each token, True if the model sampled it.
        seq: the sequence so far.
    """

    tokens: list[int]
    sampled: np.ndarray
    seq: Sequence

    @property
    def finished(self) -> bool:
        """True if all tokens are there."""
        return len(self.seq.tokens) >= len(self.tokens)

    def accept(self, drafts: DraftTree) -> int:
        """Take a step: append what the step keeps, then any tool result, and return the former."""
        begin = len(self.seq.tokens)
        # Beyond the end and behind a call, no draft can be right.
        truth = [
            self.tokens[p] if p < len(self.tokens) and self.sampled[p] else -1
            for p in range(begin, begin + len(drafts) + 2)
        ]
        if -1 in truth:
            truth[truth.index(-1) :] = [-1] * (len(truth) - truth.index(-1))
        draws = [truth[depth] for depth in drafts.depths]
        kept = min(len(drafts.kept_rows(draws)), sum(token >= 0 for token in truth))
        self.seq.tokens.extend(self.tokens[begin : begin + kept])
        self.append_given()
        return kept

    def append_given(self) -> None:
        """Append tokens that the model did not sample, if it is their turn."""
        end = len(self.seq.tokens)
        while end < len(self.tokens) and not self.sampled[end]:
            end += 1
        self.seq.tokens.extend(self.tokens[len(self.seq.tokens) : end])


@dataclass
class SavedSteps:
    """Counts of a teacher-forced run.

    Attributes:
        steps: steps of single sequences.
        tokens: sampled tokens.
        rows: rows verified.
        promised: tokens that the drafter expected.
        seconds: processor time of drafting, of observing, and steps of whole batches.
        accepted: right drafts by depth.
    """

    steps: int = 0
    tokens: int = 0
    rows: int = 0
    promised: float = 0.0
    drafting: float = 0.0
    observing: float = 0.0
    batches: int = 0
    accepted: list[int] = field(default_factory=list)

    def figures(self) -> dict[str, Any]:
        """Return what is reported."""
        return {
            "tokens": self.tokens,
            "tokens_per_step": round(self.tokens / self.steps, 3),
            "rows": round(self.rows / self.steps, 2),
            "expected_tokens_per_step": round(self.promised / self.steps, 3),
            "draft_ms": round(self.drafting / self.batches * 1e3, 3),
            "observe_ms": round(self.observing / self.batches * 1e3, 3),
            "accepted_by_depth": [round(count / self.steps, 3) for count in self.accepted],
        }


def load_attempts(folder: Path, problem: int) -> list[RecordedAttempt]:
    """Return the attempts at one problem of ``tokens.npz``; none if there is no such problem."""
    with np.load(folder / "tokens.npz") as arrays:
        prompt = arrays[f"p{problem}_prompt"].tolist() if f"p{problem}_prompt" in arrays else []
        names = [name for name in arrays if name.startswith(f"p{problem}_a")]
        return [_attempt(number, prompt, arrays[name]) for number, name in enumerate(names)]


def _attempt(number: int, prompt: list[int], recorded: np.ndarray) -> RecordedAttempt:
    sampled = np.ones(len(recorded), dtype=bool)
    for call in np.flatnonzero(recorded == CALL):
        begin = int(call) + 1
        if begin < len(recorded) and recorded[begin] == START:
            ends = np.flatnonzero(recorded[begin:] == END)
            # The result's end, and the start of the assistant's next turn.
            sampled[begin : begin + int(ends[0]) + 3 if len(ends) else None] = False
    sampled = np.concatenate([np.zeros(len(prompt), dtype=bool), sampled])
    seq = Sequence(number, list(prompt), len(prompt), SamplingParams(), frozenset())
    return RecordedAttempt([*prompt, *recorded.tolist()], sampled, seq)


def replay_attempts(
    attempts: list[RecordedAttempt], drafter: Drafter, drafts: int, most: int, found: SavedSteps
) -> None:
    """Sample attempts again in lockstep, one step of all of them after the other.

    Args:
        drafts: most drafts of an attempt in a step.
        most: tokens of each attempt after which the run ends.
        found: counts to add to.
    """
    limit = found.tokens + most * len(attempts)
    drafter.observe([attempt.seq for attempt in attempts])
    while attempts and found.tokens < limit:
        sequences = [attempt.seq for attempt in attempts]
        began = time.process_time()
        drafted = drafter.draft(sequences, drafts) if drafts else []
        found.drafting += time.process_time() - began
        found.batches += 1
        for attempt, draft in zip(attempts, drafted, strict=True):
            kept = attempt.accept(draft.tree or NO_DRAFTS)
            found.steps += 1
            found.tokens += kept
            found.rows += 1 + len(draft.tree)
            found.promised += 1 + sum(draft.chances or ())
            found.accepted += [0] * (kept - 1 - len(found.accepted))
            for depth in range(kept - 1):
                found.accepted[depth] += 1
        attempts = [attempt for attempt in attempts if not attempt.finished]
        began = time.process_time()
        drafter.observe(sequences)
        found.observing += time.process_time() - began
