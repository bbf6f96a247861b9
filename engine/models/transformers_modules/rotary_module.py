"""Rotary embeddings of transformers' modules: tables, and rotations left to the cache write."""

import types
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from eightfold.kernels.module_ops.rotate_and_write import RotaryLayout, rotate_reference

from ...execution.hf_attention import PagedAttentionLayer
from .host_decisions import plain_forward

MAX_TABLE_BYTES = 256 << 20
CHUNK = 8192  # positions computed at a time


class RotaryTable(nn.Module):
    """Looks cos and sin up that ``source`` would compute from the positions.

    Args:
        source: the module that this stands in for.
        positions: number of positions.
    """

    def __init__(self, source: nn.Module, positions: int) -> None:
        super().__init__()
        self.source = source
        self._positions = positions
        self._tables: dict[tuple[Any, ...], tuple[torch.Tensor, ...]] = {}

    def prepare(
        self, x: torch.Tensor, position_ids: torch.Tensor, *options: Any, **named: Any
    ) -> None:
        """Compute the tables for calls with these options; the positions do not count."""
        key = (*options, *named.values())
        if key in self._tables:
            return
        parts = []
        for begin in range(0, self._positions, CHUNK):
            end = min(begin + CHUNK, self._positions)
            at = torch.arange(begin, end, device=position_ids.device)[None]
            parts.append(self.source(x, at, *options, **named))
        self._tables[key] = tuple(
            torch.cat([part[i] for part in parts], dim=1)[0].contiguous() for i in range(2)
        )

    @property
    def nbytes(self) -> int:
        """Bytes of all tables."""
        return sum(table.nbytes for tables in self._tables.values() for table in tables)

    def forward(
        self, x: torch.Tensor, position_ids: torch.Tensor, *options: Any, **named: Any
    ) -> tuple[torch.Tensor, ...]:
        """Return cos and sin, [1, T, width] each."""
        tables = self._tables.get((*options, *named.values()))
        if tables is None:
            raise RuntimeError(f"There is no rotary table for {(*options, *named.values())}.")
        return tuple(table.index_select(0, position_ids[0])[None] for table in tables)


class DeferredRotation:
    """Stands in for a function that rotates queries and keys: leaves it to the cache write.

    Args:
        original: transformers' function.
        layer: attention layer that takes the rotation.

    Attributes:
        unknown: True once a call has shown that the function rotates in no known way.
    """

    def __init__(self, original: Callable[..., Any], layer: PagedAttentionLayer) -> None:
        self._original, self._layer = original, layer
        self._layout: RotaryLayout | None = None
        self.unknown = False

    def __call__(
        self,
        q: torch.Tensor,
        k: torch.Tensor,
        cos: torch.Tensor,
        sin: torch.Tensor,
        *args: Any,
        **kwargs: Any,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return q and k as they are; the layer's next call of attention rotates them.

        The first call finds out which elements the function rotates. If that is of no known kind,
        it rotates as before.
        """
        if self._layout is None and not self.unknown:
            self._layout = find_layout(self._original, q, k, cos, sin, *args, **kwargs)
            self.unknown = self._layout is None
        if self._layout is None:
            return self._original(q, k, cos, sin, *args, **kwargs)
        self._layer.rotation = (cos[0].contiguous(), sin[0].contiguous(), self._layout)
        return q, k


def find_layout(
    rotate: Callable[..., Any],
    q: torch.Tensor,
    k: torch.Tensor,
    cos: torch.Tensor,
    sin: torch.Tensor,
    *args: Any,
    **kwargs: Any,
) -> RotaryLayout | None:
    """Find out how a function rotates, by what it makes of random queries and keys.

    Args:
        rotate: transformers' function.
        q, k: [1, heads, T, head_dim]; only their shapes and types count.
        cos, sin: [1, T, width], as the model computes them for at least one position that is not 0.

    Returns:
        ``None`` if it rotates in no known way.
    """
    if cos.dim() != 3 or cos.shape[0] != 1 or q.dim() != 4:
        return None
    generator = torch.Generator(q.device).manual_seed(0)
    queries, keys = (
        torch.randn(t.shape, generator=generator, device=t.device, dtype=torch.float32).to(t.dtype)
        for t in (q, k)
    )
    found = rotate(queries, keys, cos, sin, *args, **kwargs)
    limit = 1e-5 if q.dtype == torch.float32 else 1e-2
    width = cos.shape[-1]
    for layout in (
        RotaryLayout(width // 2, False, 1),
        RotaryLayout(width // 2, True, 1),
        RotaryLayout(width // 2, True, 2),
        RotaryLayout(width, False, 1),
        RotaryLayout(width, True, 1),
    ):
        if 2 * layout.pairs > q.shape[-1]:
            continue
        if all(
            _differs_by(rotate_reference(x[0].transpose(0, 1), cos[0], sin[0], layout), out) < limit
            for x, out in zip((queries, keys), found, strict=True)
        ):
            return layout
    return None


def _differs_by(wanted: torch.Tensor, found: torch.Tensor) -> float:
    """Return the relative difference of [T, heads, dim] and [1, heads, T, dim]."""
    error = (found[0].transpose(0, 1).double() - wanted).norm() / wanted.norm()
    return float(error.nan_to_num(float("inf")))


def defer_rotation(module: nn.Module, layer: PagedAttentionLayer) -> list[DeferredRotation]:
    """Let an attention module run a copy of its ``forward`` that leaves the rotation to ``layer``.

    The copy differs in one thing: the rotary functions among the names that it looks up in its
    file. ``del module.forward`` takes it back.

    Returns:
        What stands in for these functions; nothing, without a change, if it uses none.
    """
    function = plain_forward(module)
    if not isinstance(function, types.FunctionType):
        return []
    deferred = {
        name: DeferredRotation(value, layer)
        for name in function.__code__.co_names
        if "rotary" in name and callable(value := function.__globals__.get(name))
    }
    if not deferred:
        return []
    copy = types.FunctionType(
        function.__code__,
        {**function.__globals__, **deferred},
        function.__name__,
        function.__defaults__,
        function.__closure__,
    )
    copy.__kwdefaults__ = function.__kwdefaults__
    module.forward = types.MethodType(copy, module)
    return list(deferred.values())
