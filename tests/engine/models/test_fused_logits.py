"""Logits of the fused layers against those of transformers, for the same tokens.

Compared are the relative Frobenius norm of the error, and how often both have the same first
choice. On a GPU the dtype is bfloat16, and the error is compared with that of transformers in
bfloat16. Without a GPU the kernels run in Triton's interpreter in float32.
"""

import copy
from typing import Any

import pytest
import torch
from helpers.engine_cases import family_configs, tiny_models
from helpers.engine_cases.engine_driver import run_until_idle
from helpers.kernel_cases.kernel_devices import CUDA, DEVICE, DTYPE, relative_error
from transformers import PreTrainedModel

from eightfold.engine import Engine, EngineConfig, SamplingParams

NEW, LENGTHS = 3, (1, 40)


def record_logits(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> list[torch.Tensor]:
    """Return a list to which each step adds its float32 logits, after the softcap."""
    found: list[torch.Tensor] = []
    decoder: Any = engine._runner.decoder
    compute, cap = decoder.logits, decoder.softcap

    def logits(*arguments: Any) -> torch.Tensor:
        out = compute(*arguments)
        if len(out):
            found.append((cap * torch.tanh(out / cap) if cap else out).cpu().clone())
        return out

    monkeypatch.setattr(decoder, "logits", logits)
    engine._runner.graph_pool = None  # a replayed graph would not call `logits`
    return found


def build(name: str) -> PreTrainedModel:
    """Return a model of tiny_models, or on a GPU one of a family, wide enough for all kernels."""
    if name not in family_configs.CONFIGS:
        return tiny_models.build(name)
    config = family_configs.CONFIGS[name]()
    config.hidden_size, config.intermediate_size = 256, 512
    if hasattr(config, "moe_intermediate_size"):
        config.moe_intermediate_size = 256
    if getattr(config, "hidden_size_per_layer_input", 0):
        config.hidden_size_per_layer_input = 64
    if config.model_type != "gemma4_text":  # whose layers have heads of their own
        config.head_dim = 64
    torch.manual_seed(0)
    return family_configs.build(config)


@pytest.mark.parametrize(
    "name",
    [
        *tiny_models.FUSED_BUILDERS,
        *tiny_models.WIDE_BUILDERS,
        *(family_configs.CONFIGS if CUDA else ()),
    ],
)
def test_logits(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = build(name)
    exact, plain = copy.deepcopy(model).float().to(DEVICE), copy.deepcopy(model).to(DEVICE, DTYPE)
    config = EngineConfig(
        device=DEVICE, fused=True, max_step_tokens=24, max_running=1, max_context=128,
        page_size=16, memory_fraction=0.01 if CUDA else None, lookahead=0,
    )  # fmt: skip
    engine = Engine(model.to(DEVICE, DTYPE), config)
    found = record_logits(engine, monkeypatch)
    settings = SamplingParams(temperature=0, max_new_tokens=NEW, stop_token_ids=())
    for length in LENGTHS:
        found.clear()
        generator = torch.Generator().manual_seed(length)
        prompt = torch.randint(3, tiny_models.VOCABULARY, (length,), generator=generator).tolist()
        seq = engine.submit(prompt, settings)
        generated = run_until_idle(engine)[seq]
        ids = torch.tensor([prompt + generated[:-1]], device=DEVICE)
        with torch.inference_mode():
            expected, usual = (
                each(ids).logits[0, length - 1 :].float().cpu() for each in (exact, plain)
            )
        mine = torch.stack([row[0] for row in found])
        error, limit = relative_error(mine, expected), 1.5 * relative_error(usual, expected) + 1e-5
        same = int((mine.argmax(1) == expected.argmax(1)).sum())
        print(f"{name}: relative error {error:.1e} of {limit:.1e}, first choice {same} of {NEW}")
        assert mine.shape == expected.shape
        assert error < limit
        if not CUDA:
            assert same == NEW
