"""Cuts one turn of a model's text into thoughts, calls, fenced blocks and plain text.

Grammar; the first mark that opens something wins, and what it opens is read to its own end, so that
a mark in a string of a call or in a block of code opens and closes nothing:

    turn    := (thought | channel | call | block | object | text)*
    thought := opening (call | block | object | text)* closing      `thought_tags.py`
    call    := as the family writes it                              the format's `read_call`
    block   := a fenced block                                       `code_fences.py`
    object  := a JSON object at the start of a line that names the tool    `json_calls.py`

In a thought only what is complete is a call or a block; its end goes before what is not.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from enum import StrEnum
from itertools import pairwise

from ..tool_call import Call, CallText, MalformedCall, checked_call
from . import code_fences, thought_tags
from .code_fences import FencedBlock
from .json_calls import OBJECT_START, read_object_call
from .python_code import block_code, is_python, meant_code, shows_code

Calls = tuple[Call | MalformedCall, ...]

_OUTPUT_LABEL = re.compile(
    r"\s*(?:[^\n]{0,60}\b(?:output|result|print|return|stdout)[^\n]{0,60}:[*_ ]*)?\s*",
    re.IGNORECASE,
)


class Kind(StrEnum):
    """The kind of a span of a turn."""

    TEXT = "text"
    CALL = "call"
    CODE = "code"
    OUTPUT = "output"


@dataclass(frozen=True)
class Span:
    """A piece of a turn.

    Attributes:
        kind: what it is.
        start, end: indices in the text.
        calls: calls in it.
        thought: number of the thought that it stands in, from 1; 0 outside.
        native: False for blocks and objects, which call only if they end the turn.
        stop: index at which the model is to be stopped, for complete blocks of Python.
        certain: False for a block of Python whose end could turn out to stand in a string.
        labeled: False for a block that is Python only by its content.
    """

    kind: Kind
    start: int
    end: int
    calls: Calls = ()
    thought: int = 0
    native: bool = False
    stop: int | None = None
    certain: bool = True
    labeled: bool = True


@dataclass
class Turn:
    """A turn that has been read.

    Attributes:
        text: the text.
        spans: its pieces, in order.
        thoughts: number of thoughts.
        open_thought: number of the thought that is not closed, or 0.
    """

    text: str
    spans: list[Span] = field(default_factory=list)
    thoughts: int = 0
    open_thought: int = 0

    def visible(self) -> str:
        """Return the text outside thoughts, calls, code and outputs.

        Boxes that these part do not stand in one line.
        """
        visible, end = "", 0
        for span in self._shown():
            if span.kind is Kind.TEXT:
                text = self.text[span.start : span.end]
                parted = span.start > end and "boxed" in visible and "boxed" in text
                visible += "\n" * parted + text
                end = span.end
        return visible

    def calls(self) -> list[Call | MalformedCall]:
        """Return the calls that are to run.

        Calls outside closed thoughts run. Blocks and objects run if no other call does and no box
        follows the last of them, unless the model has invented an output. What stands in a closed
        thought is a draft, unless the turn has nothing else.
        """
        live = [span for span in self.spans if span.thought in (0, self.open_thought)]
        if not any(span.calls for span in live) and not self._plain(self._shown()).strip():
            last = max((span.thought for span in self.spans if span.calls), default=0)
            live = [span for span in self.spans if span.thought == last]
        native = [call for span in live if span.native for call in span.calls]
        if native:
            return native
        last_call = max((i for i, span in enumerate(live) if span.calls), default=-1)
        solid = [span for span in live if self._plain([span]).strip() or span.kind != Kind.TEXT]
        invented = any(span.calls and after.kind is Kind.OUTPUT for span, after in pairwise(solid))
        if "\\boxed" in self._plain(live[last_call + 1 :]) and not invented:
            return []
        return [call for span in live for call in span.calls]

    def code_end(self) -> int | None:
        """Return where the model is to be stopped: behind the first complete block of Python.

        A turn in which a call of the family's own form comes first ends by itself.
        """
        for span in self._shown():
            if not span.certain or (span.native and span.calls):
                return None
            if span.stop is not None:
                return span.stop
        return None

    def _shown(self) -> list[Span]:
        return [span for span in self.spans if not span.thought]

    def _plain(self, spans: list[Span]) -> str:
        texts = [self.text[s.start : s.end] for s in spans if s.kind is Kind.TEXT]
        return "".join(texts)


class TurnReader:
    """Reads turns of a family.

    Args:
        call_mark: pattern of the marks that open a call in the family's own form.
        read_call: returns the call at such a mark, given the text and the mark's index; None if the
            mark is only mentioned.
    """

    def __init__(
        self, call_mark: str | None, read_call: Callable[[str, int], CallText | None]
    ) -> None:
        self._read_call = read_call
        marks = {
            "call": call_mark,
            "final": thought_tags.FINAL_OPENING.pattern,
            "opening": thought_tags.OPENING.pattern,
            "closing": thought_tags.CLOSING.pattern,
            "fence": "`{3,}|~{3,}",
            "object": OBJECT_START,
        }
        self._marks = re.compile("|".join(f"(?P<{k}>{mark})" for k, mark in marks.items() if mark))

    def read(self, text: str, ended: bool) -> Turn:
        """Return the spans of a turn.

        Args:
            text: the turn, with the opening of a thought that the prompt left open, and without
                its end token.
            ended: True if the model has ended the turn by itself, so that a call whose closing is
                missing is complete.
        """
        turn = Turn(text)
        at = position = 0  # beginning of the text that no span holds yet; where to search
        thought, final = "", False  # opening of the current thought; in a final channel
        while mark := self._marks.search(text, position):
            kind, position = mark.lastgroup, mark.end()
            if kind == "closing" and final:
                _add_text(turn, at, mark.start(), 0)
                final = False
            elif kind == "closing" and not thought:
                # The thought's opening stands in the prompt, or is missing.
                turn.thoughts += 1
                _add_text(turn, at, mark.start(), 0)
                turn.spans = [
                    span if span.thought else replace(span, thought=turn.thoughts)
                    for span in turn.spans
                ]
            elif kind == "closing":
                if not thought_tags.closing_of(thought).fullmatch(mark[0]):
                    continue
                _add_text(turn, at, mark.start(), turn.thoughts)
                thought = ""
            elif kind == "final":
                _add_text(turn, at, mark.start(), turn.thoughts if thought else 0)
                thought, final = "", True
            elif kind == "opening":
                if thought:
                    continue
                _add_text(turn, at, mark.start(), 0)
                turn.thoughts += 1
                thought = mark[0]
            else:
                span = self._span(text, mark, ended)
                if span is None or (thought and _crosses(text, span, thought)):
                    continue
                number = turn.thoughts if thought else 0
                if _is_output(turn, span, at):
                    span = Span(Kind.OUTPUT, at, span.end)
                _add_text(turn, at, span.start, number)
                turn.spans.append(replace(span, thought=number))
                position = span.end
            at = position
        turn.open_thought = turn.thoughts if thought else 0
        _add_text(turn, at, len(text), turn.open_thought)
        return turn

    def _span(self, text: str, mark: re.Match[str], ended: bool) -> Span | None:
        """Return what opens at a mark, or None if the mark opens nothing."""
        if mark.lastgroup == "fence":
            return self._block(text, mark.start(), ended)
        native = mark.lastgroup == "call"
        read = (
            self._read_call(text, mark.start()) if native else read_object_call(text, mark.start())
        )
        if read is None:
            return None
        calls = tuple(_meant(call) for call in read.calls)
        if not read.closed and read.end == len(text) and not ended:
            calls = (*calls[:-1], MalformedCall("the call is not closed"))
        return Span(Kind.CALL, mark.start(), read.end, calls, native=native)

    def _block(self, text: str, at: int, ended: bool) -> Span | None:
        line = text.rfind("\n", 0, at) + 1
        opening = code_fences.OPENING.match(text, line)
        if opening is None or opening.start("fence") != at:
            opening = code_fences.OPENING.match(text, at)
        block = code_fences.read_block(text, opening) if opening else None
        if block is None:
            inline = code_fences.INLINE.match(text, at)
            if inline is None or not shows_code(inline["code"]):
                return None
            return Span(Kind.CODE, at, inline.end(), (checked_call(inline["code"]),))
        if block.language == "output":
            return Span(Kind.OUTPUT, block.start, block.end)
        if block.language != "python":
            inner = self._calls_in(block, ended)
            if not block.language and block.closed and not inner and shows_code(block.content):
                inner = (checked_call(block.content),)
                return Span(Kind.CODE, at, block.end, inner, labeled=False)
            return Span(Kind.CALL if inner else Kind.TEXT, block.start, block.end, inner)
        calls: Calls = (MalformedCall("the block is not closed"),)
        if block.closed or ended:
            calls = self._calls_in(block, ended) or (checked_call(block_code(block.content)),)
        stop = block.stop if block.closed and isinstance(calls[-1], Call) else None
        return Span(Kind.CODE, block.start, block.end, calls, stop=stop, certain=block.certain)

    def _calls_in(self, block: FencedBlock, ended: bool) -> Calls:
        """Return the calls that a block consists of, or begins with if it is no Python."""
        if not block.closed and not ended:
            return ()
        mark = self._marks.match(block.content.strip())
        if mark is None or mark.lastgroup not in ("call", "object"):
            return ()
        inner = self.read(block.content.strip(), True)
        if block.language == "python" and inner.visible().strip():
            return ()
        return tuple(call for span in inner.spans if span.kind is Kind.CALL for call in span.calls)


def _meant(call: Call | MalformedCall) -> Call | MalformedCall:
    """Return a call with the code that was meant by its string."""
    if isinstance(call, MalformedCall):
        return call
    block = code_fences.only_block(call.code)
    return checked_call(meant_code(block.content if block else call.code))


def _is_output(turn: Turn, block: Span, at: int) -> bool:
    """Return True if a block shows the output of the code that ends at `at`, just in front."""
    follows = bool(turn.spans) and turn.spans[-1].kind is Kind.CODE and turn.spans[-1].end == at
    return (
        follows
        and (block.kind is Kind.TEXT or not block.labeled)
        and _OUTPUT_LABEL.fullmatch(turn.text, at, block.start) is not None
        and "\\boxed" not in turn.text[block.start : block.end]
    )


def _add_text(turn: Turn, start: int, end: int, thought: int) -> None:
    if start < end:
        turn.spans.append(Span(Kind.TEXT, start, end, thought=thought))


def _crosses(text: str, span: Span, thought: str) -> bool:
    """Return True if the thought's closing ends it within `span`, which is thus no call."""
    closing = thought_tags.closing_of(thought).search(text, span.start)
    if closing is None or closing.start() >= span.end:
        return False
    codes = [call.code for call in span.calls if isinstance(call, Call)]
    return not codes or len(codes) < len(span.calls) or not all(map(is_python, codes))
