"""Verifies sampled tokens by one forward pass of transformers over all tokens of a sequence."""

from dataclasses import dataclass, field

import torch
from transformers import PreTrainedModel

from eightfold.engine import SamplingParams
from eightfold.engine.execution.cpu_batch import sampling_batch
from eightfold.engine.scheduling.scheduled_step import ScheduledTokens
from eightfold.engine.scheduling.sequence import Sequence
from eightfold.kernels.sampling.torch_sampler import entropy, sample

ROUNDING = 1e-3  # two logits this close may change their order from batch to batch


@dataclass
class Record:
    """Tokens of a sequence, and the positions of those that were sampled."""

    tokens: list[int]
    params: SamplingParams
    sampled: list[int] = field(default_factory=list)  # positions
    entropies: list[float] = field(default_factory=list)

    def add(self, tokens: tuple[int, ...], entropies: tuple[float, ...]) -> None:
        """Append sampled tokens."""
        for token in tokens:
            self.sampled.append(len(self.tokens))
            self.tokens.append(token)
        self.entropies += entropies

    def rewound(self, length: int) -> "Record":
        """Return a record of the first `length` tokens."""
        sampled = [position for position in self.sampled if position < length]
        return Record(self.tokens[:length], self.params, sampled, self.entropies[: len(sampled)])


@torch.inference_mode()
def verify(model: PreTrainedModel, record: Record) -> None:
    """Assert that every sampled token is the one that its context, seed and position give."""
    if not record.sampled:
        return
    logits = model(torch.tensor([record.tokens])).logits[0]
    for position in record.sampled:
        row, token = logits[position - 1 : position], record.tokens[position]
        if _sample(row, record.params, position) != token:
            raised = row.clone()
            raised[0, token] += ROUNDING
            assert _sample(raised, record.params, position) == token, position
    if record.params.entropy:
        expected = entropy(logits[[position - 1 for position in record.sampled]])
        torch.testing.assert_close(torch.tensor(record.entropies), expected, atol=1e-3, rtol=0)
    else:
        assert not record.entropies


def _sample(row: torch.Tensor, params: SamplingParams, position: int) -> int:
    seq = Sequence(0, [], 0, params, frozenset())
    return int(sample(row, sampling_batch([ScheduledTokens(seq, 0, position, True, False, 0)])))
