"""The experts' streams on a CPU, instruction by instruction, against float64 references."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from helpers.kernel_cases.expert_cases import packed_experts, plain_experts, random_routes
from helpers.kernel_cases.kernel_devices import CUDA, relative_error
from helpers.kernel_cases.stored_experts import stored_experts
from helpers.kernel_cases.stream_emulation import EmulatedStream, SliceMap, SliceMaps

from eightfold.kernels.experts import bf16_stream, mxfp4_stream
from eightfold.kernels.experts.bf16_stream import Bf16StreamConfig
from eightfold.kernels.experts.expert_weights import ExpertWeights
from eightfold.kernels.experts.experts_forward import experts_reference
from eightfold.kernels.experts.mxfp4_stream import StreamConfig
from eightfold.kernels.experts.router import ROUTED, RouterKind, route_reference

pytestmark = [
    pytest.mark.skipif(CUDA, reason="on a GPU the kernels themselves are tested"),
    pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++"),
]
LIMIT = 3e-3  # of which the rounding of h to bfloat16 is 1.7e-3
TOP_K = 3


def rounded(experts: ExpertWeights) -> ExpertWeights:
    """Return experts with what is not packed in bfloat16."""
    names = ("gate_up", "down", "gate_up_bias", "down_bias")
    found = {name: getattr(experts, name) for name in names}
    return replace(experts, **{k: t.bfloat16() for k, t in found.items() if t is not None})


def check(
    kernel: EmulatedStream,
    experts: ExpertWeights,
    rows: int,
    grid: int,
    together: bool,
    kind: RouterKind | None,
) -> None:
    """Compare with the reference, repeat, and put rows of NaN between the rows."""
    x = torch.randn(rows, experts.hidden).bfloat16()
    ids, weights = random_routes(rows, TOP_K, experts.experts)
    logits = None if kind is None else torch.randn(rows, experts.experts)
    if together:
        ids = torch.arange(TOP_K).int().expand(rows, TOP_K).contiguous()
    if kind is not None and logits is not None:
        logits[0, 1], logits[-1, 0] = logits[0, 0], float("-inf")
        chosen = route_reference(logits, TOP_K, kind)
        ids.fill_(-1)
        weights.fill_(float("nan"))
    counters = torch.tensor([0, 0, 7, 0, 0, 0, 0], dtype=torch.int32)

    def run(x: torch.Tensor) -> torch.Tensor:
        h = torch.full((rows * TOP_K, experts.inner), float("nan")).bfloat16()
        out = torch.full((TOP_K, rows, experts.hidden), float("nan"))
        biases = (experts.gate_up_bias, experts.down_bias)
        first = (x, ids, weights, logits, None)
        if experts.is_mxfp4:
            maps = SliceMaps(SliceMap(experts.gate_up_rows), SliceMap(experts.down_rows))
            scales = (experts.gate_up_scales, experts.down_scales)
            stored = (scales[0], biases[0], scales[1], biases[1])
            kernel.launch(grid, (maps, *first, *stored, h, out, counters, rows))
        else:
            stored = (experts.gate_up_rows, biases[0], experts.down_rows, biases[1])
            scales = bf16_stream.scales_and_zeros(experts)
            kernel.launch(grid, (*first, *stored, h, out, counters, *scales, rows))
        return out.sum(0)

    out = run(x)
    if kind is not None:
        assert torch.equal(ids, chosen[0])
        assert torch.allclose(weights.double(), chosen[1], rtol=1e-5)
    assert relative_error(out, experts_reference(x, ids, weights, experts)) < LIMIT
    assert counters[:3].tolist() == [0, 1, 0]
    assert counters[4::2].tolist() == [0, 0]  # of the generation that follows
    x[1::2] = float("nan")
    mixed = run(x)
    assert torch.equal(mixed[::2], out[::2])
    assert mixed[1::2].isnan().all()


@pytest.mark.parametrize(
    ("sizes", "config", "rows", "grid", "together", "kind"),
    [
        (
            (5, 320, 96),
            StreamConfig(),
            9,
            2,
            False,
            "topk_softmax",
        ),  # slices of 8 blocks and of 2
        (
            (5, 96, 160),
            StreamConfig(1, 8),
            11,
            2,
            True,
            None,
        ),  # several tiles of an expert; 5 blocks
    ],
)
def test_mxfp4(
    sizes: tuple[int, int, int],
    config: StreamConfig,
    rows: int,
    grid: int,
    together: bool,
    kind: RouterKind | None,
    tmp_path: Path,
) -> None:
    torch.manual_seed(0)
    experts = rounded(packed_experts(*sizes))
    defines = mxfp4_stream.kernel_defines(experts, TOP_K, config, ROUTED[kind])
    kernel = EmulatedStream(
        mxfp4_stream.SOURCE, "experts_mxfp4_stream", defines, mxfp4_stream.CONSUMERS, tmp_path
    )
    check(kernel, experts, rows, grid, together, kind)


@pytest.mark.parametrize(
    ("sizes", "options", "rows", "grid", "together", "kind"),
    [
        ((5, 256, 128), {"activation": "silu"}, 9, 2, False, "softmax_topk"),
        ((4, 352, 176), {"activation": "gelu_tanh"}, 9, 2, True, None),  # steps of some warps alone
        ((3, 64, 48), {"activation": "clamped_swiglu", "interleaved": True}, 3, 1, False, None),
    ],
)
def test_bfloat16(
    sizes: tuple[int, int, int],
    options: dict[str, object],
    rows: int,
    grid: int,
    together: bool,
    kind: RouterKind | None,
    tmp_path: Path,
) -> None:
    torch.manual_seed(0)
    experts, config = rounded(plain_experts(*sizes, **options)), Bf16StreamConfig()
    defines = bf16_stream.kernel_defines(experts, TOP_K, config, ROUTED[kind])
    kernel = EmulatedStream(
        bf16_stream.SOURCE, "experts_bf16_stream", defines, config.consumers, tmp_path
    )
    check(kernel, experts, rows, grid, together, kind)


@pytest.mark.parametrize(
    ("name", "sizes", "config", "rows", "kind"),
    [
        ("fp8_rows", (5, 256, 128), Bf16StreamConfig(), 9, "softmax_topk"),
        ("fp8_block", (4, 384, 256), Bf16StreamConfig(4, 8, 2), 9, None),  # groups that end apart
        ("fp8_block", (3, 2048, 256), Bf16StreamConfig(8, 2), 3, None),
        ("int4_128_zeros", (4, 256, 384), Bf16StreamConfig(), 9, None),
        ("int4_64", (3, 192, 128), Bf16StreamConfig(8, 8, 2), 3, None),
        ("int4_32_zeros", (3, 128, 192), Bf16StreamConfig(), 5, None),
        ("int4_rows_zeros", (3, 64, 64), Bf16StreamConfig(4), 3, None),
    ],
)
def test_stored_weights(
    name: str,
    sizes: tuple[int, int, int],
    config: Bf16StreamConfig,
    rows: int,
    kind: RouterKind | None,
    tmp_path: Path,
) -> None:
    torch.manual_seed(0)
    experts = stored_experts(name, *sizes)
    defines = bf16_stream.kernel_defines(experts, TOP_K, config, ROUTED[kind])
    kernel = EmulatedStream(
        bf16_stream.SOURCE, "experts_bf16_stream", defines, config.consumers, tmp_path
    )
    check(kernel, experts, rows, 2, False, kind)
