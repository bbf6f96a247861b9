"""The text a model reads after a cell: its one format, made by plain functions.

A cell's text is, in this order: what it printed (stdout and stderr in their true order), the value
of its last expression, and, where it failed, a short traceback. The real kernel, the pool's client
and `inprocess.run_cell` all build their text here: training traces and live output are the same.

An error reads::

    Traceback (most recent call last):
      line 3: f(0)
      line 2, in f: return 1 / n
    ZeroDivisionError: division by zero

Only frames of the user's cells are listed: the first three and the last three.
"""

from __future__ import annotations

import linecache
import re
import traceback
from collections.abc import Callable, Iterable
from types import TracebackType

from eightfold.common.valid_text import escape_surrogates

TEXT_LIMIT = 6_000  # characters of a cell's text that reach the model
OUTPUT_LIMIT = 100_000  # characters a cell may print before it is stopped
VALUE_LIMIT = 50_000  # characters of an echoed value or of one displayed object
MESSAGE_LIMIT = 800  # characters of an exception's message
LINE_LIMIT = 160  # characters of a source line in a traceback
END_FRAMES = 3  # frames shown at each end of a traceback
DISPLAY_COST = 200  # a displayed object counts as at least this many characters

NO_OUTPUT = "(no output)"
HEADER = "Traceback (most recent call last):"
NO_INPUT = "input() is not available"

_ANSI = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|[@-Z\\-_])")
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")
_CELL_NAME = re.compile(r"<cell \d+>\Z")


class OutputLimit(BaseException):
    """Raised inside a cell that printed more than `OUTPUT_LIMIT` characters.

    A `BaseException`, so that ``except Exception`` in a printing loop does not swallow it.
    """


def left_out(count: int) -> str:
    """The mark that stands for `count` characters that were cut."""
    return f"[... {count} characters left out ...]"


def cut(text: str, limit: int = TEXT_LIMIT) -> str:
    """Keep 60 % of `limit` characters from the head and 40 % from the tail of a longer text."""
    if len(text) <= limit:
        return text
    head = limit * 3 // 5
    tail = limit - head
    dropped = len(text) - head - tail
    return f"{text[:head]}\n{left_out(dropped)}\n{text[len(text) - tail :]}"


def cut_value(text: str, limit: int) -> str:
    """As `cut`, within one line: for values and messages."""
    if len(text) <= limit:
        return text
    head = limit * 3 // 5
    tail = limit - head
    return text[:head] + left_out(len(text) - head - tail) + text[len(text) - tail :]


def clean(text: str) -> str:
    """`text` without ANSI escapes and control characters; carriage returns become line ends."""
    text = _ANSI.sub("", text.replace("\r\n", "\n").replace("\r", "\n"))
    return escape_surrogates(_CONTROL.sub("", text))


BLOCK = "\x00"  # starts a piece of its own; a cell cannot print it: `Budget.take` drops it


def block(text: str) -> str:
    """Mark `text` as a piece of its own for `render`: it starts and ends on a line's boundary."""
    return f"{BLOCK}{text}\n"


def join_pieces(transcript: str) -> str:
    """A transcript as one text: printed text as it came, each `block` on lines of its own."""
    text, *blocks = transcript.split(BLOCK)
    for piece in blocks:
        text += piece if not text or text.endswith("\n") else "\n" + piece
    return text


def render(transcript: str, limit: int = TEXT_LIMIT) -> str:
    """What the model reads of a cell's transcript: plain, cut in the middle, never empty."""
    text = clean(join_pieces(transcript)).rstrip()
    return cut(text, limit) if text else NO_OUTPUT


class Budget:
    """Counts the characters that one cell prints and shows."""

    def __init__(self, limit: int = OUTPUT_LIMIT) -> None:
        self.limit = limit
        self.used = 0

    def reset(self) -> None:
        """Start a new cell."""
        self.used = 0

    @property
    def exhausted(self) -> bool:
        return self.used > self.limit

    def take(self, text: str) -> str:
        """Charge `text` and return the part of it that may be sent."""
        room = self.limit - self.used
        self.used += len(text)
        if len(text) > room:
            text = f"{text[:room]}\n{left_out(len(text) - room)}\n" if room >= 0 else ""
        return escape_surrogates(text.replace(BLOCK, "") if BLOCK in text else text)

    def charge(self, text: str) -> str:
        """Charge a shown object; returns its text, cut where it is long."""
        text = cut_value(escape_surrogates(text.replace(BLOCK, "")), VALUE_LIMIT)
        self.used += max(len(text), DISPLAY_COST)
        return text

    def error(self) -> OutputLimit:
        return OutputLimit(f"more than {self.limit} characters printed; print less")


def is_cell_name(filename: str) -> bool:
    """Whether `filename` names the code of a cell."""
    return _CELL_NAME.match(filename) is not None


def cell_name(number: int) -> str:
    """The file name under which cell `number` is compiled."""
    return f"<cell {number}>"


def remember_source(name: str, source: str) -> None:
    """Let tracebacks and ``inspect`` find the source of the cell compiled as `name`."""
    lines = [line + "\n" for line in source.splitlines()]
    linecache.cache[name] = (len(source), None, lines, name)


def frame_line(name: str, current: str, line: int, function: str, source: str | None = None) -> str:
    """One frame of a traceback, in one line."""
    if source is None:
        source = linecache.getline(name, line)
    source = cut_value(source.strip(), LINE_LIMIT)
    where = f"line {line}" if name == current else f"earlier cell, line {line}"
    if function != "<module>":
        where += f", in {cut_value(function, LINE_LIMIT)}"
    return f"  {where}: {source}" if source else f"  {where}"


def user_frames(error: BaseException, tb: TracebackType | None, current: str) -> list[str]:
    """The frames of the user's cells, outermost first; for a syntax error also the faulty line."""
    lines: list[str] = []
    for frame, line in traceback.walk_tb(tb):
        if is_cell_name(frame.f_code.co_filename):
            lines.append(frame_line(frame.f_code.co_filename, current, line, frame.f_code.co_name))
    if isinstance(error, SyntaxError) and is_cell_name(error.filename or "") and error.lineno:
        lines.append(
            frame_line(error.filename or "", current, error.lineno, "<module>", error.text)
        )
    return lines


def exception_name(error: BaseException) -> str:
    """The name of its class, of sensible length, whatever a metaclass makes of it."""
    name: str = type.__dict__["__name__"].__get__(type(error))
    return escape_surrogates(cut_value(name, LINE_LIMIT))


def exception_line(error: BaseException) -> str:
    """``Name: message``; works also where the message cannot be made."""
    name = exception_name(error)
    try:
        message = str(error.msg if isinstance(error, SyntaxError) else error)
    except BaseException:
        return f"{name}: (its message could not be made)"
    message = cut_value(message, MESSAGE_LIMIT)
    return f"{name}: {message}" if message else name


def format_error(error: BaseException, current: str, tb: TracebackType | None = None) -> str:
    """The trimmed, plain traceback of `error` raised in the cell compiled as `current`."""
    if isinstance(error, MemoryError):
        return "MemoryError: the cell needed more memory than allowed"
    if isinstance(error, SystemExit):
        return exception_line(error)
    frames = user_frames(error, tb or error.__traceback__, current)
    if len(frames) > 2 * END_FRAMES:
        frames = [*frames[:END_FRAMES], "  ...", *frames[-END_FRAMES:]]
    head = [HEADER] if frames else []
    return "\n".join([*head, *frames, exception_line(error)])


def format_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    line: str | None = None,
) -> str:
    """A warning in one line; same signature as ``warnings.formatwarning``."""
    text = f"{category.__name__}: {cut_value(str(message), MESSAGE_LIMIT)}\n"
    return f"line {lineno}: {text}" if is_cell_name(filename) else text


def last_frame(traceback_text: str) -> str | None:
    """The innermost frame of a formatted traceback, without its indent: where it stopped."""
    frames = [line for line in traceback_text.splitlines() if line.startswith("  line ")]
    return frames[-1].strip() if frames else None


def _seconds(seconds: float) -> str:
    return f"{seconds:g} s"


def timeout_line(seconds: float, *, killed: bool, location: str | None = None) -> str:
    """What the model reads when a cell ran longer than `seconds`."""
    head = f"TimeoutError: the cell ran longer than {_seconds(seconds)}"
    if killed:
        return f"{head} and its process was killed. All variables are gone."
    return (
        f"{head} ({location}). Variables are kept." if location else f"{head}. Variables are kept."
    )


def cancelled_line(*, killed: bool) -> str:
    """What is said of a cell that was interrupted from outside."""
    tail = "All variables are gone." if killed else "Variables are kept."
    return f"Interrupted: the cell was stopped. {tail}"


def died_line(reason: str) -> str:
    """What the model reads when the process of its kernel ended within a cell."""
    return f"KernelDied: the Python process ended ({reason}). All variables are gone."


def replayed_line(count: int) -> str:
    """Said after a kill where the earlier successful cells were run again."""
    cells = "cell was" if count == 1 else "cells were"
    return f"{count} earlier successful {cells} run again."


class PrintStream:
    """A write-only text stream that hands permitted text to `emit`, within a `Budget`.

    Raises `OutputLimit` in the writing cell once the budget is spent.
    """

    encoding = "utf-8"
    errors = "backslashreplace"
    closed = False

    def __init__(self, budget: Budget, emit: Callable[[str], None]) -> None:
        self.budget = budget
        self.emit = emit

    def write(self, text: str) -> int:
        if not isinstance(text, str):
            raise TypeError(f"write() argument must be str, not {type(text).__name__}")
        allowed = self.budget.take(text)
        if allowed:
            self.emit(allowed)
        if self.budget.exhausted:
            raise self.budget.error()
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        pass

    def isatty(self) -> bool:
        return False

    def readable(self) -> bool:
        return False

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        raise OSError("this stream has no descriptor")
