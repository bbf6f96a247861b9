"""Rotation and cache write of strided heads against float64."""

import pytest
import torch
from helpers.kernel_cases.kernel_devices import CUDA, DEVICE, DTYPE, relative_error

from eightfold.kernels.module_ops.rotate_and_write import (
    RotaryLayout,
    rotate_and_write,
    rotate_reference,
)

LIMIT = 4e-3 if CUDA else 1e-6
TOKENS, HEADS, KV_HEADS, DIM = 5, 6, 2, 16
SLOTS = [3, 17, -1, 8, 9]


def heads(joint: torch.Tensor, begin: int, count: int) -> torch.Tensor:
    """Return heads of a joint projection as modules pass them on: [tokens, heads, dim]."""
    part = joint[None, :, begin * DIM : (begin + count) * DIM]
    return part.unflatten(2, (count, DIM)).transpose(1, 2)[0].transpose(0, 1)


@pytest.mark.parametrize(
    "layout",
    [
        RotaryLayout(8, False, 1),
        RotaryLayout(8, True, 2),
        RotaryLayout(3, False, 1),
        RotaryLayout(4, True, 1),
        None,
    ],
    ids=str,
)
def test_queries_rotate_and_the_cache_is_written(layout: RotaryLayout | None) -> None:
    torch.manual_seed(1)
    joint = torch.randn(TOKENS, (HEADS + 2 * KV_HEADS) * DIM, device=DEVICE).to(DTYPE)
    q, k, v = (
        heads(joint, *where)
        for where in ((0, HEADS), (HEADS, KV_HEADS), (HEADS + KV_HEADS, KV_HEADS))
    )
    caches = [torch.full((3, 8, KV_HEADS, DIM), 7.0, device=DEVICE).to(DTYPE) for _ in range(2)]
    slots = torch.tensor(SLOTS, dtype=torch.int32, device=DEVICE)
    angles = torch.rand(TOKENS, 16, device=DEVICE) * 6
    rotation = None if layout is None else (angles.cos(), angles.sin())
    out = rotate_and_write(q, k, v, rotation, layout, slots, *caches, pdl=True)
    wanted_q, wanted_k = q, k
    if layout is not None:
        wanted_q, wanted_k = (rotate_reference(x, *rotation, layout) for x in (q, k))
    assert out.is_contiguous()
    assert relative_error(out, wanted_q) < LIMIT
    live = [row for row, slot in enumerate(SLOTS) if slot >= 0]
    written = [SLOTS[row] for row in live]
    for cache, wanted in zip(caches, (wanted_k, v), strict=True):
        flat = cache.flatten(0, 1)
        assert relative_error(flat[written], wanted[live]) < LIMIT
        rest = [slot for slot in range(24) if slot not in SLOTS]
        assert (flat[rest] == 7).all()


def test_layers_without_keys_of_their_own_rotate_queries_only() -> None:
    q = torch.randn(3, 4, DIM, device=DEVICE).to(DTYPE)
    cache = torch.zeros(2, 8, 2, DIM, device=DEVICE).to(DTYPE)
    slots = torch.zeros(3, dtype=torch.int32, device=DEVICE)
    angles = torch.rand(3, 8, device=DEVICE)
    layout = RotaryLayout(8, False, 1)
    out = rotate_and_write(q, None, None, (angles.cos(), angles.sin()), layout, slots, cache, cache)
    wanted = rotate_reference(q, angles.cos(), angles.sin(), layout)
    assert relative_error(out, wanted) < LIMIT
    assert (cache == 0).all()


def test_arguments_that_do_not_fit_are_refused() -> None:
    q, cache = torch.zeros(3, 4, DIM, device=DEVICE), torch.zeros(2, 8, 2, DIM, device=DEVICE)
    slots = torch.zeros(3, dtype=torch.int32, device=DEVICE)
    with pytest.raises(ValueError, match="Keys and values go together"):
        rotate_and_write(q, q, None, None, None, slots, cache, cache)
    with pytest.raises(ValueError, match="The cache has heads"):
        rotate_and_write(q, q, q, None, None, slots, cache, cache)
    with pytest.raises(ValueError, match="last axis of q must be contiguous"):
        rotate_and_write(q.transpose(1, 2), None, None, None, None, slots, cache, cache)
    with pytest.raises(ValueError, match="layout is missing"):
        rotate_and_write(q, None, None, (q[:, 0], q[:, 0]), None, slots, cache, cache)
