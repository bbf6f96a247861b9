"""Stand-ins for transformers' modules, and modules that make a graph impossible.

The kernels run in Triton's interpreter if there is no GPU. About 10 seconds.
"""

from typing import Any

import pytest
import torch
from helpers.engine_cases import tiny_models
from helpers.engine_cases.config_variants import VARIANTS
from helpers.kernel_cases.kernel_devices import CUDA
from torch import nn
from transformers import AutoModelForCausalLM, Gemma2Config, PreTrainedModel
from transformers.models.qwen3 import modeling_qwen3

from eightfold.engine.execution.hf_attention import attach
from eightfold.engine.execution.kv_cache import KVCache
from eightfold.engine.inspection.architecture import attention_modules, inspect_architecture
from eightfold.engine.models.transformers_modules.fused_modules import FusedModules, fuse_modules
from eightfold.engine.models.transformers_modules.host_decisions import (
    host_decision,
    module_at_fault,
)
from eightfold.engine.models.transformers_modules.linear_modules import JointPart
from eightfold.engine.models.transformers_modules.module_probe import ModuleProbe
from eightfold.engine.models.transformers_modules.rotary_module import RotaryTable, find_layout
from eightfold.engine.scheduling.pages.page_pool import PageGroup
from eightfold.kernels.module_ops.rotate_and_write import RotaryLayout

pytestmark = pytest.mark.skipif(CUDA, reason="test_gpu_runner_tokens runs them on a GPU")
POSITIONS = 64


def attached(model: PreTrainedModel) -> PreTrainedModel:
    """Return a model with paged attention over a cache of two pages."""
    architecture = inspect_architecture(model.config)
    groups = [PageGroup(window, 2) for window in architecture.windows]
    attach(model, architecture, KVCache(architecture, groups, 16, model.device, model.dtype))
    return model


def build(name: str) -> PreTrainedModel:
    torch.manual_seed(0)
    if name in VARIANTS:
        return attached(tiny_models.randomize(AutoModelForCausalLM.from_config(VARIANTS[name]())))
    return attached(tiny_models.build(name))


def probed(model: PreTrainedModel) -> torch.Tensor:
    """Return logits of the probe's tokens, with attention that needs no cache."""
    probe = ModuleProbe(model, POSITIONS)
    with torch.inference_mode(), probe.attention_replaced():
        return model(**probe.inputs, use_cache=False).logits


CASES = {
    "olmo3": {"norms": 9, "MLPs": 2, "rotary tables": 1, "attention blocks": 2},
    "phi3_slides": {"norms": 5, "MLPs": 2, "rotary tables": 1, "attention blocks": 2},
    "mixtral": {"norms": 5, "rotary tables": 1, "attention blocks": 2},
    "qwen3": {"norms": 9, "MLPs": 2, "rotary tables": 1, "attention blocks": 2},
    "gemma3": {"norms": 25, "MLPs": 4, "rotary tables": 1, "attention blocks": 4},
}


@pytest.mark.parametrize("name", CASES)
def test_modules_of_known_kinds_are_replaced_and_the_model_computes_the_same(name: str) -> None:
    model = build(name)
    wanted = probed(model)
    fused = fuse_modules(model, POSITIONS)
    assert fused.decision is None
    assert {kind: n for kind, n in fused.replaced.items() if kind in CASES[name]} == CASES[name]
    assert not any(type(module) is nn.Linear for module in model.modules())
    torch.testing.assert_close(probed(model), wanted, rtol=1e-3, atol=1e-4)


class Doubled(nn.Module):
    """Looks like a norm of transformers, and computes something else."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.variance_epsilon = 1e-6

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.weight * x * 2


class Deciding(Doubled):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * 2 if x.sum() > 0 else x


def fused_with(module: nn.Module) -> tuple[PreTrainedModel, FusedModules]:
    """Return a model whose layer 1 has another first norm, with what was replaced."""
    model: Any = build("qwen3")
    model.model.layers[1].input_layernorm = module
    return model, fuse_modules(model, POSITIONS)


def test_a_module_that_only_looks_like_a_norm_stays() -> None:
    model, fused = fused_with(Doubled(32))
    assert fused.replaced["norms"] == 8
    assert type(model.model.layers[1].input_layernorm) is Doubled


def test_a_decision_on_the_host_is_found_and_named() -> None:
    _, fused = fused_with(Deciding(32))
    assert fused.decision == (
        "model.layers.1.input_layernorm (Deciding) reads values on the host, by is_nonzero"
    )


@pytest.mark.parametrize(
    ("code", "name"),
    [
        (lambda x: x[x > 0], "index"),
        (lambda x: x.nonzero(), "nonzero"),
        (lambda x: x.masked_select(x > 0), "masked_select"),
        (lambda x: x.long().abs().bincount(), "bincount"),
        (lambda x: x.unique(), "_unique2"),
        (lambda x: x.repeat_interleave(x.long().abs()), "repeat_interleave"),
        (lambda x: bool((x > 0).all()), "_local_scalar_dense"),
        (lambda x: torch.equal(x, x + 1), "equal"),
        (lambda x: torch.where(x > 0, x, -x).gather(0, x.sort()[1]), None),
        (lambda x: x.masked_fill(x > 0, 0.0).sort(), None),
    ],
)  # fmt: skip
def test_operators_whose_shape_or_result_depends_on_values(code: Any, name: str | None) -> None:
    module = nn.Identity()
    found = host_decision(module, lambda: code(torch.randn(5)))
    assert (found is None) == (name is None)
    assert name is None or str(found).endswith(f"by {name}")


def test_experts_get_an_implementation_that_a_graph_can_hold() -> None:
    model = build("mixtral")
    model.set_experts_implementation("eager")
    probe = ModuleProbe(model, POSITIONS)
    assert "experts" in str(host_decision(model, probe.run)).lower()
    assert fuse_modules(model, POSITIONS).decision is None
    assert host_decision(model, probe.run) is None


def test_an_error_outside_of_all_modules_is_the_models() -> None:
    model = build("qwen3")
    assert module_at_fault(ValueError("x"), model) == "the model (Qwen3ForCausalLM)"


def rotate_halves(q: Any, k: Any, cos: Any, sin: Any) -> tuple[Any, Any]:
    def turn(x: torch.Tensor) -> torch.Tensor:
        a, b = x.chunk(2, dim=-1)
        return x * cos[:, None] + torch.cat([-b, a], dim=-1) * sin[:, None]

    return turn(q), turn(k)


def rotate_part_interleaved(q: Any, k: Any, cos: Any, sin: Any) -> tuple[Any, Any]:
    def turn(x: torch.Tensor) -> torch.Tensor:
        part, rest = x[..., : cos.shape[-1]], x[..., cos.shape[-1] :]
        turned = torch.stack([-part[..., 1::2], part[..., ::2]], dim=-1).flatten(-2)
        return torch.cat([part * cos[:, None] + turned * sin[:, None], rest], dim=-1)

    return turn(q), turn(k)


@pytest.mark.parametrize(
    ("rotate", "repeat", "layout"),
    [
        (rotate_halves, False, RotaryLayout(4, False, 1)),
        (rotate_part_interleaved, True, RotaryLayout(2, True, 2)),
        (lambda q, k, cos, sin: (q * 2, k), False, None),
    ],
    ids=["halves", "interleaved part", "no rotation"],
)
def test_rotary_functions_are_recognized(rotate: Any, repeat: bool, layout: Any) -> None:
    angles = torch.rand(1, 5, 2 if repeat else 4) * 6
    angles = angles.repeat_interleave(2, -1) if repeat else torch.cat([angles, angles], -1)
    q, k = torch.zeros(1, 4, 5, 8), torch.zeros(1, 2, 5, 8)
    assert find_layout(rotate, q, k, angles.cos(), angles.sin()) == layout


def test_a_rotation_of_no_known_kind_stays_and_is_not_looked_for_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def turn_back(q: Any, k: Any, cos: Any, sin: Any) -> tuple[Any, Any]:
        return rotate_halves(q, k, cos, -sin)

    monkeypatch.setattr(modeling_qwen3, "apply_rotary_pos_emb", turn_back)
    model = build("qwen3")
    wanted = probed(model)
    assert fuse_modules(model, POSITIONS).replaced["attention blocks"] == 2
    for module in attention_modules(model):
        assert "forward" not in vars(module)
        assert type(module.q_proj) is JointPart
    torch.testing.assert_close(probed(model), wanted, rtol=1e-3, atol=1e-4)


def test_every_weight_is_still_found_among_the_parameters() -> None:
    """What a step must read is counted by them."""
    model = build("qwen3")
    before = sum(parameter.numel() for parameter in model.parameters())
    fuse_modules(model, POSITIONS)
    assert sum(parameter.numel() for parameter in model.parameters()) == before


def test_a_table_holds_what_the_embedding_computes() -> None:
    model: Any = build("gemma3")
    source = model.model.rotary_emb
    table = RotaryTable(source, POSITIONS)
    x, at = torch.zeros(1, 3, 32), torch.tensor([[0, 7, 63]])
    for kind in ("full_attention", "sliding_attention"):
        table.prepare(x, at, kind)
        for found, wanted in zip(table(x, at, kind), source(x, at, kind), strict=True):
            assert torch.equal(found, wanted)
    with pytest.raises(RuntimeError, match="no rotary table for"):
        table(x, at, "other")


def test_layers_that_cap_their_scores_are_replaced_too() -> None:
    config = VARIANTS["gemma2_softcap"]()
    assert isinstance(config, Gemma2Config)
    model = build("gemma2_softcap")
    fuse_modules(model, POSITIONS)
    assert all("forward" in vars(module) for module in attention_modules(model))
