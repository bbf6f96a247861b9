"""The accepted paraphrases, split into those for training and those that are held out."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Mapping
from functools import cache
from pathlib import Path

FILE = Path(__file__).parent / "accepted.jsonl.gz"

HELD_OUT_SHARE = 10
"""One in this many paraphrases is held out."""


def is_held_out_text(template: str) -> bool:
    """Return True if a paraphrase is kept out of training."""
    return zlib.crc32(template.lower().encode()) % HELD_OUT_SHARE == 0


@cache
def paraphrases(held_out: bool) -> Mapping[str, tuple[str, ...]]:
    """Return the templates of one side of the split by the name of their family."""
    found: dict[str, list[str]] = {}
    if not FILE.is_file():
        return {}
    with gzip.open(FILE, "rt", encoding="utf-8") as file:
        for line in file:
            row = json.loads(line)
            if is_held_out_text(row["template"]) == held_out:
                found.setdefault(row["family"], []).append(row["template"])
    return {name: tuple(templates) for name, templates in found.items()}
