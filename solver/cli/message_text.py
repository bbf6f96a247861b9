"""The text of the messages that end a command: one short sentence in the user's own words."""

from __future__ import annotations

import re
from collections.abc import Mapping

from eightfold.common.error_text import one_line

MAX_CHARACTERS = 600
"""Length of a message, beyond which its middle is left out."""

_NO_OPTION = re.compile(r"max_step_tokens \(\d+\)(?:,| or) ")
"""A setting of the engine that messages about memory name, and that no option sets."""

_DIGITS = re.compile(r"\d{30,}")


def as_sentence(text: str) -> str:
    """Return `text` with one full stop at its end, unless it already ends a sentence.

    The first letter is left alone: it may begin the name of a file or an option.
    """
    text = text.strip()
    if text.endswith("..") and not text.endswith("..."):
        return text[:-1]  # a message that quotes a sentence
    return text if text.endswith((".", "!", "?")) else text + "."


def shorten_message(text: str) -> str:
    """Return the text as one line, with long numbers and a long middle left out."""
    text = _DIGITS.sub(
        lambda found: f"{found[0][:6]}...{found[0][-4:]} ({len(found[0])} digits)", text
    )
    return one_line(text, MAX_CHARACTERS)


def name_options(text: str, names: Mapping[str, str]) -> str:
    """Return the text with the options' names in place of the settings' names.

    `early_stop must be at least 0` becomes `--early-stop must be at least 0`, and `device='cpu'`
    becomes `--device cpu`. The entries of a JSON file keep their names.

    Args:
        text: a message of a configuration.
        names: the options' names, such as `--early-stop`, by those of their settings.
    """
    if "attempts" in names:  # which decide how many sequences run at the same time
        text = _NO_OPTION.sub("", text)
        names = {**names, "max_running": names["attempts"]}
    for field, option in names.items():
        name = rf"(?<![\w./-])(?<!\.json: ){re.escape(field)}"
        text = re.sub(rf"{name}=(['\"]?)([\w.-]+)\1(?<!\.)", rf"{option} \2", text)
        if "_" in field:
            text = re.sub(rf"{name}(?![\w/(=]|\.\w|-\w)", option, text)
        else:
            text = re.sub(rf"^{name}(?= must | \()", option, text)
            text = re.sub(rf"(?<=was run with ){name}(?= = )", option, text)
    return text.replace(" or None, not ", ", not ")  # None is an option that is not given
