"""Long turns are read rarely enough, and what stops them is found all the same (4 s)."""

from __future__ import annotations

import pytest
from helpers.solver_cases.chat_tokenizers import FAMILIES

from eightfold.solver.chat import ChatProtocol, load_protocol
from eightfold.solver.chat.prompt_texts import Prompts
from eightfold.solver.chat.reading_cadence import FREE_TOKENS, unread_tokens

HARMONY = "harmony"
BLOCK = "```python\nprint(6)\n```\n"


def load(family: str) -> ChatProtocol:
    return load_protocol(FAMILIES[family](), Prompts())


def read_times(steps: list[int]) -> dict[int, int]:
    """Return how many tokens are looked at, by the number of tokens written by then."""
    count, found = 0, {}
    for new in steps:
        count += new
        if unread := unread_tokens(count, new, count, ended=False):
            found[count] = unread
    return found


def test_every_token_is_looked_at_soon() -> None:
    total = 10_000
    found = read_times([1] * total)
    assert list(found)[:FREE_TOKENS] == list(range(1, FREE_TOKENS + 1))
    seen: set[int] = set()
    for count, unread in found.items():
        seen |= set(range(count - unread + 1, count + 1))
    assert set(range(1, max(found) + 1)) <= seen
    assert max(found) > total - 2 * total // FREE_TOKENS
    assert len(found) < 8 * FREE_TOKENS


def test_texts_that_have_ended_are_always_read() -> None:
    assert not unread_tokens(1001, 1, 1001, ended=False)
    assert unread_tokens(1001, 1, 1001, ended=True) >= 1001 // FREE_TOKENS
    assert unread_tokens(5, 0, 5, ended=True) == 1


@pytest.mark.parametrize("family", [HARMONY, "hermes"])
def test_a_loop_of_fences_is_read_in_linear_time(
    family: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    protocol = load(family)
    read, original = [], protocol._reader.read

    def note(text: str, ended: bool) -> object:
        read.append(len(text))
        return original(text, ended)

    monkeypatch.setattr(protocol._reader, "read", note)
    opening = protocol._encode("<|channel|>final<|message|>") if family == HARMONY else []
    loop = protocol._encode("```\n")
    characters = []
    for times in (300, 600):
        read.clear()
        tokens = opening + loop * times
        for count in range(1, len(tokens) + 1):
            assert protocol.early_stop("", tokens[:count], 1) is None
        characters.append(sum(read))
    assert 0 < characters[1] < 3 * characters[0]


@pytest.mark.parametrize("after", ["```output\n7\n```\nIt prints 7, and so on and on.", "<|end|>"])
def test_a_late_stop_is_at_the_same_place(after: str) -> None:
    protocol = load(HARMONY)
    opening = "<|channel|>final<|message|>" + "So it is. " * 200
    ids = protocol._encode(opening + BLOCK + after)
    assert len(ids) > 3 * FREE_TOKENS
    stops = [protocol.early_stop("", ids[:count], 1) for count in range(1, len(ids) + 1)]
    stop = next(stop for stop in stops if stop is not None)
    assert protocol.decode(ids[: stop.kept]).rstrip() == (opening + BLOCK).rstrip()


def test_an_output_that_is_invented_late_is_found_late() -> None:
    protocol = load(HARMONY)
    call = "<|channel|>analysis to=python code<|message|>1"
    thought = "<|channel|>analysis<|message|>" + "So it is. " * 200 + "<|end|><|start|>assistant"
    invented = "<|end|><|start|>python to=assistant<|channel|>analysis<|message|>7 and then 8"
    ids = protocol._encode(thought + call + invented + "<|end|><|start|>assistant")
    stops = [protocol.early_stop("", ids[:count], 1) for count in range(1, len(ids) + 1)]
    stop = next(stop for stop in stops if stop is not None)
    assert protocol.decode(ids[: stop.kept]) == thought + call
