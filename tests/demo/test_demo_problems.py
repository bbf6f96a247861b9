"""The bundled model's problems, traces, tokenizer and checkpoint."""

from __future__ import annotations

import json
from pathlib import Path
from random import Random

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from eightfold.demo import model_path
from eightfold.demo.families import FAMILIES, fill
from eightfold.demo.problems import (
    agreed_answer,
    draw_params,
    held_out,
    held_out_phrasing,
    is_held_out,
    main,
)
from eightfold.demo.tokenizer import CONTROL, check
from eightfold.demo.training_network import Network, Shape, load_weights
from eightfold.demo.training_rows import OWNERS, POSITIONS, TARGETS, TOKENS, Packer, Renderer
from eightfold.demo.training_traces import KINDS, write_trace

MODEL = model_path()


@pytest.fixture(scope="module")
def renderer() -> Renderer:
    return Renderer(MODEL)


def test_families_have_what_the_split_needs() -> None:
    assert len(FAMILIES) >= 24
    assert len({family.name for family in FAMILIES}) == len(FAMILIES)
    for family in FAMILIES:
        family.check()


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_programs_agree_and_texts_are_filled(family) -> None:  # type: ignore[no-untyped-def]
    rng = Random(family.name)
    answers = set()
    for _ in range(3):
        params = draw_params(family, rng, held_out=False)
        answers.add(agreed_answer(family, params))
        for phrasing in family.phrasings:
            text = fill(phrasing, params, rng)
            assert "<find>" not in text
            assert any(str(value) in text for value in params.values())
    assert answers - {None}


def test_splits_are_apart_and_repeatable() -> None:
    rng = Random(1)
    family = FAMILIES[0]
    assert all(is_held_out(family.name, draw_params(family, rng, True)) for _ in range(20))
    assert not any(is_held_out(family.name, draw_params(family, rng, False)) for _ in range(20))
    assert held_out(5, seed=3) == held_out(5, seed=3)
    assert held_out(5, seed=3) != held_out(5, seed=4)
    last = {family.name: len(family.phrasings) - 1 for family in FAMILIES}
    assert all(p.phrasing < last[p.family] for p in held_out(60))
    assert all(p.phrasing == last[p.family] for p in held_out_phrasing(60))


def test_command_writes_json_lines(tmp_path: Path) -> None:
    out = tmp_path / "problems.jsonl"
    assert main(["--split", "held_out", "--count", "3", "--out", str(out)]) == 0
    made = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
    assert [p["family"] for p in made] == [family.name for family in FAMILIES[:3]]
    assert all(p["answer"] in range(100_000) for p in made)


@pytest.mark.parametrize("kind", KINDS)
def test_traces_end_in_their_answer_and_learn_no_faulty_call(kind: str) -> None:
    trace = write_trace(Random(kind), kind=kind)
    assert trace.kind == kind
    assert f"\\boxed{{{trace.answer}}}" in trace.pieces[-1].text
    assert trace.pieces[-1].text.endswith("<turn|>")
    for piece, output in zip(trace.pieces, trace.pieces[1:], strict=False):
        if output.who == "tool" and "Error" in output.text:
            assert piece.who == "unlearned"


def test_tokenizer_has_gemmas_control_tokens(renderer: Renderer) -> None:
    check(renderer.fast)
    tokenizer = renderer.protocol.tokenizer
    assert {i: tokenizer.convert_ids_to_tokens(i) for i in CONTROL} == CONTROL
    assert (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id) == (2, 1, 0)


def test_training_prompts_are_the_solvers(renderer: Renderer) -> None:
    for problem in held_out(8, seed=5):
        assert renderer.prompt(problem.problem) == renderer.protocol.render_prompt(problem.problem)
    output = renderer.protocol.untrusted_text.encode("12\n3")
    before, after = renderer.tool_frame
    assert renderer.protocol.tool_response(["12\n3"]) == [*before, *output, *after]


def test_rows_learn_the_next_token_of_the_same_trace(renderer: Renderer) -> None:
    row = Packer(renderer, Random(7), length=1024).row()
    learned = np.flatnonzero(row[TARGETS] >= 0)
    assert len(learned) > 100
    assert (row[TARGETS, learned] == row[TOKENS, learned + 1]).all()
    assert (row[OWNERS, learned] == row[OWNERS, learned + 1]).all()
    assert (row[POSITIONS, learned] < 8192).all()


def test_network_equals_the_librarys_model() -> None:
    from transformers import Gemma4ForCausalLM

    shape = Shape()
    assert json.loads((MODEL / "config.json").read_text()) == shape.config()
    network = Network(shape)
    load_weights(network, MODEL)
    assert sum(p.numel() for p in network.parameters()) <= 16_000_000
    model = Gemma4ForCausalLM.from_pretrained(MODEL, dtype=torch.float32)
    tokens = torch.randint(110, 2048, (1, 300), generator=torch.Generator().manual_seed(1))
    order = torch.arange(300)
    full = order[:, None] >= order
    near = full & (order[:, None] - order < shape.sliding_window)

    def attend(q: Tensor, k: Tensor, v: Tensor, sliding: bool) -> Tensor:
        mask = near if sliding else full
        return F.scaled_dot_product_attention(q, k, v, mask, scale=1.0, enable_gqa=True)

    with torch.no_grad():
        ours = network(tokens, order[None], attend)
        torch.testing.assert_close(ours, model(tokens).logits, atol=2e-3, rtol=1e-3)
    assert max(path.stat().st_size for path in MODEL.iterdir()) <= 16 * 2**20
