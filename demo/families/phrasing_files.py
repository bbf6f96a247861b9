"""More phrasings of the families, in text files: one template a line below `# name of the family`.

They come before the last phrasing of their family, which is held out. The files are named after the
modules of the families.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

FOLDER = Path(__file__).parent / "phrasings"


def read_phrasings(folder: Path = FOLDER) -> Mapping[str, tuple[str, ...]]:
    """Return the templates of all files in a folder by the name of their family.

    Raises:
        ValueError: a template stands before the first name, or a name stands twice.
    """
    found: dict[str, list[str]] = {}
    for path in sorted(folder.glob("*.txt")):
        templates: list[str] | None = None
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            text = line.strip()
            if text.startswith("# "):
                name = text[2:].strip()
                if name in found:
                    raise ValueError(f"{path.name}, line {number}: {name} stands twice.")
                templates = found[name] = []
            elif text:
                if templates is None:
                    raise ValueError(f"{path.name}, line {number}: no '# name' stands above it.")
                templates.append(text)
    return {name: tuple(templates) for name, templates in found.items()}
