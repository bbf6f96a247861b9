"""Engines with drafts sample what engines without them sample, to the last bit."""

from typing import Any

import pytest
import torch
from helpers.engine_cases import tiny_models

from eightfold.engine import Engine, EngineConfig, SamplingParams
from eightfold.engine.scheduling.draft_tree import DraftTree
from eightfold.engine.scheduling.sequence import Sequence
from eightfold.engine.speculation.drafter import Draft
from eightfold.engine.speculation.ngram.ngram_drafter import NgramDrafter
from eightfold.engine.speculation.replay_drafter import ReplayDrafter

PROMPTS = [list(range(3, 12)), [7, 9, 7, 9, 7, 9, 7], [5] * 13, [90, 80, 70]]
SETTINGS: list[dict[str, Any]] = [
    {"temperature": 0},
    {"seed": 1},
    {"temperature": 0.7, "top_k": 9, "seed": 2},
    {"temperature": 0.8, "top_p": 0.9, "min_p": 0.02, "seed": 2**63 + 5},
]
NEW = 40


class BranchingDrafter(ReplayDrafter):
    """Recorded tokens with wrong ones beside them: every right draft has a wrong sibling."""

    branches = True

    def _draft(self, seq: Sequence, count: int) -> Draft:
        line = super()._draft(seq, count).tree.tokens
        tokens, parents, parent = [], [], 0
        for token in line[: count // 2]:
            tokens += [(token + 7) % tiny_models.VOCABULARY, token]
            parents += [parent, parent]
            parent = len(tokens)
        return Draft(DraftTree(tuple(tokens), tuple(parents)))


def config(**changes: Any) -> EngineConfig:
    settings = {"page_size": 4, "max_context": 96, "max_running": 4, "max_step_tokens": 64}
    return EngineConfig(device="cpu", **{**settings, **changes})


def requests() -> list[tuple[list[int], SamplingParams]]:
    return [
        (prompt, SamplingParams(stop_token_ids=(), entropy=True, max_new_tokens=NEW, **settings))
        for prompt, settings in zip(PROMPTS, SETTINGS, strict=True)
    ]


def run(engine: Engine) -> dict[int, list[Any]]:
    """Run all requests; return the tokens and the entropies of each."""
    found: dict[int, list[Any]] = {}
    for prompt, params in requests():
        found[engine.submit(prompt, params)] = [[], []]
    while engine.has_work():
        for event in engine.step():
            found[event.seq][0] += event.tokens
            found[event.seq][1] += event.entropies
        engine.check()
    return found


def records(found: dict[int, list[Any]]) -> dict[tuple[tuple[int, ...], int], list[int]]:
    return {
        (tuple(prompt), params.seed): prompt + found[seq][0]
        for seq, (prompt, params) in enumerate(requests())
    }


# Elementwise functions of rows narrower than a vector register round differently by the number of
# rows, and so do experts' products: there the entropies of the tiny models differ in the last bits.
@pytest.mark.parametrize(
    ("name", "tolerance"), [("gemma4", 0), ("llama", 0), ("gemma4_e2b", 1e-5), ("gpt_oss", 1e-5)]
)
def test_tokens_and_entropies_are_those_without_drafts(name: str, tolerance: float) -> None:
    plain = run(Engine(tiny_models.build(name), config()))
    assert len(plain[0][0]) == NEW
    vocabulary = tiny_models.VOCABULARY
    for drafter in (
        ReplayDrafter(records(plain), vocabulary),
        ReplayDrafter(records(plain), vocabulary, (0.9, 0.7, 0.5, 0.5)),
        BranchingDrafter(records(plain), vocabulary, (0.9, 0.7, 0.5)),
        NgramDrafter(),
    ):
        # With lookahead, a step is committed before the next one is planned.
        lookahead = int(drafter.name == "ngram" or name == "llama")
        settings = config(speculate="auto", always_draft=True, lookahead=lookahead)
        engine = Engine(tiny_models.build(name), settings, drafter)
        found = run(engine)
        for seq, (tokens, entropies) in plain.items():
            assert found[seq][0] == tokens, drafter.name
            assert found[seq][1] == pytest.approx(entropies, abs=tolerance, rel=0), drafter.name
        stats = engine.stats()
        assert stats["drafted_tokens"] > 0
        if drafter.name == "replay":
            assert stats["accepted_tokens"] > NEW
            assert stats["steps"] < NEW
            assert stats["accepted_tokens"] == sum(stats["accepted_by_depth"])


def kept_cache(engine: Engine, seq: int, length: int) -> list[torch.Tensor]:
    """Return keys and values of a sequence's first tokens, as far as they are still there."""
    state = engine._scheduler.sequences[seq]
    cache = engine._runner.cache
    copies, _ = engine._scheduler.page_tables.take_copies()
    cache.copy_pages(copies)  # which the next step would make
    found = []
    for spec, (keys, values) in zip(cache._architecture.layers, cache.layers, strict=True):
        table = state.tables[cache.windows.index(spec.window)]
        begin = 0 if spec.window is None else max(0, length + 8 - spec.window)
        slots = [table[p // 4] * 4 + p % 4 for p in range(begin, length)]
        found += [part.flatten(0, 1)[slots] for part in (keys, values) if part is not None]
    return found


@pytest.mark.parametrize("name", ["gemma4", "llama"])
@pytest.mark.parametrize("branches", [False, True])
def test_rejected_drafts_leave_no_trace_in_the_cache(name: str, branches: bool) -> None:
    """Every token is drafted with a wrong sibling or is followed by a wrong one."""
    plain_run = run(Engine(tiny_models.build(name), config()))
    drafter = (BranchingDrafter if branches else ReplayDrafter)(
        records(plain_run), tiny_models.VOCABULARY, (0.9, 0.6, 0.3)
    )
    drafting = Engine(tiny_models.build(name), config(speculate="auto", always_draft=True), drafter)
    plain = Engine(tiny_models.build(name), config())
    found = []
    for engine in (plain, drafting):
        caches = {}
        seqs = {}
        for prompt, params in requests():
            seqs[engine.submit(prompt, params)] = len(prompt) + 30
        while seqs:
            engine.step()
            engine.check()
            for seq, length in list(seqs.items()):
                if len(engine.tokens(seq)) >= length:
                    caches[seq] = kept_cache(engine, seq, length - 1)
                    del seqs[seq]
                    engine.cancel(seq)
        found.append(caches)
    for seq, plain_cache in found[0].items():
        for mine, other in zip(plain_cache, found[1][seq], strict=True):
            assert len(mine) == len(other) >= 8
            assert torch.equal(mine, other)
    assert drafting.stats()["drafted_tokens"] > drafting.stats()["accepted_tokens"] > 20
