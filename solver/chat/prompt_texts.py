"""All sentences that the solver sends to a model, and the TOML file that can replace them.

A chat format takes one of two sets of texts, `PROMPT_SETS`; a file replaces any of them.

Imports neither torch nor transformers, so that training scripts can use exactly these texts.
"""

from __future__ import annotations

import hashlib
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

MODEL_PROMPTS = "eightfold_prompts.toml"
"""Name of the prompts file that a model folder may hold; it is the default for that model."""

DEFAULTS_KEY = "defaults"
"""Key of a prompts file that names the set from which the texts come that it does not replace."""

PLACEHOLDERS = ("low", "high", "seconds", "characters")
OWN_PLACEHOLDERS = {"malformed": ("reason",), "repeated": ("count",)}
"""Placeholders that one text alone may have."""

# A name of several letters in braces, unless TeX reads it as an argument, as in \boxed{answer}.
_PLACEHOLDER = re.compile(r"(?<![\\A-Za-z}^_])\{([A-Za-z]{2,}(?:_[A-Za-z]+)*)\}")


class PromptError(ValueError):
    """The prompts file cannot be used; the message is a sentence for the user."""


@dataclass(frozen=True)
class Prompts:
    """Texts with the placeholders {low}, {high}, {seconds} and {characters}; other braces stay.

    Attributes:
        system: system message.
        tool: description of the tool `python` in the chat template's list of tools; if empty, the
            template is given no tool, and `fenced` describes it.
        code: description of the tool's only argument.
        plain: system message of attempts without the tool.
        request: addition to the user's message behind the problem; small models heed it more than
            the system message.
        opening: text with which the model's first turn begins, as if it had written it.
        fenced: addition to the system message if the chat template is given no tool.
        nudge: user turn after an answer without a valid box, sent at most once in an attempt.
        malformed: output of the tool for a call that cannot be read; {reason} is the reason.
        repeated: addition to the output of a call that fails as it has failed before; {count} is
            the number of times.
    """

    system: str = (
        "Solve the problem. The answer is an integer from {low} to {high}; take no remainder "
        "unless the problem asks for one. Use the python tool to compute and to check: one session "
        "for all calls, {seconds} seconds a call, output cut to {characters} characters; math, "
        "numpy, sympy, itertools, collections and mpmath are loaded. "
        "End with the answer in \\boxed{}."
    )
    plain: str = (
        "Solve the problem. The answer is an integer from {low} to {high}; take no remainder "
        "unless the problem asks for one. Reason step by step. "
        "End with the answer in \\boxed{}."
    )
    tool: str = "Runs Python code and returns its output."
    code: str = "The code."
    request: str = ""
    opening: str = ""
    fenced: str = (
        "To run Python, write one ```python block and end your turn; "
        "the next message is its output."
    )
    nudge: str = "Give only the final answer, an integer from {low} to {high}, as \\boxed{}."
    malformed: str = "ToolError: {reason}. Call the tool again."
    repeated: str = (
        "This has failed {count} times in the same way. Do not repeat it: run other Python code, "
        "or end with the answer in \\boxed{}."
    )

    def filled(self, **values: object) -> Prompts:
        """Return a copy in which each `{name}` of `values` is replaced; other braces stay."""
        texts = {key: getattr(self, key) for key in KEYS}
        for name, value in values.items():
            texts = {key: text.replace("{" + name + "}", str(value)) for key, text in texts.items()}
        return Prompts(**texts)

    def over(self, default_set: str) -> Prompts:
        """Return these texts, which leave none to the defaults; see `PromptChanges.over`."""
        return self

    def described(self, default_set: str) -> str:
        """Return a sentence about where the texts come from; see `PromptChanges.described`."""
        return "All texts of the prompt are given."

    def python_tool(self) -> dict[str, Any]:
        """Return the declaration of the tool `python`, in the JSON schema of chat templates."""
        code = {"type": "string", "description": self.code}
        parameters = {"type": "object", "properties": {"code": code}, "required": ["code"]}
        function = {"name": "python", "description": self.tool, "parameters": parameters}
        return {"type": "function", "function": function}


KEYS = tuple(one.name for one in fields(Prompts))
"""Keys of the texts in a prompts file."""

STANDARD, PROGRAM_FIRST = "standard", "program first"

PROMPT_SETS = {
    STANDARD: Prompts(),
    PROGRAM_FIRST: Prompts(
        system=(
            "Solve the problem with Python. The answer is an integer from {low} to {high}. The "
            "code that you write is run, and its output follows it. End with the answer in "
            "\\boxed{}."
        ),
        tool="",
        fenced="",
        request=(
            "Write a Python program that computes the answer and prints it. After its output, "
            "give the answer in \\boxed{}."
        ),
    ),
}
"""Sets of default texts. The one that asks for a program first serves models that write no thoughts
(docs/accuracy.md has the figures)."""


def sets_digest() -> str:
    """Return a digest of all sets, by which a run recognizes that their texts have changed."""
    return hashlib.blake2b(repr(PROMPT_SETS).encode(), digest_size=8).hexdigest()


@dataclass(frozen=True)
class PromptChanges:
    """Texts that replace those of a chat format's set.

    Attributes:
        texts: texts by their keys.
        default_set: name of the set for all other texts; None leaves the choice to the format.
        source: file that the texts are from; None if there is none.
        values: values of the placeholders.
    """

    texts: Mapping[str, str] = field(default_factory=dict)
    default_set: str | None = None
    source: Path | None = None
    values: Mapping[str, object] = field(default_factory=dict)

    def filled(self, **values: object) -> PromptChanges:
        """Return a copy that has these values for placeholders."""
        return replace(self, values={**self.values, **values})

    def over(self, default_set: str) -> Prompts:
        """Return all texts, with the placeholders that have values filled in.

        Args:
            default_set: name of the set that the chat format takes.
        """
        defaults = PROMPT_SETS[self.default_set or default_set]
        return replace(defaults, **self.texts).filled(**self.values)

    def described(self, default_set: str) -> str:
        """Return a sentence about where the texts come from.

        Args:
            default_set: name of the set that the chat format takes.
        """
        chosen = self.default_set or default_set
        if not self.texts:
            return f"The prompt is the {chosen} one."
        return f"The prompt is the {chosen} one, with {', '.join(self.texts)} from {self.source}."


def load_prompts(path: str | Path) -> PromptChanges:
    """Read a TOML file whose keys are fields of `Prompts`, or "defaults" for the name of a set.

    Raises:
        PromptError: if the file is missing, unreadable or not TOML, if a key, a set or a
            placeholder is unknown, or if a value is not text.
    """
    path = Path(path)
    if not path.is_file():
        raise PromptError(f"There is no prompts file {path}; give the path of a TOML file.")
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise PromptError(f"The prompts file {path} is not valid TOML: {error}.") from error
    except OSError as error:
        raise PromptError(f"The prompts file {path} cannot be read: {error.strerror}.") from error
    for key, value in table.items():
        _check_text(path, key, value)
    default_set = table.pop(DEFAULTS_KEY, None)
    if default_set is not None and default_set not in PROMPT_SETS:
        raise PromptError(
            f"The prompts file {path} has the unknown defaults {default_set!r}; "
            f"known are {' and '.join(PROMPT_SETS)}."
        )
    return PromptChanges(table, default_set, path)


def _check_text(path: Path, key: str, value: Any) -> None:
    """Raise a `PromptError` unless a key of a prompts file and its value can be used."""
    if key not in (*KEYS, DEFAULTS_KEY):
        raise PromptError(
            f"The prompts file {path} has the unknown key {key!r}; "
            f"known keys are {', '.join(KEYS)} and {DEFAULTS_KEY}."
        )
    if not isinstance(value, str):
        raise PromptError(f"The key {key!r} of the prompts file {path} must be text.")
    names = (*PLACEHOLDERS, *OWN_PLACEHOLDERS.get(key, ()))
    for name in _PLACEHOLDER.findall(value):
        if name not in names:
            raise PromptError(
                f"The key {key!r} of the prompts file {path} has the unknown placeholder "
                f"{{{name}}}; known placeholders are "
                f"{', '.join('{' + known + '}' for known in names)}."
            )


def prompts_for(model_dir: str | Path | None, override: str | Path | None = None) -> PromptChanges:
    """Return what replaces a format's texts: the user's file, else the model folder's, or nothing.

    Raises:
        PromptError: if `load_prompts` cannot use the file.
    """
    if override is not None:
        return load_prompts(override)
    if model_dir is not None and (Path(model_dir) / MODEL_PROMPTS).is_file():
        return load_prompts(Path(model_dir) / MODEL_PROMPTS)
    return PromptChanges()
