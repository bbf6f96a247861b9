"""Launches for few rows: what streams have room for, and the order of a kernel's arguments."""

import re
from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch
from helpers.kernel_cases.expert_cases import packed_experts, plain_experts, random_routes
from helpers.kernel_cases.kernel_devices import DEVICE

from eightfold.kernels.cuda import nvrtc
from eightfold.kernels.experts import bf16_stream, few_rows, mxfp4_stream, pair_launch
from eightfold.kernels.experts.expert_config import check_config
from eightfold.kernels.experts.expert_weights import ExpertWeights
from eightfold.kernels.experts.pair_launch import PairLaunch


def experts_of(count: int, packed: bool) -> ExpertWeights:
    if packed:
        experts = packed_experts(count, 32, 32)
        biases = [each.bfloat16() for each in (experts.gate_up_bias, experts.down_bias)]
        return replace(experts, gate_up_bias=biases[0], down_bias=biases[1])
    experts = plain_experts(count, 32, 32)
    return replace(experts, gate_up=experts.gate_up.bfloat16(), down=experts.down.bfloat16())


@pytest.mark.parametrize("packed", [False, True])
def test_limits_of_a_stream(packed: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond them, lists would not fit into the shared memory that a launch asks for."""
    module = mxfp4_stream if packed else bf16_stream
    fits = mxfp4_stream.mxfp4_stream_fits if packed else bf16_stream.bf16_stream_fits
    config = mxfp4_stream.StreamConfig() if packed else bf16_stream.Bf16StreamConfig()
    monkeypatch.setattr(pair_launch, "is_hopper", lambda device: True)
    monkeypatch.setattr(module, "_kernel", lambda *given: given)
    experts = experts_of(module.MOST_EXPERTS, packed)
    assert fits(32, 32, experts)
    assert not fits(33, 32, experts)
    assert not fits(1, 33, experts)
    more = experts_of(module.MOST_EXPERTS + 1, packed)
    assert not fits(1, 1, more)
    check_config(config, 1, 1, experts)
    with pytest.raises(ValueError, match="does not fit these experts"):
        check_config(config, 1, 1, more)


class RecordedKernel:
    def __init__(self) -> None:
        self.arguments: list[object] = []

    def launch(self, blocks: int, threads: int, arguments: Sequence[object], pdl: bool) -> None:
        self.arguments = [each.value for each in arguments]  # None for a null pointer


@pytest.mark.parametrize("packed", [False, True])
def test_arguments_of_few_rows(packed: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    source = (nvrtc.SOURCE_FOLDER / few_rows.SOURCE).read_text()
    parameters = re.search(r"\bexperts_few_rows\((.*?)\) \{", source, re.DOTALL)
    assert parameters
    names = [each.split()[-1] for each in parameters[1].split(",")]
    kernels = (RecordedKernel(), RecordedKernel())
    monkeypatch.setattr(few_rows, "_kernels", lambda *given: kernels)
    experts, (ids, weights) = experts_of(5, packed), random_routes(3, 2, 5)
    x = torch.zeros(3, 32, dtype=torch.bfloat16, device=DEVICE)
    h, parts = torch.empty(6, 32, device=DEVICE), torch.empty(2, 3, 32, device=DEVICE)
    launch = PairLaunch(x, ids, weights, h, parts, False)
    few_rows.few_rows_forward(launch, experts, few_rows.few_rows_config(experts))
    pairs = {"ids": ids, "weights": weights}
    gate_up = {
        "x": x, "w": experts.gate_up_rows, "scales": experts.gate_up_scales,
        "bias": experts.gate_up_bias, "out": h,
    }  # fmt: skip
    down = {
        "x": h, "w": experts.down_rows, "scales": experts.down_scales,
        "bias": experts.down_bias, "out": parts,
    }  # fmt: skip
    for kernel, tensors in zip(kernels, (gate_up, down), strict=True):
        addresses = {k: t if t is None else t.data_ptr() for k, t in (tensors | pairs).items()}
        wanted = addresses | {"rows": 3}
        assert kernel.arguments == [wanted[name] for name in names]
