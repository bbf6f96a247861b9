"""Calls in the manner of Gemma 4, whose strings stand between quote tokens.

Grammar, where Q is the token `<|"|>`:

    envelope  := ["<|tool_call>"] (call+ | body) "<tool_call|>"     body: `call_bodies.py`
    call      := ["call:"] NAME "{" [arguments [","]] "}"
    arguments := argument ("," argument)*
    argument  := KEY (":" | "=") value        each value named code is a call
    value     := Q text Q | a string of JSON | number | word

The code may hold any mark, and Q too, which means a quote there. It ends at the first Q behind
which the call is completed and in front of which the text is Python. If there is none, it ends in
front of the next call, at the first Q that completes the call, with or without its brace.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from ..tool_call import Call, CallText, MalformedCall, named_call
from .call_bodies import close_envelope, read_body
from .json_calls import read_json_calls
from .python_code import horizon, is_python

QUOTE = '<|"|>'
OPENING, CLOSING = r"<\|tool_call>", r"<tool_call\|>"
NO_FORM = 'the call is not of the form call:python{code:<|"|>...<|"|>}'
NO_CODE = "python takes one string argument named code"

_Q = re.escape(QUOTE)
_OTHER = (
    rf"(?![\"']?code\b)[\"']?\w+[\"']?\s*[:=]\s*(?:{_Q}(?:(?!{_Q}).)*{_Q}|\"[^\"\n]*\"|[\w.+-]+)"
)
_HEAD = re.compile(r"\s*(?:call\s*:\s*)?(?P<name>\w[\w.:-]*)\s*[{(]", re.DOTALL)
_CODE_KEY = rf"(?:[\"']|{_Q})?code(?:[\"']|{_Q})?\s*[:=]\s*"
_CODE = re.compile(rf"\s*(?:{_OTHER}\s*,\s*)*{_CODE_KEY}(?={_Q}|[\"'])", re.DOTALL)
_NEXT_CALL = re.compile(
    rf"(?:{OPENING}\s*(?:call\s*:\s*)?|call\s*:\s*)\w[\w.:-]*\s*[{{(]\s*{_CODE_KEY}{_Q}"
)
_REST = rf"\s*(?:,\s*{_OTHER}\s*)*,?\s*"
_BRACE = re.compile(rf"{_REST}[)}}]+", re.DOTALL)
_NO_BRACE = re.compile(_REST, re.DOTALL)
_MORE_CODE = re.compile(rf"\s*,?\s*{_CODE_KEY}(?={_Q})")
_OVER = re.compile(rf"\s*(?:\Z|{CLOSING}|{OPENING}|call\s*:\s*\w+\s*{{|{_CODE_KEY}{_Q})")
CALL_MARK = rf"{OPENING}|(?<!\w)call\s*:\s*python\s*{{\s*{_CODE_KEY}(?={_Q})"
"""Pattern of what opens a call; the envelope's opening may be missing."""


def read_quoted_calls(text: str, start: int) -> CallText | None:
    """Read the envelope at `start`; None if its opening is only mentioned."""
    opening = re.compile(OPENING).match(text, start)
    at = opening.end() if opening else start
    calls: list[Call | MalformedCall] = []
    while head := _HEAD.match(text, at):
        if calls and not text[at : head.end()].lstrip().startswith("call"):
            break
        call, at = _read_arguments(text, head)
        calls.append(call)
        while more := _MORE_CODE.match(text, at):
            call, at = _read_code(text, more.end() + len(QUOTE), head["name"], QUOTE)
            calls.append(call)
    if calls:
        return close_envelope(text, CallText(at, tuple(calls)), CLOSING)
    read = read_body(text, at, OPENING, CLOSING)
    if read is not None:
        return read
    end = re.compile(f"{CLOSING}|(?={OPENING})").search(text, at)
    if end is not None and end[0]:
        return CallText(end.end(), (MalformedCall(NO_FORM),))
    if not re.compile(r"\s*call\s*:").match(text, at):
        return None
    return CallText(end.start() if end else len(text), (MalformedCall(NO_FORM),), False)


def _read_arguments(text: str, head: re.Match[str]) -> tuple[Call | MalformedCall, int]:
    """Return the call whose arguments begin behind `head`, and the index behind it."""
    name, at = head["name"], head.end()
    code = _CODE.match(text, at)
    if code is None or not text.startswith(QUOTE, code.end()):
        read = read_json_calls(text, at - 1, f"{CLOSING}|{OPENING}|call\\s*:", name)
        if read is not None:
            return read.calls[0], read.end
    if code is None:
        end = re.compile(f"(?={CLOSING}|{OPENING})").search(text, at)
        call = named_call(name, None)
        return call, end.start() if end else len(text)
    quote = QUOTE if text.startswith(QUOTE, code.end()) else text[code.end()]
    return _read_code(text, code.end() + len(quote), name, quote)


def _read_code(text: str, start: int, name: str, quote: str) -> tuple[Call | MalformedCall, int]:
    """Return the call whose code begins at `start`, and the index behind it."""
    ends = list(_ends(text, start, quote))
    for stop, end, _ in ends:
        if is_python(_code(text[start:stop], quote)):
            return named_call(name, {"code": _code(text[start:stop], quote)}), end
    following = _NEXT_CALL.search(text, start)
    bound = following.start() if following else len(text)
    ends = sorted((e for e in ends if e[0] < bound), key=lambda one: not one[2])
    if not ends:
        last = re.compile(rf".*(?P<q>{re.escape(quote)})\s*,?\s*}}", re.DOTALL)
        if match := last.match(text, start, bound):
            ends = [(match.start("q"), match.end(), True)]
    if ends:
        stop, end, _ = ends[0]
        return named_call(name, {"code": _code(text[start:stop], quote)}), end
    if following is not None:
        return MalformedCall("the call is not closed"), bound
    return named_call(name, {"code": _code(text[start:], quote)}), bound


def _ends(text: str, start: int, quote: str) -> Iterator[tuple[int, int, bool]]:
    """Yield index of a quote, index behind the call that it ends, and if the call has a brace."""
    at, limit = start, horizon(text, start, _NEXT_CALL)
    while (at := text.find(quote, at, limit)) >= 0:
        for pattern in (_BRACE, _NO_BRACE):
            rest = pattern.match(text, at + len(quote))
            if rest is not None and _OVER.match(text, rest.end()):
                yield at, rest.end(), pattern is _BRACE
                break
        at += len(quote)


def _code(text: str, quote: str) -> str:
    return text.replace(QUOTE, '"') if quote == QUOTE else text
