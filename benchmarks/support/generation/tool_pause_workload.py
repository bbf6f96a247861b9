"""The workload of `batching.py`: prompts, the tokens that pause, and the answers of the tool."""

from __future__ import annotations

import random
from dataclasses import dataclass

SEQUENCES = 8
ANSWER_TOKENS = 20
WARMUP_TOKENS = 16


@dataclass
class Workload:
    """Eight sequences that pause whenever they sample one of certain tokens.

    Attributes:
        prompts: token ids of each sequence's prompt.
        pauses: the tokens that pause.
        vocabulary: number of tokens in the model's vocabulary.
        new: tokens that each sequence samples.
    """

    prompts: list[list[int]]
    pauses: tuple[int, ...]
    vocabulary: int
    new: int

    @property
    def shared(self) -> bool:
        """True if all sequences have the same prompt."""
        return self.prompts[0] == self.prompts[1]

    @property
    def warmup_prompts(self) -> list[list[int]]:
        """The prompts reversed, so that a prefix cache never serves the real ones from them."""
        return [prompt[::-1] for prompt in self.prompts]

    def answer(self, index: int, turn: int) -> list[int]:
        """Return the tool's answer to a sequence's pause number `turn`."""
        source = random.Random(index * 1000 + turn)
        return [source.randrange(3, self.vocabulary) for _ in range(ANSWER_TOKENS)]


def make_workload(
    vocabulary: int, prompt: int, new: int, share: float, shared: bool = False
) -> Workload:
    """Return a workload of random tokens, the same one for the same arguments.

    Args:
        vocabulary: number of tokens in the model's vocabulary.
        prompt: tokens of the shortest prompt; each of the others is 5 tokens longer.
        new: tokens that each sequence samples.
        share: share of the vocabulary that pauses.
        shared: give all sequences the shortest prompt.
    """
    source = random.Random(0)
    prompts = [
        [source.randrange(3, vocabulary) for _ in range(prompt + 5 * i)] for i in range(SEQUENCES)
    ]
    if shared:
        prompts = [prompts[0]] * SEQUENCES
    pauses = tuple(source.sample(range(3, vocabulary), max(1, int(share * vocabulary))))
    return Workload(prompts, pauses, vocabulary, new)
