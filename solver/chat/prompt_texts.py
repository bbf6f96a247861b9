"""Every sentence the solver says to a model, in one place, and a file that replaces them.

Imports neither torch nor transformers, so that training scripts can use exactly the solver's text.
"""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

MODEL_PROMPTS = "eightfold_prompts.toml"
"""A prompts file of this name inside a model folder is that model's default."""

PLACEHOLDERS = ("low", "high", "seconds", "characters")

# A name of several letters in braces that are no argument of a TeX command: \boxed{answer} is text.
_PLACEHOLDER = re.compile(r"(?<![\\A-Za-z}^_])\{([A-Za-z]{2,}(?:_[A-Za-z]+)*)\}")


class PromptError(ValueError):
    """A prompts file that cannot be used; the message is one sentence for the user."""


@dataclass(frozen=True)
class Prompts:
    """Texts with the placeholders {low}, {high}, {seconds}, {characters}; other braces stay.

    Attributes:
        system: the system message.
        tool: description of the tool `python` in the chat template's tool list.
        code: description of its only argument.
        fenced: added to the system message for checkpoints without a known tool-call format.
        nudge: the user turn after an answer without a valid box, sent at most once an attempt.
        malformed: the tool's output for a call that cannot be read; {reason} says why.
    """

    system: str = (
        "Solve the problem. The answer is an integer from {low} to {high}; take no remainder "
        "unless the problem asks for one. Use the python tool to compute and to check: one session "
        "for all calls, {seconds} seconds a call, output cut to {characters} characters; math, "
        "numpy, sympy, itertools, collections and mpmath are loaded. "
        "End with the answer in \\boxed{}."
    )
    tool: str = "Runs Python code and returns its output."
    code: str = "The code."
    fenced: str = (
        "To run Python, write one ```python block and end your turn; "
        "the next message is its output."
    )
    nudge: str = "Give only the final answer, an integer from {low} to {high}, as \\boxed{}."
    malformed: str = "ToolError: {reason}. Call the tool again."

    def filled(self, **values: object) -> Prompts:
        """A copy with each `{name}` of `values` replaced; text in other braces stays as it is."""
        texts = {field.name: getattr(self, field.name) for field in fields(self)}
        for name, value in values.items():
            texts = {key: text.replace("{" + name + "}", str(value)) for key, text in texts.items()}
        return Prompts(**texts)

    def python_tool(self) -> dict[str, Any]:
        """The tool `python` in the JSON schema form that chat templates read."""
        code = {"type": "string", "description": self.code}
        parameters = {"type": "object", "properties": {"code": code}, "required": ["code"]}
        function = {"name": "python", "description": self.tool, "parameters": parameters}
        return {"type": "function", "function": function}


def load_prompts(path: str | Path) -> Prompts:
    """Reads a TOML file whose keys are fields of `Prompts`; those left out keep their default.

    Raises:
        PromptError: no such file, not TOML, an unknown key, a value that is not text, or an unknown
            placeholder in it.
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
    known = [field.name for field in fields(Prompts)]
    for key, value in table.items():
        if key not in known:
            raise PromptError(
                f"The prompts file {path} has the unknown key {key!r}; "
                f"known are {', '.join(known)}."
            )
        if not isinstance(value, str):
            raise PromptError(f"The key {key!r} of the prompts file {path} must be text.")
        names = (*PLACEHOLDERS, "reason") if key == "malformed" else PLACEHOLDERS
        for name in _PLACEHOLDER.findall(value):
            if name not in names:
                raise PromptError(
                    f"The key {key!r} of the prompts file {path} has the unknown placeholder "
                    f"{{{name}}}; known are {', '.join('{' + known + '}' for known in names)}."
                )
    return replace(Prompts(), **table)


def prompts_for(model_dir: str | Path | None, override: str | Path | None = None) -> Prompts:
    """The prompts of a run: the user's file, else the one in the model's folder, else the default.

    Raises:
        PromptError: as `load_prompts`.
    """
    if override is not None:
        return load_prompts(override)
    if model_dir is not None and (Path(model_dir) / MODEL_PROMPTS).is_file():
        return load_prompts(Path(model_dir) / MODEL_PROMPTS)
    return Prompts()
