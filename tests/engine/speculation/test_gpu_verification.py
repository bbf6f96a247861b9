"""Steps with drafts on the GPU runner: the tokens of steps without, padding rows included.

The kernels run in Triton's interpreter, in float32 and without graphs.
"""

from dataclasses import replace

import pytest
from helpers.engine_cases import tiny_models
from helpers.engine_cases.engine_driver import run_until_idle
from helpers.kernel_cases.kernel_devices import CUDA

from eightfold.engine import Engine, EngineConfig, SamplingParams
from eightfold.engine.scheduling.draft_tree import DraftTree
from eightfold.engine.scheduling.sequence import Sequence
from eightfold.engine.speculation.drafter import Draft
from eightfold.engine.speculation.ngram.ngram_drafter import NgramDrafter
from eightfold.engine.speculation.replay_drafter import ReplayDrafter

pytestmark = pytest.mark.skipif(CUDA, reason="the interpreter takes tensors of a CPU only")

CONFIG = EngineConfig(
    device="cpu", max_step_tokens=7, max_running=1, max_context=64, page_size=16, max_drafts=3
)
PROMPTS = [[8, 13, 18, 23, 28, 33, 38]]
NEW = 6


class RaggedDrafter(ReplayDrafter):
    """Steps have 0, 1, 2 or 3 drafts; with 2, the rows are padded."""

    def _draft(self, seq: Sequence, count: int) -> Draft:
        tokens = super()._draft(seq, count).tree.tokens
        return Draft(DraftTree.line(tokens[: (len(seq.tokens) + 1) % 4]))


def params(seed: int) -> SamplingParams:
    return SamplingParams(
        temperature=float(seed > 0), top_k=20, seed=seed, max_new_tokens=NEW, stop_token_ids=()
    )


@pytest.mark.parametrize("name", ["gemma4_one_copy"])
def test_tokens_are_those_without_drafts(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("eightfold.engine.engine.uses_kernels", lambda *_: True)
    fused = name in tiny_models.FUSED_BUILDERS
    plain = Engine(tiny_models.build(name), replace(CONFIG, fused=fused))
    for seed, prompt in enumerate(PROMPTS, 1):
        plain.submit(prompt, params(seed))
    expected = run_until_idle(plain)
    records = {
        (tuple(prompt), seed): prompt + expected[seed - 1]
        for seed, prompt in enumerate(PROMPTS, 1)
    }
    drafter = RaggedDrafter(records, tiny_models.VOCABULARY, (0.9, 0.8, 0.6))
    config = replace(CONFIG, fused=fused, speculate="auto", always_draft=True)
    engine = Engine(tiny_models.build(name), config, drafter)
    for seed, prompt in enumerate(PROMPTS, 1):
        engine.submit(prompt, params(seed))
    assert run_until_idle(engine) == expected
    stats = engine.stats()
    assert stats["accepted_tokens"] >= 2
    assert stats["steps"] < plain.stats()["steps"]
    assert stats["drafted_tokens"] >= stats["accepted_tokens"]


def test_trees_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("eightfold.engine.engine.uses_kernels", lambda *_: True)
    with pytest.raises(ValueError, match="verify lines of drafts, but ngram branches"):
        Engine(
            tiny_models.build("qwen3"),
            replace(CONFIG, speculate="auto", fused=False),
            NgramDrafter(branches=True),
        )
