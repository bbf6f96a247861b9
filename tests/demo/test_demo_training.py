"""The training of the bundled model: traces, tokenizer, rows and network. 15 s."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from itertools import islice
from pathlib import Path
from random import Random

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from eightfold.demo import model_path
from eightfold.demo.control_tokens import CONTROL_TOKENS
from eightfold.demo.error_recovery import faulty_attempts
from eightfold.demo.problems import take
from eightfold.demo.tokenizer import build, check, save
from eightfold.demo.training_network import GENERATION, Network, NetworkConfig, load_weights
from eightfold.demo.training_rows import (
    POSITIONS,
    SEGMENTS,
    TARGETS,
    TOKENS,
    RowPacker,
    TraceEncoder,
)
from eightfold.demo.training_traces import KINDS, write_trace

MODEL = model_path()
TRAIN_SCRIPT = Path(__file__).resolve().parents[2] / "demo" / "train.sh"


@pytest.fixture(scope="module")
def encoder() -> TraceEncoder:
    return TraceEncoder(MODEL)


@pytest.mark.parametrize("kind", KINDS)
def test_traces_end_in_their_answer_and_mask_faulty_calls(kind: str) -> None:
    trace = write_trace(Random(kind), kind=kind)
    assert trace.kind == kind
    assert f"\\boxed{{{trace.answer}}}" in trace.pieces[-1].text
    assert trace.pieces[-1].text.endswith("<turn|>")
    for piece, output in zip(trace.pieces, trace.pieces[1:], strict=False):
        if output.role == "tool" and "Error" in output.text:
            assert piece.role == "masked"


def test_the_tokenizer_has_gemmas_control_tokens(encoder: TraceEncoder) -> None:
    check(encoder.fast)
    tokenizer = encoder.protocol.tokenizer
    found = {i: tokenizer.convert_ids_to_tokens(i) for i in CONTROL_TOKENS}
    assert found == CONTROL_TOKENS
    assert (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id) == (2, 1, 0)


def test_the_tokenizer_is_saved_with_the_chat_template(
    encoder: TraceEncoder, tmp_path: Path
) -> None:
    for _ in range(2):  # into a new folder, and over the files that lie there
        save(encoder.fast, tmp_path)
        for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
            assert (tmp_path / name).read_bytes() == (MODEL / name).read_bytes(), name


def test_training_prompts_are_those_of_the_solver(encoder: TraceEncoder) -> None:
    for problem in take("held_out", 8, seed=5):
        assert encoder.prompt(problem.problem) == encoder.protocol.render_prompt(problem.problem)
    output = encoder.protocol.untrusted_text.encode("12\n3")
    before, after = encoder.tool_frame
    assert encoder.protocol.tool_response(["12\n3"]) == [*before, *output, *after]


def test_targets_are_the_next_token_of_the_same_trace(encoder: TraceEncoder) -> None:
    row = RowPacker(encoder, Random(7), length=1024).row()
    trained = np.flatnonzero(row[TARGETS] >= 0)
    assert len(trained) > 100
    assert (row[TARGETS, trained] == row[TOKENS, trained + 1]).all()
    assert (row[SEGMENTS, trained] == row[SEGMENTS, trained + 1]).all()
    assert (row[POSITIONS, trained] < 8192).all()


def test_noise_replaces_words_of_the_problem_only(encoder: TraceEncoder) -> None:
    trace = write_trace(Random(5), kind="plain")
    clean = encoder.trace(trace)
    end = len(encoder.user(trace.problem))
    changed = 0
    for seed in range(60):
        noisy = encoder.trace(trace)
        encoder.add_noise(noisy, Random(seed))
        assert len(noisy.ids) == len(clean.ids)
        for index, (old, new) in enumerate(zip(clean.ids, noisy.ids, strict=True)):
            if old != new:
                changed += 1
                assert index < end
                assert not {old, new} & encoder.digits
        assert noisy.trained[end:] == clean.trained[end:]
        first = noisy.trained.index(True)
        assert first >= end - len(encoder.after_user)
        assert clean.trained.index(True) < first
    assert changed > 20


def test_a_faulty_beginning_ends_with_the_error_of_its_call(encoder: TraceEncoder) -> None:
    for attempt, error in islice(faulty_attempts(encoder, seed=3), 12):
        text = encoder.fast.decode(attempt.prompt, skip_special_tokens=False)
        assert attempt.prompt[: len(encoder.prefix)] == encoder.prefix
        assert attempt.prompt[-1] == encoder.tool_frame[1][-1]
        assert error.endswith("Error")
        assert error in text.rpartition("response:python")[2]
        assert "\\boxed" not in text.rpartition("<|turn>")[2]


def test_the_same_seed_builds_the_same_tokenizer(tmp_path: Path) -> None:
    for name in ("one", "two"):
        build(tmp_path / name, traces=40, vocabulary=600)
    texts = [(tmp_path / name / "tokenizer.json").read_bytes() for name in ("one", "two")]
    assert texts[0] == texts[1]


def test_the_network_equals_the_model_of_transformers() -> None:
    from transformers import Gemma4ForCausalLM

    config = NetworkConfig()
    assert json.loads((MODEL / "config.json").read_text()) == config.to_dict()
    assert json.loads((MODEL / "generation_config.json").read_text()) == GENERATION
    network = Network(config)
    load_weights(network, MODEL)
    assert sum(p.numel() for p in network.parameters()) <= 32_000_000
    model = Gemma4ForCausalLM.from_pretrained(MODEL, dtype=torch.float32)
    tokens = torch.randint(110, 4096, (1, 300), generator=torch.Generator().manual_seed(1))
    order = torch.arange(300)
    full = order[:, None] >= order
    near = full & (order[:, None] - order < config.sliding_window)

    def attend(q: Tensor, k: Tensor, v: Tensor, sliding: bool) -> Tensor:
        mask = near if sliding else full
        return F.scaled_dot_product_attention(q, k, v, mask, scale=1.0, enable_gqa=True)

    with torch.no_grad():
        ours = network(tokens, order[None], attend)
        torch.testing.assert_close(ours, model(tokens).logits, atol=2e-3, rtol=1e-3)
    assert max(path.stat().st_size for path in MODEL.iterdir()) <= 16 * 2**20


@pytest.mark.slow
@pytest.mark.timeout(290)
def test_a_clone_trains_without_being_installed(tmp_path: Path) -> None:
    """The script finds all modules that it needs, and writes a model that can be loaded."""
    if not TRAIN_SCRIPT.is_file():
        pytest.skip("the script is part of a clone, not of the package")
    tiny = {"num_hidden_layers": 5, "hidden_size": 32, "intermediate_size": 32}
    options = ["--minutes", "0.05", "--rows", "1", "--length", "1024", "--workers", "1"]
    options += ["--every", "1", "--capacity", "8", "--shape", json.dumps(tiny)]
    options += ["--source", str(MODEL)]
    path = os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"]))
    done = subprocess.run(
        ["sh", str(TRAIN_SCRIPT), *options, "--out", str(tmp_path)],
        env={**os.environ, "PATH": path, "OMP_NUM_THREADS": "1"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert done.returncode == 0, done.stderr
    assert "step 1 loss" in done.stdout
    network = Network(NetworkConfig(**tiny))
    load_weights(network, tmp_path)
