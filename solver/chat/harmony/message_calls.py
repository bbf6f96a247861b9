"""Reads the call in a Harmony message, and what a turn of several messages amounts to.

A message to the tool holds bare Python, whatever type its header names. What is plainly something
else is read too: a JSON object with the code, and a fence around all of it. Code is not changed.
"""

from __future__ import annotations

from collections.abc import Sequence

from ..readers.code_fences import only_block
from ..readers.json_calls import read_json_calls
from ..readers.python_code import is_python
from ..readers.turn_reader import TurnReader
from ..tool_call import Call, MalformedCall, checked_call, is_tool_name
from ..turn_contents import TurnContents
from .harmony_vocabulary import Control
from .message_reader import HarmonyMessage

Calls = tuple[Call | MalformedCall, ...]

NOT_ADDRESSED = MalformedCall("a call must be a message to=python that holds Python code")
SUPERSEDED = "a message to the tool was not sent, because another one followed it"
UNSENT = "a message to the tool ended without <|call|>"
MOST_NOTES = 30
"""Number of notes that are kept of a turn; a model in a loop could make thousands."""


def message_calls(message: HarmonyMessage, reader: TurnReader) -> Calls:
    """Return the calls that a message of the model makes if it is sent to the tool."""
    tool = message.header.tool
    if tool is not None and not is_tool_name(tool):
        return (MalformedCall(f"there is no tool {tool[:40]}, only python"),)
    if tool is not None:
        return _code_calls(message.text)
    if message.closed_by is not Control.CALL:
        return ()
    # The recipient is missing: what is code, and no answer, is for the only tool there is.
    text = message.text
    typed = message.header.content_type in ("code", "python", "json")
    if typed or (is_python(text) and any(sign in text.strip() for sign in "\n=(")):
        return _code_calls(text)
    turn = reader.read(text, ended=True)
    if turn.calls():
        return tuple(turn.calls())
    return () if "\\boxed" in turn.visible() else (NOT_ADDRESSED,)


def _code_calls(text: str) -> Calls:
    """Return the calls in the content of a message to the tool."""
    block = only_block(text)
    if block is not None:
        return (checked_call(block.content),)
    if text.lstrip().startswith("{"):
        for name in ("python", None):  # arguments alone, or an object that names the tool
            read = read_json_calls(text, 0, r"(?!)", name)
            if read is not None and all(isinstance(call, Call) for call in read.calls):
                return read.calls
        if not is_python(text):
            return (MalformedCall("the code must be Python, not JSON"),)
    return (checked_call(text),)


def read_messages(
    messages: Sequence[HarmonyMessage], ended: bool, reader: TurnReader
) -> TurnContents:
    """Return the calls and texts of a turn.

    Calls: what the message that ends the turn calls. If that is nothing, then fenced blocks in the
    visible text, or in thoughts that nothing follows, as `TurnReader` reads them; and if there are
    none and no box follows, the messages to the tool that ended without a call token.

    Args:
        messages: the turn's messages.
        ended: True if the model has ended the turn.
        reader: reads blocks of code in texts.

    Texts: visible are messages in the channel `final`; if there are none, those in `commentary` and
    in no known channel. Thoughts, in `analysis`, are drafts if they hold a box.
    """
    own = [message for message in messages if message.from_model]
    notes = [f"message {i}: {note}" for i, one in enumerate(messages, 1) for note in one.notes]
    notes += [
        f"message {i}: the model wrote it as {one.header.role}"
        for i, one in enumerate(messages, 1)
        if not one.from_model
    ]
    plain = [message for message in own if message.header.tool is None]
    final = [message for message in plain if message.header.channel == "final"]
    final = final or [message for message in plain if message.header.channel != "analysis"]
    thoughts = [message for message in plain if message.header.channel == "analysis"]
    shown = reader.read("\n".join(message.text for message in final), ended)
    boxed = [message.text for message in thoughts if "\\boxed" in message.text]
    draft = "\n".join(reader.read(text, ended).visible() for text in boxed)
    unsent = [message for message in own[:-1] if message.header.tool is not None]
    calls = message_calls(own[-1], reader) if own else ()
    if unsent and calls == (NOT_ADDRESSED,):
        calls = ()
    if calls and own[-1].header.tool is not None and own[-1].closed_by is not Control.CALL:
        notes.append(UNSENT)
    if not calls:
        calls = tuple(shown.calls())
    if not calls and not shown.visible().strip() and thoughts and own[-1] is thoughts[-1]:
        calls = tuple(reader.read(thoughts[-1].text, ended).calls())
    if unsent:
        notes.append(SUPERSEDED if calls else UNSENT)
    if not calls and "\\boxed" not in shown.visible():
        calls = tuple(call for message in unsent for call in message_calls(message, reader))
    if len(notes) > MOST_NOTES:
        notes[MOST_NOTES:] = [f"{len(notes) - MOST_NOTES} more notes"]
    return TurnContents(calls, shown.visible(), draft, tuple(notes))
