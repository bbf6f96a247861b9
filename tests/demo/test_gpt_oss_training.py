"""The training of the tiny gpt-oss model: traces, tokenizer and network (15 s)."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from random import Random

import numpy as np
import pytest
import torch

from eightfold.demo.gpt_oss import harmony_training
from eightfold.demo.gpt_oss.expert_network import (
    GENERATION,
    ExpertNetwork,
    ExpertNetworkConfig,
    load_model,
    round_through,
    save_model,
    stored_tensors,
)
from eightfold.demo.gpt_oss.harmony_tokenizer import TEMPLATE
from eightfold.demo.gpt_oss.harmony_traces import (
    CONTROL_TOKENS,
    HARMONY_FORM,
    HarmonyEncoder,
)
from eightfold.demo.problems import take
from eightfold.demo.training_rows import SEGMENTS, TARGETS, TOKENS, RowPacker
from eightfold.demo.training_traces import KINDS, write_trace

MODEL = Path(__file__).resolve().parents[1] / "data" / "tiny_gpt_oss"
TINY = ExpertNetworkConfig(
    hidden_size=64,
    intermediate_size=32,
    num_hidden_layers=2,
    num_attention_heads=2,
    num_key_value_heads=1,
    num_local_experts=4,
    num_experts_per_tok=2,
)


@pytest.fixture(scope="module")
def encoder() -> HarmonyEncoder:
    return HarmonyEncoder(MODEL)


def test_the_model_has_the_scripts_tokenizer_and_configuration(encoder: HarmonyEncoder) -> None:
    assert (MODEL / TEMPLATE.name).read_bytes() == TEMPLATE.read_bytes()
    assert json.loads((MODEL / "config.json").read_text()) == ExpertNetworkConfig().to_dict()
    assert json.loads((MODEL / "generation_config.json").read_text()) == GENERATION
    for index, token in CONTROL_TOKENS.items():
        assert encoder.encode(token) == [index]


def test_prompts_and_results_are_those_of_the_solver(encoder: HarmonyEncoder) -> None:
    for problem in take("held_out", 4, seed=5):
        assert encoder.prompt(problem.problem) == encoder.protocol.render_prompt(problem.problem)


@pytest.mark.parametrize("kind", KINDS)
def test_the_solver_reads_traces_as_they_are_meant(encoder: HarmonyEncoder, kind: str) -> None:
    trace = write_trace(Random(kind), encoder.families[0], kind, HARMONY_FORM)
    made = encoder.trace(trace)
    protocol = encoder.protocol
    messages = protocol._messages_of(made.ids[made.gaps[0] :])
    assert not any(message.notes for message in messages)
    *_, last = messages
    assert f"\\boxed{{{trace.answer}}}" in last.text
    assert last.header.channel == "final"
    calls = [message for message in messages if message.header.tool]
    assert len(calls) == sum(piece.role == "tool" for piece in trace.pieces)
    # The model is trained on what it writes itself, faulty calls excepted.
    trained = [token for token, flag in zip(made.ids, made.trained, strict=True) if flag]
    own = [piece.text for piece in trace.pieces if piece.role == "model"]
    assert protocol.decode(trained) == "".join(own)


def test_rows_are_packed_from_traces(encoder: HarmonyEncoder) -> None:
    row = RowPacker(encoder, Random(7), length=1024).row()
    trained = np.flatnonzero(row[TARGETS] >= 0)
    assert len(trained) > 100
    assert (row[TARGETS, trained] == row[TOKENS, trained + 1]).all()
    assert (row[SEGMENTS, trained] == row[SEGMENTS, trained + 1]).all()


def test_the_network_equals_the_model_of_transformers() -> None:
    from transformers import GptOssConfig, GptOssForCausalLM

    config = ExpertNetworkConfig()
    network = ExpertNetwork(config)
    load_model(network, MODEL)
    model = GptOssForCausalLM(GptOssConfig(**config.to_dict(mxfp4=False))).float().eval()
    tensors = network.state_dict()
    for name in [name for name in tensors if name.endswith(("gate_up_proj", "down_proj"))]:
        tensors[name] = tensors[name].transpose(1, 2)
    model.load_state_dict(tensors)
    generator = torch.Generator().manual_seed(1)
    tokens = torch.randint(9, config.vocab_size, (1, 300), generator=generator)
    order = torch.arange(300)
    with torch.no_grad():
        ours = network(tokens, order[None], (order[:, None] >= order)[None])
        torch.testing.assert_close(ours, model(tokens).logits, atol=2e-3, rtol=1e-3)


def test_rounding_lets_gradients_pass() -> None:
    weights = torch.randn(2, 4, 64, generator=torch.Generator().manual_seed(1)).requires_grad_()
    assert torch.equal(round_through(weights, torch.tensor(0.0)), weights)
    rounded = round_through(weights, torch.tensor(1.0))
    assert 0 < (rounded - weights).abs().max() < weights.abs().max() / 2
    rounded.sum().backward()
    assert torch.equal(weights.grad, torch.ones_like(weights))  # type: ignore[arg-type]


def test_a_saved_network_is_its_rounded_self(tmp_path: Path) -> None:
    network = ExpertNetwork(TINY)
    for parameter in network.parameters():  # the file holds bfloat16
        parameter.data = parameter.data.bfloat16().float()
    save_model(network, tmp_path)
    network.set_rounding(1.0)
    loaded = ExpertNetwork(TINY)
    load_model(loaded, tmp_path)
    tokens, order = torch.arange(20)[None], torch.arange(20)
    visible = (order[:, None] >= order)[None]
    with torch.no_grad():
        torch.testing.assert_close(
            network(tokens, order[None], visible), loaded(tokens, order[None], visible)
        )
    assert stored_tensors(loaded).keys() == stored_tensors(network).keys()


@pytest.mark.slow
@pytest.mark.timeout(250)
def test_it_trains_and_writes_a_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shape = {name: getattr(TINY, name) for name in TINY.__dataclass_fields__}
    options = ["--minutes", "0.05", "--rows", "1", "--length", "512", "--workers", "1"]
    options += ["--every", "1", "--capacity", "4", "--shape", json.dumps(shape)]
    harmony_training.main([*options, "--source", str(MODEL), "--out", str(tmp_path)])
    assert "step 1 loss" in capsys.readouterr().out
    load_model(ExpertNetwork(replace(TINY)), tmp_path)
    assert (tmp_path / "tokenizer.json").read_bytes() == (MODEL / "tokenizer.json").read_bytes()
