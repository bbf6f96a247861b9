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
from types import TracebackType

from eightfold.common.valid_text import escape_surrogates

TEXT_LIMIT = 6_000  # characters of a cell's text that reach the model
OUTPUT_LIMIT = 100_000  # characters that a cell may print before it is stopped
VALUE_LIMIT = 50_000  # characters of the last expression's value, and of a displayed object
MESSAGE_LIMIT = 800  # characters of an exception's message
LINE_LIMIT = 160  # characters of a source line in a traceback
END_FRAMES = 3  # frames shown at each end of a traceback
MAX_BLOCKS = 2_000  # blocks of a cell; `DISPLAY_COST` allows fewer
DISPLAY_COST = 200  # least number of characters charged for a displayed object

NO_OUTPUT = "(no output)"
TRACEBACK_HEADER = "Traceback (most recent call last):"
NO_INPUT = "input() is not available"

# Complete sequences that a terminal does not show: colors, moves of the cursor, modes, titles and
# links, and character sets. Anything else that begins with ESC is shown.
_ANSI = re.compile(
    r"\x1b(?:\[[0-9;:]*m|\[[0-9;]*[A-HJKSTfsu]|\[\?[0-9;]+[hl]"
    r"|\][0-9]{1,4};[^\x07\x1b\n]{0,2048}(?:\x07|\x1b\\)|\([0-9A-B])"
)
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_CONTROL_BYTES = bytes(number for number in range(0xA0) if _CONTROL.match(chr(number)))
_SPACES = "".join(
    char for char in map(chr, range(0x3001)) if char.isspace() and not _CONTROL.match(char)
)
_INTERRUPTED = ("KeyboardInterrupt", "CancelledError")
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
    """Return text as a terminal would leave it, in plain characters.

    Complete ANSI sequences are removed. Of a line that carriage returns overwrite, as progress bars
    do, the last state stays. Other control characters appear as escapes such as ``\\x1b``.
    """
    return _escape_controls(_final_state(text))


def _final_state(text: str) -> str:
    """Return text without complete ANSI sequences and without what was overwritten."""
    text = _ANSI.sub("", text)
    if "\r" in text:
        text = "\n".join(map(_last_state, text.split("\n")))
    return escape_surrogates(text)


def _escape_controls(text: str) -> str:
    return _CONTROL.sub(lambda match: f"\\x{ord(match[0]):02x}", text)


def _last_state(line: str) -> str:
    """Return what is left of a line once its carriage returns have been obeyed."""
    return line if "\r" not in line else line.rstrip("\r").rpartition("\r")[2]


BLOCK_MARK = "\x00"  # begins a block; cells cannot print it, as `OutputBudget` escapes it
_SHOWN_MARK = "\\x00"
_LONE_RETURN = re.compile(r"\r(?!\n)")


def block(text: str) -> str:
    """Mark `text` as a block, which `render` puts on lines of its own.

    A carriage return within it is shown: a message is no progress bar.
    """
    text = _LONE_RETURN.sub(r"\\r", text.replace(BLOCK_MARK, _SHOWN_MARK))
    return f"{BLOCK_MARK}{text}\n"


def join_blocks(raw_text: str) -> str:
    """Return raw text without marks: printed text unchanged, each block on lines of its own."""
    if raw_text.count(BLOCK_MARK) > MAX_BLOCKS:  # no cell's output, but what a cell forged
        raw_text = raw_text.replace(BLOCK_MARK, "")
    text, *blocks = raw_text.split(BLOCK_MARK)
    pieces, open_line = [text], bool(text) and not text.endswith("\n")
    for piece in blocks:
        pieces.append("\n" + piece if open_line else piece)
        open_line = bool(piece) and not piece.endswith("\n")
    return "".join(pieces)


def render(raw_text: str, limit: int = TEXT_LIMIT) -> str:
    """Return what the model reads for a cell's raw text: plain, truncated and never empty."""
    text = _final_state(join_blocks(raw_text)).rstrip(_SPACES)
    if not text:
        return NO_OUTPUT
    if len(text) <= 3 * limit or not _CONTROL.search(text):
        return truncate(_escape_controls(text), limit)
    # To escape all of a text of control characters would hold up the pool's process.
    head = limit * 3 // 5
    tail = limit - head
    plain = text.encode("latin-1", "replace")  # a byte for each character
    length = len(text) + 3 * (len(plain) - len(plain.translate(None, _CONTROL_BYTES)))
    start, end = _escape_controls(text[:head])[:head], _escape_controls(text[-tail:])[-tail:]
    return f"{start}\n{omission(length - limit)}\n{end}"


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
        if BLOCK_MARK in text:
            text = text.replace(BLOCK_MARK, _SHOWN_MARK)
        return escape_surrogates(text)

    def charge_displayed(self, text: str) -> str:
        """Charge the text of a displayed object and return it, truncated if it is long."""
        text = truncate_value(text, VALUE_LIMIT)
        text = escape_surrogates(text.replace(BLOCK_MARK, _SHOWN_MARK))
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


def bounded_name(name: object) -> str:
    """Return an exception's name as a kernel gave it, in plain characters and not too long."""
    return clean(truncate_value(str(name), LINE_LIMIT))


def without_interrupt(raw_text: str) -> tuple[str, str | None]:
    """Return raw text without the interrupt's own traceback, and the line that was running."""
    head, mark, tail = raw_text.rpartition(BLOCK_MARK)
    last = tail.rstrip().rpartition("\n")[2]
    if mark and last.startswith(_INTERRUPTED):
        return head, last_frame(tail)
    return raw_text, None
