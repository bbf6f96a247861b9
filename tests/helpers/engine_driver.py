"""Drives an engine until it has no work, and the greedy tokens that transformers gives."""

import torch
from transformers import PreTrainedModel

from eightfold.engine import Engine

NEW = 30


def generate(model: PreTrainedModel, prompt: list[int], count: int = NEW) -> list[int]:
    """transformers' greedy continuation."""
    out = model.generate(
        torch.tensor([prompt]), max_new_tokens=count, do_sample=False, eos_token_id=None
    )
    return out[0, len(prompt) :].tolist()


def drive(engine: Engine) -> dict[int, list[int]]:
    """Step until nothing can run; the tokens each sequence drew meanwhile."""
    drawn: dict[int, list[int]] = {}
    while engine.has_work():
        for event in engine.step():
            drawn.setdefault(event.seq, []).extend(event.tokens)
        engine.check()
    return drawn
