"""Values that the solver reads from a model folder before the model is loaded (1 s)."""

from __future__ import annotations

from pathlib import Path

import pytest

from eightfold.solver import SolverConfig, SolverError, model_defaults
from eightfold.solver.chat.prompt_texts import MODEL_PROMPTS
from eightfold.solver.cli.command_line import main
from eightfold.solver.model_defaults import bundled_model, read_model_inputs, sampling_values


def test_sampling_values_come_from_the_user_then_from_the_checkpoint(tmp_path: Path) -> None:
    (tmp_path / "generation_config.json").write_text('{"top_k": 64, "temperature": 0.7}')
    values = sampling_values(tmp_path, SolverConfig(temperature=0.5))
    assert values == {"temperature": 0.5, "top_p": 1.0, "top_k": 64, "min_p": 0.0}
    (tmp_path / "generation_config.json").write_text("{")
    with pytest.raises(SolverError, match="not valid JSON"):
        sampling_values(tmp_path, SolverConfig())


def test_a_temperature_that_the_engine_refuses_is_wrong_input(tmp_path: Path) -> None:
    (tmp_path / "generation_config.json").write_text('{"temperature": 1e-8}')
    with pytest.raises(SolverError, match=r"temperature must be 0 or at least 1e-06, not 1e-08"):
        sampling_values(tmp_path, SolverConfig())
    assert sampling_values(tmp_path, SolverConfig(temperature=0))["temperature"] == 0


def test_entries_that_are_not_applied_are_named_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "generation_config.json"
    neutral = '"num_beams": 1, "repetition_penalty": 1.0, "bad_words_ids": null, "typical_p": 1.0'
    file.write_text(f'{{"do_sample": true, "top_k": 20, "max_new_tokens": 2048, {neutral}}}')
    sampling_values(tmp_path, SolverConfig())
    assert not caplog.records
    file.write_text('{"do_sample": false, "repetition_penalty": 1.1, "suppress_tokens": [3]}')
    values = sampling_values(tmp_path, SolverConfig())
    assert values["temperature"] == 1.0
    (record,) = caplog.records
    for words in (str(file), "repetition_penalty 1.1", "suppress_tokens [3]", "do_sample False"):
        assert words in record.getMessage()


def test_an_adapter_beside_whole_weights_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for file in bundled_model().iterdir():
        (tmp_path / file.name).symlink_to(file)
    read_model_inputs(SolverConfig(model=tmp_path))
    assert not caplog.records
    (tmp_path / "adapter_config.json").write_text("{}")
    (tmp_path / "adapter_model.safetensors").touch()
    read_model_inputs(SolverConfig(model=tmp_path))
    assert "also holds an adapter, which is not applied" in caplog.text


def test_inputs_are_the_model_folders_unless_the_user_gives_others(tmp_path: Path) -> None:
    for name, text in (
        ("config.json", '{"eos_token_id": 1, "text_config": {"eos_token_id": [1, 106]}}'),
        ("generation_config.json", '{"eos_token_id": 50, "min_p": 0.1}'),
        ("model.safetensors", ""),
        ("tokenizer.json", "{}"),
        (MODEL_PROMPTS, "nudge = 'Now.'"),
    ):
        (tmp_path / name).write_text(text)
    (tmp_path / "mine.toml").write_text("nudge = 'Please.'")
    inputs = read_model_inputs(SolverConfig(model=tmp_path))
    assert inputs.folder == tmp_path
    assert inputs.prompts.texts["nudge"] == "Now."
    assert inputs.sampling["min_p"] == 0.1
    assert inputs.end_token_ids == {1, 50, 106}
    config = SolverConfig(model=tmp_path, prompts=tmp_path / "mine.toml", min_p=0.2)
    inputs = read_model_inputs(config)
    assert inputs.prompts.texts["nudge"] == "Please."
    assert inputs.sampling["min_p"] == 0.2


def test_folder_is_optional_only_if_none_is_named() -> None:
    assert read_model_inputs(SolverConfig()).folder == bundled_model()
    inputs = read_model_inputs(SolverConfig(), folder_needed=False)
    assert inputs.folder is None
    assert inputs.end_token_ids == frozenset()
    with pytest.raises(SolverError, match="no model folder"):
        read_model_inputs(SolverConfig(model="/no/such"), folder_needed=False)


def test_command_reads_the_model_folder_once(monkeypatch: pytest.MonkeyPatch) -> None:
    resolve = model_defaults.resolve_model_folder
    calls: list[str | Path | None] = []

    def resolve_and_count(model: str | Path | None, *, progress: bool) -> Path:
        calls.append(model)
        assert not progress, "--quiet hides a download's progress too"
        return resolve(model)

    monkeypatch.setattr(model_defaults, "resolve_model_folder", resolve_and_count)
    words = ["solve", "What is 6 times 7?", "--attempts", "1", "--max-tokens", "1", "--quiet"]
    assert main([*words, "--kernels", "1"]) == 1, "one token holds no answer"
    assert calls == [None]
