"""Drafts from what followed the same tokens before: in the attempt itself and in its siblings."""

from heapq import heappop, heappush

from ...scheduling.draft_tree import DraftTree
from ...scheduling.sequence import Sequence
from ..drafter import Draft
from .token_history import ORDERS, TokenHistory

LONGEST_MATCH = 8  # tokens of context that count; longer matches count alike
PLACES = {5: 12, 3: 12, 2: 12, 1: 24}  # newest places looked at for each order
LEAST_CHANCE = 0.02  # drafts less likely than this are not worth their row
# Weight of a distinct follower in the escape probability. Method C of PPM has 1, which promises
# far more than comes true on recorded attempts; 4 promises about as much.
ESCAPE = 4.0

Occurrences = list[tuple[int, int]]  # places, and how many tokens before each of them match


class NgramDrafter:
    """Needs no weights: counts what followed the newest tokens in all attempts at a problem.

    The chance of a token interpolates the counts of contexts of 1 to ``LONGEST_MATCH`` tokens, as
    in prediction by partial matching (Cleary and Witten, "Data compression using adaptive coding
    and partial string matching", IEEE Trans. Commun. 1984; escape method C of Moffat, 1990). Only
    the newest occurrences of a context are counted. The drafts of a tree are the likeliest ones
    first, so that its expected gain is the largest that so many drafts can have (as in OPT-Tree,
    Wang et al., arXiv 2406.17276). Attempts at the same problem share one history, as in "grouped"
    suffix trees (Seer, arXiv 2511.14617).

    Args:
        branches: draft trees, else lines.
    """

    name = "ngram"
    gives_chances = True

    def __init__(self, branches: bool = True) -> None:
        self.branches = branches
        self._histories: dict[int, TokenHistory] = {}  # by the hash of the prompt
        self._attempts: dict[int, tuple[int, int]] = {}  # prompt and attempt of a sequence
        self._live: dict[int, int] = {}  # live attempts of a prompt

    def draft(self, sequences: list[Sequence], count: int) -> list[Draft]:
        """Return up to ``count`` drafts for each sequence."""
        return [self._draft(seq, count) for seq in sequences]

    def observe(self, sequences: list[Sequence]) -> None:
        """Index the tokens that sequences have gained."""
        for seq in sequences:
            if seq.id not in self._attempts:
                self._add(seq)
            prompt, attempt = self._attempts[seq.id]
            self._histories[prompt].extend(attempt)

    def forget(self, seq: Sequence) -> None:
        """Count down the attempts of a problem, and drop its history after the last one."""
        if seq.id not in self._attempts:
            return
        prompt, _ = self._attempts.pop(seq.id)
        self._live[prompt] -= 1
        if not self._live[prompt]:
            del self._live[prompt], self._histories[prompt]

    def _add(self, seq: Sequence) -> None:
        prompt = hash(tuple(seq.tokens[: seq.prompt_length]))
        history = self._histories.setdefault(prompt, TokenHistory())
        self._attempts[seq.id] = (prompt, history.add_attempt(seq.tokens, seq.prompt_length))
        self._live[prompt] = self._live.get(prompt, 0) + 1

    def _draft(self, seq: Sequence, count: int) -> Draft:
        if seq.id not in self._attempts:
            return Draft()
        history = self._histories[self._attempts[seq.id][0]]
        tokens: list[int] = []
        parents: list[int] = []
        chances: list[float] = []
        waiting: list[tuple[float, int, int, int, Occurrences]] = []
        self._expand(history, _occurrences(history, seq.tokens), 0, 1.0, waiting)
        while waiting and len(tokens) < count:
            chance, _, parent, token, occurrences = heappop(waiting)
            if not self.branches:
                waiting.clear()
            tokens.append(token)
            parents.append(parent)
            chances.append(-chance)
            if len(tokens) < count:
                self._expand(history, occurrences, len(tokens), -chance, waiting)
        return Draft(DraftTree(tuple(tokens), tuple(parents)), tuple(chances))

    def _expand(
        self,
        history: TokenHistory,
        occurrences: Occurrences,
        row: int,
        chance: float,
        waiting: list[tuple[float, int, int, int, Occurrences]],
    ) -> None:
        """Add what may follow a row to the drafts that wait.

        Args:
            occurrences: where what leads to the row and the row itself occurred, longest match
                first.
            chance: of the row.
        """
        followers: dict[int, Occurrences] = {}
        counts: dict[int, int] = {}
        chances: dict[int, float] = {}
        weight, total, index = 1.0, 0, 0
        attempts = history.attempts
        for order in range(min(occurrences[0][1], LONGEST_MATCH) if occurrences else 0, 0, -1):
            while index < len(occurrences) and occurrences[index][1] >= order:
                place, length = occurrences[index]
                index += 1
                known, position = attempts[place >> 32].tokens, place & 0xFFFFFFFF
                if position < len(known):
                    token = known[position]
                    counts[token] = counts.get(token, 0) + 1
                    total += 1
                    followers.setdefault(token, []).append((place + 1, length + 1))
            if not total:
                continue
            escape = ESCAPE * len(counts)
            share = weight / (total + escape)
            for token, times in counts.items():
                chances[token] = chances.get(token, 0.0) + times * share
            weight = share * escape
        for token, own in chances.items():
            if chance * own >= LEAST_CHANCE:
                item = (-chance * own, len(waiting) + (row << 8), row, token, followers[token])
                heappush(waiting, item)


def _occurrences(history: TokenHistory, tokens: list[int]) -> Occurrences:
    """Return where the end of ``tokens`` occurred before, longest match first."""
    lengths: dict[int, int] = {}
    end = tokens[-LONGEST_MATCH:][::-1]
    for order in ORDERS:
        if order > len(tokens):
            continue
        for place in history.places(tokens, order, PLACES[order]):
            if place not in lengths:
                known, position = history.attempts[place >> 32].tokens, place & 0xFFFFFFFF
                before = known[max(0, position - LONGEST_MATCH) : position][::-1]
                length = 0
                for mine, other in zip(end, before, strict=False):
                    if mine != other:
                        break
                    length += 1
                if length:
                    lengths[place] = length
    return sorted(lengths.items(), key=lambda item: -item[1])
