"""Machines without Triton, which PyTorch's builds for CPUs do not bring along."""

import subprocess
import sys
from pathlib import Path

import pytest

from eightfold.demo import model_path

PROGRAM = """
import sys
sys.modules["triton"] = None  # any import of it fails
from eightfold.engine import Engine, EngineConfig, SamplingParams
engine = Engine(sys.argv[1], EngineConfig(max_running=2, speculate=sys.argv[2], kv="fp8"))
first = engine.submit([5, 6, 7], SamplingParams(max_new_tokens=4, stop_token_ids=()))
engine.fork(first, 1, seeds=[2])
tokens = 0
while engine.has_work():
    tokens += sum(len(event.tokens) for event in engine.step())
print(tokens)
"""
GPT_OSS = Path(__file__).parents[2] / "data" / "tiny_gpt_oss"


@pytest.mark.parametrize(
    ("folder", "drafter"), [(model_path(), "auto"), (GPT_OSS, "ngram")], ids=["bundled", "experts"]
)
def test_an_engine_runs_on_a_cpu(folder: Path, drafter: str) -> None:
    command = [sys.executable, "-c", PROGRAM, str(folder), drafter]
    done = subprocess.run(command, capture_output=True, text=True, timeout=200)
    assert (done.returncode, done.stdout) == (0, "8\n"), done.stderr
