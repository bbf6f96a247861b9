"""The settings file: a TOML table of options that a command takes unless they are given.

attempts = 16                # for every command that has the option
model = "models/gemma"

[evaluate]                   # for one command
early-stop = 0

[kaggle.rehearse]
out = "rehearsal"
"""

from __future__ import annotations

import argparse
import re
import tomllib
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from .argument_parser import ArgumentParser

DEFAULT_FILE = "eightfold.toml"
"""Name of the file that is read from the current folder."""

_NOT_SETTINGS = ("help", "version", "settings")


class SettingsError(Exception):
    """The settings file cannot be used; the message is a sentence."""


def apply_settings(root: ArgumentParser, leaf: ArgumentParser, arguments: Sequence[str]) -> None:
    """Make the values of the settings file the defaults of a command's options.

    Args:
        root: the parser of the program, which knows all commands.
        leaf: the parser of the command. It reports a file that cannot be used as wrong usage.
        arguments: the command's arguments, which may name the file.
    """
    try:
        path = _file_named(arguments)
        if path is None:
            return
        table = _read(path)
        words = leaf.prog.split()[1:]
        for key, value in _values_for(root, words, table, path).items():
            action = leaf.options()[key]
            default = _option_value(action, value, f"{path}: {key}")
            # What is given on the command line replaces a list, as it does any other value.
            if not (isinstance(action, argparse._AppendAction) and _is_given(key, arguments)):
                action.default, action.required = default, False
        leaf.set_defaults(settings=str(path))
    except SettingsError as error:
        if not {"-h", "--help"} & set(arguments):
            leaf.error(str(error))


def _file_named(arguments: Sequence[str]) -> Path | None:
    """Return the file that the arguments name, else the one in the current folder, else None."""
    finder = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    finder.add_argument("--settings")
    # argparse takes --set for --settings, as it is the only option that begins so.
    words = [re.sub(r"^--set(t|ti|tin|ting)?(?==|$)", "--settings", word) for word in arguments]
    try:
        named = finder.parse_known_args(words)[0].settings
    except argparse.ArgumentError:  # without a value, which the command's parser reports
        return None
    if named is not None:
        return Path(named).expanduser()
    default = Path(DEFAULT_FILE)
    return default if default.is_file() else None


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise SettingsError(
            f"The settings file {path} cannot be read ({error.strerror}); name another with "
            "--settings."
        ) from error
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise SettingsError(f"The settings file {path} is not valid TOML: {error}.") from error


def _values_for(
    root: ArgumentParser, words: Sequence[str], table: dict[str, Any], path: Path
) -> dict[str, Any]:
    """Return the values for a command: those of its own table come before the general ones.

    The whole file is checked, also what is for other commands.

    Args:
        root: the parser of the program.
        words: the command, such as ("kaggle", "rehearse").
        table: content of the file.
        path: the file.

    Raises:
        SettingsError: a name is not an option of any command, or not of that whose table it is in.
    """
    everywhere = {name for leaf in root.leaves() for name in leaf.options()} - {*_NOT_SETTINGS}
    values: dict[str, Any] = {}
    _collect(root, list(words), table, path, everywhere, values)
    return values


def _collect(
    parser: ArgumentParser,
    words: list[str] | None,
    table: dict[str, Any],
    path: Path,
    allowed: set[str],
    values: dict[str, Any],
) -> None:
    """Add the values of a table and its sub-tables; `words` is None if it is another command's."""
    commands = parser.commands()
    place = "" if parser.prog.count(" ") == 0 else f" in [{'.'.join(parser.prog.split()[1:])}]"
    for name, value in table.items():
        if name in commands:
            if not isinstance(value, dict):
                raise SettingsError(f"{path}: {name} must be a table, [{name}].")
        elif isinstance(value, dict) or name not in allowed:
            near = get_close_matches(name.replace("_", "-"), sorted(allowed | {*commands}), 1)
            hint = f"did you mean {near[0]}?" if near else "eightfold COMMAND --help lists them."
            raise SettingsError(f"{path}: {name}{place} is not the name of an option; {hint}")
    if words is not None:
        own = _leaf(parser, words).options()
        values.update({k: v for k, v in table.items() if k in own and not isinstance(v, dict)})
    for name, below in commands.items():
        if name in table:
            names = {one for leaf in below.leaves() for one in leaf.options()} - {*_NOT_SETTINGS}
            chosen = words[1:] if words and words[0] == name else None
            _collect(below, chosen, table[name], path, names, values)


def _leaf(parser: ArgumentParser, words: list[str]) -> ArgumentParser:
    for word in words:
        parser = parser.commands()[word]
    return parser


def _is_given(option: str, arguments: Sequence[str]) -> bool:
    return any(word.split("=")[0] == f"--{option}" for word in arguments)


def _option_value(action: argparse.Action, value: Any, name: str) -> Any:
    """Return an option's value, after checking it as the option itself would."""
    if isinstance(action, argparse._StoreTrueAction | argparse._StoreFalseAction):
        if not isinstance(value, bool):
            raise SettingsError(f"{name} must be true or false, not {value!r}.")
        return action.const if value else not action.const
    if isinstance(action, argparse._CountAction):
        if type(value) not in (int, bool) or value < 0:
            raise SettingsError(f"{name} must be a whole number of at least 0, not {value!r}.")
        return int(value)
    if isinstance(action, argparse._AppendAction):
        values = value if isinstance(value, list) else [value]
        if not all(isinstance(one, str) for one in values):
            raise SettingsError(f"{name} must be a list of texts, not {value!r}.")
        return values
    kinds: dict[Any, tuple[tuple[type, ...], str]] = {
        int: ((int,), "a whole number"),
        float: ((int, float), "a number"),
    }
    if callable(action.type) and action.type not in kinds:
        try:
            return action.type(value if isinstance(value, str) else repr(value))
        except argparse.ArgumentTypeError as error:
            raise SettingsError(f"{name} {error}.") from error
    kind = action.type if action.type in kinds else None
    types, meaning = kinds.get(kind, ((str,), "a text"))
    if isinstance(value, bool) or not isinstance(value, types):
        raise SettingsError(f"{name} must be {meaning}, not {value!r}.")
    if action.choices is not None and value not in action.choices:
        raise SettingsError(f"{name} must be one of {', '.join(action.choices)}, not {value!r}.")
    checked: Any = value
    return float(checked) if kind is float else checked
