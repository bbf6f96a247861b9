"""The limits that the decode benchmark prints count what a step reads and computes."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from helpers.engine_cases import tiny_models

from eightfold.engine.inspection.architecture import inspect_architecture

pytest.importorskip("triton")
BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


def limits_of(monkeypatch: pytest.MonkeyPatch, name: str, lengths: list[int], rate: float) -> Any:
    monkeypatch.syspath_prepend(BENCHMARKS)
    from decode import Bench

    model = tiny_models.build(name)
    architecture = inspect_architecture(model.config)
    cache = SimpleNamespace(_architecture=architecture)
    runner = SimpleNamespace(decoder=SimpleNamespace(), cache=cache)
    bench = Bench(SimpleNamespace(_runner=runner), model, 1.0, rate)  # type: ignore[arg-type]
    return model, architecture, *bench.limits(lengths)


def test_bytes_and_operations_of_a_dense_step(monkeypatch: pytest.MonkeyPatch) -> None:
    model, _, sizes, limits = limits_of(monkeypatch, "llama", [10, 30], rate=2.0)
    embedding = model.get_input_embeddings().weight.numel()
    weights = sum(parameter.numel() for parameter in model.parameters()) - embedding
    norms = sum(parameter.numel() for parameter in model.parameters() if parameter.dim() == 1)
    assert sizes["weights"] == 4 * weights
    # 2 layers, keys and values, 2 heads of 8, 2 bytes: as a cache in bfloat16 has them.
    assert sizes["full KV"] == 2 * 2 * 2 * 8 * 2 * 40
    assert limits["bytes"] == sum(sizes.values())
    # 2 operations for each weight and row; 4 for each of 4 query heads of 8, layer and key.
    assert limits["operations"] == (2 * 2 * (weights - norms) + 4 * 4 * 8 * 2 * 40) / 2.0


def test_windows_bound_what_attention_computes(monkeypatch: pytest.MonkeyPatch) -> None:
    long, longer = (
        limits_of(monkeypatch, "mistral", [length], rate=1.0) for length in (1000, 2000)
    )
    assert long[3] == longer[3]
