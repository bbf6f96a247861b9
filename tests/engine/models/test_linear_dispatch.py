"""Linear layers of any number of rows, and the memory that activations share.

On Hopper the tests run every kernel in bfloat16; without a GPU they use Triton's interpreter.
"""

import pytest
import torch
from helpers.engine_cases import tiny_models
from helpers.kernel_cases.kernel_devices import CUDA, DEVICE, DTYPE, HOPPER, relative_error

from eightfold.engine import EngineConfig
from eightfold.engine.execution.runner_limits import RunnerLimits
from eightfold.engine.inspection.architecture import inspect_architecture
from eightfold.engine.models.fused.activation_buffers import narrow
from eightfold.engine.models.fused.fused_decoder import FusedDecoder
from eightfold.engine.startup.runner_factory import choose_fused
from eightfold.kernels.layers import linear_many_rows
from eightfold.kernels.layers.gated_activation import gated_gelu_reference

LIMIT = 6e-3 if CUDA else 1e-5


def decoder(rows: int) -> FusedDecoder:
    model = tiny_models.build("gemma4_wide").to(DEVICE, DTYPE)
    fused = choose_fused(
        inspect_architecture(model.config), EngineConfig(), kernels=True
    ).architecture
    assert fused is not None
    return FusedDecoder(
        model, fused, RunnerLimits(max_running=1, max_step_tokens=rows, max_context=256), 16
    )


@pytest.mark.parametrize("least", [0.0, 2.0])  # always the kernel for many rows, or never
@pytest.mark.parametrize("rows", [3, 64, 65, 100, 128])
def test_linear_layers_of_any_number_of_rows(
    least: float, rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(linear_many_rows, "MIN_UTILIZATION", least)
    made = decoder(128)
    layer, buffers, dispatch = made.layers[0], made.buffers, made._linear
    assert dispatch.writes_gate_up(rows) == (rows > 64 and not (HOPPER and least == 0))
    buffers._memory.fill_(float("nan"))
    torch.manual_seed(rows)
    x, y = buffers.x[:rows], buffers.y[:rows]
    x.copy_(torch.randn(x.shape))
    before = x.clone()
    qkv = narrow(buffers.qkv, rows, layer.qkv.shape[0])
    dispatch.linear(x, layer.qkv, qkv)
    assert relative_error(qkv, x.double() @ layer.qkv.double().T) < LIMIT
    made._dense(layer, x, y)
    hidden = gated_gelu_reference(x.double() @ layer.gate_up.double().T)
    assert relative_error(y, hidden @ layer.down.double().T) < LIMIT
    assert torch.equal(x, before)
    assert buffers.residual.isnan().all()


@pytest.mark.parametrize("rows", [64, 2048])
def test_memory_for_gate_and_up_only_if_they_are_written(rows: int) -> None:
    made = decoder(rows)
    hidden, inner = made.layers[0].down.shape
    written = max((n for n in range(rows + 1) if made._linear.writes_gate_up(n)), default=0)
    assert (written == 0) == (rows == 64)
    attention = max(layer.qkv.shape[0] + 2 * layer.out.shape[1] for layer in made.layers)
    elements = 3 * rows * hidden + max(rows * attention, rows * inner, written * 3 * inner)
    assert made.buffers.nbytes == elements * made.layers[0].down.itemsize
