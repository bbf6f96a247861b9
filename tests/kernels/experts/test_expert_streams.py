"""The experts' streams on a CPU, instruction by instruction, against float64 references."""

import ctypes
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from helpers.kernel_cases.expert_cases import packed_experts, plain_experts, random_routes
from helpers.kernel_cases.kernel_devices import CUDA, relative_error
from helpers.kernel_cases.stored_experts import stored_experts
from helpers.kernel_cases.stream_emulation import EmulatedStream, SliceMap

from eightfold.kernels.experts import bf16_stream, mxfp4_stream
from eightfold.kernels.experts.bf16_stream import Bf16StreamConfig
from eightfold.kernels.experts.expert_weights import ExpertWeights
from eightfold.kernels.experts.experts_forward import experts_reference
from eightfold.kernels.experts.mxfp4_stream import StreamConfig
from eightfold.kernels.experts.pair_launch import PairLaunch
from eightfold.kernels.experts.router import ROUTED, RouterKind, Routing, route_reference

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


class EmulatedKernel:
    """Takes the place of the ``CudaKernel`` that a stream's function launches."""

    def __init__(self, stream: EmulatedStream) -> None:
        self.stream = stream

    def launch(self, blocks: int, threads: int, arguments: Sequence[object], pdl: bool) -> None:
        assert threads == self.stream.threads
        assert not pdl
        self.stream.launch(blocks, arguments)


def emulated_map(rows: torch.Tensor) -> ctypes.Array[ctypes.c_ubyte]:
    return mxfp4_stream._Map.from_buffer_copy(SliceMap(rows))


def stream_output(
    x: torch.Tensor,
    ids: torch.Tensor,
    weights: torch.Tensor,
    routing: Routing | None,
    experts: ExpertWeights,
    config: StreamConfig | Bf16StreamConfig,
    counters: torch.Tensor,
) -> torch.Tensor:
    rows, top_k = ids.shape
    h = torch.full((rows * top_k, experts.inner), float("nan")).bfloat16()
    out = torch.full((top_k, rows, experts.hidden), float("nan"))
    launch = PairLaunch(x, ids, weights, h, out, False, routing, counters)
    if isinstance(config, StreamConfig):
        mxfp4_stream.mxfp4_stream(launch, experts, config)
    else:
        bf16_stream.bf16_stream(launch, experts, config)
    return out.sum(0)


def check(
    experts: ExpertWeights,
    config: StreamConfig | Bf16StreamConfig,
    rows: int,
    grid: int,
    together: bool,
    kind: RouterKind | None,
    monkeypatch: pytest.MonkeyPatch,
    folder: Path,
) -> None:
    """Compare with the reference, repeat, and put rows of NaN between the rows."""
    packed = isinstance(config, StreamConfig)
    module = mxfp4_stream if packed else bf16_stream
    defines = module.kernel_defines(experts, TOP_K, config, ROUTED[kind])
    name = "experts_mxfp4_stream" if packed else "experts_bf16_stream"
    consumers = mxfp4_stream.CONSUMERS if packed else config.consumers
    kernel = EmulatedKernel(EmulatedStream(module.SOURCE, name, defines, consumers, folder))
    loaded = []
    monkeypatch.setattr(module, "_kernel", lambda *given: loaded.append(given) or kernel)
    monkeypatch.setattr(module, "multiprocessor_count", lambda device: grid)
    monkeypatch.setattr(mxfp4_stream, "_slices_map", emulated_map)

    x = torch.randn(rows, experts.hidden).bfloat16()
    ids, weights = random_routes(rows, TOP_K, experts.experts)
    routing = None
    if together:
        ids = torch.arange(TOP_K).int().expand(rows, TOP_K).contiguous()
    if kind is not None:
        logits = torch.randn(rows, experts.experts)
        logits[0, 1], logits[-1, 0] = logits[0, 0], float("-inf")
        routing, chosen = Routing(logits, kind), route_reference(logits, TOP_K, kind)
        ids.fill_(-1)
        weights.fill_(float("nan"))
    counters = torch.tensor([0, 0, 7, 0, 0, 0, 0], dtype=torch.int32)
    out = stream_output(x, ids, weights, routing, experts, config, counters)
    assert loaded == [(TOP_K, experts, config, ROUTED[kind])]
    if kind is not None:
        assert torch.equal(ids, chosen[0])
        assert torch.allclose(weights.double(), chosen[1], rtol=1e-5)
    assert relative_error(out, experts_reference(x, ids, weights, experts)) < LIMIT
    assert counters[:3].tolist() == [0, 1, 0]
    assert counters[4::2].tolist() == [0, 0]  # of the generation that follows
    x[1::2] = float("nan")
    mixed = stream_output(x, ids, weights, routing, experts, config, counters)
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
        ((mxfp4_stream.MOST_EXPERTS, 32, 32), StreamConfig(), 3, 2, False, "topk_softmax"),
    ],
)
def test_mxfp4(
    sizes: tuple[int, int, int],
    config: StreamConfig,
    rows: int,
    grid: int,
    together: bool,
    kind: RouterKind | None,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    torch.manual_seed(0)
    experts = rounded(packed_experts(*sizes))
    check(experts, config, rows, grid, together, kind, monkeypatch, tmp_path)


@pytest.mark.parametrize(
    ("sizes", "options", "rows", "grid", "together", "kind"),
    [
        ((5, 256, 128), {"activation": "silu"}, 9, 2, False, "softmax_topk"),
        ((4, 352, 176), {"activation": "gelu_tanh"}, 9, 2, True, None),  # steps of some warps alone
        ((3, 64, 48), {"activation": "clamped_swiglu", "interleaved": True}, 3, 1, False, None),
        ((bf16_stream.MOST_EXPERTS, 32, 16), {"activation": "silu"}, 3, 2, False, "softmax_topk"),
    ],
)
def test_bfloat16(
    sizes: tuple[int, int, int],
    options: dict[str, object],
    rows: int,
    grid: int,
    together: bool,
    kind: RouterKind | None,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    torch.manual_seed(0)
    experts, config = rounded(plain_experts(*sizes, **options)), Bf16StreamConfig()
    check(experts, config, rows, grid, together, kind, monkeypatch, tmp_path)


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
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    torch.manual_seed(0)
    experts = stored_experts(name, *sizes)
    check(experts, config, rows, 2, False, kind, monkeypatch, tmp_path)
