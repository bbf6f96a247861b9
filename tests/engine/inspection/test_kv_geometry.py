"""The KV geometry that the solver reads from config.json is the one that the engine allocates."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from helpers.engine_cases import tiny_models
from helpers.engine_cases.config_variants import VARIANTS
from transformers import PretrainedConfig

from eightfold.demo import model_path
from eightfold.engine import EngineConfig, UnsupportedModelError
from eightfold.engine.execution.kv_cache import KVCache
from eightfold.engine.inspection.architecture import Architecture, inspect_architecture
from eightfold.engine.inspection.kv_geometry import (
    UNIFORM_WINDOW,
    LayerSpec,
    bytes_per_token,
    one_copy_layers,
    read_layers,
    window_bytes_per_sequence,
)
from eightfold.engine.loading.checkpoint import read_config
from eightfold.engine.scheduling.pages.page_pool import PageGroup
from eightfold.engine.startup.runner_factory import choose_fused
from eightfold.solver.kaggle.machine_sizing import read_checkpoint_size

PAGES, PAGE_SIZE = 3, 8
TINY_MODELS = tiny_models.BUILDERS | tiny_models.FUSED_BUILDERS | tiny_models.WIDE_BUILDERS
CONFIGS: dict[str, Callable[[], PretrainedConfig]] = {
    **{name: lambda build=build: build().config for name, build in TINY_MODELS.items()},
    **VARIANTS,
    "bundled model": lambda: read_config(model_path()),
}


def write_config(config: PretrainedConfig, folder: Path) -> None:
    config.save_pretrained(folder)
    (folder / "model.safetensors").write_bytes(b"not read")


def allocated_bytes(architecture: Architecture) -> dict[int | None, int]:
    """Bytes of a bfloat16 cache of ``PAGES`` pages, by window."""
    sizes = {}
    for window in architecture.windows:
        layers = tuple(layer for layer in architecture.layers if layer.window == window)
        position = {layer.index: place for place, layer in enumerate(layers)}
        alone = replace(
            architecture,
            layers=tuple(
                replace(layer, index=position[layer.index], source=position[layer.source])
                for layer in layers
            ),
        )
        cache = KVCache(
            alone, [PageGroup(window, PAGES)], PAGE_SIZE, torch.device("cpu"), torch.bfloat16
        )
        sizes[window] = cache.nbytes
    return sizes


@pytest.mark.parametrize("name", CONFIGS)
def test_the_solver_reads_what_the_engine_allocates(name: str, tmp_path: Path) -> None:
    write_config(CONFIGS[name](), tmp_path)
    architecture = inspect_architecture(read_config(tmp_path))
    kept = choose_fused(architecture, EngineConfig(), kernels=True).architecture or architecture
    checkpoint = read_checkpoint_size(tmp_path)
    tokens = PAGES * PAGE_SIZE
    two_copies, sizes = allocated_bytes(architecture), allocated_bytes(kept)
    assert checkpoint.kv_bytes_per_token_two_copies * tokens == two_copies.get(None, 0)
    assert checkpoint.kv_bytes_per_token * tokens == sizes.pop(None, 0)
    assert checkpoint.window_bytes_per_sequence * tokens == sum(
        size * window for window, size in sizes.items()
    )
    assert checkpoint.max_positions == architecture.max_positions


@pytest.mark.parametrize("name", CONFIGS)
def test_layers_read_from_config_json_are_those_of_the_modules(name: str, tmp_path: Path) -> None:
    write_config(CONFIGS[name](), tmp_path)
    architecture = inspect_architecture(read_config(tmp_path))
    values = json.loads((tmp_path / "config.json").read_text())
    values = values.get("text_config") or values
    layers = read_layers(values)
    assert layers == architecture.layers
    kept = choose_fused(architecture, EngineConfig(), kernels=True).architecture
    assert one_copy_layers(values, layers) == (None if kept is None else kept.layers)


def test_which_tiny_models_keep_one_copy() -> None:
    one_copy = set()
    for name, build in TINY_MODELS.items():
        config = build().config.get_text_config()
        layers = read_layers(config.to_dict())
        if any(layer.one_copy for layer in one_copy_layers(config.to_dict(), layers) or ()):
            one_copy.add(name)
    assert one_copy == {"gemma4_one_copy", "gemma4_wide"}


VALUES = {
    "num_hidden_layers": 6, "hidden_size": 64, "num_attention_heads": 4, "num_key_value_heads": 2,
    "sliding_window": 32,
}  # fmt: skip


@pytest.mark.parametrize("model_type", ["gemma2", "gemma3_text", "qwen2", "anything"])
def test_layers_whose_kinds_are_not_listed_count_as_full(model_type: str) -> None:
    """transformers may let some of them slide: with full attention, memory is never too small."""
    layers = read_layers({**VALUES, "model_type": model_type})
    assert layers == tuple(LayerSpec(index, None, 2, 16, index) for index in range(6))


@pytest.mark.parametrize("model_type", sorted(UNIFORM_WINDOW))
def test_all_layers_slide_in_models_of_one_window(model_type: str) -> None:
    layers = read_layers({**VALUES, "model_type": model_type})
    assert {layer.window for layer in layers} == {32}
    assert window_bytes_per_sequence(layers, 2) == 6 * 2 * 2 * 16 * 2 * 32
    assert bytes_per_token(layers, None, 2) == 0


@pytest.mark.parametrize(
    "own",
    [
        {"global_head_dim": 32, "num_global_key_value_heads": 1, "attention_k_eq_v": True},
        {"per_layer_config": {"5": {"head_dim": 32, "num_key_value_heads": 1}}},
        {"per_layer_config": {"05": {"head_dim": 32, "num_key_value_heads": 1}}},
    ],
    ids=["global", "per layer", "per layer of many"],
)
def test_full_attention_layers_may_have_heads_of_their_own(own: dict[str, object]) -> None:
    """Older and newer versions of transformers write Gemma 4's config.json in these two ways."""
    kinds = ["sliding_attention"] * 5 + ["full_attention"]
    layers = read_layers({**VALUES, "layer_types": kinds, **own})
    assert {(layer.kv_heads, layer.head_dim) for layer in layers[:5]} == {(2, 16)}
    assert (layers[5].kv_heads, layers[5].head_dim) == (1, 32)


def test_shared_layers_take_nothing() -> None:
    kinds = ["sliding_attention", "full_attention"] * 3
    layers = read_layers({**VALUES, "layer_types": kinds, "num_kv_shared_layers": 2})
    assert [layer.source for layer in layers] == [0, 1, 2, 3, 2, 3]
    assert bytes_per_token(layers, None, 2) == 2 * 2 * 2 * 16 * 2
    assert bytes_per_token(layers, 32, 2) == 2 * 2 * 2 * 16 * 2


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"num_hidden_layers": None}, "does not say how many layers"),
        ({"layer_types": ["linear_attention"] * 6}, "'linear_attention' layers"),
        ({"layer_types": ["sliding_attention"] * 6, "sliding_window": None}, "no sliding_window"),
        ({"num_kv_shared_layers": 6}, "Layer 0 shares keys and values"),
    ],
)
def test_what_cannot_be_paged_is_refused(changes: dict[str, object], words: str) -> None:
    with pytest.raises(UnsupportedModelError, match=words):
        read_layers({**VALUES, **changes})
