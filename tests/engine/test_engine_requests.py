"""Requests to the engine: prompts, token ids and forks, valid and invalid."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.engine_cases import tiny_models

from eightfold.engine import Engine, EngineConfig, SamplingParams


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    tiny_models.save("gemma4", tmp_path)
    return tmp_path


def test_prompts_beyond_the_context_or_the_vocabulary_are_refused(folder: Path) -> None:
    engine = Engine(folder, EngineConfig(max_context=32))
    assert engine.max_context == 32
    with pytest.raises(ValueError, match="needs room for 41"):
        engine.submit([3] * 40)
    with pytest.raises(ValueError, match="Token 128 is not in the vocabulary of 128; use"):
        engine.submit([3, 128])
    with pytest.raises(ValueError, match="Token -1"):
        engine.submit([-1])
    for tokens in ([3.0], ["3"], [None], 7):
        with pytest.raises(ValueError, match="must be whole numbers"):
            engine.submit(tokens)  # type: ignore[arg-type]
    assert not engine.has_work()


def test_token_ids_of_numpy_and_torch_are_accepted(folder: Path) -> None:
    engine = Engine(folder, EngineConfig(max_context=64, page_size=4))
    params = SamplingParams(temperature=0, max_new_tokens=3)
    lists: list[Any] = [list(range(3, 20)), np.arange(3, 20), torch.arange(3, 20)]
    seqs = [engine.submit(tokens, params) for tokens in lists]
    sampled: dict[int, list[int]] = {seq: [] for seq in seqs}
    while engine.has_work():
        for event in engine.step():
            sampled[event.seq] += event.tokens
        engine.check()
    assert sampled[seqs[0]] == sampled[seqs[1]] == sampled[seqs[2]]


def test_forks_with_a_wrong_seed_create_no_sequence(folder: Path) -> None:
    engine = Engine(folder, EngineConfig(max_context=64))
    seq = engine.submit([3, 4], SamplingParams(max_new_tokens=2))
    for seeds, words in (([1], "3 forks need 3 seeds"), ([1, 2, -1], "seed must be in")):
        with pytest.raises(ValueError, match=words):
            engine.fork(seq, 3, seeds)
    finished = set()
    while engine.has_work():
        finished |= {event.seq for event in engine.step()}
    assert finished == {seq}
