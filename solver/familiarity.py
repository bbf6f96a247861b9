"""How far a problem is from what a model was trained on.

A small model answers any problem with the same confidence, right or wrong. A model's folder may
therefore hold `familiarity.json`: which sequences of words the problems of its training were made
of, and how much each sign of an unfamiliar problem counts. The signs are

- novelty: the share of the problem's words that do not follow one another in the training;
- missing: the share of the problem's numbers above 3 that the programs of the attempts do not
  use;
- dissent: the share of the attempts that have another answer than the winner, or none;
- errors: failed calls for each attempt.

Their weighted sum is scaled so that a problem at the threshold has the distance 1.
"""

from __future__ import annotations

import base64
import json
import re
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .solver_config import SolverError

FILE = "familiarity.json"
"""Name of the file in a model's folder."""

SIGNS = ("novelty", "missing", "dissent", "errors")

NOVEL_WORD, NOVEL_PAIR, NOVEL_TRIPLE = 1.5, 0.8, 0.4
"""How much a word counts that is new itself, after the word before it, or after the two before."""

CUT = ("cancelled by consensus", "interrupted")
"""Endings of attempts that say nothing about the problem."""

STRUCTURAL = frozenset("0123")
"""Numbers that often say how a problem is built, such as exponents, and not what it is about."""

_TOKEN = re.compile(r"\d+(?:[.,]\d+)*|\\?[a-z]+|[^\sa-z\d]")
_NUMBER = re.compile(r"\d+")
_LABEL = re.compile(
    r"^\W*(?:(?:exercise|problem|question|task|no)\b\.?\s*\d+|#?\d+[.):](?!\d))", re.I
)
_WORD_VALUES = {
    "zero": 0, "two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "seven": 7, "eight": 8,
    "nine": 9, "ten": 10, "eleven": 11, "twelve": 12, "thirteen": 13, "fourteen": 14,
    "fifteen": 15, "sixteen": 16, "seventeen": 17, "eighteen": 18, "nineteen": 19, "twenty": 20,
    "thirty": 30, "forty": 40, "fifty": 50, "sixty": 60, "seventy": 70, "eighty": 80,
    "ninety": 90, "hundred": 100, "dozen": 12,
}  # fmt: skip


def words_of(text: str) -> list[str]:
    """Return the words and signs of a text, with ``#`` for each number and marks at both ends."""
    found = ("#" if token[0].isdigit() else token for token in _TOKEN.findall(text.lower()))
    return ["^", "^", *found, "~"]


def sequences_of(text: str) -> Iterator[tuple[str, str, str]]:
    """Yield each word of a text as keys: with the two words before it, with one, and alone."""
    words = words_of(text)
    for index in range(2, len(words)):
        before, last, word = words[index - 2 : index + 1]
        yield f"{before} {last} {word}", f"{last} {word}", word


def bit_of(key: str, bits: int) -> int:
    """Return the place of a sequence of words in a table of so many bits."""
    return zlib.crc32(key.encode("utf-8", "surrogatepass")) % bits


def numbers_of(text: str) -> set[str]:
    """Return the numbers of a problem, those written as a single word included."""
    text = _LABEL.sub("", text)  # the number of an exercise says nothing about it
    plain = re.sub(r"(?<=\d)[,\s](?=\d{3}\b)", "", text)
    spelled: set[str] = set()
    tens = 0
    for word in re.findall(r"[a-z]+", text.lower()):
        value = _WORD_VALUES.get(word)
        if value is not None:
            if tens and value < 10:
                spelled.discard(str(tens))
                value += tens
            spelled.add(str(value))
        tens = value if value is not None and value in range(20, 100, 10) else 0
    return spelled | _numbers(plain)


def _numbers(text: str) -> set[str]:
    """Return the numbers in digits, without zeros in front, as times have them."""
    return {digits.lstrip("0") or "0" for digits in _NUMBER.findall(text)}


@dataclass(frozen=True)
class Familiarity:
    """What a model's folder says about the problems of its training.

    Attributes:
        kinds: number of kinds of problems.
        table: bits of the sequences of words that occur in them.
        weights: how much each of `SIGNS` counts.
        threshold: weighted sum beyond which a problem is taken for an unfamiliar one.
    """

    kinds: int
    table: bytes
    weights: Mapping[str, float]
    threshold: float

    def knows(self, key: str) -> bool:
        """Return True if a sequence of words is in the training, or by chance shares its bit."""
        bit = bit_of(key, 8 * len(self.table))
        return bool(self.table[bit >> 3] >> (bit & 7) & 1)

    def novelty(self, problem: str) -> float:
        """Return the share of the problem's words that are new, each counted by how new it is."""
        total, count = 0.0, 0
        for triple, pair, word in sequences_of(problem):
            count += 1
            if self.knows(triple):
                continue
            known_pair = self.knows(pair)
            total += NOVEL_TRIPLE if known_pair else NOVEL_PAIR if self.knows(word) else NOVEL_WORD
        return total / count

    def distance(
        self, problem: str, answer: int | None, attempts: Sequence[dict[str, Any]]
    ) -> float:
        """Return how far a problem is from the training; 1 is the threshold.

        Args:
            problem: its text.
            answer: the winner of the vote.
            attempts: records of the attempts, as in `Result.attempts`.
        """
        judged = [one for one in attempts if one["answer"] is not None or one["ending"] not in CUT]
        codes = [
            [call["code"] or "" for turn in one["turns"] for call in turn["calls"]]
            for one in judged
        ]
        answers = [one["answer"] for one in judged]
        failed = sum(one["errors"] for one in judged)
        signs = signs_of(self.novelty(problem), problem, answer, answers, codes, failed)
        return sum(self.weights[name] * signs[name] for name in SIGNS) / self.threshold

    def note(self) -> str:
        """Return the sentence for a problem beyond the threshold."""
        return (
            f"The bundled model is a demonstration trained on {self.kinds} kinds of problems, and "
            "this one looks unlike them: do not trust the answer; use --model for a real model."
        )


def signs_of(
    novelty: float,
    problem: str,
    answer: int | None,
    answers: Sequence[int | None],
    codes: Sequence[Sequence[str]],
    failed: int,
) -> dict[str, float]:
    """Return the signs of an unfamiliar problem by their names.

    Args:
        novelty: that of the problem's text.
        problem: its text.
        answer: the winner of the vote.
        answers: the answer of each attempt.
        codes: the code of each attempt's calls.
        failed: number of failed calls.
    """
    wanted = numbers_of(problem) - STRUCTURAL
    missing = []
    for own, calls in zip(answers, codes, strict=True):
        if own is not None and own == answer and wanted:
            used = _numbers("\n".join(calls))
            missing.append(len(wanted - used) / len(wanted))
    count = max(1, len(answers))
    return {
        "novelty": novelty,
        "missing": sum(missing) / len(missing) if missing else float(bool(wanted)),
        "dissent": 1.0 - sum(one is not None and one == answer for one in answers) / count,
        "errors": min(2.0, failed / count),
    }


def read_familiarity(folder: Path | None) -> Familiarity | None:
    """Return what a model's folder says about its training; None if it says nothing.

    Raises:
        SolverError: if the file cannot be used.
    """
    path = folder / FILE if folder else None
    if path is None or not path.is_file():
        return None
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        weights = {name: float(content["weights"][name]) for name in SIGNS}
        table = zlib.decompress(base64.b85decode(content["table"]))
        made = Familiarity(int(content["kinds"]), table, weights, float(content["threshold"]))
    except (OSError, ValueError, KeyError, TypeError, zlib.error) as error:
        raise SolverError(f"{path} cannot be used ({error}); remove it.") from error
    if not made.table or made.threshold <= 0:
        raise SolverError(f"{path} cannot be used (it holds no table); remove it.")
    return made
