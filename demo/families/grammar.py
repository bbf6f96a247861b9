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

_GIRLS = (
    "Anna Clara Emma Grace Ivy Kate Mia Olivia Rosa Tina Maria Priya Lucy Sofia Julia Alice "
    "Sarah Mary Nina Zoe Laura Ella Hannah Lily Eva Lena Amy Jane Susan Linda Karen Fatima "
    "Aisha Mei Yuki Elena Ana Carmen Jasmine Ruby Chloe Megan Rachel Beth Helen Diana Nora "
    "Marta Ines Leila Sana"
)
_BOYS = (
    "Ben David Felix Henry Jack Leo Noah Paul Sam Tom Ali Chen Omar Max Peter Bob John Jim "
    "Luke Mark Adam Eric Ryan Kevin Carlos Diego Juan Pedro Ivan Igor Hans Karl Otto Jonas Tim "
    "Nick Alex Daniel James Mike Robert Steve George Frank Raj Arjun Kenji Hassan Ahmed Liam "
    "Ethan Oscar"
)
PEOPLE = dict.fromkeys(_GIRLS.split(), "she") | dict.fromkeys(_BOYS.split(), "he")
"""First names of stories with their pronouns."""

CASES = {"she": ("her", "her", "herself"), "he": ("his", "him", "himself")}

_REGULAR = (
    "apple pencil book marble sticker cookie card stamp egg ticket balloon orange pen notebook "
    "flower shirt toy cupcake chair brick coin bottle shell muffin bead rose sweet button "
    "plate ball cap cake pear banana lemon melon carrot onion hat coat sock ring key map photo "
    "letter magazine comic magnet crayon cup mug spoon fork bowl towel pillow blanket candle "
    "lamp rope nail screw tile stone pebble acorn nut seed plant tulip tree bird duck goat "
    "chicken rabbit cow horse dog cat frog kite doll puzzle game chip donut bagel pizza pie "
    "biscuit pancake burger sweater ribbon badge medal poster postcard envelope eraser "
    "ruler folder bulb car bike tire boat robot block cube token point chocolate plum grape "
    "olive pumpkin sunflower binder jacket scarf glove"
)
THINGS = (
    *((word, word + "s") for word in _REGULAR.split()),
    ("candy", "candies"), ("sandwich", "sandwiches"), ("peach", "peaches"), ("leaf", "leaves"),
    ("brush", "brushes"), ("fish", "fish"), ("sheep", "sheep"), ("battery", "batteries"),
    ("cherry", "cherries"), ("potato", "potatoes"), ("strawberry", "strawberries"),
)  # fmt: skip
"""Things of stories, singular and plural."""

HOLDERS = (
    ("box", "boxes"), ("bag", "bags"), ("basket", "baskets"), ("shelf", "shelves"),
    ("packet", "packets"), ("jar", "jars"), ("crate", "crates"), ("row", "rows"),
    ("tray", "trays"), ("carton", "cartons"), ("pile", "piles"), ("album", "albums"),
    ("pack", "packs"), ("drawer", "drawers"), ("bucket", "buckets"), ("table", "tables"),
    ("bin", "bins"), ("case", "cases"), ("sack", "sacks"), ("cabinet", "cabinets"),
)  # fmt: skip
"""Containers of things in stories: singular and plural."""

MONEY = ("dollars", "euros", "coins", "pounds", "francs", "cents", "rupees", "dollars")
LENGTHS = ("cm", "m", "km", "inches", "feet", "meters", "centimeters", "units", "mm")
SHOPS = ("shop", "store", "market", "bakery", "bookshop", "supermarket", "kiosk")
DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")

_NAMES = tuple(PEOPLE)


def story_words(rng: Random) -> dict[str, str]:
    """Draw the words of a story: `who`, `he`, `items`, `boxes` and the others."""
    names = rng.sample(_NAMES, 3)
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
