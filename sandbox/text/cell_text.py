"""The text that a model reads after a cell, in its one format, made by plain functions.

A cell's text consists of what it printed (stdout and stderr in their true order), the value of its
last expression and, if it failed, a short traceback. The kernels, the pool and
`inprocess_cell.run_cell` all make their text here, so that training traces equal live output.

A traceback reads::

    Traceback (most recent call last):
      line 3: f(0)
      line 2, in f: return 1 / n
    ZeroDivisionError: division by zero

Only frames of the cells are listed, and of those the first three and the last three.

Text comes in two forms. Raw text is what a kernel writes to its shared text page; `block` marks
the pieces in it that have lines of their own. `render` makes the final text from it.

Module state: `remember_source` adds cells to `linecache.cache`, where Python's modules traceback
and inspect look for source code.
"""

from __future__ import annotations

import linecache
import re
import traceback
from collections.abc import Callable, Iterable
from types import TracebackType

from eightfold.common.valid_text import escape_surrogates

TEXT_LIMIT = 6_000  # characters of a cell's text that reach the model
OUTPUT_LIMIT = 100_000  # characters that a cell may print before it is stopped
VALUE_LIMIT = 50_000  # characters of the last expression's value, and of a displayed object
MESSAGE_LIMIT = 800  # characters of an exception's message
LINE_LIMIT = 160  # characters of a source line in a traceback
END_FRAMES = 3  # frames shown at each end of a traceback
DISPLAY_COST = 200  # least number of characters charged for a displayed object

NO_OUTPUT = "(no output)"
TRACEBACK_HEADER = "Traceback (most recent call last):"
NO_INPUT = "input() is not available"

_ANSI = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|[@-Z\\-_])")
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")
_CELL_NAME = re.compile(r"<cell \d+>\Z")


class OutputLimit(BaseException):
    """Raised in a cell that has printed more than `OUTPUT_LIMIT` characters.

    It is a `BaseException` so that ``except Exception`` in a printing loop does not swallow it.
    """


def omission(count: int) -> str:
    """Return the mark that replaces `count` characters."""
    return f"[... {count} characters left out ...]"


def truncate(text: str, limit: int = TEXT_LIMIT) -> str:
    """Shorten a longer text to `limit` characters, 60 % from its start and 40 % from its end."""
    if len(text) <= limit:
        return text
    head = limit * 3 // 5
    tail = limit - head
    dropped = len(text) - head - tail
    return f"{text[:head]}\n{omission(dropped)}\n{text[len(text) - tail :]}"


def truncate_value(text: str, limit: int) -> str:
    """Shorten like `truncate`, without line breaks around the mark: for values and messages."""
    if len(text) <= limit:
        return text
    head = limit * 3 // 5
    tail = limit - head
    return text[:head] + omission(len(text) - head - tail) + text[len(text) - tail :]


def clean(text: str) -> str:
    """Remove ANSI escapes and control characters; turn carriage returns into line ends."""
    text = _ANSI.sub("", text.replace("\r\n", "\n").replace("\r", "\n"))
    return escape_surrogates(_CONTROL.sub("", text))


BLOCK_MARK = "\x00"  # begins a block; cells cannot print it, as `OutputBudget` removes it


def block(text: str) -> str:
    """Mark `text` as a block, which `render` puts on lines of its own."""
    return f"{BLOCK_MARK}{text}\n"


def join_blocks(raw_text: str) -> str:
    """Return raw text without marks: printed text unchanged, each block on lines of its own."""
    text, *blocks = raw_text.split(BLOCK_MARK)
    for piece in blocks:
        text += piece if not text or text.endswith("\n") else "\n" + piece
    return text


def render(raw_text: str, limit: int = TEXT_LIMIT) -> str:
    """Return what the model reads for a cell's raw text: plain, truncated and never empty."""
    text = clean(join_blocks(raw_text)).rstrip()
    return truncate(text, limit) if text else NO_OUTPUT


class OutputBudget:
    """Counts the characters that one cell prints and displays.

    Args:
        limit: characters after which the budget is exhausted.
    """

    def __init__(self, limit: int = OUTPUT_LIMIT) -> None:
        self.limit = limit
        self.used = 0

    def reset(self) -> None:
        """Start a new cell."""
        self.used = 0

    @property
    def exhausted(self) -> bool:
        """True if the cell has used more than its limit."""
        return self.used > self.limit

    def charge_printed(self, text: str) -> str:
        """Charge printed text and return the part of it that may be shown."""
        room = self.limit - self.used
        self.used += len(text)
        if len(text) > room:
            text = f"{text[:room]}\n{omission(len(text) - room)}\n" if room >= 0 else ""
        return escape_surrogates(text.replace(BLOCK_MARK, "") if BLOCK_MARK in text else text)

    def charge_displayed(self, text: str) -> str:
        """Charge the text of a displayed object and return it, truncated if it is long."""
        text = truncate_value(escape_surrogates(text.replace(BLOCK_MARK, "")), VALUE_LIMIT)
        self.used += max(len(text), DISPLAY_COST)
        return text

    def error(self) -> OutputLimit:
        """Return the exception for a cell that has exhausted the budget."""
        return OutputLimit(f"more than {self.limit} characters printed; print less")


def is_cell_name(filename: str) -> bool:
    """Return whether `filename` is the name of a cell."""
    return _CELL_NAME.match(filename) is not None


def cell_name(number: int) -> str:
    """Return the file name under which cell `number` is compiled."""
    return f"<cell {number}>"


def remember_source(name: str, source: str) -> None:
    """Let tracebacks and ``inspect`` find the source code of a cell."""
    lines = [line + "\n" for line in source.splitlines()]
    linecache.cache[name] = (len(source), None, lines, name)


def frame_line(name: str, current: str, line: int, function: str, source: str | None = None) -> str:
    """Return one frame of a traceback, as one line.

    Args:
        name: the file name of the frame's code.
        current: the name of the cell that runs; frames of other cells are marked as earlier.
        line: the line number.
        function: the function's name.
        source: the line's source code; None looks it up.
    """
    if source is None:
        source = linecache.getline(name, line)
    source = truncate_value(source.strip(), LINE_LIMIT)
    location = f"line {line}" if name == current else f"earlier cell, line {line}"
    if function != "<module>":
        location += f", in {truncate_value(function, LINE_LIMIT)}"
    return f"  {location}: {source}" if source else f"  {location}"


def user_frames(error: BaseException, tb: TracebackType | None, current: str) -> list[str]:
    """Return the frames of cells, outermost first, and the faulty line of a syntax error."""
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
    """Return the name of the error's class, truncated; no metaclass can interfere."""
    name: str = type.__dict__["__name__"].__get__(type(error))
    return escape_surrogates(truncate_value(name, LINE_LIMIT))


def exception_line(error: BaseException) -> str:
    """Return ``Name: message``, even if making the message fails."""
    name = exception_name(error)
    try:
        message = str(error.msg if isinstance(error, SyntaxError) else error)
    except BaseException:
        return f"{name}: (its message could not be made)"
    message = truncate_value(message, MESSAGE_LIMIT)
    return f"{name}: {message}" if message else name


def format_error(error: BaseException, current: str, tb: TracebackType | None = None) -> str:
    """Return the short traceback of an error.

    Args:
        error: the exception.
        current: the name of the cell that raised it.
        tb: the traceback; None means the error's own.
    """
    if isinstance(error, MemoryError):
        return "MemoryError: the cell needed more memory than allowed"
    if isinstance(error, SystemExit):
        return exception_line(error)
    frames = user_frames(error, tb or error.__traceback__, current)
    if len(frames) > 2 * END_FRAMES:
        frames = [*frames[:END_FRAMES], "  ...", *frames[-END_FRAMES:]]
    head = [TRACEBACK_HEADER] if frames else []
    return "\n".join([*head, *frames, exception_line(error)])


def format_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    line: str | None = None,
) -> str:
    """Return a warning as one line; the parameters are those of ``warnings.formatwarning``."""
    text = f"{category.__name__}: {truncate_value(str(message), MESSAGE_LIMIT)}\n"
    return f"line {lineno}: {text}" if is_cell_name(filename) else text


def last_frame(traceback_text: str) -> str | None:
    """Return the innermost frame of a formatted traceback, which is the line that was running."""
    frames = [line for line in traceback_text.splitlines() if line.startswith("  line ")]
    return frames[-1].strip() if frames else None


def _seconds(seconds: float) -> str:
    return f"{seconds:g} s"


def timeout_line(seconds: float, *, killed: bool, location: str | None = None) -> str:
    """Return the line for a cell that ran longer than `seconds`; `location` is where it was."""
    head = f"TimeoutError: the cell ran longer than {_seconds(seconds)}"
    if killed:
        return f"{head} and its process was killed. All variables are gone."
    return (
        f"{head} ({location}). Variables are kept." if location else f"{head}. Variables are kept."
    )


def cancelled_line(*, killed: bool) -> str:
    """Return the line for a cell that was stopped from another thread."""
    tail = "All variables are gone." if killed else "Variables are kept."
    return f"Interrupted: the cell was stopped. {tail}"


def died_line(reason: str) -> str:
    """Return the line for a cell during which the kernel's process ended."""
    return f"KernelDied: the Python process ended ({reason}). All variables are gone."


def replayed_line(count: int) -> str:
    """Return the line that says how many cells were run again in a fresh process."""
    cells = "cell was" if count == 1 else "cells were"
    return f"{count} earlier successful {cells} run again."


class PrintStream:
    """A write-only text stream within a budget.

    Args:
        budget: what the cell may print.
        emit: called with the text that may be shown.
    """

    encoding = "utf-8"
    errors = "backslashreplace"
    closed = False

    def __init__(self, budget: OutputBudget, emit: Callable[[str], None]) -> None:
        self.budget = budget
        self.emit = emit

    def write(self, text: str) -> int:
        """Write text; raise `OutputLimit` once the budget is exhausted."""
        if not isinstance(text, str):
            raise TypeError(f"write() argument must be str, not {type(text).__name__}")
        allowed = self.budget.charge_printed(text)
        if allowed:
            self.emit(allowed)
        if self.budget.exhausted:
            raise self.budget.error()
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        """Write each of `lines`, without adding line ends."""
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        """Do nothing: there is no buffer."""

    def isatty(self) -> bool:
        """Return False."""
        return False

    def readable(self) -> bool:
        """Return False."""
        return False

    def writable(self) -> bool:
        """Return True."""
        return True

    def fileno(self) -> int:
        """Raise `OSError`, as a stream without a descriptor must."""
        raise OSError("this stream has no descriptor")
