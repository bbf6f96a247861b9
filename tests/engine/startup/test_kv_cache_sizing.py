"""Page pools are sized so that all sequences can run at once; what cannot fit is refused."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from helpers.engine_cases import tiny_models
from helpers.engine_cases.engine_driver import run_until_idle
from helpers.engine_cases.gpt_oss_checkpoints import QUANTIZATION
from transformers import GptOssConfig

from eightfold.engine import Engine
from eightfold.engine.engine_config import EngineConfig
from eightfold.engine.execution.cpu_batch import KEY_BLOCK
from eightfold.engine.inspection.architecture import Architecture, inspect_architecture
from eightfold.engine.inspection.kv_geometry import LayerSpec, bytes_per_token
from eightfold.engine.loading.checkpoint import meta_model_for
from eightfold.engine.model_errors import ModelError
from eightfold.engine.sampling_params import SamplingParams
from eightfold.engine.scheduling.pages.page_tables import PageTables
from eightfold.engine.scheduling.scheduled_step import StepResult
from eightfold.engine.scheduling.scheduler import Scheduler
from eightfold.engine.startup import kv_cache_sizing
from eightfold.engine.startup.dummy_step import measure_step
from eightfold.engine.startup.kv_cache_sizing import (
    kernels_cache_budget,
    limited_free,
    size_page_groups,
)
from eightfold.kernels.attention import torch_fallback

WINDOW = 256


def architecture(window: int | None = WINDOW) -> Architecture:
    layers = (LayerSpec(0, window, 2, 16, 0), LayerSpec(1, None, 1, 32, 1, one_copy=True))
    return Architecture(None, None, layers, 100_000, wrapped=False)  # type: ignore[arg-type]


@pytest.mark.parametrize("running", [1, 3, 8])
@pytest.mark.parametrize("size", [16, 64])
@pytest.mark.parametrize("chunk", [16, 100, 256])
@pytest.mark.parametrize("lookahead", [0, 1])
def test_all_sequences_run_at_once(running: int, size: int, chunk: int, lookahead: int) -> None:
    config = EngineConfig(max_running=running, max_step_tokens=chunk, max_context=1500)
    groups, context = size_page_groups(architecture(), config, size, 2, 1 << 30)
    assert context == 1500
    scheduler = Scheduler(PageTables(groups, size), running, chunk, context)
    params = SamplingParams(stop_token_ids=())
    waiting = {scheduler.submit([3] * (700 + 13 * i), params) for i in range(running)}
    in_flight, steps = [], 0
    while waiting:
        plan = scheduler.plan()
        if plan is not None:
            in_flight.append(plan)
        if plan is None or len(in_flight) > lookahead:
            done = in_flight.pop(0)
            sampled = sum(entry.samples for entry in done.scheduled)
            events = scheduler.commit(done, StepResult([5] * sampled, [0.0] * sampled))
            waiting -= {event.seq for event in events}
        steps += 1
        # Prompts have about 750 tokens; no sequence waits for another one to end.
        assert steps < running * (2 + 2 * 800 // max(1, chunk - running)) + 10
    assert scheduler.counters.preempted == 0


def test_windows_get_what_full_attention_cannot_use() -> None:
    config = EngineConfig(max_running=128, max_step_tokens=256, max_context=700)
    large, _ = size_page_groups(architecture(), config, 64, 2, 1 << 30)
    layers = architecture().layers
    full, sliding = (
        group.page_count * 64 * bytes_per_token(layers, group.window, 2) for group in large
    )
    assert sliding > full, "half of a budget that holds both would not suffice for the windows"
    assert size_page_groups(architecture(), config, 64, 2, full + sliding)[0] == large
    # Full attention that could use more than half of the budget gets half of it.
    config = EngineConfig(max_running=128, max_step_tokens=256)
    groups, _ = size_page_groups(architecture(), config, 64, 2, full + sliding)
    page_bytes = 64 * bytes_per_token(layers, WINDOW, 2)
    assert groups[1].page_count == (full + sliding) // 2 // page_bytes


def test_one_copy_counts_once() -> None:
    assert bytes_per_token(architecture().layers, None, 2) == 32 * 2
    assert bytes_per_token(architecture().layers, WINDOW, 2) == 2 * 2 * 16 * 2


def test_a_budget_without_room_for_a_sequence_is_refused() -> None:
    with pytest.raises(ModelError, match="does not hold two pages"):
        size_page_groups(architecture(), EngineConfig(), 64, 2, 20_000)
    config = EngineConfig(max_step_tokens=1024, max_context=4096, sliding_pages=8)
    with pytest.raises(ModelError, match="lower max_step_tokens"):
        size_page_groups(architecture(), config, 64, 2, 1 << 30)


def test_a_smaller_gpu_can_be_tried_out() -> None:
    assert limited_free(100, 140, None) == 100
    assert limited_free(100, 140, 80) == 40, "40 of the 80 are in use"
    assert limited_free(100, 140, 200) == 100
    assert limited_free(10, 140, 80) == 0
    with pytest.raises(ValueError, match="gpu_memory_bytes needs a GPU"):
        Engine(tiny_models.build("llama"), EngineConfig(gpu_memory_bytes=1 << 30))
    with pytest.raises(ValueError, match="gpu_memory_bytes must be at least 1"):
        EngineConfig(gpu_memory_bytes=0)


def test_room_beside_gpt_oss_120b_on_80_gb() -> None:
    config = GptOssConfig(
        rope_parameters={
            "rope_type": "yarn", "rope_theta": 150_000.0, "factor": 32.0, "truncate": False,
            "beta_fast": 32.0, "beta_slow": 1.0, "original_max_position_embeddings": 4096,
        },
        quantization_config=QUANTIZATION,
    )  # fmt: skip
    architecture = inspect_architecture(config)
    model = meta_model_for(architecture, torch.bfloat16)
    weights = sum(parameter.nbytes for parameter in model.parameters())
    assert 65.2e9 < weights < 65.3e9
    # An H100, and what an H200 measured with steps of 4,096 tokens: CUDA and the kernels' code, the
    # largest step, and buffers.
    total, context = 81_559 << 20, 795_672_576
    step, buffers = 1_111_552, 508_920_832
    settings = EngineConfig(max_running=8, max_step_tokens=4096)
    budget = kernels_cache_budget(total - context - weights - buffers, step, settings)
    groups, longest = size_page_groups(architecture, settings, 64, 2, budget)
    (room,) = ((group.page_count - 1) * 64 for group in groups if group.window is None)
    assert room >= 450_000
    assert longest == config.max_position_embeddings, "all of which one sequence may use"
    used = sum(
        group.page_count * 64 * bytes_per_token(architecture.layers, group.window, 2)
        for group in groups
    )
    assert used <= budget
    # A GPU of 141 GB that is limited to the H100's memory has the same room.
    other = 143_771 << 20
    free = limited_free(other - context - weights - buffers, other, total)
    assert kernels_cache_budget(free, step, settings) == budget


def test_the_context_is_halved_until_a_step_leaves_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    runner: Any = SimpleNamespace(device=torch.device("cuda"))
    tried = []

    def measure(_: Any, running: int, tokens: int, context: int) -> int:
        tried.append(context)
        if context > 20_000:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return context * 1000

    monkeypatch.setattr(kv_cache_sizing, "measure_step", measure)
    monkeypatch.setattr(kv_cache_sizing, "_free_memory", lambda *_: 20_000_000)
    config = EngineConfig(max_step_tokens=512)
    assert kv_cache_sizing._measure_plain_step(runner, config, 65_536) == (4_096_000, 4096)
    assert tried == [65_536, 32_768, 16_384, 8192, 4096]
    monkeypatch.setattr(kv_cache_sizing, "_free_memory", lambda *_: 1000)
    assert kv_cache_sizing._measure_plain_step(runner, config, 1000) == (500_000, 500), (
        "a shorter context would not help"
    )
    monkeypatch.setattr(kv_cache_sizing, "measure_step", lambda *_: measure(*_[:3], 20_001))
    with pytest.raises(ModelError, match="leaves no memory for the KV cache; lower"):
        kv_cache_sizing._measure_plain_step(runner, config, 65_536)


@pytest.mark.parametrize("name", ["gemma4", "gpt_oss"])
@pytest.mark.parametrize("context", [0, 2, 24, 512])
def test_plain_steps_of_any_context_can_be_measured(name: str, context: int) -> None:
    runner = Engine(
        tiny_models.build(name), EngineConfig(max_running=4, max_step_tokens=24)
    )._runner
    batches = []
    forward = runner._forward

    def record(batch: Any) -> torch.Tensor:
        batches.append(batch)
        return forward(batch)

    runner._forward = record
    measure_step(runner, 4, 24, context)
    (batch,) = batches
    assert batch.tokens.shape == (1, 24)
    full = batch.attention[None]
    width = -(-max(2, context) // KEY_BLOCK) * KEY_BLOCK
    assert full.decode_slots.shape == (3, width)
    assert len(full.chunks[0].slots) == max(22, context)
    assert int(max(chunk.slots.max() for chunk in full.chunks)) < runner.cache.page_size


@pytest.mark.parametrize("name", ["gemma4", "gpt_oss"])
def test_keys_gathered_in_parts_give_the_same_tokens(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = []
    for keys in (1 << 16, 100, 1):
        monkeypatch.setattr(torch_fallback, "MAX_GATHERED_KEYS", keys)
        engine = Engine(tiny_models.build(name), EngineConfig(max_running=5, max_context=128))
        params = SamplingParams(temperature=0, max_new_tokens=20, stop_token_ids=())
        seqs = [engine.submit(list(range(3, 3 + 9 * n)), params) for n in range(1, 6)]
        generated = run_until_idle(engine)
        found.append([generated[seq] for seq in seqs])
    assert found[0] == found[1] == found[2]


def test_the_table_shows_how_much_context_is_left() -> None:
    config = EngineConfig(max_running=4, full_pages=101, sliding_pages=180, max_context=500)
    engine = Engine(tiny_models.build("gemma4"), config)
    path, *sizes, context = engine.table().splitlines()
    assert path == "path: plain, PyTorch's own kernels, because there is no GPU in use"
    assert [line.split()[0] for line in sizes] == ["weights", "buffers", "largest", "KV"]
    assert context == (
        "context: 1600 tokens in all, 400 for each of 4 sequences at once, at most 500 for one"
    )
