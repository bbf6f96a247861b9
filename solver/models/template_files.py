"""Reads the chat templates of a model folder from all the files that may hold them.

Transformers reads fewer of them: chat_template.json only for processors, and a template in
tokenizer_config.json not if there are additional ones in files of their own.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from eightfold.engine.loading.model_folder import read_json
from eightfold.engine.model_errors import CheckpointError

DEFAULT = "default"
TOOL_USE = "tool_use"
"""Names of the templates that are used: the second one if it is there and tools are declared."""

TEMPLATE_FILE = "chat_template.jinja"
TEMPLATE_FOLDER = "additional_chat_templates"
JSON_FILES = ("tokenizer_config.json", "chat_template.json")


@dataclass(frozen=True)
class Templates:
    """The chat templates of a model folder.

    Attributes:
        texts: texts by name; the main one is called "default".
        faults: descriptions of the files that cannot be read, by path.
    """

    texts: dict[str, str]
    faults: dict[Path, str]


def read_templates(folder: Path) -> Templates:
    """Read a model folder's chat templates.

    The first of these files that holds a template of a name counts: chat_template.jinja and
    additional_chat_templates/NAME.jinja, tokenizer_config.json, chat_template.json.
    """
    texts: dict[str, str] = {}
    faults: dict[Path, str] = {}
    files = {DEFAULT: folder / TEMPLATE_FILE}
    for path in sorted((folder / TEMPLATE_FOLDER).glob("*.jinja")):
        files.setdefault(path.stem, path)
    for name, path in files.items():
        if name == DEFAULT and not path.is_symlink() and not path.exists():
            continue
        try:
            texts[name] = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            faults[path] = f"{path} cannot be read: {error}"
    for file in JSON_FILES:
        path = folder / file
        try:
            content = read_json(path).get("chat_template")
        except CheckpointError as error:
            if file != "tokenizer_config.json":  # whose faults the tokenizer reports
                faults[path] = str(error).rstrip(".")
            continue
        texts = _named(content) | texts
    return Templates(texts, faults)


def _named(content: Any) -> dict[str, str]:
    """Return the templates in an entry of a JSON file by name: one text, a list or a table."""
    if isinstance(content, str):
        return {DEFAULT: content}
    if isinstance(content, list):
        entries = [each for each in content if isinstance(each, dict)]
        content = {each.get("name"): each.get("template") for each in entries}
    if not isinstance(content, dict):
        return {}
    return {
        name: text
        for name, text in content.items()
        if isinstance(name, str) and isinstance(text, str)
    }
