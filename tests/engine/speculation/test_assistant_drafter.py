"""Gemma 4's own drafters: drafts against transformers' module, whole runs, and refusals."""

import json
from pathlib import Path
from typing import Any

import pytest
import transformers
from helpers.engine_cases import tiny_models
from helpers.engine_cases.assistants import reference_drafts, save_assistant
from helpers.engine_cases.engine_driver import run_until_idle
from safetensors.torch import load_file, save_file

from eightfold.engine import (
    CheckpointError,
    Engine,
    EngineConfig,
    SamplingParams,
    UnsupportedModelError,
)
from eightfold.engine.inspection.architecture import inspect_architecture
from eightfold.engine.speculation import drafter_choice
from eightfold.engine.speculation.drafter_choice import choose_drafter
from eightfold.engine.speculation.mtp.assistant_checkpoint import read_assistant
from eightfold.engine.speculation.ngram.ngram_drafter import NgramDrafter
from eightfold.engine.speculation.speculator import Speculator

pytestmark = pytest.mark.skipif(
    not hasattr(transformers, "Gemma4AssistantForCausalLM"),
    reason="this transformers has no Gemma 4 drafters",
)
PROMPT = [9, 11, 40, 3, 77, 12, 8, 8, 90, 31, 5, 6, 7, 99, 100, 21, 22, 23, 24, 25]


def engine(folder: Path, **changes: Any) -> Engine:
    settings = {
        "device": "cpu", "max_context": 128, "page_size": 4, "max_running": 4, "max_drafts": 3,
        "max_step_tokens": 64, "always_draft": True, "speculate": str(folder),
    }  # fmt: skip
    return Engine(tiny_models.build("gemma4"), EngineConfig(**{**settings, **changes}))


@pytest.mark.parametrize("ordered", [False, True])
def test_drafts_are_those_of_transformers(ordered: bool, tmp_path: Path) -> None:
    model = save_assistant(tmp_path, ordered)
    target = tiny_models.build("gemma4")
    own = engine(tmp_path)
    drafts: dict[int, tuple[int, ...]] = {}  # by number of tokens before them
    assert isinstance(own._speculator, Speculator)
    propose = own._speculator.propose

    def recorded(sequences: Any, rooms: Any) -> Any:
        trees = propose(sequences, rooms)
        drafts[len(sequences[0].tokens)] = trees[0].tokens
        return trees

    own._speculator.propose = recorded  # type: ignore[method-assign]
    seq = own.submit(PROMPT, SamplingParams(temperature=0, max_new_tokens=24, stop_token_ids=()))
    tokens = PROMPT + run_until_idle(own)[seq]
    checked = [length for length, line in drafts.items() if len(line) == 3]
    assert len(checked) > 10
    wrong = [
        length
        for length in checked
        if list(drafts[length]) != reference_drafts(model, target, tokens[:length], 3)
    ]
    # Which centroids are the nearest may be decided by rounding.
    assert len(wrong) <= int(ordered), wrong


def test_tokens_are_those_without_drafts(tmp_path: Path) -> None:
    save_assistant(tmp_path)
    found = []
    for speculate in ("off", str(tmp_path)):
        own = engine(tmp_path, speculate=speculate)
        for seed in range(3):
            params = SamplingParams(
                temperature=0.8, top_k=40, seed=seed, max_new_tokens=30, stop_token_ids=(),
                pause_token_ids=(5, 6, 7, 8, 9, 10, 11), entropy=True,
            )  # fmt: skip
            own.submit(PROMPT[: 5 + 4 * seed], params)
        tokens = run_until_idle(own)
        for seq in list(own._scheduler.sequences):
            own.resume(seq, [3, 4, 5, 6])
        later = run_until_idle(own)
        found.append((tokens, later))
        if speculate != "off":
            assert own.stats()["drafted_tokens"] > 30
            assert own.stats()["recomputed_tokens"] == 0
    assert found[0] == found[1]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"backbone_hidden_size": 48}, "a backbone width of 48, the model has 32"),
        ({"text": {"vocab_size": 64, "pad_token_id": 0}}, "a vocabulary of 64, the model has 128"),
        ({"text": {"sliding_window": 8}}, r"\(8, 2, 8\) in layer 0, the model has \(16, 2, 8\)"),
        ({"text": {"global_head_dim": 32}}, r"\(None, 1, 32\) in layer 1"),
    ],
)
def test_a_drafter_of_another_model_is_refused(
    changes: dict[str, Any], said: str, tmp_path: Path
) -> None:
    save_assistant(tmp_path, **changes)
    (tmp_path / "model.safetensors").write_bytes(b"never read")
    architecture = inspect_architecture(tiny_models.build("gemma4").config)
    with pytest.raises(UnsupportedModelError, match=f"does not fit the model: it has .*{said}"):
        read_assistant(tmp_path, architecture)


def test_what_is_no_drafter_is_refused(tmp_path: Path) -> None:
    tiny_models.save("llama", tmp_path / "llama")
    with pytest.raises(UnsupportedModelError, match="a llama model, which is no drafter"):
        engine(tmp_path / "llama")
    with pytest.raises(ValueError, match="is not a folder"):
        engine(tmp_path / "nothing")
    save_assistant(tmp_path / "drafter", text={"sliding_window": 8, "global_head_dim": 32})
    save_assistant(tmp_path / "ordered", True, text={"sliding_window": 8, "global_head_dim": 32})
    architecture = inspect_architecture(tiny_models.build("gemma4_one_copy").config)
    with pytest.raises(UnsupportedModelError, match="a head of centroids"):
        choose_drafter(str(tmp_path / "ordered"), tmp_path, architecture, kernels=True, fused=True)
    with pytest.raises(UnsupportedModelError, match="needs the fused decoder"):
        choose_drafter(str(tmp_path / "drafter"), tmp_path, architecture, kernels=True, fused=False)


def test_auto_does_without_a_drafter_that_transformers_does_not_have(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_assistant(tmp_path / "drafter")
    architecture = inspect_architecture(tiny_models.build("gemma4").config)

    def chosen() -> object:
        return choose_drafter("auto", tmp_path, architecture, kernels=False, fused=False)

    assert not isinstance(chosen(), NgramDrafter)
    monkeypatch.setattr(drafter_choice, "DRAFTERS_RUN", False)
    assert isinstance(chosen(), NgramDrafter)


def test_damaged_drafters_are_named(tmp_path: Path) -> None:
    save_assistant(tmp_path)
    path = tmp_path / "model.safetensors"
    tensors = load_file(path)
    whole = path.read_bytes()
    del tensors["model.layers.1.mlp.up_proj.weight"]
    save_file(tensors, path, {"format": "pt"})
    with pytest.raises(CheckpointError, match=r"missing tensors.*layers\.1\.mlp\.up_proj"):
        engine(tmp_path)
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(CheckpointError, match=r"model\.safetensors"):
        engine(tmp_path)
    path.write_bytes(whole)
    (tmp_path / "generation_config.json").write_text(json.dumps({"suppress_tokens": "x"}))
    with pytest.raises(CheckpointError, match=r"generation_config\.json"):
        engine(tmp_path)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda weight: weight[:-1], r"misshapen tensors, such as model\.layers\.1\.mlp\.up_proj"),
        (lambda weight: weight.int(), r"wrong type, such as .*up_proj\.weight in I32; get its"),
    ],
)
def test_damaged_tensors_of_a_drafter_are_named(change: Any, said: str, tmp_path: Path) -> None:
    save_assistant(tmp_path)
    path, name = tmp_path / "model.safetensors", "model.layers.1.mlp.up_proj.weight"
    tensors = load_file(path)
    tensors[name] = change(tensors[name]).contiguous()
    save_file(tensors, path, {"format": "pt"})
    with pytest.raises(CheckpointError, match=said):
        engine(tmp_path)


@pytest.mark.parametrize("token", [128, -1, 1.5, True])
def test_tokens_that_cannot_be_suppressed_are_refused(token: object, tmp_path: Path) -> None:
    save_assistant(tmp_path)
    (tmp_path / "generation_config.json").write_text(json.dumps({"suppress_tokens": [5, token]}))
    with pytest.raises(CheckpointError, match=rf"has {token!r}, which is not one of .* 128 tokens"):
        engine(tmp_path)


@pytest.mark.parametrize(
    ("kinds", "error", "said"),
    [
        (["full_attention"], CheckpointError, r"config\.json cannot be used: `num_hidden_layers`"),
        (["linear_attention", "full_attention"], UnsupportedModelError,
         "The drafter in .* cannot run: .*'linear_attention'"),
    ],
)  # fmt: skip
def test_kinds_of_layers_that_make_no_drafter_are_refused(
    kinds: list[str], error: type[Exception], said: str, tmp_path: Path
) -> None:
    save_assistant(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    config["text_config"]["layer_types"] = kinds
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(error, match=said):
        engine(tmp_path)


def test_auto_takes_the_drafter_in_the_folder_of_its_model(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    tiny_models.save("gemma4", folder)
    config = EngineConfig(device="cpu", max_context=64, speculate="auto", full_pages=20)
    assert Engine(folder, config).table().count("drafts: ngram") == 1
    save_assistant(folder / "drafter")
    assert Engine(folder, config).table().count("drafts: mtp") == 1
    save_assistant(folder / "drafter", backbone_hidden_size=48)
    with pytest.raises(UnsupportedModelError, match="a backbone width of 48"):
        Engine(folder, config)
