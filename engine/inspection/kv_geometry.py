"""KV geometry of a model: each layer's window, heads and copies, and the bytes that they take.

Everything is computed from plain configuration values. Nothing here imports torch or transformers,
so that a machine can be sized from a config.json alone, by the same rules by which the engine
allocates its cache.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from eightfold.kernels.attention.one_copy_blocks import one_copy_block_width

from ..model_errors import UnsupportedModelError
from .families import unfused_reason

# Model types without ``layer_types`` whose layers all attend in ``sliding_window``. transformers
# gives other types their ``layer_types`` by rules of their own if config.json does not list them.
UNIFORM_WINDOW = frozenset(
    {
        "ministral3", "mistral", "mixtral", "phi3", "phi4_multimodal", "phimoe", "starcoder2",
    }
)  # fmt: skip


SCALE_BYTES = 4
LONG_ROPE = ("longrope", "su")  # older configurations call it "su"


class HeadShape(NamedTuple):
    """Number of KV heads of a layer, and their width."""

    kv_heads: int
    head_dim: int


@dataclass(frozen=True, slots=True)
class LayerSpec:
    """One attention layer.

    Attributes:
        index: position among the layers.
        window: tokens that a query sees, itself included; ``None`` for full attention.
        kv_heads: number of heads of keys and values.
        head_dim: width of a head, the same for keys and values.
        source: layer whose keys and values are read; the layer's own index unless it shares them.
        one_copy: True if the cache holds one vector from which key and value are both rebuilt.
        fp8: True if the cache holds FP8, with a scale for each page and head.
    """

    index: int
    window: int | None
    kv_heads: int
    head_dim: int
    source: int
    one_copy: bool = False
    fp8: bool = False

    @property
    def copies(self) -> int:
        """Number of vectors kept for each token and head."""
        return 1 if self.one_copy else 2

    @property
    def owns_kv(self) -> bool:
        """True if the layer's keys and values are its own, so that the cache holds them."""
        return self.source == self.index


def layer_windows(
    model_type: str,
    layer_types: Sequence[str] | None,
    sliding_window: int | None,
    *,
    num_layers: int | None = None,
    use_sliding_window: bool = True,
) -> tuple[int | None, ...]:
    """Return each layer's window in tokens, ``None`` for full attention.

    Args:
        model_type: name for error messages.
        layer_types: kind of each layer. If it is missing, all ``num_layers`` layers are alike:
            they slide if there is a ``sliding_window`` and ``use_sliding_window`` is set.
        sliding_window: tokens that a query of a sliding layer sees, itself included.

    Raises:
        UnsupportedModelError: if a layer is neither full nor sliding-window attention, or if a
            value is missing.
    """
    if not isinstance(sliding_window, int | float | None):
        raise UnsupportedModelError(
            f"The sliding_window of {model_type} is not a number of tokens; copy its config.json "
            "again."
        )
    if not layer_types:
        if num_layers is None:
            raise UnsupportedModelError(f"{model_type} does not say how many layers it has.")
        if use_sliding_window and sliding_window is not None and sliding_window < 1:
            raise UnsupportedModelError(
                f"{model_type} has a sliding_window of {sliding_window}; set it to null in "
                "config.json if its layers see all tokens."
            )
        slides = bool(sliding_window) and use_sliding_window
        layer_types = ["sliding_attention" if slides else "full_attention"] * num_layers
    for index, kind in enumerate(layer_types):
        if kind not in ("full_attention", "sliding_attention"):
            raise UnsupportedModelError(
                f"{model_type} has {kind!r} layers (layer {index} is the first), which cannot "
                "be paged; only full and sliding-window attention can."
            )
        if kind == "sliding_attention" and not sliding_window:
            raise UnsupportedModelError(
                f"{model_type} has sliding-window layers but no sliding_window."
            )
    window = int(sliding_window or 0)
    return tuple(window if kind == "sliding_attention" else None for kind in layer_types)


def layer_specs(
    windows: Sequence[int | None], shapes: Sequence[HeadShape], num_kv_shared_layers: int
) -> tuple[LayerSpec, ...]:
    """Return the layers of a model that keeps two copies.

    Args:
        windows: as from :func:`layer_windows`.
        shapes: KV heads of each layer.
        num_kv_shared_layers: number of last layers without keys and values of their own. Each
            reads those of the last layer before them that has the same window.

    Raises:
        UnsupportedModelError: if there is no layer to share with.
    """
    first_shared = len(windows) - num_kv_shared_layers
    layers = []
    for index, (window, shape) in enumerate(zip(windows, shapes, strict=True)):
        source = index
        if index >= first_shared:
            own = [i for i in range(first_shared) if windows[i] == window]
            if not own:
                raise UnsupportedModelError(
                    f"Layer {index} shares keys and values, but no layer before it has its window."
                )
            source = own[-1]
        layers.append(LayerSpec(index, window, shape.kv_heads, shape.head_dim, source))
    return tuple(layers)


def one_copy_layers(
    config: Mapping[str, Any], layers: Sequence[LayerSpec]
) -> tuple[LayerSpec, ...] | None:
    """Return the layers as the fused decoder keeps them; ``None`` if it cannot run them.

    With ``attention_k_eq_v`` its full-attention layers keep one copy.

    Args:
        config: values of the text model's configuration.
        layers: the layers with two copies.
    """
    if unfused_reason(config) is not None:
        return None
    if not config.get("attention_k_eq_v"):
        return tuple(layers)
    if not all(layer.owns_kv for layer in layers):
        return None
    rope = (config.get("rope_parameters") or {}).get("full_attention") or {}
    factor = rope.get("partial_rotary_factor", 1.0)
    full = [layer for layer in layers if layer.window is None]
    try:
        for layer in full:
            one_copy_block_width(layer.head_dim, int(factor * layer.head_dim // 2))
    except ValueError:
        return None
    return tuple(replace(layer, one_copy=layer.window is None) for layer in layers)


def read_layers(config: Mapping[str, Any]) -> tuple[LayerSpec, ...]:
    """Return the layers that the values of a config.json describe, with two copies.

    Layers whose kinds config.json does not list count as full attention: their memory is then
    overestimated rather than underestimated.

    Args:
        config: values of the text model's configuration.

    Raises:
        UnsupportedModelError: if :func:`layer_windows` or :func:`layer_specs` raises it.
    """
    model_type = str(config.get("model_type") or "the model")
    num_layers = config.get("num_hidden_layers")
    windows = layer_windows(
        model_type,
        config.get("layer_types") or config.get("layers_block_type"),
        config.get("sliding_window"),
        num_layers=None if num_layers is None else int(num_layers),
        use_sliding_window=model_type in UNIFORM_WINDOW,
    )
    # Keys are padded with zeros to the same width.
    per_layer = {int(index): own for index, own in (config.get("per_layer_config") or {}).items()}
    shapes = [
        _head_shape(config, window, per_layer.get(index, {}))
        for index, window in enumerate(windows)
    ]
    return layer_specs(windows, shapes, int(config.get("num_kv_shared_layers") or 0))


def steady_positions(config: Mapping[str, Any], parameters: Any, positions: int) -> int:
    """Return up to which position the rotary embeddings of a sequence do not depend on others.

    "longrope" embeddings turn all sequences of a batch by other angles once one of them is longer
    than the model was trained for; "dynamic" ones do so beyond ``positions``.

    Args:
        config: the text model's part of config.json.
        parameters: its rotary parameters, or those of each kind of layers.
        positions: number of positions that the model was made for.
    """
    if not isinstance(parameters, Mapping):
        return positions
    steady = positions
    if (parameters.get("rope_type") or parameters.get("type")) in LONG_ROPE:
        key = "original_max_position_embeddings"
        steady = min(positions, int(parameters.get(key) or config.get(key) or positions))
    for value in parameters.values():  # of each kind of layers
        steady = min(steady, steady_positions(config, value, positions))
    return steady


def _head_shape(config: Mapping[str, Any], window: int | None, own: Mapping[str, Any]) -> HeadShape:
    """KV heads of a layer with values ``own`` in ``per_layer_config``.

    Gemma 4's full-attention layers have heads of their own. Its config.json says so by
    ``global_head_dim`` and ``num_global_key_value_heads``, or by ``per_layer_config`` if a newer
    transformers has written it.
    """
    heads = int(config.get("num_attention_heads") or 1)
    kv_heads = int(config.get("num_key_value_heads") or heads)
    head_dim = int(config.get("head_dim") or int(config.get("hidden_size") or heads) // heads)
    if window is None:
        head_dim = int(config.get("global_head_dim") or head_dim)
        if config.get("attention_k_eq_v"):
            kv_heads = int(config.get("num_global_key_value_heads") or kv_heads)
    return HeadShape(
        int(own.get("num_key_value_heads") or kv_heads), int(own.get("head_dim") or head_dim)
    )


def with_fp8_cache(layers: Iterable[LayerSpec]) -> tuple[LayerSpec, ...]:
    """Return layers of which those with full attention keep FP8.

    Raises:
        UnsupportedModelError: if none has full attention.
    """
    found = tuple(replace(layer, fp8=layer.window is None) for layer in layers)
    if not any(layer.fp8 for layer in found):
        raise UnsupportedModelError(
            "All layers of this model attend in sliding windows, whose cache is not kept in FP8; "
            "leave kv at None."
        )
    return found


def bytes_per_token(layers: Iterable[LayerSpec], window: int | None, itemsize: int) -> int:
    """Return the bytes that a token takes in all layers of one window.

    Args:
        window: ``None`` for the full-attention layers.
        itemsize: bytes of an element that is not in FP8.
    """
    return sum(
        (1 if layer.fp8 else itemsize) * layer.copies * layer.kv_heads * layer.head_dim
        for layer in layers
        if layer.window == window and layer.owns_kv
    )


def bytes_per_page(
    layers: Sequence[LayerSpec], window: int | None, itemsize: int, page_size: int
) -> int:
    """Return the bytes that a page takes in all layers of one window, scales included."""
    scales = sum(
        SCALE_BYTES * layer.copies * layer.kv_heads
        for layer in layers
        if layer.fp8 and layer.window == window and layer.owns_kv
    )
    return page_size * bytes_per_token(layers, window, itemsize) + scales


def window_bytes_per_sequence(layers: Sequence[LayerSpec], itemsize: int) -> int:
    """Return the bytes that a sequence takes in the sliding-window layers once windows are full."""
    windows = {layer.window for layer in layers if layer.window is not None}
    return sum(window * bytes_per_token(layers, window, itemsize) for window in windows)
