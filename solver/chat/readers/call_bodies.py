"""Contents that the envelope of a call may have, whatever the family.

Grammar:

    body     := [fence] JSON [fence] | NAME JSON | function+ | a fenced block of Python | code
    JSON     := as in `json_calls.py`
    function := "<function" "=" NAME ">" (parameter* | JSON | code) "</function>"
    parameter:= "<parameter" "=" KEY ">" text "</parameter>"     `tagged_code.py`
"""

from __future__ import annotations

import re
from itertools import islice

from ..tool_call import TOOL_NAMES, Call, CallText, MalformedCall, is_tool_name, named_call
from .code_fences import OPENING, read_block
from .json_calls import NOT_JSON, read_json_calls
from .python_code import shows_code
from .tagged_code import TagSet, read_tagged_code

_NAME = r"[\"']?([^\s>\"']+)[\"']?"
_KEY = r"<parameter(?:\s*=\s*|\s+name\s*=\s*)"
_OTHER = rf"{_KEY}(?![\"']?code\b)[^>]*>[^<]*</parameter>"
FUNCTION = rf"<(?:function|invoke)(?:\s*=\s*|\s+name\s*=\s*){_NAME}\s*>"
"""Pattern of the tag that opens a function; its first group is the name."""

_FUNCTION = re.compile(FUNCTION)
_CODE_KEY = rf"{_KEY}[\"']?code[\"']?[^>]*>"
_CODE_OF_FUNCTION = rf"{FUNCTION}(?:\s*{_OTHER})*\s*{_CODE_KEY}"
_WITH_CODE = re.compile(_CODE_OF_FUNCTION)
_FUNCTION_END = r"</(?:function|invoke)>"
_FENCE = re.compile(r"\s*(`{3,}[\w-]*\s*)?(?=[{\[\"'])")
_NAMED = re.compile(r"\s*([\w.]+)\s*(?=\{)")
_TOOL_LINE = re.compile(rf"\s*(?:{'|'.join(TOOL_NAMES)})[ \t]*\r?\n", re.IGNORECASE)
_CLOSINGS = 8  # closing tags that may stand in strings of bare code
_BLANK = re.compile(r"\s*")


def read_body(text: str, start: int, opening: str, closing: str) -> CallText | None:
    """Read the calls in an envelope, or return None if there is none at `start`.

    Args:
        text: the turn.
        start: index behind the envelope's opening.
        opening, closing: patterns of the envelope's tags.

    Returns:
        The calls; `end` lies behind the closing if there is one.
    """
    fence = _FENCE.match(text, start)
    read = None
    if fence is not None:
        read = read_json_calls(text, fence.end(), rf"`{{3,}}|{closing}|{opening}")
        if read is not None and fence[1] and (match := _match(r"\s*`{3,}", text, read.end)):
            read = CallText(match.end(), read.calls)
    elif (named := _NAMED.match(text, start)) and is_tool_name(named[1]):
        read = read_json_calls(text, named.end(), f"{closing}|{opening}", named[1])
    elif _FUNCTION.match(text, blank := _skip(text, start)):
        read = read_functions(text, blank, opening, closing)
    elif fenced := OPENING.match(text, blank):
        block = read_block(text, fenced)
        if block is not None and block.language == "python":
            read = CallText(block.stop, (Call(block.content),), block.closed)
    return None if read is None else close_envelope(text, read, closing)


def read_envelope(text: str, start: int, opening: str, closing: str) -> CallText | None:
    """Read the envelope that opens at `start`; None if its opening is only mentioned.

    An envelope is meant if it is closed, or if something like a call follows its opening.
    """
    mark = _match(opening, text, start)
    assert mark is not None
    read = read_body(text, mark.end(), opening, closing)
    if read is not None:
        return read
    bare = _bare_code(text, mark.end(), closing)
    if bare is not None:
        return bare
    end = re.compile(f"{closing}|(?={opening})").search(text, mark.end())
    if end is not None and end[0]:
        return CallText(end.end(), (MalformedCall(NOT_JSON),))
    if not _match(r"\s*(?:[{\[\"]|<function|`{3})", text, mark.end()):
        return None
    return CallText(end.start() if end else len(text), (MalformedCall(NOT_JSON),), False)


def _bare_code(text: str, start: int, closing: str) -> CallText | None:
    """Return the code that is all of an envelope, behind the tool's name or not; None without."""
    for end in islice(re.compile(closing).finditer(text, start), _CLOSINGS):
        code = _TOOL_LINE.sub("", text[start : end.start()], count=1).strip("\r\n")
        if shows_code(code):
            return CallText(end.end(), (Call(code),))
    return None


def close_envelope(text: str, read: CallText, closing: str) -> CallText:
    """Return what was read with the envelope's closing, which may have been read with it."""
    match = _match(rf"\s*(?:{closing})", text, read.end)
    if match is not None:
        return CallText(match.end(), read.calls)
    inside = re.search(rf"(?:{closing})\s*\Z", text[: read.end])
    return read if inside else CallText(read.end, read.calls, False)


def read_functions(text: str, start: int, opening: str, closing: str) -> CallText:
    """Read the functions from `start` on, where the first begins."""
    calls: list[Call | MalformedCall] = []
    at, end, closed = start, start, True
    while function := _FUNCTION.match(text, at):
        name, inside = function[1], function.end()
        code = _WITH_CODE.match(text, at)
        if code is None:
            call, end, closed = _read_bare_function(text, inside, name, opening, closing)
            calls.append(call)
        next_call = rf"(?:{opening})?\s*{_CODE_OF_FUNCTION}"
        tags = TagSet(next_call, (r"</parameter>", _FUNCTION_END, closing), _OTHER, _CODE_KEY)
        while code is not None:  # a second parameter named code is a call of its own
            tagged = read_tagged_code(text, code.end(), tags)
            calls.append(named_call(name, {"code": tagged.code}))
            end, closed = tagged.end, tagged.closed
            code = _match(rf"\s*{_CODE_KEY}", text, end)
        at = _skip(text, end)
    return CallText(end, tuple(calls), closed)


def _read_bare_function(
    text: str, start: int, name: str, opening: str, closing: str
) -> tuple[Call | MalformedCall, int, bool]:
    """Read a function without a parameter named code: JSON, or nothing but code.

    Returns:
        The call, the index behind it, and if it is closed.
    """
    read = read_json_calls(text, start, "</", name)
    if read is not None and read.calls:
        end = _match(rf"\s*{_FUNCTION_END}", text, read.end)
        return read.calls[0], end.end() if end else read.end, read.closed
    next_call = rf"(?:{opening})?\s*{_CODE_OF_FUNCTION}"
    tagged = read_tagged_code(text, start, TagSet(next_call, (_FUNCTION_END, closing)))
    bare = not tagged.code.lstrip().startswith("<parameter")
    return named_call(name, {"code": tagged.code} if bare else {}), tagged.end, tagged.closed


def _skip(text: str, at: int) -> int:
    blank = _BLANK.match(text, at)
    assert blank is not None
    return blank.end()


def _match(pattern: str, text: str, at: int) -> re.Match[str] | None:
    return re.compile(pattern).match(text, at)
