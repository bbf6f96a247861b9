"""The tags between which models think.

A thought is text that neither answers nor calls, unless the turn ends in it. The opening may stand
in the prompt, so a closing without an opening ends a thought that began with the turn.
"""

from __future__ import annotations

import re

WORDS = ("think", "thinking", "thought", "thoughts", "reasoning", "scratchpad", "reflection")
"""Words of tags such as <think> ... </think>; any of them closes what another opened."""

PAIRS = (
    ("[THINK]", "[/THINK]"),
    ("<seed:think>", "</seed:think>"),
    ("<|START_THINKING|>", "<|END_THINKING|>"),
    ("<|begin_of_thought|>", "<|end_of_thought|>"),
    ("<|inner_prefix|>", "<|inner_suffix|>"),
    ("<longcat_think>", "</longcat_think>"),
    ("<mm:think>", "</mm:think>"),
    ("◁think▷", "◁/think▷"),
)
"""Tags that close only what the same kind opened."""

FINAL_CHANNELS = ("final", "answer", "response", "content")
"""Names of channels `<|channel>NAME ... <channel|>` that are no thoughts."""

_WORDS = "|".join(WORDS)
_CHANNEL = rf"<\|channel>(?!\s*(?:{'|'.join(FINAL_CHANNELS)})\b)"

OPENING = re.compile(
    "|".join(
        [rf"<(?i:{_WORDS})>", _CHANNEL, *(re.escape(opening) for opening, _ in PAIRS)],
    )
)
CLOSING = re.compile(
    "|".join([rf"</(?i:{_WORDS})>", r"<channel\|>", *(re.escape(closing) for _, closing in PAIRS)])
)
FINAL_OPENING = re.compile(rf"<\|channel>\s*(?:{'|'.join(FINAL_CHANNELS)})\b")


def closing_of(opening: str) -> re.Pattern[str]:
    """Return the pattern of the tags that close a thought which `opening` opened."""
    if opening.startswith("<|channel>"):
        return re.compile(r"<channel\|>")
    for start, end in PAIRS:
        if start == opening:
            return re.compile(re.escape(end))
    return re.compile(rf"</(?i:{_WORDS})>")


def open_thought(text: str) -> str:
    """Return the end of `text` from the start of a thought that is not closed, or ""."""
    at = 0
    while opening := OPENING.search(text, at):
        closing = closing_of(opening[0]).search(text, opening.end())
        if closing is None:
            return text[opening.start() :]
        at = closing.end()
    return ""
