"""A tiny gpt-oss model solves problems: sinks, experts in MXFP4, the Harmony format (20 s)."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from helpers.solver_cases.tiny_gpt_oss_problems import PHRASINGS, known_problems

from eightfold.demo.gpt_oss.harmony_traces import FAMILY_NAMES
from eightfold.solver import Solver, SolverConfig

MODEL = Path(__file__).resolve().parents[1] / "data" / "tiny_gpt_oss"

pytestmark = pytest.mark.timeout(280)


@pytest.mark.parametrize(
    "device",
    [
        "cpu",
        pytest.param(
            "cuda",
            marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
        ),
    ],
)
def test_it_answers_right_by_calls_of_the_tool(device: str) -> None:
    from eightfold.engine import EngineConfig

    config = SolverConfig(
        model=MODEL,
        attempts=2,
        early_stop=1,
        kernels=2,
        time=200,
        reasoning_effort="low",
        engine=EngineConfig(device=device, max_running=2),
    )
    with Solver(config) as solver:
        assert solver.protocol.family == "harmony"
        known = known_problems(seed=5)
        for one in known if device == "cuda" else known[::2]:  # a CPU takes seconds for each
            result = solver.solve(one.problem)
            assert result.answer == one.answer, one
            assert not result.faults
            assert result.calls >= 1
            answered = [record for record in result.attempts if record["ending"] == "answered"]
            assert not any(turn["notes"] for record in answered for turn in record["turns"])


def test_its_problems_are_of_all_its_families() -> None:
    assert set(PHRASINGS) == set(FAMILY_NAMES)


def test_the_command_solves_with_it() -> None:
    problem = "What is the remainder when $5^{8985}$ is divided by 66?"
    command = [sys.executable, "-m", "eightfold.solver.cli", "solve", problem, "--json"]
    done = subprocess.run(
        [*command, "--model", str(MODEL), "--attempts", "2", "--device", "cpu"],
        capture_output=True,
        text=True,
        timeout=250,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1])["answer"] == 23
    assert "in the format harmony" in done.stderr


def test_its_files_are_small_and_its_experts_stored_in_four_bits() -> None:
    from safetensors import safe_open

    assert sum(path.stat().st_size for path in MODEL.iterdir()) <= 6_000_000
    with safe_open(MODEL / "model.safetensors", framework="pt") as tensors:
        names = set(tensors.keys())
        assert tensors.get_tensor("model.layers.0.self_attn.sinks").abs().max() > 0.1
    for matrix in ("gate_up_proj", "down_proj"):
        stored = f"model.layers.5.mlp.experts.{matrix}"
        assert {f"{stored}_blocks", f"{stored}_scales", f"{stored}_bias"} <= names
        assert stored not in names
