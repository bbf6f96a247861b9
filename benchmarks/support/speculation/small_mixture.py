"""A small mixture of experts on a CPU: what speculation costs where it brings little."""

import time
from typing import Any

import torch
import transformers

from eightfold.engine import Engine, EngineConfig, SamplingParams

TOKENS, PROMPT = 160, 48


def small_mixture() -> transformers.PreTrainedModel:
    """Return a random mixture of 32 experts, four of which a token chooses."""
    torch.manual_seed(0)
    config = transformers.Qwen3MoeConfig(
        vocab_size=2048, hidden_size=256, intermediate_size=512, moe_intermediate_size=256,
        num_hidden_layers=4, num_attention_heads=4, num_key_value_heads=2, head_dim=64,
        num_experts=32, num_experts_per_tok=4, max_position_embeddings=1024,
    )  # fmt: skip
    return transformers.AutoModelForCausalLM.from_config(config).float().eval()


def run_mixture(speculate: str, batch: int, temperature: float) -> dict[str, Any]:
    """Sample from the mixture, and return the processor time of its steps and what was drafted.

    Args:
        speculate: as in `EngineConfig`.
        batch: sequences.
        temperature: 0 for text that soon repeats itself, so that drafts are often right.
    """
    config = EngineConfig(
        device="cpu", max_running=batch, max_context=512, full_pages=batch * 32 + 2,
        speculate=speculate,
    )  # fmt: skip
    engine = Engine(small_mixture(), config)
    sampled: dict[int, list[int]] = {}
    for seed in range(batch):
        prompt = [(seed * 31 + place * 7) % 2000 + 8 for place in range(PROMPT)]
        params = SamplingParams(
            temperature=temperature, seed=seed, max_new_tokens=TOKENS, stop_token_ids=()
        )
        sampled[engine.submit(prompt, params)] = []
    while not all(sampled.values()):
        for event in engine.step():
            sampled[event.seq] += event.tokens
    began = time.process_time()
    while engine.has_work():
        for event in engine.step():
            sampled[event.seq] += event.tokens
    stats = engine.stats()
    return {
        "seconds": round(time.process_time() - began, 3),
        "steps": stats["steps"],
        "drafted": stats["drafted_tokens"],
        "accepted": stats["accepted_tokens"],
        "sampled": list(sampled.values()),
    }
