"""The TOML file that replaces the texts sent to a model (0.5 s)."""

from __future__ import annotations

from pathlib import Path

import pytest

from eightfold.solver.chat.prompt_texts import PromptError, Prompts, load_prompts, prompts_for


def test_prompts_file_replaces_texts_and_its_faults_are_named(tmp_path: Path) -> None:
    file = tmp_path / "eightfold_prompts.toml"
    file.write_text('system = "Answer in \\\\boxed{} from {low}."\n')
    prompts = load_prompts(file)
    assert prompts.system == "Answer in \\boxed{} from {low}."
    assert prompts.nudge == Prompts().nudge
    assert prompts.filled(low=3).system == "Answer in \\boxed{} from 3."
    assert prompts_for(tmp_path) == prompts
    assert prompts_for(None) == Prompts()
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
    filled = load_prompts(tmp_path / "p.toml").filled(low=0, high=9)
    assert filled.system == system.replace("{low}", "0").replace("{high}", "9")
    assert filled.malformed == "{reason}!"
