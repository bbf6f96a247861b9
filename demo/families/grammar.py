"""Templates made of interchangeable parts, and how one text is drawn from them.

In a template, ``[one|two|three]`` is replaced by one of its parts, which may contain groups
themselves; brackets around a text without ``|`` stay as they are. ``<rule>`` is replaced by a draw
from the shared rule of that name. ``{name}`` is a slot: a number or a word of the problem, or a
word of the story around it, drawn once for each text. Other braces stay as they are, so that
programs may contain sets and dicts.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from random import Random
from typing import Union

Node = Union[str, "tuple[Parsed, ...]"]
Parsed = tuple[Node, ...]

SLOT = re.compile(r"\{(\w+)\}")

RULES = {
    "find": "[Find|Determine|Compute|Calculate|Work out|Evaluate|Give|What is|Please find|Tell me|Figure out|Can you find]",
    "count": "[Count|Find the number of|Determine the number of|Compute how many there are of|How many are there of|What is the number of|Give the count of]",
    "mod": "[modulo|mod|when divided by|on division by|after division by]",
    "total": "[in total|altogether|in all|all together|overall|]",
    "now": "[now|at the end|afterwards|then|in the end|left over now|]",
    "whole": "[positive integers|natural numbers|whole numbers|positive whole numbers|numbers]",
    "ints": "[integers|numbers|whole numbers]",
    "incl": "[ inclusive|, inclusive|, both included| (inclusive)| including both ends|, endpoints included|]",
    "buys": "[buys|purchases|gets|picks up|pays for]",
    "has": "[has|owns|keeps|holds|starts with|begins with|possesses]",
    "rem": "[remainder|rest]",
    "divby": "[divisible by|a multiple of|evenly divisible by]",
    "multof": "[divisible by|multiples of|evenly divisible by]",
    "upto": "[up to|not exceeding|not greater than|no larger than|at most]",
    "below": "[below|less than|smaller than|under]",
}
"""Shared rules by name; a rule does not refer to another one."""

PEOPLE = {
    "Anna": "she", "Ben": "he", "Clara": "she", "David": "he", "Emma": "she", "Felix": "he",
    "Grace": "she", "Henry": "he", "Ivy": "she", "Jack": "he", "Kate": "she", "Leo": "he",
    "Mia": "she", "Noah": "he", "Olivia": "she", "Paul": "he", "Rosa": "she", "Sam": "he",
    "Tina": "she", "Tom": "he", "Maria": "she", "Ali": "he", "Chen": "he", "Priya": "she",
    "Lucy": "she", "Omar": "he", "Sofia": "she", "Max": "he", "Julia": "she", "Peter": "he",
    "Alice": "she", "Bob": "he", "John": "he", "Sarah": "she", "Mary": "she", "Jim": "he",
}  # fmt: skip
"""First names of stories with their pronouns."""

CASES = {"she": ("her", "her", "herself"), "he": ("his", "him", "himself")}

THINGS = (
    ("apple", "apples"), ("pencil", "pencils"), ("book", "books"), ("marble", "marbles"),
    ("sticker", "stickers"), ("cookie", "cookies"), ("card", "cards"), ("stamp", "stamps"),
    ("egg", "eggs"), ("ticket", "tickets"), ("candy", "candies"), ("balloon", "balloons"),
    ("orange", "oranges"), ("pen", "pens"), ("notebook", "notebooks"), ("flower", "flowers"),
    ("shirt", "shirts"), ("toy", "toys"), ("cupcake", "cupcakes"), ("chair", "chairs"),
    ("brick", "bricks"), ("coin", "coins"), ("bottle", "bottles"), ("shell", "shells"),
    ("sandwich", "sandwiches"), ("muffin", "muffins"), ("bead", "beads"), ("rose", "roses"),
    ("sweet", "sweets"), ("peach", "peaches"), ("button", "buttons"), ("plate", "plates"),
)  # fmt: skip
"""Things of stories, singular and plural."""

HOLDERS = (
    ("box", "boxes"), ("bag", "bags"), ("basket", "baskets"), ("shelf", "shelves"),
    ("packet", "packets"), ("jar", "jars"), ("crate", "crates"), ("row", "rows"),
    ("tray", "trays"), ("carton", "cartons"), ("pile", "piles"), ("album", "albums"),
)  # fmt: skip
"""What holds the things, singular and plural."""


MONEY = ("dollars", "euros", "coins", "pounds", "francs", "cents", "rupees", "dollars")
LENGTHS = ("cm", "m", "km", "inches", "feet", "meters", "centimeters", "units", "mm")
SHOPS = ("shop", "store", "market", "bakery", "bookshop", "supermarket", "kiosk")
DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")


def story_words(rng: Random) -> dict[str, str]:
    """Draw the words of a story: `who`, `he`, `items`, `boxes` and the others."""
    names = rng.sample(list(PEOPLE), 3)
    words = dict(zip(("who", "who2", "who3"), names, strict=True))
    for number in ("", "2"):
        pronoun = PEOPLE[words["who" + number]]
        his, him, himself = CASES[pronoun]
        words |= {f"he{number}": pronoun, f"his{number}": his, f"him{number}": him}
        words |= {f"He{number}": pronoun.title(), f"His{number}": his.title()}
        words[f"himself{number}"] = himself
    for number, (one, many) in zip(("", "2", "3"), rng.sample(THINGS, 3), strict=True):
        words |= {"item" + number: one, "items" + number: many}
    words["box"], words["boxes"] = rng.choice(HOLDERS)
    words |= {"money": rng.choice(MONEY), "length": rng.choice(LENGTHS)}
    words |= {"shop": rng.choice(SHOPS), "day": rng.choice(DAYS)}
    return words


@lru_cache(maxsize=8192)
def parse(template: str) -> Parsed:
    """Return a template as a sequence of texts and groups."""
    text = re.sub(r"<(\w+)>", lambda m: RULES.get(m[1], m[0]), template)
    parts, _ = _parse_parts(text, 0, top=True)
    return parts[0]


def _parse_parts(text: str, at: int, top: bool) -> tuple[list[Parsed], int]:
    """Parse parts separated by ``|`` up to the closing bracket, or all of the text at the top."""
    parts: list[list[Node]] = [[]]
    start = at
    while at < len(text):
        character = text[at]
        if character == "[":
            parts[-1].append(text[start:at])
            inner, end = _parse_parts(text, at + 1, top=False)
            if end >= len(text):  # never closed: an ordinary bracket, as of a half-open interval
                parts[-1].append("[")
                end = at
            elif len(inner) == 1:
                parts[-1] += ["[", *inner[0], "]"]
            else:
                parts[-1].append(tuple(inner))
            at = start = end + 1
            continue
        if not top and character == "]":
            break
        if not top and character == "|":
            parts[-1].append(text[start:at])
            parts.append([])
            start = at + 1
        at += 1
    parts[-1].append(text[start:at])
    return [tuple(part) for part in parts], at


def _draw(nodes: Parsed, rng: Random) -> str:
    """Return one text of parsed nodes."""
    return "".join(
        node if isinstance(node, str) else _draw(node[int(rng.random() * len(node))], rng)
        for node in nodes
    )


def draw_text(template: str, rng: Random) -> str:
    """Return the template with its groups drawn; slots stay."""
    return _draw(parse(template), rng)


def variants(template: str) -> int:
    """Return the number of texts that a template's groups give."""

    def count(nodes: Parsed) -> int:
        product = 1
        for node in nodes:
            if not isinstance(node, str):
                product *= sum(count(part) for part in node)
        return product

    return count(parse(template))


def fill_slots(template: str, params: Mapping[str, int | str]) -> str:
    """Return the template with its slots filled; a slot of an unknown name stays as it is."""
    return SLOT.sub(lambda m: str(params[m[1]]) if m[1] in params else m[0], template)
