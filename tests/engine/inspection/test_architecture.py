"""The shapes and windows that the engine reads from a configuration."""

from helpers.engine_cases import tiny_models

from eightfold.engine.inspection.architecture import inspect_architecture


def test_layer_shapes_of_gemma4() -> None:
    layers = inspect_architecture(tiny_models.build("gemma4").config).layers
    assert [layer.window for layer in layers] == [tiny_models.WINDOW] * 5 + [None]
    assert [(layer.kv_heads, layer.head_dim) for layer in layers] == [(2, 8)] * 5 + [(1, 16)]
    shared = inspect_architecture(tiny_models.build("gemma4_e2b").config).layers
    assert [layer.source for layer in shared] == [0, 1, 2, 3, 2, 3]
