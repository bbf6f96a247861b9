"""The n-gram drafter: what it finds in an attempt's own past and in its siblings."""

import random

import pytest

from eightfold.engine.sampling_params import SamplingParams
from eightfold.engine.scheduling.sequence import Sequence
from eightfold.engine.speculation.drafter import Draft
from eightfold.engine.speculation.ngram.ngram_drafter import (
    ESCAPE,
    NgramDrafter,
    follower_chances,
)
from eightfold.engine.speculation.ngram.token_history import (
    LONGEST_MATCH,
    NEWEST,
    Occurrences,
    TokenHistory,
)

PROMPT = [2, 3, 4]


def sequence(number: int, tokens: list[int], prompt: int = len(PROMPT)) -> Sequence:
    return Sequence(number, tokens, prompt, SamplingParams(), frozenset())


def draft(drafter: NgramDrafter, seq: Sequence, count: int = 7) -> Draft:
    (found,) = drafter.draft([seq], count)
    found.tree.check()
    assert found.chances is not None
    assert len(found.chances) == len(found.tree) <= count
    assert all(0 < chance <= 1 for chance in found.chances)
    assert list(found.chances) == sorted(found.chances, reverse=True)
    return found


def test_a_repeated_passage_is_drafted() -> None:
    drafter = NgramDrafter(branches=False)
    seq = sequence(0, [*PROMPT, 10, 11, 12, 13, 14, 15, 20, 10, 11, 12])
    drafter.observe([seq])
    assert draft(drafter, seq).tree.tokens[:3] == (13, 14, 15)
    assert draft(drafter, seq, 2).tree.tokens == (13, 14)


def test_nothing_is_drafted_for_what_is_new_or_unobserved() -> None:
    drafter = NgramDrafter()
    seq = sequence(0, [*PROMPT, 10, 11, 12])
    assert not drafter.draft([seq], 7)[0].tree
    drafter.observe([seq])
    assert not draft(drafter, seq).tree


def test_siblings_help_and_strangers_do_not() -> None:
    drafter = NgramDrafter(branches=False)
    passage = [30, 31, 32, 33, 34]
    first = sequence(0, [*PROMPT, *passage])
    sibling = sequence(1, [*PROMPT, 9, 30, 31])
    stranger = sequence(2, [7, 7, 7, 9, 30, 31])
    drafter.observe([first, sibling, stranger])
    assert draft(drafter, sibling).tree.tokens == (32, 33, 34)
    assert not draft(drafter, stranger).tree


def test_a_tree_has_both_continuations_the_likelier_one_first() -> None:
    drafter = NgramDrafter()
    tokens = [*PROMPT, 5, 6, 7, 11, 5, 6, 8, 12, 5, 6, 7, 13, 14, 5, 6]
    seq = sequence(0, tokens)
    drafter.observe([seq])
    tree = draft(drafter, seq).tree
    children = [t for t, parent in zip(tree.tokens, tree.parents, strict=True) if parent == 0]
    assert children[:2] == [7, 8]
    line = NgramDrafter(branches=False)
    line.observe([seq])
    assert draft(line, seq).tree.is_line


def test_longer_contexts_decide_against_frequent_short_ones() -> None:
    drafter = NgramDrafter(branches=False)
    noise = [9, 50, 8, 9, 50, 8, 9, 50, 8]
    seq = sequence(0, [*PROMPT, 40, 41, 42, 9, 60, *noise, 40, 41, 42, 9])
    drafter.observe([seq])
    assert draft(drafter, seq, 1).tree.tokens == (60,)


def test_tokens_that_come_later_are_found_and_rewound_ones_forgotten() -> None:
    drafter = NgramDrafter(branches=False)
    seq = sequence(0, [*PROMPT, 10, 11])
    drafter.observe([seq])
    seq.tokens += [12, 13, 14, 10, 11]
    drafter.observe([seq])
    assert draft(drafter, seq).tree.tokens[:2] == (12, 13)
    del seq.tokens[5:]
    drafter.observe([seq])
    assert not draft(drafter, seq).tree
    seq.tokens += [22, 23, 10, 11]
    drafter.observe([seq])
    assert draft(drafter, seq).tree.tokens[:2] == (22, 23)


def test_the_history_of_a_problem_ends_with_its_last_attempt() -> None:
    drafter = NgramDrafter()
    seqs = [sequence(number, [*PROMPT, 10, 11, 12]) for number in range(2)]
    drafter.observe(seqs)
    drafter.forget(seqs[0])
    assert drafter._histories
    drafter.forget(seqs[1])
    drafter.forget(seqs[1])
    assert not drafter._histories
    assert not drafter._attempts


def match_length(text: list[int], position: int, context: list[int]) -> int:
    """Return how many tokens before a position equal the last ones of a context."""
    length = 0
    for mine, other in zip(context[::-1], text[:position][::-1], strict=False):
        if mine != other or length == LONGEST_MATCH:
            break
        length += 1
    return length


def wanted_occurrences(texts: list[list[int]], context: list[int]) -> Occurrences:
    """Return the newest occurrences of the end of a context, by comparing every place with it."""
    found: dict[int, int] = {}
    for order, most in sorted(NEWEST.items(), reverse=True):
        places = [
            (number << 32 | position, length)
            for number, text in enumerate(texts)
            for position in range(order, len(text))
            if (length := match_length(text, position, context)) >= order
        ]
        for place, length in places[: -most - 1 : -1]:
            found.setdefault(place, length)
    return [
        (length, group, [texts[place >> 32][place & 0xFFFFFFFF] for place in group])
        for length in range(LONGEST_MATCH, 0, -1)
        if (group := [place for place, own in found.items() if own == length])
    ]


@pytest.mark.parametrize("alphabet", [2, 4, 12])
def test_occurrences_are_the_newest_of_the_same_context(alphabet: int) -> None:
    generator = random.Random(alphabet)
    history = TokenHistory()
    texts = [[generator.randrange(alphabet) for _ in range(90)] for _ in range(3)]
    for text in texts:
        history.extend(history.add_attempt(text, 0))
    for _ in range(60):
        context = [generator.randrange(alphabet) for _ in range(generator.randint(1, 12))]
        assert history.occurrences(context) == wanted_occurrences(texts, context)


@pytest.mark.parametrize("alphabet", [2, 4, 12])
def test_lost_tokens_are_forgotten_whatever_takes_their_places(alphabet: int) -> None:
    generator = random.Random(alphabet)
    history = TokenHistory()
    texts = [[generator.randrange(alphabet) for _ in range(20)] for _ in range(2)]
    for text in texts:
        history.extend(history.add_attempt(text, 0))
    for _ in range(40):
        number = generator.randrange(2)
        text = texts[number]
        del text[generator.randint(1, len(text)) :]
        text += [generator.randrange(alphabet) for _ in range(generator.randint(0, 20))]
        history.extend(number)
        for _, _, _, newest in history._orders:
            for found in newest.values():
                for occurrence in [found] if isinstance(found, int) else found:
                    owner, position = occurrence >> 64, occurrence >> 32 & 0xFFFFFFFF
                    assert texts[owner][position] == occurrence & 0xFFFFFFFF


def test_chances_are_those_of_one_order_after_the_other() -> None:
    generator = random.Random(0)
    for _ in range(50):
        lengths = sorted(
            generator.sample(range(1, LONGEST_MATCH + 1), generator.randint(1, 4)), reverse=True
        )
        occurrences = [
            (length, [], [generator.randint(0, 3) for _ in range(generator.randint(1, 5))])
            for length in lengths
        ]
        expected: dict[int, float] = {}
        left = 1.0
        for order in range(lengths[0], 0, -1):
            tokens = [token for length, _, own in occurrences if length >= order for token in own]
            escape = ESCAPE * len(set(tokens))
            for token in tokens:
                expected[token] = expected.get(token, 0) + left / (len(tokens) + escape)
            left *= escape / (len(tokens) + escape)
        assert follower_chances(occurrences) == pytest.approx(expected)


def test_storms_of_growing_and_rewound_attempts_never_fail() -> None:
    generator = random.Random(0)
    drafter = NgramDrafter()
    seqs = [sequence(number, list(PROMPT)) for number in range(4)]
    for _ in range(600):
        seq = generator.choice(seqs)
        if generator.random() < 0.1:
            del seq.tokens[generator.randint(1, len(seq.tokens)) :]
        seq.tokens += [generator.randint(0, 5) for _ in range(generator.randint(0, 4))]
        drafter.observe(generator.sample(seqs, 2))
        for one in seqs:
            if one.id in drafter._attempts:
                draft(drafter, one, generator.randint(0, 15))
