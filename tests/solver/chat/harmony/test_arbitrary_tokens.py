"""Whatever tokens a gpt-oss model writes, each turn is read and the attempt goes on (6 s)."""

from __future__ import annotations

from helpers.solver_cases.chat_tokenizers import harmony
from hypothesis import given, settings
from hypothesis import strategies as st

from eightfold.solver.attempts.attempt import (
    Attempt,
    AttemptLimits,
    CallTools,
    Ending,
    Feed,
)
from eightfold.solver.attempts.calls.call_record import CallRecord
from eightfold.solver.chat import load_protocol
from eightfold.solver.chat.prompt_texts import Prompts
from eightfold.solver.chat.tool_call import Call, MalformedCall

PROTOCOL = load_protocol(harmony(), Prompts())
CONTROL = sorted(PROTOCOL.untrusted_text.control_ids)
PIECES = [
    PROTOCOL._encode(text)
    for text in (
        "assistant", "python", "user", " to=python", " to=browser.search", "analysis", "final",
        "commentary", " code", "json", "<|constrain|>json", "print(1)", "\\boxed{7}", "\n",
        "```python\nprint(2)\n```", "```output\n2\n```\n", '{"code": "3"}', "Hm.",
        "<|end|><|start|>assistant", "<|channel|>final<|message|>",
        "<|channel|>analysis<|message|>", "<|channel|>analysis to=python code<|message|>",
        "<|start|>python to=assistant<|channel|>analysis<|message|>", "∀",
    )
]  # fmt: skip
BEYOND = len(PROTOCOL.tokenizer) + 5  # ids that the tokenizer does not know

tokens = st.lists(
    st.one_of(
        st.sampled_from(PIECES),
        st.sampled_from(CONTROL).map(lambda index: [index]),
        st.integers(0, BEYOND).map(lambda index: [index]),
    ),
    max_size=40,
).map(lambda parts: [index for part in parts for index in part])
openers = st.sampled_from(["", "<|channel|>final<|message|>", "<|message|>"])
ends = st.sampled_from(PROTOCOL.pause_token_ids)


@settings(max_examples=300, deadline=None)
@given(tokens, openers)
def test_messages_cover_the_turn_in_order(ids: list[int], opener: str) -> None:
    whole = [*PROTOCOL._encode(opener), *ids]
    messages = PROTOCOL._messages_of(whole)
    at = 0
    for message in messages:
        assert at <= message.start <= message.body <= message.stop <= len(whole)
        at = message.stop
    reading = PROTOCOL.read_turn(opener, ids)
    for call in reading.calls:
        assert isinstance(call, MalformedCall) or call.code.strip()
    # Reading a longer turn never changes the messages that are closed.
    closed = [m for m in messages if m.closed_by is not None]
    longer = PROTOCOL._messages_of([*whole, *PROTOCOL._encode("<|end|>")])
    assert longer[: len(closed)] == closed


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(tokens, ends), min_size=1, max_size=5))
def test_no_turn_ends_an_attempt_but_by_an_answer(turns: list[tuple[list[int], int]]) -> None:
    """An attempt is driven as by an engine: token by token, and stopped where it asks for it."""
    attempt = Attempt(0, 1, PROTOCOL, AttemptLimits(turns=4))
    sequence: list[int] = []
    for ids, end in turns:
        for index in [*(i for i in ids if i not in PROTOCOL.pause_token_ids), end]:
            sequence.append(index)
            attempt.add_tokens([index], [0.5])
            paused = index == end
            action = attempt.stop_at_code(1.0, 1, paused)
            if paused and action is None and not attempt.over:
                action = attempt.on_pause(1.0)
            attempt.check()
            if action is not None or attempt.over or paused:
                break
        if isinstance(action, CallTools):
            if action.rewind:
                del sequence[-action.rewind :]
            assert action.calls
            attempt.await_results()
            records = [
                CallRecord(call.code, "ok", "1<|end|>")
                if isinstance(call, Call)
                else CallRecord(None, "malformed", "ToolError", error="malformed")
                for call in action.calls
            ]
            action = attempt.on_results(records, 1.0)
        if attempt.over:
            break
        assert isinstance(action, Feed)
        if action.drop_last:
            sequence.pop()
        sequence += action.ids
        attempt.check()
        # Behind what the solver appends the model begins a message, or goes on in one.
        last = attempt.turns[-1]
        assert last.opener in ("", "<|message|>") or last.opener.endswith("<|message|>")
        if not last.opener:
            head = PROTOCOL._encode("<|start|>assistant")
            assert sequence[-len(head) :] == head
    assert attempt.ending in (
        None, Ending.ANSWERED, Ending.NO_ANSWER, Ending.TURNS, Ending.REPEATED
    )  # fmt: skip
    if attempt.ending is Ending.NO_ANSWER:
        assert attempt.nudged, "the model has been asked for an answer"


def test_a_loop_of_control_tokens_takes_linear_time() -> None:
    """A quadratic reader would take minutes."""
    for piece in PIECES[::4]:
        for end in ("<|end|>", "<|channel|>", "<|start|>python<|message|>"):
            ids = [*piece, *PROTOCOL._encode(end)] * (8_000 // (len(piece) + 1))
            PROTOCOL.read_turn("", ids)
            PROTOCOL.early_stop("", ids, 1)
