"""Steps with drafts that the device chains, in Triton's interpreter: tokens, pauses and ends.

A drafter of recorded tokens goes on by itself behind each step, from a table on the device.
"""

from typing import Any

import pytest
import torch
from helpers.engine_cases import tiny_models
from helpers.engine_cases.engine_driver import greedy_reference, run_until_idle
from helpers.kernel_cases.kernel_devices import CUDA

from eightfold.engine import Engine, EngineConfig, SamplingParams
from eightfold.engine.execution.draft_chain import ChainShape, DraftChain
from eightfold.engine.execution.gpu_runner import GpuRunner
from eightfold.engine.scheduling.scheduled_step import ScheduledTokens
from eightfold.engine.speculation.replay_drafter import ReplayDrafter

pytestmark = pytest.mark.skipif(CUDA, reason="the interpreter takes tensors of a CPU only")

CONFIG = EngineConfig(
    device="cpu", max_step_tokens=8, max_running=2, max_context=64, page_size=16,
    max_drafts=3, speculate="auto", always_draft=True, fused=True, lookahead=1,
)  # fmt: skip
PROMPT = [8, 13, 18, 23, 28, 33, 38]
NEW = 14
EXPECTED = greedy_reference(tiny_models.build("gemma4_one_copy"), PROMPT, NEW)
WRONG_AT = {len(PROMPT) + 4, len(PROMPT) + 10}


class DeviceReplay(ReplayDrafter):
    """Recorded tokens from a table on the device; those at ``WRONG_AT`` are wrong."""

    def __init__(self) -> None:
        super().__init__({(tuple(PROMPT), 0): self.line()}, tiny_models.VOCABULARY)
        self.runner: GpuRunner | None = None
        self.calls = 0

    @staticmethod
    def line() -> list[int]:
        tokens = PROMPT + EXPECTED
        return [token + (index in WRONG_AT) for index, token in enumerate(tokens)]

    def draft_behind(self, scheduled: list[ScheduledTokens], sequences: int, count: int) -> None:
        assert self.runner is not None
        self.calls += 1
        chain = self.runner.chain
        table = torch.tensor([*self.line(), *[0] * 64])
        places = chain.positions[:sequences, None] + 1 + torch.arange(count)
        chain.drafts[:sequences, :count] = table[places.clamp(max=len(table) - 1)]


@pytest.fixture(scope="module")
def engine() -> Engine:
    drafter = DeviceReplay()
    made = Engine(tiny_models.build("gemma4_one_copy"), CONFIG, drafter)
    assert isinstance(made._runner, GpuRunner)
    drafter.runner = made._runner
    return made


def watch(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return a list that grows by the chained entries of each step."""
    found: list[int] = []
    launch = engine._runner.launch

    def counted(plan: Any) -> Any:
        found.append(sum(entry.may_move > 0 for entry in plan.scheduled))
        return launch(plan)

    monkeypatch.setattr(engine._runner, "launch", counted)
    return found


def test_chained_steps_draw_the_tokens_of_steps_without_drafts(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    chained = watch(engine, monkeypatch)
    params = SamplingParams(temperature=0, max_new_tokens=NEW, stop_token_ids=(), entropy=True)
    seq = engine.submit(PROMPT, params)
    assert run_until_idle(engine)[seq] == EXPECTED
    assert sum(chained) >= 2
    stats = engine.stats()
    assert stats["drafted_tokens"] > stats["accepted_tokens"] > 4
    assert stats["recomputed_tokens"] == 0
    engine.check()


def test_a_pause_behind_a_chained_step_recomputes_nothing(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    chained = watch(engine, monkeypatch)
    pause = EXPECTED[6]
    at = EXPECTED.index(pause) + 1
    before = engine.stats()["recomputed_tokens"]
    params = SamplingParams(
        temperature=0, max_new_tokens=NEW + 4, stop_token_ids=(), pause_token_ids=(pause,)
    )
    seq = engine.submit(PROMPT, params)
    assert run_until_idle(engine)[seq] == EXPECTED[:at]
    engine.resume(seq, [7, 9])
    more = run_until_idle(engine)[seq]
    known = PROMPT + EXPECTED[:at] + [7, 9]
    assert more == greedy_reference(tiny_models.build("gemma4_one_copy"), known, len(more))
    assert engine.stats()["recomputed_tokens"] == before
    assert chained
    engine.check()


def test_accepting_and_moving_rows() -> None:
    """Two sequences of four rows, the first with padding, and one of padding alone."""
    chain = DraftChain(4, 3, torch.zeros(4, dtype=torch.int32))
    shape = ChainShape(4, 4, (None,), 4)
    views = {
        "tokens": torch.tensor([0, 0, 5, 6, 1, 2, 3, 4, 0, 0, 0, 0, 0, 0, 0, 0], dtype=torch.int32),
        "positions": torch.tensor([0, 0, 9, 10, 4, 5, 6, 7] + [0] * 8, dtype=torch.int32),
        "first_rows": torch.tensor([2, 0, 3, 3]),
    }
    draws = torch.tensor([9, 9, 6, 8, 2, 3, 7, 1] + [0] * 8)
    chain.accept(views, shape, draws)
    assert chain.accepted.tolist()[:3] == [1, 2, 0]
    assert chain.newest.tolist()[:2] == [8, 7]
    assert chain.positions.tolist()[:2] == [11, 7]
    assert chain.state_rows.tolist()[:2] == [3, 6]
    chain.drafts[:2] = torch.tensor([[20, 21, 22], [30, 31, 32]])
    moved = {
        "moved_by": torch.tensor([1, 0, -1, -1]),
        "tokens": torch.zeros(16, dtype=torch.int32),
        "positions": torch.tensor([5, 6, 7, 8, 10, 11, 12, 13] + [0] * 8, dtype=torch.int32),
        "sample_positions": torch.arange(16),
        "seq_lens0": torch.tensor([9, 14, 0, 0], dtype=torch.int32),
        "page_table0": torch.tensor([[1, 2, 3, 4], [5, 6, 7, 8], [0] * 4, [0] * 4]).int(),
        "first_pos0": torch.tensor([0, 4, 0, 0], dtype=torch.int32),
        "slot_mapping0": torch.tensor([0] * 8 + [-1] * 8, dtype=torch.int32),
    }  # fmt: skip
    chain.advance(moved, shape)
    assert moved["tokens"].tolist()[:8] == [7, 30, 31, 32, 8, 20, 21, 22]
    assert moved["positions"].tolist()[:8] == [7, 8, 9, 10, 11, 12, 13, 14]
    assert moved["seq_lens0"].tolist() == [11, 15, 0, 0]
    assert moved["slot_mapping0"].tolist()[:4] == [2 * 4 + 3, 3 * 4, 3 * 4 + 1, 3 * 4 + 2]
    assert moved["slot_mapping0"].tolist()[4:8] == [6 * 4 + 3, 7 * 4, 7 * 4 + 1, 7 * 4 + 2]
    assert set(moved["slot_mapping0"].tolist()[8:]) == {-1}
