"""Experts in FP8 and 4 bits against references, for every format, and on odd shapes.

Without a GPU the kernel runs in Triton's interpreter, in float32.
"""

from dataclasses import replace

import pytest
import torch
from helpers.kernel_cases.expert_cases import plain_experts, random_routes, run
from helpers.kernel_cases.kernel_devices import CUDA, relative_error
from helpers.kernel_cases.layer_cases import randn
from helpers.kernel_cases.stored_experts import ALL, expert_matrices, stored_experts

from eightfold.kernels.experts.expert_config import (
    ExpertConfig,
    ExpertTiles,
    check_config,
    expert_config,
)
from eightfold.kernels.experts.experts_forward import experts_reference
from eightfold.kernels.experts.few_rows import FewRowsConfig, FewRowsTiles
from eightfold.kernels.experts.stored.expert_stack import StoredStack, stack_matrices
from eightfold.kernels.quantized.stored_matrix import round_to_fp8, round_to_int4

LIMIT = 8e-3 if CUDA else 1e-4
TILES = ExpertTiles(64, 128, 4, 2)


@pytest.mark.parametrize("name", ALL)
def test_every_format(name: str) -> None:
    weights = stored_experts(name, 5, 256, 128)
    weights.check()
    x, (ids, share) = randn(3, 256), random_routes(3, 2, 5)
    out = run(x, ids, share, weights)
    assert relative_error(out, experts_reference(x, ids, share, weights)) < LIMIT


@pytest.mark.parametrize(
    ("name", "rows", "top_k", "experts", "hidden", "inner", "activation", "parts"),
    [
        ("fp8_rows", 1, 1, 2, 100, 36, "silu", False),
        ("fp8_block", 17, 2, 3, 200, 72, "gelu_tanh", True),
        ("fp8_block", 6, 2, 3, 128, 384, "silu", False),
        ("int4_32", 9, 3, 4, 96, 32, "silu", True),
        ("int4_rows_zeros", 4, 2, 3, 160, 96, "gelu_tanh", False),
        ("int4_64_zeros", 5, 1, 3, 64, 192, "silu", False),
    ],
)
def test_shapes(name, rows, top_k, experts, hidden, inner, activation, parts) -> None:
    weights = stored_experts(name, experts, hidden, inner, activation)
    x, (ids, share) = randn(rows, hidden), random_routes(rows, top_k, experts)
    config = ExpertConfig(16, TILES, ExpertTiles(32, 64, 4, 2))
    out = run(x, ids, share, weights, config, parts)
    result = out.sum(0) if parts else out
    assert relative_error(result, experts_reference(x, ids, share, weights)) < LIMIT


@pytest.mark.parametrize("name", ["fp8_block", "int4_128_zeros"])
def test_many_rows(name: str) -> None:
    weights = stored_experts(name, 3, 128, 128)
    x, (ids, share) = randn(50, 128), random_routes(50, 2, 3)
    assert expert_config(50, 2, weights).tile_rows > 16
    out = run(x, ids, share, weights)
    assert relative_error(out, experts_reference(x, ids, share, weights)) < LIMIT


@pytest.mark.parametrize("name", ["fp8_block", "fp8_rows", "int4_32_zeros"])
def test_a_row_is_independent_of_its_neighbors(name: str) -> None:
    weights = stored_experts(name, 5, 256, 64)
    x, (ids, share) = randn(10, 256), random_routes(10, 2, 5)
    out = run(x, ids, share, weights)
    other = x.clone()
    other[1::2] = float("nan")
    mixed = run(other, ids, share, weights)
    assert torch.equal(mixed[::2], out[::2])
    assert mixed[1::2].isnan().all()
    alone = run(x[6:7], ids[6:7], share[6:7], weights)
    assert torch.equal(alone[0], out[6])


@pytest.mark.parametrize("name", ALL)
def test_a_stack_holds_what_the_matrices_hold(name: str) -> None:
    gate_up, down = expert_matrices(name, 3, 256, 128)
    weights = stored_experts(name, 3, 256, 128)
    for expert in range(3):
        both, last = weights.expanded(expert, torch.float32)
        pair = gate_up[2 * expert : 2 * expert + 2]
        assert torch.equal(both, torch.cat([each.expand(torch.float32) for each in pair]))
        assert torch.equal(last, down[expert].expand(torch.float32))
    stored = sum(each.nbytes for each in (*gate_up, *down)) // 3
    # Scales of a whole tensor, or of blocks that are not whole, are repeated for each row.
    assert stored <= weights.stored_bytes() < 1.1 * stored


def test_blocks_that_end_within_a_block_of_rows() -> None:
    weights = stored_experts("fp8_block", 3, 256, 192)
    x, (ids, share) = randn(4, 256), random_routes(4, 2, 3)
    assert isinstance(weights.gate_up, StoredStack)
    assert weights.gate_up.rows_per_scale == 1
    out = run(x, ids, share, weights)
    assert relative_error(out, experts_reference(x, ids, share, weights)) < LIMIT


def test_what_does_not_fit_together_is_refused() -> None:
    gate_up, down = expert_matrices("fp8_rows", 2, 64, 32)
    stacks = {"gate_up": stack_matrices(gate_up, 2), "down": stack_matrices(down)}
    weights = stored_experts("fp8_rows", 2, 64, 32)
    for change, words in (
        ({"down": stacks["gate_up"]}, "down has shape"),
        ({"down": plain_experts(2, 64, 32).down}, "must both be stacks"),
        ({"interleaved": True}, "all gate rows come first"),
        ({"down_bias": randn(2, 64)}, "have no biases"),
    ):
        with pytest.raises(ValueError, match=words):
            replace(weights, **change).check()
    with pytest.raises(ValueError, match="multiple of 32"):
        stack_matrices([round_to_int4(torch.ones(4, 16), 16)])
    with pytest.raises(ValueError, match="stored in different ways"):
        stack_matrices([round_to_int4(torch.ones(4, 32), 32), round_to_fp8(torch.ones(4, 32))])
    tiles = FewRowsTiles(4, 2, 1, 5)
    with pytest.raises(ValueError, match="does not fit these experts"):
        check_config(FewRowsConfig(8, tiles, tiles), 1, 1, weights)
