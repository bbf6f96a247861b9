"""Steps with drafts on the GPU runner: the tokens of steps without, padding rows included.

The kernels run in Triton's interpreter, in float32 and without graphs.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from helpers.engine_cases import tiny_models
from helpers.engine_cases.assistants import reference_drafts, save_assistant
from helpers.engine_cases.engine_driver import greedy_reference, run_until_idle
from helpers.kernel_cases.kernel_devices import CUDA

from eightfold.engine import Engine, EngineConfig, SamplingParams
from eightfold.engine.inspection.architecture import inspect_architecture
from eightfold.engine.inspection.kv_geometry import one_copy_layers
from eightfold.engine.scheduling.draft_tree import DraftTree
from eightfold.engine.scheduling.scheduled_step import ScheduledTokens
from eightfold.engine.scheduling.sequence import Sequence
from eightfold.engine.speculation.drafter import Draft
from eightfold.engine.speculation.mtp.assistant_checkpoint import read_assistant
from eightfold.engine.speculation.mtp.kernel_assistant import KernelAssistantDrafter
from eightfold.engine.speculation.replay_drafter import ReplayDrafter

pytestmark = pytest.mark.skipif(CUDA, reason="the interpreter takes tensors of a CPU only")

CONFIG = EngineConfig(
    device="cpu", max_step_tokens=7, max_running=1, max_context=64, page_size=16,
    max_drafts=3, speculate="auto", always_draft=True,
)  # fmt: skip
PROMPT = [8, 13, 18, 23, 28, 33, 38]
NEW = 8


class RaggedDrafter(ReplayDrafter):
    """Two drafts, so that the rows are padded; one position is always drafted wrong."""

    wrong_at = 0

    def _draft(self, seq: Sequence, count: int) -> Draft:
        tokens = super()._draft(seq, 2).tree.tokens
        begin = len(seq.tokens)
        wrong = [t + (begin + i == self.wrong_at) for i, t in enumerate(tokens)]
        return Draft(DraftTree.line(wrong))


EXPECTED = greedy_reference(tiny_models.build("gemma4_one_copy"), PROMPT, NEW)


@pytest.fixture(scope="module")
def engine() -> Engine:
    drafter = RaggedDrafter({(tuple(PROMPT), 0): PROMPT + EXPECTED}, tiny_models.VOCABULARY)
    drafter.wrong_at = len(PROMPT) + 4
    return Engine(tiny_models.build("gemma4_one_copy"), replace(CONFIG, fused=True), drafter)


def test_tokens_are_those_without_drafts(engine: Engine) -> None:
    seq = engine.submit(
        PROMPT, SamplingParams(temperature=0, max_new_tokens=NEW, stop_token_ids=())
    )
    assert run_until_idle(engine)[seq] == EXPECTED
    stats = engine.stats()
    assert stats["drafted_tokens"] > stats["accepted_tokens"] >= 2
    assert stats["steps"] < NEW


@pytest.mark.skipif(
    not hasattr(transformers, "Gemma4AssistantForCausalLM"),
    reason="this transformers has no Gemma 4 drafters",
)
def test_drafts_of_weights_are_those_of_transformers(engine: Engine, tmp_path: Path) -> None:
    assistant = save_assistant(tmp_path, text={"sliding_window": 8, "global_head_dim": 32})
    target = tiny_models.build("gemma4_one_copy")
    architecture = inspect_architecture(target.config)
    layers = one_copy_layers(target.config.to_dict(), architecture.layers)
    assert layers is not None
    fused = replace(architecture, layers=layers)
    loaded = read_assistant(tmp_path, fused).load(torch.device("cpu"), torch.float32)
    drafter = KernelAssistantDrafter(loaded, engine._runner, fused, 2)
    drafted: dict[int, tuple[int, ...]] = {}  # by number of tokens before them
    draft = drafter.draft

    def recorded(sequences: list[Sequence], count: int) -> list[Draft]:
        found = draft(sequences, count)
        drafted[len(sequences[0].tokens)] = found[0].tree.tokens
        return found

    drafter.draft = recorded  # type: ignore[method-assign]
    assert engine._speculator is not None
    engine._speculator.drafter = drafter
    seq = engine.submit(PROMPT, SamplingParams(temperature=0, max_new_tokens=6, stop_token_ids=()))
    tokens = PROMPT + run_until_idle(engine)[seq]
    checked = {length: line for length, line in drafted.items() if line}
    assert len(checked) >= 2
    for length, line in checked.items():
        assert list(line) == reference_drafts(assistant, target, tokens[:length], len(line))


@pytest.mark.skipif(
    not hasattr(transformers, "Gemma4AssistantForCausalLM"),
    reason="this transformers has no Gemma 4 drafters",
)
def test_drafts_behind_a_step_are_those_of_transformers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The device goes on from what the step has drawn; the next step does not wait for it."""
    folder, text = tmp_path / "drafter", {"sliding_window": 8, "global_head_dim": 32}
    assistant = save_assistant(folder, text=text)
    target = tiny_models.build("gemma4_one_copy")
    config = replace(CONFIG, fused=True, speculate=str(folder), lookahead=1, max_drafts=1)
    engine = Engine(tiny_models.build("gemma4_one_copy"), config)
    runner: Any = engine._runner
    drafter, drafted = runner.device_drafter, {}
    behind, chained = drafter.draft_behind, []

    def recorded(scheduled: list[ScheduledTokens], sequences: int, count: int) -> None:
        behind(scheduled, sequences, count)
        chained.append(scheduled[0].may_move)
        drafted[int(runner.chain.positions[0])] = runner.chain.drafts[0, :count].tolist()

    monkeypatch.setattr(drafter, "draft_behind", recorded)
    seq = engine.submit(PROMPT, SamplingParams(temperature=0, max_new_tokens=8, stop_token_ids=()))
    tokens = PROMPT + run_until_idle(engine)[seq]
    assert tokens[len(PROMPT) :] == greedy_reference(target, PROMPT, 8)
    checked = {place: line for place, line in drafted.items() if place < len(tokens)}
    assert len(checked) >= 3
    assert sum(map(bool, chained)) >= 2
    for place, line in checked.items():
        assert line == reference_drafts(assistant, target, tokens[: place + 1], len(line))


class BranchingDrafter(ReplayDrafter):
    """Trees: a wrong draft first, beside it the recorded tokens, of which the path is kept."""

    branches = True

    def _draft(self, seq: Sequence, count: int) -> Draft:
        right = super()._draft(seq, 2).tree.tokens
        if not right:
            return Draft()
        wrong = (right[0] + 1) % tiny_models.VOCABULARY
        parents = (0, 0, 2)[: 1 + len(right)]
        tree = DraftTree((wrong, *right), parents)
        return Draft(tree if len(seq.tokens) % 3 else DraftTree.line(right))


@pytest.mark.parametrize("name", ["gemma4_one_copy", "qwen3"])
def test_the_right_path_of_a_tree_is_kept(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """One copy of keys and values in the fused decoder, and transformers' modules over kernels."""
    monkeypatch.setattr("eightfold.engine.engine.uses_kernels", lambda *_: True)
    expected = greedy_reference(tiny_models.build(name), PROMPT, NEW)
    drafter = BranchingDrafter({(tuple(PROMPT), 0): PROMPT + expected}, tiny_models.VOCABULARY)
    config = replace(CONFIG, fused=name != "qwen3", lookahead=0)
    engine = Engine(tiny_models.build(name), config, drafter)
    params = SamplingParams(temperature=0, max_new_tokens=NEW, stop_token_ids=())
    seq = engine.submit(PROMPT, params)
    assert run_until_idle(engine)[seq] == expected
    stats = engine.stats()
    assert stats["accepted_tokens"] >= 2
    assert stats["accepted_tokens"] < stats["drafted_tokens"]
    engine.check()
