"""Chat templates are read from all files that may hold them; one that fails blocks none (8 s)."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from helpers.solver_cases.hub_caches import model_files

from eightfold.solver import SolverError
from eightfold.solver.chat.chat_protocol import ProtocolError
from eightfold.solver.chat.prompt_texts import Prompts
from eightfold.solver.model_defaults import bundled_model
from eightfold.solver.models.template_files import read_templates
from eightfold.solver.models.tokenizer_loading import load_tokenizer, load_usable_protocol

TEMPLATE = (bundled_model() / "chat_template.jinja").read_text()
SMALL = {
    name: content
    for name, content in model_files(bundled_model()).items()
    if not name.endswith((".safetensors", ".jinja"))
}
EXTRA = "additional_chat_templates"


def write_model(folder: Path, files: dict[str, str | bytes]) -> Path:
    """Write the bundled model's tokenizer, without its template, and other files."""
    for name, content in {**SMALL, **files}.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content.encode() if isinstance(content, str) else content)
    return folder


def with_template(template: object) -> str:
    """Return a tokenizer_config.json that holds a chat template."""
    return json.dumps(json.loads(SMALL["tokenizer_config.json"]) | {"chat_template": template})


NAMED = [{"name": "default", "template": TEMPLATE}, {"name": "rag", "template": "{{ x }}"}]


@pytest.mark.parametrize(
    "files",
    [
        {"chat_template.jinja": TEMPLATE},
        {"tokenizer_config.json": with_template(TEMPLATE)},
        {"tokenizer_config.json": with_template(NAMED)},
        {"chat_template.json": json.dumps({"chat_template": TEMPLATE})},
        {"chat_template.json": json.dumps({"chat_template": NAMED})},
        {"chat_template.json": json.dumps({"chat_template": {"default": TEMPLATE}})},
        {"chat_template.jinja": TEMPLATE, "chat_template.json": '{"chat_template": "old"}'},
        {"chat_template.jinja": TEMPLATE, "tokenizer_config.json": with_template("old")},
        {"chat_template.jinja": TEMPLATE, "chat_template.json": "{oops"},
        {"chat_template.jinja": TEMPLATE, f"{EXTRA}/rag.jinja": "{% broken"},
        {"tokenizer_config.json": with_template(TEMPLATE), f"{EXTRA}/rag.jinja": "{{ x }}"},
        {"chat_template.jinja": TEMPLATE, f"{EXTRA}/rag.jinja": b"\xff\xfe"},
        {"chat_template.jinja": b"\xff", "tokenizer_config.json": with_template(TEMPLATE)},
        {"chat_template.jinja": TEMPLATE, f"{EXTRA}/tool_use.jinja": "{% for x in %}"},
        {"chat_template.jinja": TEMPLATE, f"{EXTRA}/tool_use.jinja": "{{ raise_exception('x') }}"},
        {"chat_template.jinja": TEMPLATE, f"{EXTRA}/tool_use.jinja": "hello"},
        {"chat_template.jinja": TEMPLATE, f"{EXTRA}/tool_use.jinja": b"\xff"},
        {"chat_template.jinja": "{% for x in %}", f"{EXTRA}/tool_use.jinja": TEMPLATE},
        {f"{EXTRA}/tool_use.jinja": TEMPLATE},
        {f"{EXTRA}/default.jinja": TEMPLATE},
    ],
    ids=lambda files: " ".join(f"{name}={content[:12]!r}" for name, content in files.items()),
)
def test_the_template_is_found_wherever_it_lies(
    files: dict[str, str | bytes], tmp_path: Path
) -> None:
    tokenizer = load_tokenizer(write_model(tmp_path, files))
    protocol = load_usable_protocol(tokenizer, Prompts(), [])
    expected = load_usable_protocol(load_tokenizer(bundled_model()), Prompts(), [])
    assert protocol.family == expected.family == "gemma4"
    assert protocol.render_prompt("What is 6 times 7?") == expected.render_prompt(
        "What is 6 times 7?"
    )
    assert protocol.tool_response(["42"]) == expected.tool_response(["42"])
    assert tokenizer.name_or_path == str(tmp_path)


def test_the_template_for_tools_is_taken_if_it_works(tmp_path: Path) -> None:
    files = {"chat_template.jinja": "hello", f"{EXTRA}/tool_use.jinja": TEMPLATE}
    tokenizer = load_tokenizer(write_model(tmp_path, dict(files)))
    assert tokenizer.chat_template == {"default": "hello", "tool_use": TEMPLATE}
    assert load_usable_protocol(tokenizer, Prompts(), []).family == "gemma4"


def test_a_template_that_is_left_out_is_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    files = {"chat_template.jinja": TEMPLATE, f"{EXTRA}/tool_use.jinja": "hello"}
    tokenizer = load_tokenizer(write_model(tmp_path, {**files, f"{EXTRA}/rag.jinja": b"\xff"}))
    assert "left out" in caplog.text
    assert f"{EXTRA}/rag.jinja cannot be read" in caplog.text
    load_usable_protocol(tokenizer, Prompts(), [])
    assert "The chat template default serves, because tool_use cannot be used" in caplog.text


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({}, "no chat template"),
        ({"chat_template.jinja": "hello"}, "does not show the user's message"),
        ({"chat_template.jinja": "hello", f"{EXTRA}/tool_use.jinja": "bye"}, "does not show"),
        ({f"{EXTRA}/rag.jinja": TEMPLATE}, "no chat template"),
    ],
)
def test_without_a_template_that_works_one_sentence_says_so(
    files: dict[str, str | bytes], said: str, tmp_path: Path
) -> None:
    tokenizer = load_tokenizer(write_model(tmp_path, files))
    with pytest.raises(ProtocolError, match=said):
        load_usable_protocol(tokenizer, Prompts(), [])


def test_an_unreadable_template_alone_is_named(tmp_path: Path) -> None:
    with pytest.raises(SolverError, match=r"chat_template\.jinja cannot be read: .*copy the chat"):
        load_tokenizer(write_model(tmp_path, {"chat_template.jinja": b"\xff"}))
    (tmp_path / "chat_template.jinja").unlink()
    (tmp_path / "chat_template.jinja").symlink_to("no-such-blob")
    with pytest.raises(SolverError, match=r"chat_template\.jinja cannot be read"):
        load_tokenizer(tmp_path)


def test_a_configuration_that_cannot_be_used_is_named_as_such(tmp_path: Path) -> None:
    config = json.loads(SMALL["config.json"])
    config["num_hidden_layers"] += 1
    write_model(tmp_path, {"config.json": json.dumps(config), "chat_template.jinja": TEMPLATE})
    with pytest.raises(SolverError, match=r"config\.json cannot be used: .*num_hidden_layers"):
        load_tokenizer(tmp_path)


def test_files_come_before_the_entries_of_json_files(tmp_path: Path) -> None:
    entries = [{"name": "rag", "template": "a"}, {"name": "x", "template": "b"}, "odd", {"name": 1}]
    templates = read_templates(
        write_model(
            tmp_path,
            {
                f"{EXTRA}/rag.jinja": "c",
                "tokenizer_config.json": json.dumps({"chat_template": entries}),
                "chat_template.json": json.dumps({"chat_template": {"x": "d", "default": "e"}}),
            },
        )
    )
    assert templates.texts == {"default": "e", "rag": "c", "x": "b"}
    assert not templates.faults
