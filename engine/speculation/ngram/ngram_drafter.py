"""Drafts from what followed the same tokens before: in the attempt itself and in its siblings."""

from heapq import heappop, heappush

from ...scheduling.draft_tree import DraftTree
from ...scheduling.sequence import Sequence
from ..drafter import Draft
from .token_history import Occurrences, TokenHistory

LEAST_CHANCE = 0.02  # drafts less likely than this are not worth their row
# Weight of a distinct follower in the escape probability. Method C of PPM has 1, which promises
# far more than comes true on recorded attempts; 4 promises about as much.
ESCAPE = 4.0


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
        if seq.id not in self._attempts or not count:
            return Draft(chances=())
        history = self._histories[self._attempts[seq.id][0]]
        return (_tree if self.branches else _line)(history, seq.tokens, count)


def _line(history: TokenHistory, tokens: list[int], count: int) -> Draft:
    """Return the likeliest token each time, as long as the line is likely enough."""
    drafts: list[int] = []
    chances: list[float] = []
    occurrences, chance = history.occurrences(tokens), 1.0
    while occurrences:
        own = follower_chances(occurrences)
        token = max(own, key=own.__getitem__)
        chance *= own[token]
        if chance < LEAST_CHANCE:
            break
        drafts.append(token)
        chances.append(chance)
        if len(drafts) == count:
            break
        occurrences = history.following(occurrences, token)
    return Draft(DraftTree.line(drafts), tuple(chances))


def _tree(history: TokenHistory, tokens: list[int], count: int) -> Draft:
    """Return the likeliest drafts first."""
    drafts: list[int] = []
    parents: list[int] = []
    chances: list[float] = []
    # Negated chance, a number that decides between equal ones, the row before, the token, and the
    # occurrences that it is among.
    waiting: list[tuple[float, int, int, int, Occurrences]] = []
    occurrences, row, chance = history.occurrences(tokens), 0, 1.0
    while True:
        for token, own in follower_chances(occurrences).items():
            if (joint := chance * own) >= LEAST_CHANCE:
                number = (row << 8) + len(waiting)
                heappush(waiting, (-joint, number, row, token, occurrences))
        if not waiting:
            break
        negated, _, parent, token, among = heappop(waiting)
        drafts.append(token)
        parents.append(parent)
        chances.append(-negated)
        row, chance = len(drafts), -negated
        if row == count:
            break
        occurrences = history.following(among, token)
    return Draft(DraftTree(tuple(drafts), tuple(parents)), tuple(chances))


def follower_chances(occurrences: Occurrences) -> dict[int, float]:
    """Return the chance of each token that followed.

    At each order from the longest match down to 1, an occurrence that matches so long gets 1 / (n +
    e) of what is left, where n occurrences match so long and e is ``ESCAPE`` times their distinct
    tokens; e / (n + e) is left to the next order. As n and e only change where shorter matches come
    in, the orders between two lengths are summed up at once.
    """
    if len(occurrences) == 1 and occurrences[0][0] > 1:
        length, _, tokens = occurrences[0]
        count, only = len(tokens), tokens[0]
        if tokens.count(only) == count:
            return {only: 1 - (ESCAPE / (count + ESCAPE)) ** length}
    distinct: set[int] = set()
    shares: list[float] = []  # what each occurrence gets at the orders from one length to the next
    left, count = 1.0, 0
    for index, (length, _, tokens) in enumerate(occurrences, 1):
        until = occurrences[index][0] if index < len(occurrences) else 0
        distinct.update(tokens)
        count += len(tokens)
        escape = ESCAPE * len(distinct)
        if length - until == 1:
            share = left / (count + escape)
            left = share * escape
        else:
            passed = left * (escape / (count + escape)) ** (length - until)
            share, left = (left - passed) / count, passed
        shares.append(share)
    chances: dict[int, float] = {}
    for index, (_, _, tokens) in enumerate(occurrences):
        share = sum(shares[index:])
        for token in tokens:
            chances[token] = chances.get(token, 0.0) + share
    return chances
