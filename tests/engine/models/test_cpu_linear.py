"""Linear layers in oneDNN's layout compute what torch's own compute."""

import pytest
import torch
from helpers.engine_cases import tiny_models
from torch import nn

from eightfold.engine.models import cpu_linear
from eightfold.engine.models.cpu_linear import (
    OneDNNGatedMLP,
    OneDNNLinear,
    use_onednn_linear,
)

pytestmark = pytest.mark.skipif(
    not torch.backends.mkldnn.is_available(), reason="torch is built without oneDNN"
)


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize(("inputs", "outputs"), [(320, 768), (768, 320), (7, 10)])
def test_onednn_layers_equal_plain_ones(inputs: int, outputs: int, bias: bool) -> None:
    torch.manual_seed(0)
    plain = nn.Linear(inputs, outputs, bias=bias)
    layer = OneDNNLinear(plain)
    for shape in ((1, 1), (8,), (1, 200)):
        rows = torch.randn(*shape, inputs)
        with torch.inference_mode():
            torch.testing.assert_close(layer(rows), plain(rows), atol=1e-4, rtol=1e-4)


@pytest.mark.skipif(
    torch.backends.cpu.get_cpu_capability() != "AVX512", reason="true of AVX-512 only"
)
def test_a_row_does_not_depend_on_the_rows_beside_it() -> None:
    torch.manual_seed(0)
    layer = OneDNNLinear(nn.Linear(320, 768))
    rows = torch.randn(64, 320)
    with torch.inference_mode():
        together = layer(rows)
        for count in (1, 2, 7, 8, 17):
            assert torch.equal(layer(rows[:count]), together[:count])


def test_only_linear_layers_are_replaced_and_weights_are_kept() -> None:
    model = tiny_models.build("llama")
    weights = {name: id(parameter) for name, parameter in model.named_parameters()}
    linear = [name for name, child in model.named_modules() if type(child) is nn.Linear]
    assert use_onednn_linear(model)
    found = [name for name, child in model.named_modules() if isinstance(child, OneDNNLinear)]
    assert found == linear
    assert {name: id(parameter) for name, parameter in model.named_parameters()} == weights


def test_the_plain_weights_of_large_models_are_let_go_of(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_models.build("llama")
    tokens = torch.arange(20)[None]
    with torch.inference_mode():
        wanted = model(tokens).logits
        weight = model.model.layers[0].mlp.up_proj.weight.clone()
        monkeypatch.setattr(cpu_linear, "MAX_KEPT_BYTES", 1)
        assert use_onednn_linear(model)
        torch.testing.assert_close(model(tokens).logits, wanted, atol=1e-4, rtol=1e-4)
    layer = model.model.layers[0].mlp.up_proj
    assert torch.equal(layer.weight, weight)
    assert not [name for name, _ in model.named_parameters() if "proj" in name]
    with pytest.raises(AttributeError):
        _ = layer.other


@pytest.mark.skipif(
    not torch.ops.mkldnn._is_mkldnn_bf16_supported(), reason="the CPU has no bfloat16"
)
def test_bfloat16() -> None:
    torch.manual_seed(0)
    plain = nn.Linear(320, 768, dtype=torch.bfloat16)
    model = nn.Sequential(plain)
    assert use_onednn_linear(model)
    assert isinstance(model[0], OneDNNLinear)
    rows = torch.randn(64, 320).bfloat16()
    with torch.inference_mode():
        together = model(rows)
        torch.testing.assert_close(together, plain(rows), atol=1e-2, rtol=1e-2)
        for count in (1, 2, 7, 8, 17):
            torch.testing.assert_close(model(rows[:count]), together[:count], atol=1e-2, rtol=1e-2)


def test_layers_of_other_dtypes_are_kept() -> None:
    model = tiny_models.build("llama").half()
    use_onednn_linear(model)
    assert not any(isinstance(child, OneDNNLinear) for child in model.modules())


@pytest.mark.parametrize("name", ["llama", "gemma3", "gemma4", "gemma4_moe", "qwen3"])
def test_gated_blocks_compute_the_same_in_fewer_passes(name: str) -> None:
    model = tiny_models.build(name)
    tokens = torch.arange(3, 40)[None]
    with torch.inference_mode():
        wanted = model(tokens).logits
        names = {name for name, _ in model.named_parameters()}
        assert use_onednn_linear(model)
        torch.testing.assert_close(model(tokens).logits, wanted, atol=1e-4, rtol=1e-4)
    blocks = [child for child in model.modules() if isinstance(child, OneDNNGatedMLP)]
    assert len(blocks) == model.config.num_hidden_layers
    assert {name for name, _ in model.named_parameters()} == names


def test_a_row_of_a_gated_block_does_not_depend_on_the_rows_beside_it() -> None:
    torch.manual_seed(0)
    projections = [OneDNNLinear(nn.Linear(*size)) for size in ((64, 200), (64, 200), (200, 64))]
    block = OneDNNGatedMLP(projections, cpu_linear.ACTIVATIONS[0])
    rows = torch.randn(17, 64)
    with torch.inference_mode():
        together = block(rows)
        for count in (1, 2, 8):
            torch.testing.assert_close(block(rows[:count]), together[:count], atol=1e-6, rtol=1e-6)


class ClippedMLP(nn.Module):
    """Like a gated block, but for what is clipped."""

    def __init__(self, shared: bool) -> None:
        super().__init__()
        self.gate_proj, self.up_proj = nn.Linear(8, 16), nn.Linear(8, 16)
        self.down_proj = nn.Linear(16, 8)
        self.shared = shared

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        if self.shared:
            raise TypeError("the router's logits are missing")
        gate = nn.functional.silu(self.gate_proj(rows))
        return self.down_proj(gate * self.up_proj(rows).clamp(max=0.1))


@pytest.mark.parametrize("shared", [False, True])
def test_other_blocks_stay_as_they_are(shared: bool) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(ClippedMLP(shared))
    assert use_onednn_linear(model)
    assert isinstance(model[0], ClippedMLP)
    assert isinstance(model[0].gate_proj, OneDNNLinear)
