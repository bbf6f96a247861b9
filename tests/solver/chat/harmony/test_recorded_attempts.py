"""Recorded attempts of a large model: calls, results and answers are found exactly (20 s).

The recordings are no part of the project; without them the tests are skipped.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from helpers.solver_cases.harmony_tokenizers import REAL_IDS, real_harmony, traces_folder

from eightfold.solver.attempts.attempt import Attempt, AttemptLimits, CallTools, Ending, Feed
from eightfold.solver.attempts.calls.call_record import CallRecord
from eightfold.solver.chat import ChatProtocol, load_protocol
from eightfold.solver.chat.harmony.message_calls import SUPERSEDED
from eightfold.solver.chat.prompt_texts import Prompts
from eightfold.solver.chat.tool_call import Call

FOLDER = traces_folder()
pytestmark = pytest.mark.skipif(FOLDER is None, reason="the recorded attempts are not here")

IDS = {text: index for index, text in REAL_IDS.items()}
RETURN, START, END = IDS["<|return|>"], IDS["<|start|>"], IDS["<|end|>"]
MESSAGE, CALL = IDS["<|message|>"], IDS["<|call|>"]


@pytest.fixture(scope="module")
def folder() -> Path:
    assert FOLDER is not None
    return FOLDER


@pytest.fixture(scope="module")
def protocol(folder: Path) -> ChatProtocol:
    return load_protocol(real_harmony(folder / "o200k_base.tiktoken"), Prompts())


@pytest.fixture(scope="module")
def recordings(folder: Path) -> list[tuple[dict[str, object], list[int]]]:
    """Each recording's entry in the list, and its token ids."""
    entries = [json.loads(line) for line in (folder / "tokens.jsonl").read_text().splitlines()]
    with np.load(folder / "tokens.npz") as arrays:
        return [(entry, arrays[entry["key"]].tolist()) for entry in entries]


@pytest.fixture(scope="module")
def bytes_of(folder: Path) -> dict[int, bytes]:
    """The bytes of each ordinary token, from the vocabulary's own file."""
    lines = (folder / "o200k_base.tiktoken").read_bytes().split()
    return {
        int(rank): base64.b64decode(token) for token, rank in zip(*[iter(lines)] * 2, strict=True)
    }


def written_calls(ids: list[int], bytes_of: dict[int, bytes]) -> Iterator[str | None]:
    """Yield the code in front of each call token; None if its header names no recipient."""
    for at in [i for i, index in enumerate(ids) if index == CALL]:
        body = at - ids[:at][::-1].index(MESSAGE)
        head = body - 1 - ids[: body - 1][::-1].index(START) if START in ids[: body - 1] else 0
        header = b"".join(bytes_of.get(index, b"") for index in ids[head : body - 1])
        code = b"".join(bytes_of[index] for index in ids[body:at]).decode()
        yield code if b"to=python" in header else None


def count_of(part: list[int], ids: list[int]) -> int:
    """Return how often a part stands in a list."""
    places = [i for i, index in enumerate(ids) if index == part[0]]
    return sum(ids[i : i + len(part)] == part for i in places)


def replay(ids: list[int], attempt: Attempt) -> Iterator[tuple[list[int], Feed]]:
    """Let an attempt write a recording; yield what was appended to it, and what we would append."""
    at = 0
    while at < len(ids):
        end = next((i for i in range(at, len(ids)) if ids[i] in (CALL, RETURN)), len(ids) - 1)
        turn = ids[at : end + 1]
        attempt.add_tokens(turn, [])
        assert attempt.stop_at_code(1.0, paused=True) is None
        if end == len(ids) - 1:  # the recording ends with the box
            return
        action = attempt.on_pause(1.0)
        # A message in the name of the tool or the user, and the head of the model's next one.
        at = ids.index(END, end) + 3
        if isinstance(action, CallTools):
            attempt.await_results()
            assert len(action.calls) == 1
            call = action.calls[0]
            body = ids.index(MESSAGE, end) + 1
            text = attempt.protocol.decode(ids[body : at - 3])
            if isinstance(call, Call):
                record = CallRecord(call.code, "ok", text)
            else:
                record = CallRecord(None, "malformed", call.reason, error="malformed")
            action = attempt.on_results([record], 1.0)
        assert isinstance(action, Feed)
        yield ids[end + 1 : at], action


def test_calls_results_and_answers_are_those_of_the_recordings(
    protocol: ChatProtocol,
    recordings: list[tuple[dict[str, object], list[int]]],
    bytes_of: dict[int, bytes],
) -> None:
    results = calls = unaddressed = turns = noted = 0
    to_python = protocol._encode("<|channel|>analysis to=python code<|message|>")
    for entry, ids in recordings:
        attempt = Attempt(0, 1, protocol, AttemptLimits(turns=10_000))
        tool = protocol._encode("<|start|>python to=assistant")
        for recorded, feed in replay(ids, attempt):
            attempt.check()
            if recorded[: len(tool)] == tool:
                assert list(feed.ids) == recorded, entry["key"]
                assert not feed.drop_last
                results += 1
        attempt.on_finish("length", 1.0)
        assert attempt.answer == entry["answer"], entry["key"]
        assert attempt.ending is Ending.LENGTH
        codes = [call.code for call in attempt.calls]
        assert codes == list(written_calls(ids, bytes_of)), entry["key"]
        calls += sum(code is not None for code in codes)
        unaddressed += sum(code is None for code in codes)
        turns += len(attempt.turns)
        noted += sum(bool(turn.contents.notes) for turn in attempt.turns)
        notes = [note for turn in attempt.turns for note in turn.contents.notes]
        sent = sum(code is not None for code in codes)
        assert sent + notes.count(SUPERSEDED) == count_of(to_python, ids), entry["key"]
    # Whoever recorded the attempts answered a call without a recipient by a request for the answer.
    assert 0 < results <= calls
    assert unaddressed < 0.01 * calls
    assert noted < 0.01 * turns, "nearly all turns are in order"
