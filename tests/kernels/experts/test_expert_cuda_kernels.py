"""The experts' CUDA kernels against float64 references, on odd shapes. They need a Hopper GPU."""

import pytest
import torch
from helpers.kernel_cases.expert_cases import packed_experts, plain_experts, random_routes, run
from helpers.kernel_cases.kernel_devices import DEVICE, needs_hopper, relative_error
from helpers.kernel_cases.layer_cases import randn
from helpers.kernel_cases.stored_experts import ALL, stored_experts

from eightfold.kernels.experts.bf16_stream import Bf16StreamConfig
from eightfold.kernels.experts.expert_config import (
    STACKED_STREAMS,
    Configuration,
    stacked_config,
)
from eightfold.kernels.experts.experts_forward import experts_reference
from eightfold.kernels.experts.few_rows import FewRowsConfig, FewRowsTiles, few_rows_config
from eightfold.kernels.experts.many_rows import ManyRowsConfig
from eightfold.kernels.experts.mxfp4_stream import StreamConfig

LIMIT = 5e-3
PAIRS_16 = FewRowsTiles(2, 2, 1, 2)
FEW = [StreamConfig(), StreamConfig(2, 8), FewRowsConfig(16, PAIRS_16, PAIRS_16)]


def check(rows: int, experts, config: Configuration, top_k: int = 3, all_at: int | None = None):
    """Compare with the reference, repeat, and put rows of NaN between the rows."""
    x, (ids, weights) = randn(rows, experts.hidden), random_routes(rows, top_k, experts.experts)
    if all_at is not None:
        ids = (torch.arange(top_k, device=DEVICE) + all_at).int().expand(rows, top_k).contiguous()
    out = run(x, ids, weights, experts, config)
    assert relative_error(out, experts_reference(x, ids, weights, experts)) < LIMIT
    assert torch.equal(run(x, ids, weights, experts, config), out)
    mixed = x.clone()
    mixed[1::2] = float("nan")
    result = run(mixed, ids, weights, experts, config)
    assert torch.equal(result[::2], out[::2])
    assert result[1::2].isnan().all()


@needs_hopper
@pytest.mark.parametrize("rows", [1, 8, 17, 64])
@pytest.mark.parametrize("config", [*FEW, ManyRowsConfig()], ids=str)
def test_mxfp4(rows: int, config: Configuration) -> None:
    check(rows, packed_experts(37, 2880, 96), config)
    check(rows, packed_experts(5, 96, 1248), config, all_at=2)


@needs_hopper
@pytest.mark.parametrize("rows", [1, 8, 17, 64, 300])
@pytest.mark.parametrize("activation", ["silu", "gelu_tanh", "clamped_swiglu"])
def test_bfloat16(rows: int, activation: str) -> None:
    experts = plain_experts(11, 2816, 352, activation=activation)
    check(rows, experts, ManyRowsConfig())
    check(rows, experts, ManyRowsConfig(), all_at=8)
    check(rows, experts, few_rows_config(experts))
    if rows <= 64:
        check(rows, experts, Bf16StreamConfig())
        check(rows, experts, Bf16StreamConfig(12, 2), all_at=8)
    interleaved = plain_experts(11, 136, 352, activation=activation, interleaved=True)
    check(rows, interleaved, ManyRowsConfig())


@needs_hopper
@pytest.mark.parametrize("packed", [True, False])
def test_full_tiles_of_many_rows(packed: bool) -> None:
    experts = packed_experts(4, 288, 160) if packed else plain_experts(4, 200, 264)
    for rows in (90, 130, 170, 400):  # 96 pairs of an expert and more
        check(rows, experts, ManyRowsConfig())


@needs_hopper
@pytest.mark.parametrize("rows", [1, 8, 17, 64])
@pytest.mark.parametrize("name", ALL)
def test_stored_weights(name: str, rows: int) -> None:
    experts = stored_experts(name, 11, 512, 256)
    for config in (*STACKED_STREAMS, stacked_config(rows, 3, experts)):
        check(rows, experts, config)
        check(rows, experts, config, all_at=8)
