"""Products of a step by its number of rows, and the memory that its activations share.

On Hopper in bfloat16 by every kernel there is for them; without a GPU in Triton's interpreter.
"""

import pytest
import torch
from helpers import tiny_models
from helpers.kernel_cases.kernel_devices import CUDA, DEVICE, DTYPE, HOPPER, relative

from eightfold.engine.execution.runner_limits import RunnerLimits
from eightfold.engine.inspection.architecture import inspect_architecture
from eightfold.engine.models.activation_buffers import narrow
from eightfold.engine.models.gemma4_decoder import Gemma4Decoder, one_copy_architecture
from eightfold.kernels.layers import linear_many_rows
from eightfold.kernels.layers.gated_gelu import gated_gelu_reference

LIMIT = 6e-3 if CUDA else 1e-5


def decoder(rows: int) -> Gemma4Decoder:
    model = tiny_models.build("gemma4_wide").to(DEVICE, DTYPE)
    fused = one_copy_architecture(inspect_architecture(model.config))
    assert fused is not None
    return Gemma4Decoder(
        model, fused, RunnerLimits(max_running=1, max_step_tokens=rows, max_context=256), 16
    )


@pytest.mark.parametrize("least", [0.0, 2.0])  # of a kernel's tiles: always, never
@pytest.mark.parametrize("rows", [3, 64, 65, 100, 128])
def test_products_of_any_number_of_rows(
    least: float, rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(linear_many_rows, "MIN_UTILIZATION", least)
    made = decoder(128)
    layer, buffers, products = made.layers[0], made.buffers, made._linear
    assert products.writes_gate_up(rows) == (rows > 64 and not (HOPPER and least == 0))
    buffers._memory.fill_(float("nan"))
    torch.manual_seed(rows)
    x, y = buffers.x[:rows], buffers.y[:rows]
    x.copy_(torch.randn(x.shape))
    before = x.clone()
    joint = narrow(buffers.qkv, rows, layer.qkv.shape[0])
    products.linear(x, layer.qkv, joint)
    assert relative(joint, x.double() @ layer.qkv.double().T) < LIMIT
    made._feedforward(layer, x, y)
    hidden = gated_gelu_reference(x.double() @ layer.gate_up.double().T)
    assert relative(y, hidden @ layer.down.double().T) < LIMIT
    assert torch.equal(x, before)
    assert buffers.residual.isnan().all()


@pytest.mark.parametrize("rows", [64, 2048])
def test_memory_for_gate_and_up_only_where_they_are_apart(rows: int) -> None:
    made = decoder(rows)
    hidden, inner = made.layers[0].down.shape
    apart = max((n for n in range(rows + 1) if made._linear.writes_gate_up(n)), default=0)
    assert (apart == 0) == (rows == 64)
    attention = max(layer.qkv.shape[0] + 2 * layer.out.shape[1] for layer in made.layers)
    elements = 3 * rows * hidden + max(rows * attention, rows * inner, apart * 3 * inner)
    assert made.buffers.nbytes == elements * made.layers[0].down.itemsize
