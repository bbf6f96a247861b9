"""All sentences that the solver sends to a model, and the TOML file that can replace them.

Imports neither torch nor transformers, so that training scripts can use exactly these texts.
"""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

MODEL_PROMPTS = "eightfold_prompts.toml"
"""Name of the prompts file that a model folder may hold; it is the default for that model."""

PLACEHOLDERS = ("low", "high", "seconds", "characters")

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

    def filled(self, **values: object) -> Prompts:
        """Return a copy in which each `{name}` of `values` is replaced; other braces stay."""
        texts = {field.name: getattr(self, field.name) for field in fields(self)}
        for name, value in values.items():
            texts = {key: text.replace("{" + name + "}", str(value)) for key, text in texts.items()}
        return Prompts(**texts)

    def python_tool(self) -> dict[str, Any]:
        """Return the declaration of the tool `python`, in the JSON schema of chat templates."""
        code = {"type": "string", "description": self.code}
        parameters = {"type": "object", "properties": {"code": code}, "required": ["code"]}
        function = {"name": "python", "description": self.tool, "parameters": parameters}
        return {"type": "function", "function": function}


def load_prompts(path: str | Path) -> Prompts:
    """Read a TOML file whose keys are fields of `Prompts`; missing keys keep their default.

    Raises:
        PromptError: if the file is missing, unreadable or not TOML, if a key or a placeholder is
            unknown, or if a value is not text.
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
                f"known keys are {', '.join(known)}."
            )
        if not isinstance(value, str):
            raise PromptError(f"The key {key!r} of the prompts file {path} must be text.")
        names = (*PLACEHOLDERS, "reason") if key == "malformed" else PLACEHOLDERS
        for name in _PLACEHOLDER.findall(value):
            if name not in names:
                raise PromptError(
                    f"The key {key!r} of the prompts file {path} has the unknown placeholder "
                    f"{{{name}}}; known placeholders are "
                    f"{', '.join('{' + known + '}' for known in names)}."
                )
    return replace(Prompts(), **table)


def prompts_for(model_dir: str | Path | None, override: str | Path | None = None) -> Prompts:
    """Return the prompts of a run: the user's file, else the model folder's, else the defaults.

    Raises:
        PromptError: if `load_prompts` cannot use the file.
    """
    if override is not None:
        return load_prompts(override)
    if model_dir is not None and (Path(model_dir) / MODEL_PROMPTS).is_file():
        return load_prompts(Path(model_dir) / MODEL_PROMPTS)
    return Prompts()
