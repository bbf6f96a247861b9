"""Writes a call of the tool in each form that models use, as the models would."""

from __future__ import annotations

import json
from collections.abc import Callable


def as_json(name_key: str, arguments_key: str, code: str) -> str:
    """Return the JSON object of a call."""
    return json.dumps({name_key: "python", arguments_key: {"code": code}}, ensure_ascii=False)


def fenced(language: str, content: str) -> str:
    """Return a fenced block; the content ends its last line."""
    return f"```{language}\n{content}\n```"


def glm(code: str) -> str:
    value = f"<arg_key>code</arg_key>\n<arg_value>{code}</arg_value>"
    return f"<tool_call>python\n{value}\n</tool_call>"


def xml(envelope: str, code: str) -> str:
    function = f"<function=python>\n<parameter=code>\n{code}\n</parameter>\n</function>"
    return f"<{envelope}>\n{function}\n</{envelope}>"


def deepseek(head: str, arguments: str) -> str:
    call = f"<｜tool▁call▁begin｜>{head}{arguments}<｜tool▁call▁end｜>"
    return f"<｜tool▁calls▁begin｜>{call}<｜tool▁calls▁end｜>"


WRITERS: dict[str, tuple[str, Callable[[str], str]]] = {
    "gemma4": (
        "gemma4",
        lambda code: f'<|tool_call>call:python{{code:<|"|>{code}<|"|>}}<tool_call|>',
    ),
    "gemma4 with JSON": (
        "gemma4",
        lambda code: f"<|tool_call>call:python{json.dumps({'code': code})}<tool_call|>",
    ),
    "hermes": (
        "hermes",
        lambda code: f"<tool_call>\n{as_json('name', 'arguments', code)}\n</tool_call>",
    ),
    "hermes in Python": (
        "hermes",
        lambda code: (
            f"<tool_call>\n{ {'name': 'python', 'arguments': {'code': code}} }\n</tool_call>"
        ),
    ),
    "hermes, encoded twice": (
        "hermes",
        lambda code: f"<tool_call>{json.dumps(as_json('name', 'arguments', code))}</tool_call>",
    ),
    "hermes in a list": (
        "hermes",
        lambda code: f"<tool_call>[{as_json('name', 'arguments', code)}]</tool_call>",
    ),
    "XML": ("hermes", lambda code: xml("tool_call", code)),
    "XML of Seed": ("hermes", lambda code: xml("seed:tool_call", code)),
    "glm": ("glm", glm),
    "mistral": ("mistral", lambda code: f"[TOOL_CALLS] [{as_json('name', 'arguments', code)}]"),
    "mistral, named": (
        "mistral",
        lambda code: f"[TOOL_CALLS]python[ARGS]{json.dumps({'code': code})}",
    ),
    "llama3": ("llama3", lambda code: f"<|python_tag|>{code}"),
    "llama3 in JSON": ("llama3", lambda code: as_json("name", "parameters", code)),
    "deepseek": (
        "deepseek",
        lambda code: deepseek(
            "function<｜tool▁sep｜>python\n", fenced("json", json.dumps({"code": code}))
        ),
    ),
    "deepseek, bare": (
        "deepseek",
        lambda code: deepseek("python<｜tool▁sep｜>", json.dumps({"code": code})),
    ),
    "command": (
        "command",
        lambda code: (
            f"<|START_ACTION|>[\n    {as_json('tool_name', 'parameters', code)}\n]<|END_ACTION|>"
        ),
    ),
    "JSON in a fence": (
        "fenced",
        lambda code: fenced("json", as_json("name", "arguments", code)) + "\n",
    ),
    "bare JSON": ("fenced", lambda code: "\n" + as_json("function", "arguments", code) + "\n"),
}
"""Format whose tokenizer reads it, and the writer, by a name."""
