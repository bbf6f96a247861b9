"""The GPU runner with the fused decoder, and with transformers' modules over the kernels.

The kernels run in Triton's interpreter, in float32 and without graphs. test_gpu_runner_tokens.py
runs them on a GPU.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from helpers.engine_cases import tiny_models
from helpers.engine_cases.config_variants import LAYERS, VARIANTS
from helpers.engine_cases.engine_driver import greedy_reference, run_until_idle
from helpers.kernel_cases.kernel_devices import CUDA

from eightfold.engine import Engine, EngineConfig, SamplingParams, UnsupportedModelError
from eightfold.engine.execution import gpu_runner
from eightfold.engine.inspection.architecture import inspect_architecture
from eightfold.engine.inspection.families import FAMILIES
from eightfold.engine.models.fused import fused_decoder
from eightfold.engine.startup.runner_factory import choose_fused

pytestmark = pytest.mark.skipif(CUDA, reason="the interpreter takes tensors of a CPU only")

DEVICE = "cpu"
CONFIG = EngineConfig(
    device=DEVICE, fused=True, max_step_tokens=16, max_running=4, max_context=64, page_size=16
)
NEW = 4
LENGTHS = (3, 21, 9)


def greedy(**changes: object) -> SamplingParams:
    return SamplingParams(
        **{"temperature": 0, "max_new_tokens": NEW, "stop_token_ids": (), **changes}  # type: ignore[arg-type]
    )


def prompts() -> list[list[int]]:
    generator = torch.Generator().manual_seed(7)
    return [
        torch.randint(3, tiny_models.VOCABULARY, (n,), generator=generator).tolist()
        for n in LENGTHS
    ]


@pytest.mark.parametrize("name", tiny_models.FUSED_BUILDERS)
def test_greedy_tokens_equal_generate(name: str, tmp_path: Path) -> None:
    reference = tiny_models.save(name, tmp_path)
    expected = [greedy_reference(reference, prompt, NEW) for prompt in prompts()]
    assert len(set(expected[0])) > 1, "a reference that repeats one token proves little"
    engine = Engine(tmp_path, CONFIG)
    for layer in engine._runner.decoder.layers:
        loaded = layer.qkv.untyped_storage().nbytes()
        assert loaded == layer.qkv.nbytes, "q, k and v must be loaded into one tensor"
    seqs = [engine.submit(prompt, greedy()) for prompt in prompts()]
    generated = run_until_idle(engine)
    assert [generated[seq] for seq in seqs] == expected
    assert engine.table().startswith("path: fused, a row of gemma4_text\n")
    one_copy = [values is None for _, values in engine._runner.cache.layers]
    assert one_copy == [False, name == "gemma4_one_copy"]


def test_pause_fork_and_lookahead() -> None:
    reference = tiny_models.build("gemma4_one_copy")
    prompt, tool = prompts()[1], [5, 9, 11]
    before = greedy_reference(reference, prompt, 3)
    first = before.index(before[2]) + 1
    model = tiny_models.build("gemma4_one_copy").to(DEVICE)
    engine = Engine(model, replace(CONFIG, lookahead=1))
    seq = engine.submit(prompt, greedy(pause_token_ids=(before[2],), max_new_tokens=first + 4))
    assert run_until_idle(engine)[seq] == before[:first]
    twin = engine.fork(seq, 1, [3])[0]
    for each in (seq, twin):
        engine.resume(each, tool)
    generated = run_until_idle(engine)
    after = greedy_reference(reference, [*prompt, *before[:first], *tool], 4)
    end = after.index(before[2]) + 1 if before[2] in after else 4
    assert generated[seq] == generated[twin] == after[:end]
    assert engine.stats()["recomputed_tokens"] == 0


def test_tokens_and_entropies_equal_those_of_the_cpu_runner() -> None:
    params = SamplingParams(
        temperature=0.8, top_p=0.9, top_k=40, min_p=0.01, seed=2**63 + 5, max_new_tokens=NEW,
        entropy=True, stop_token_ids=(),
    )  # fmt: skip
    found = []
    for fused in (True, False):
        device = DEVICE if fused else "cpu"
        config = replace(CONFIG, fused=fused, device=device)
        engine = Engine(tiny_models.build("gemma4_one_copy").to(device), config)
        for prompt in prompts()[1:]:
            engine.submit(prompt, params)
        events = []
        while engine.has_work():
            events += engine.step()
        found.append(events)
    assert [(e.seq, e.tokens) for e in found[0]] == [(e.seq, e.tokens) for e in found[1]]
    for mine, other in zip(*found, strict=True):
        assert mine.entropies == pytest.approx(other.entropies, abs=1e-3)


@pytest.mark.parametrize("name", ["gemma4_e2b", "qwen3", "gpt_oss"])
def test_tokens_of_transformers_modules_over_the_kernels(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = [greedy_reference(tiny_models.build(name), prompt, NEW) for prompt in prompts()]
    monkeypatch.setattr("eightfold.engine.engine.uses_kernels", lambda *_: True)
    config = replace(CONFIG, fused=False)
    engine = Engine(tiny_models.build(name).to(DEVICE), config)
    seqs = [engine.submit(prompt, greedy()) for prompt in prompts()]
    generated = run_until_idle(engine)
    assert [generated[seq] for seq in seqs] == expected


@pytest.mark.parametrize("kind", ["fused", "modules", "plain"])
def test_the_head_runs_only_on_rows_that_sample(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each step computes three single tokens and one of a long prompt, later four of the prompt."""
    asked = [[5], [17], [90], prompts()[1]]
    expected = [
        greedy_reference(tiny_models.build("gemma4_one_copy"), prompt, NEW) for prompt in asked
    ]
    monkeypatch.setattr("eightfold.engine.engine.uses_kernels", lambda *_: kind != "plain")
    config = replace(CONFIG, fused=kind == "fused", max_step_tokens=4, lookahead=0)
    engine = Engine(tiny_models.build("gemma4_one_copy"), config)
    seen = rows_of_the_head(engine, monkeypatch)
    generated: dict[int, list[int]] = {}
    steps = []
    seqs = [engine.submit(prompt, greedy()) for prompt in asked]
    while engine.has_work():
        events = engine.step()
        for event in events:
            generated.setdefault(event.seq, []).extend(event.tokens)
        steps.append((sum(seen), len(events)))
        seen.clear()
    assert [generated[seq] for seq in seqs] == expected
    three = 3 if kind == "plain" else 4  # with padding
    assert steps == [(three, 3)] * NEW + [(0, 0)] * 4 + [(1, 1)] * NEW


def test_the_last_layer_only_fills_its_cache_if_nothing_samples(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    prompt = list(range(3, 14))
    expected = greedy_reference(tiny_models.build("gemma4_one_copy"), prompt, NEW)
    engine = Engine(tiny_models.build("gemma4_one_copy"), replace(CONFIG, max_step_tokens=4))
    layers, attend = len(engine._runner.decoder.layers), fused_decoder.attend
    calls: list[int] = []

    def count_call(*arguments: Any, **options: Any) -> Any:
        calls.append(1)
        return attend(*arguments, **options)

    monkeypatch.setattr(fused_decoder, "attend", count_call)
    seq, generated, steps = engine.submit(prompt, greedy()), [], []
    while not generated:
        generated += [token for event in engine.step() for token in event.tokens]
        steps.append(len(calls))
        calls.clear()
    assert steps[:3] == [layers - 1, layers - 1, layers], "chunks of 4, 4 and 3 tokens"
    while engine.has_work():
        generated += [token for event in engine.step() for token in event.tokens]
    assert generated == expected
    assert seq == 0


def rows_of_the_head(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return a list to which each run of the head adds its rows; no more rows are sampled."""
    seen: list[int] = []
    runner = engine._runner
    sample, linear = gpu_runner.sample_tokens, fused_decoder.linear_few_rows

    def sample_tokens(logits: torch.Tensor, batch: Any, *rest: Any, **options: Any) -> Any:
        assert len(batch.seeds) == len(logits) == sum(seen) > 0
        return sample(logits, batch, *rest, **options)

    def linear_few_rows(x: torch.Tensor, weight: torch.Tensor, *rest: Any, **options: Any) -> Any:
        if weight is runner.decoder._head:
            seen.append(len(x))
        return linear(x, weight, *rest, **options)

    monkeypatch.setattr(gpu_runner, "sample_tokens", sample_tokens)
    monkeypatch.setattr(fused_decoder, "linear_few_rows", linear_few_rows)
    if not engine.config.fused:
        model = getattr(runner, "model", None) or runner.decoder._model
        model.lm_head.register_forward_hook(lambda _, given, __: seen.append(given[0].shape[-2]))
    return seen


REFUSED = [
    (lambda: transformers.GraniteConfig(**LAYERS), "the fused decoder has no row for granite"),
    (lambda: transformers.LlamaConfig(**LAYERS, mlp_bias=True), "does not cover mlp_bias = True"),
    (lambda: transformers.Qwen3Config(**LAYERS, hidden_act="relu"), "have no activation 'relu'"),
    (VARIANTS["gemma2_softcap"], "has no row for gemma2"),
]


@pytest.mark.parametrize(("make", "words"), REFUSED, ids=[words for _, words in REFUSED])
def test_what_no_row_covers_runs_through_modules_and_says_why(make: Any, words: str) -> None:
    architecture = inspect_architecture(make())
    choice = choose_fused(architecture, EngineConfig(), kernels=True)
    assert choice.architecture is None
    assert words in choice.reason
    with pytest.raises(UnsupportedModelError, match=f"no fused kernels for this .* {words}"):
        choose_fused(architecture, CONFIG, kernels=True)


def test_a_tensor_that_a_row_does_not_describe_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """A norm more in a newer transformers, say."""
    architecture = inspect_architecture(tiny_models.build("qwen3").config)
    assert choose_fused(architecture, CONFIG, kernels=True).reason == "a row of qwen3"
    monkeypatch.setitem(FAMILIES, "qwen3", replace(FAMILIES["qwen3"], pre_feedforward_norm=""))
    with pytest.raises(UnsupportedModelError, match=r"not cover post_attention_layernorm\.weight"):
        choose_fused(architecture, CONFIG, kernels=True)
