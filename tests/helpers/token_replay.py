"""What a sequence should have drawn, from one forward pass of transformers over all its tokens."""

from dataclasses import dataclass, field

import torch
from transformers import PreTrainedModel

from eightfold.engine import SamplingParams
from eightfold.engine.execution.cpu_batch import _sampling
from eightfold.engine.scheduling.scheduled_step import ScheduledTokens
from eightfold.engine.scheduling.sequence import Sequence
from eightfold.kernels.sampling.torch_sampler import entropy, sample

ROUNDING = 1e-3  # of a logit: so close a race may end otherwise in another batch


@dataclass
class Record:
    """Tokens of a sequence, and which of them were drawn."""

    tokens: list[int]
    params: SamplingParams
    drawn: list[int] = field(default_factory=list)  # positions
    entropies: list[float] = field(default_factory=list)

    def add(self, tokens: tuple[int, ...], entropies: tuple[float, ...]) -> None:
        for token in tokens:
            self.drawn.append(len(self.tokens))
            self.tokens.append(token)
        self.entropies += entropies


@torch.inference_mode()
def verify(model: PreTrainedModel, record: Record) -> None:
    """Assert that every drawn token is the one its context, seed and position give."""
    if not record.drawn:
        return
    logits = model(torch.tensor([record.tokens])).logits[0]
    for position in record.drawn:
        row, token = logits[position - 1 : position], record.tokens[position]
        if _draw(row, record.params, position) != token:
            closer = row.clone()
            closer[0, token] += ROUNDING
            assert _draw(closer, record.params, position) == token, position
    if record.params.entropy:
        wanted = entropy(logits[[position - 1 for position in record.drawn]])
        torch.testing.assert_close(torch.tensor(record.entropies), wanted, atol=1e-3, rtol=0)
    else:
        assert not record.entropies


def _draw(row: torch.Tensor, params: SamplingParams, position: int) -> int:
    seq = Sequence(0, [], 0, params, frozenset())
    return int(sample(row, _sampling([ScheduledTokens(seq, 0, position, True, False, 0)])))
