"""The TOML file that replaces the texts sent to a model (0.5 s)."""

from __future__ import annotations

from pathlib import Path

import pytest

from eightfold.solver.chat.prompt_texts import (
    PROGRAM_FIRST,
    PROMPT_SETS,
    STANDARD,
    PromptChanges,
    PromptError,
    Prompts,
    load_prompts,
    prompts_for,
)


def test_prompts_file_replaces_texts_and_its_faults_are_named(tmp_path: Path) -> None:
    file = tmp_path / "eightfold_prompts.toml"
    file.write_text('system = "Answer in \\\\boxed{} from {low}."\n')
    changes = load_prompts(file)
    prompts = changes.over(STANDARD)
    assert prompts.system == "Answer in \\boxed{} from {low}."
    assert prompts.nudge == Prompts().nudge
    assert changes.filled(low=3).over(STANDARD).system == "Answer in \\boxed{} from 3."
    assert prompts_for(tmp_path) == changes
    assert prompts_for(None).over(STANDARD) == Prompts()
    file.write_text("sistem = 'x'")
    with pytest.raises(PromptError, match="sistem"):
        prompts_for(None, file)
    file.write_text("system = 3")
    with pytest.raises(PromptError, match="must be text"):
        load_prompts(file)
    file.write_text("system = ")
    with pytest.raises(PromptError, match="not valid TOML"):
        load_prompts(file)
    with pytest.raises(PromptError, match="no prompts file"):
        load_prompts(tmp_path / "none.toml")


def test_missing_texts_are_those_of_the_set_that_the_format_or_the_file_names(
    tmp_path: Path,
) -> None:
    file = tmp_path / "p.toml"
    file.write_text("nudge = 'Now.'")
    changes = load_prompts(file)
    assert changes.over(PROGRAM_FIRST).request == PROMPT_SETS[PROGRAM_FIRST].request != ""
    assert changes.over(STANDARD).request == ""
    assert changes.described(PROGRAM_FIRST) == (
        f"The prompt is the program first one, with nudge from {file}."
    )
    assert PromptChanges().described(STANDARD) == "The prompt is the standard one."
    file.write_text("defaults = 'standard'")
    assert load_prompts(file).over(PROGRAM_FIRST) == Prompts()
    assert load_prompts(file).described(PROGRAM_FIRST) == "The prompt is the standard one."
    file.write_text("defaults = 'other'")
    with pytest.raises(PromptError, match="'other'; known are standard and program first"):
        load_prompts(file)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (
            "system = 'from {lowest} on'",
            "'system' .* unknown placeholder {lowest}; known placeholders are {low}",
        ),
        ("nudge = 'up to {High}'", "unknown placeholder {High}"),
        ("system = 'because {reason}'", "unknown placeholder {reason}"),
        ("malformed = 'because {cause}'", "unknown placeholder {cause}; .*{reason}"),
    ],
)
def test_unknown_placeholders_are_named(line: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "p.toml").write_text(line)
    with pytest.raises(PromptError, match=message):
        load_prompts(tmp_path / "p.toml")


def test_braces_of_tex_are_ordinary_text(tmp_path: Path) -> None:
    system = r"{low} to {high}: \boxed{answer}, \{ab\}, x_{max}, {n}, {}, \frac{ab}{cd}"
    (tmp_path / "p.toml").write_text(f"system = '{system}'\nmalformed = '{{reason}}!'")
    filled = load_prompts(tmp_path / "p.toml").filled(low=0, high=9).over(STANDARD)
    assert filled.system == system.replace("{low}", "0").replace("{high}", "9")
    assert filled.malformed == "{reason}!"
