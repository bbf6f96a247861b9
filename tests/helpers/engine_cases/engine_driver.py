"""Runs an engine until it is idle, and gives the greedy tokens that transformers samples."""

import torch
from transformers import PreTrainedModel

from eightfold.engine import Engine

NEW_TOKENS = 30


def greedy_reference(
    model: PreTrainedModel, prompt: list[int], count: int = NEW_TOKENS
) -> list[int]:
    """Return the greedy continuation of ``count`` tokens that transformers generates."""
    out = model.generate(
        torch.tensor([prompt]), max_new_tokens=count, do_sample=False, eos_token_id=None
    )
    return out[0, len(prompt) :].tolist()


def run_until_idle(engine: Engine) -> dict[int, list[int]]:
    """Step until nothing can run, and return the tokens that each sequence sampled meanwhile."""
    sampled: dict[int, list[int]] = {}
    while engine.has_work():
        for event in engine.step():
            sampled.setdefault(event.seq, []).extend(event.tokens)
        engine.check()
    return sampled
