"""Faulty versions of a program, as a model might write them; running them gives the real error."""

from __future__ import annotations

import re
from random import Random

from .families import Params


def drop_import(code: str, rng: Random) -> str | None:
    """Return the program without its imports."""
    lines = code.split("\n")
    kept = [line for line in lines if not line.startswith(("from ", "import "))]
    return "\n".join(kept) if len(kept) < len(lines) else None


def drop_bracket(code: str, rng: Random) -> str | None:
    """Return the program without its last closing bracket."""
    return code[:-1] if code.endswith(")") else None


def drop_colon(code: str, rng: Random) -> str | None:
    """Return the program without the colon at the end of one line."""
    ends = [m.start() for m in re.finditer(r":\n", code)]
    if not ends:
        return None
    at = rng.choice(ends)
    return code[:at] + code[at + 1 :]


def misspell_name(code: str, rng: Random) -> str | None:
    """Return the program with a letter missing in a name of its last line."""
    head, newline, last = code.rpartition("\n")
    names = [m for m in re.finditer(r"[a-z]{4,}", last) if m.group() != "print"]
    if not newline or not names:
        return None
    name = rng.choice(names)
    at = rng.randrange(name.start() + 1, name.end())
    return head + newline + last[:at] + last[at + 1 :]


def drop_line(code: str, rng: Random) -> str | None:
    """Return the program without one line."""
    lines = code.split("\n")
    if len(lines) < 3:
        return None
    del lines[rng.randrange(len(lines) - 1)]
    return "\n".join(lines)


def drop_characters(code: str, rng: Random) -> str | None:
    """Return the program without a few characters somewhere."""
    at = rng.randrange(len(code) - 4)
    return code[:at] + code[at + rng.randint(1, 4) :]


FAULTS = {
    drop_import: ("The import is missing.", "I forgot the import.", "The name must be imported."),
    drop_bracket: ("A bracket is missing.", "I must close the bracket."),
    drop_colon: ("A colon is missing.", "I forgot a colon."),
    misspell_name: ("A name is misspelled.", "I mistyped a name."),
    drop_line: ("There is an error. I write it again.", "Something is missing; once more."),
    drop_characters: (
        "There is an error. I write it again.",
        "The code has a mistake. I correct it.",
    ),
}
"""Each fault with what to think on seeing its error. Training data: the order matters too."""


def draw_fault(code: str, rng: Random) -> tuple[str, str] | None:
    """Return a faulty version of `code` and what to think on seeing its error.

    None if the fault that was drawn does not apply to this program.
    """
    make = rng.choice(list(FAULTS))
    made = make(code, rng)
    return None if made is None else (made, rng.choice(FAULTS[make]))


def replace_print(code: str, rng: Random) -> tuple[str, str] | None:
    """Return `code` with its last print turned into an assignment, and a print of that value.

    None if the program does not end with a print.
    """
    head, newline, last = code.rpartition("\n")
    if not last.startswith("print(") or not last.endswith(")"):
        return None
    name = rng.choice(("result", "answer", "value"))
    return f"{head}{newline}{name} = {last[6:-1]}", f"print({name})"


def miscopy_number(params: Params, rng: Random) -> Params | None:
    """Return the numbers with one digit of one of them wrong, missing or doubled.

    None if there is no number among them.
    """
    numbers = [name for name, value in params.items() if isinstance(value, int) and value >= 0]
    if not numbers:
        return None
    name = rng.choice(numbers)
    digits = str(params[name])
    at = rng.randrange(len(digits))
    how = rng.randrange(3)
    if how == 0:
        digits = digits[:at] + rng.choice("123456789") + digits[at + 1 :]
    elif how == 1 and len(digits) > 1:
        digits = digits[:at] + digits[at + 1 :]
    else:
        digits = digits[:at] + digits[at] + digits[at:]
    return {**params, name: int(digits)}
