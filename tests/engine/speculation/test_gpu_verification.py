"""Steps with drafts on the GPU runner: the tokens of steps without, padding rows included.

The kernels run in Triton's interpreter, in float32 and without graphs.
"""

from dataclasses import replace

import pytest
from helpers.engine_cases import tiny_models
from helpers.engine_cases.engine_driver import greedy_reference, run_until_idle
from helpers.kernel_cases.kernel_devices import CUDA

from eightfold.engine import Engine, EngineConfig, SamplingParams
from eightfold.engine.scheduling.draft_tree import DraftTree
from eightfold.engine.scheduling.sequence import Sequence
from eightfold.engine.speculation.drafter import Draft
from eightfold.engine.speculation.ngram.ngram_drafter import NgramDrafter
from eightfold.engine.speculation.replay_drafter import ReplayDrafter

pytestmark = pytest.mark.skipif(CUDA, reason="the interpreter takes tensors of a CPU only")

CONFIG = EngineConfig(
    device="cpu", max_step_tokens=7, max_running=1, max_context=64, page_size=16,
    max_drafts=3, speculate="auto", always_draft=True,
)  # fmt: skip
PROMPT = [8, 13, 18, 23, 28, 33, 38]
NEW = 6


class RaggedDrafter(ReplayDrafter):
    """Two drafts, so that the rows are padded; one position is always drafted wrong."""

    wrong_at = 0

    def _draft(self, seq: Sequence, count: int) -> Draft:
        tokens = super()._draft(seq, 2).tree.tokens
        begin = len(seq.tokens)
        wrong = [t + (begin + i == self.wrong_at) for i, t in enumerate(tokens)]
        return Draft(DraftTree.line(wrong))


def test_tokens_are_those_without_drafts() -> None:
    model = tiny_models.build("gemma4_one_copy")
    expected = greedy_reference(model, PROMPT, NEW)
    drafter = RaggedDrafter({(tuple(PROMPT), 0): PROMPT + expected}, tiny_models.VOCABULARY)
    drafter.wrong_at = len(PROMPT) + 4
    engine = Engine(model, replace(CONFIG, fused=True), drafter)
    seq = engine.submit(
        PROMPT, SamplingParams(temperature=0, max_new_tokens=NEW, stop_token_ids=())
    )
    assert run_until_idle(engine)[seq] == expected
    stats = engine.stats()
    assert stats["drafted_tokens"] > stats["accepted_tokens"] >= 2
    assert stats["steps"] < NEW


def test_trees_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("eightfold.engine.engine.uses_kernels", lambda *_: True)
    with pytest.raises(ValueError, match="verify lines of drafts, but ngram branches"):
        Engine(
            tiny_models.build("qwen3"),
            replace(CONFIG, fused=False),
            NgramDrafter(branches=True),
        )
