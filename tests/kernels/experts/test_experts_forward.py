"""Routing and experts against references, on odd shapes; outputs are filled with NaN first.

Without a GPU the kernels run in Triton's interpreter, in float32.
"""

import pytest
import torch
from helpers.kernel_cases.expert_cases import packed_experts, plain_experts, random_routes, run
from helpers.kernel_cases.kernel_devices import CUDA, DEVICE, relative_error
from helpers.kernel_cases.layer_cases import poisoned, randn

from eightfold.kernels.experts.expert_config import ExpertConfig, ExpertTiles
from eightfold.kernels.experts.experts_forward import experts_reference
from eightfold.kernels.experts.router import route, route_reference

LIMIT = 8e-3 if CUDA else 1e-4
TILES = ExpertTiles(64, 128, 4, 2)


@pytest.mark.parametrize("kind", ["softmax_topk", "softmax_topk_renormalized", "topk_softmax"])
@pytest.mark.parametrize(("rows", "experts", "top_k"), [(1, 8, 1), (5, 37, 3), (3, 128, 8)])
def test_route(kind, rows, experts, top_k) -> None:
    logits = randn(rows, experts) * 3
    logits[0, 2:5] = logits[0, 1]  # equal logits
    scale = randn(experts).float() if kind == "softmax_topk_renormalized" else None
    ids = torch.full((rows, top_k), -7, dtype=torch.int32, device=DEVICE)
    weights = poisoned(rows, top_k, dtype=torch.float32)
    route(logits, top_k, kind, ids, weights, expert_scale=scale)
    wanted_ids, wanted = route_reference(logits, top_k, kind, scale)
    assert torch.equal(ids, wanted_ids)
    assert relative_error(weights, wanted) < 1e-5


def test_route_keeps_nan_in_its_row() -> None:
    logits = randn(4, 16)
    logits[1, 3] = float("nan")
    logits[2] = float("nan")
    logits[3, :14] = float("-inf")
    ids = torch.full((4, 4), -7, dtype=torch.int32, device=DEVICE)
    weights = poisoned(4, 4, dtype=torch.float32)
    route(logits, 4, "topk_softmax", ids, weights)
    assert 0 <= ids.min() <= ids.max() < 16
    assert all(len(row.unique()) == 4 for row in ids)
    assert weights[1:3].isnan().all()
    assert not weights[0].isnan().any()
    assert relative_error(weights[3], route_reference(logits[3:], 4, "topk_softmax")[1][0]) < 1e-5


@pytest.mark.parametrize(
    ("rows", "top_k", "experts", "hidden", "inner", "activation", "parts"),
    [
        (1, 2, 5, 96, 80, "silu", False),
        (17, 3, 7, 80, 48, "gelu_tanh", True),
        (9, 2, 3, 64, 96, "clamped_swiglu", False),
    ],
)
def test_plain_experts(rows, top_k, experts, hidden, inner, activation, parts) -> None:
    bias = {"gate_up_bias": randn(experts, 2 * inner), "down_bias": randn(experts, hidden)}
    weights = plain_experts(
        experts, hidden, inner, activation=activation, **(bias if rows == 9 else {})
    )
    weights.check()
    x, (ids, share) = randn(rows, hidden), random_routes(rows, top_k, experts)
    config = ExpertConfig(16, ExpertTiles(64, 64, 4, 2), ExpertTiles(32, 64, 4, 2))
    out = run(x, ids, share, weights, config, parts)
    result = out.sum(0) if parts else out
    assert relative_error(result, experts_reference(x, ids, share, weights)) < LIMIT


@pytest.mark.parametrize(
    ("rows", "top_k", "experts", "hidden", "inner"),
    [(1, 1, 2, 32, 32), (17, 2, 5, 160, 96)],
)
def test_packed_experts(rows, top_k, experts, hidden, inner) -> None:
    weights = packed_experts(experts, hidden, inner)
    weights.check()
    weights.check_scales()
    x, (ids, share) = randn(rows, hidden), random_routes(rows, top_k, experts)
    out = run(x, ids, share, weights, ExpertConfig(16, TILES, TILES))
    assert relative_error(out, experts_reference(x, ids, share, weights)) < LIMIT


def test_all_rows_to_one_expert_and_own_configuration() -> None:
    weights = plain_experts(6, 64, 32)
    x, (_, share) = randn(19, 64), random_routes(19, 1, 6)
    ids = torch.full((19, 1), 4, dtype=torch.int32, device=DEVICE)
    out = run(x, ids, share, weights)
    assert relative_error(out, experts_reference(x, ids, share, weights)) < LIMIT


def test_many_pairs_take_several_programs() -> None:
    weights = plain_experts(4, 16, 16)
    x, (ids, share) = randn(190, 16), random_routes(190, 3, 4)
    config = ExpertConfig(128, ExpertTiles(16, 16, 4, 2), ExpertTiles(16, 16, 4, 2))
    out = run(x, ids, share, weights, config)
    assert relative_error(out, experts_reference(x, ids, share, weights)) < LIMIT


@pytest.mark.parametrize("packed", [False, True])
def test_a_row_is_independent_of_its_neighbors(packed) -> None:
    weights = packed_experts(5, 96, 64) if packed else plain_experts(5, 96, 64)
    config = ExpertConfig(16, TILES, TILES)
    x, (ids, share) = randn(10, 96), random_routes(10, 2, 5)
    out = run(x, ids, share, weights, config)
    other = x.clone()
    other[1::2] = float("nan")
    mixed = run(other, ids, share, weights, config)
    assert torch.equal(mixed[::2], out[::2])
    assert mixed[1::2].isnan().all()
    alone = run(x[6:7], ids[6:7], share[6:7], weights, config)
    assert torch.equal(alone[0], out[6])
