"""The table of the sequences of words that the training's problems are made of."""

from __future__ import annotations

from collections.abc import Iterator
from random import Random

from eightfold.solver.familiarity import bit_of, sequences_of

from ..families import FAMILIES
from ..paraphrases import paraphrases
from ..problems import draw_params
from ..training_traces import training_problem

BITS = 1 << 22


def training_texts(count: int, seed: int) -> Iterator[str]:
    """Yield problems as the training draws them, each family equally often."""
    rng = Random(f"familiarity {seed}")
    for index in range(count):
        family = FAMILIES[index % len(FAMILIES)]
        yield training_problem(family, draw_params(family, rng, held_out=False), rng)


def word_table(count: int, seed: int = 0) -> bytes:
    """Return the bits of all sequences of words in `count` training problems."""
    table = bytearray(BITS // 8)
    for text in training_texts(count, seed):
        for keys in sequences_of(text):
            for key in keys:
                bit = bit_of(key, BITS)
                table[bit >> 3] |= 1 << (bit & 7)
    return bytes(table)


def count_paraphrases() -> int:
    """Return the number of paraphrases that the training uses."""
    return sum(map(len, paraphrases(held_out=False).values()))
