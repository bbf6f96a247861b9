"""Triton's kernels for layers against float64 references; outputs are filled with NaN first.

Without a GPU they run in Triton's interpreter, in float32; about 10 seconds.
"""

import pytest
import torch
from helpers.kernel_cases.kernel_devices import DEVICE, relative_error
from helpers.kernel_cases.layer_cases import LIMIT, LINEAR_LIMIT, poisoned, randn

import eightfold.kernels.layers.linear_few_rows as linear_few_rows_module
from eightfold.kernels.layers.beside_experts.expert_norms import (
    join_branches,
    join_branches_reference,
    norms_and_router,
    norms_and_router_reference,
)
from eightfold.kernels.layers.gated_activation import (
    gated_activation,
    gated_activation_reference,
    gated_gelu,
    gated_gelu_reference,
)
from eightfold.kernels.layers.linear_few_rows import (
    ACTIVATIONS,
    LinearConfig,
    fit_config,
    linear_config,
    linear_few_rows,
    linear_few_rows_reference,
)
from eightfold.kernels.layers.per_layer_inputs import (
    combine_per_layer_inputs,
    combine_per_layer_inputs_reference,
)
from eightfold.kernels.layers.rms_norm import add_rms_norm, add_rms_norm_reference
from eightfold.kernels.layers.rotary_embedding import (
    norm_rope_and_cache,
    norm_rope_and_cache_reference,
)
from eightfold.kernels.layers.token_embedding import (
    embed_rms_norm,
    embed_rms_norm_reference,
    fill_sampled_tokens,
    fill_sampled_tokens_reference,
)


@pytest.mark.parametrize("tma", [False, True])
@pytest.mark.parametrize(
    ("rows", "n", "inner", "splits", "gated"),
    [
        (8, 96, 128, 1, False),
        (3, 80, 144, 1, False),
        (17, 64, 256, 3, False),
        (5, 64, 96, 1, True),
        (64, 48, 64, 2, False),
    ],
)
def test_linear_few_rows(
    rows: int, n: int, inner: int, splits: int, gated: bool, tma: bool
) -> None:
    if tma and (n % 32 or inner % 64):
        pytest.skip("the bulk copy engine needs whole tiles")
    config = LinearConfig(tile_n=32, tile_k=64, stages=2, splits=splits, prefetch=128, tma=tma)
    x, weight = randn(rows, inner), randn(n * (2 if gated else 1), inner, seed=1) * inner**-0.5
    out = poisoned(rows, n) if splits == 1 else poisoned(splits, rows, n, dtype=torch.float32)
    linear_few_rows(x, weight, out, gated=gated, config=config)
    whole = out if splits == 1 else out.sum(0)
    assert relative_error(whole, linear_few_rows_reference(x, weight, gated)) < LINEAR_LIMIT


@pytest.mark.parametrize("shared", [101376, 166912, 232448])  # of 8.6 and 12.0, 8.0, 9.0
@pytest.mark.parametrize("rows", [8, 64])
def test_configurations_fit_every_gpu(
    rows: int, shared: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    newer = shared == 232448
    monkeypatch.setattr(linear_few_rows_module, "shared_memory_bytes", lambda _: shared)
    monkeypatch.setattr(linear_few_rows_module, "hopper_or_newer", lambda _: newer)
    x = torch.empty(rows, 1, dtype=torch.bfloat16)
    shapes = [(21504, 5376, True), (16384, 5376, False), (262144, 5376, False)]
    shapes += [(5120, 2880, False), (2048, 4096, False), (5376, 21504, False)]
    for n, inner, gated in shapes:
        config = fit_config(linear_config(rows, n, inner, gated), rows, gated, x)
        tiles = config.tile_n * (2 if gated else 1) + (16 if rows <= 16 else 64)
        assert config.stages >= 1
        assert config.stages * tiles * config.tile_k * 2 < shared
        assert newer or (not config.tma and not config.prefetch)


@pytest.mark.parametrize("parts", [1, 3])
def test_add_rms_norm(parts: int) -> None:
    rows, n = 5, 336
    y = randn(rows, n) if parts == 1 else randn(parts, rows, n).float()
    residual, post, following = randn(rows, n, seed=2), randn(n), randn(n, seed=3)
    bias = randn(n, seed=4) if parts == 1 else None
    wanted_residual, wanted = add_rms_norm_reference(
        y, residual, post, following, bias=bias, scale=0.7
    )
    out = poisoned(rows, n)
    add_rms_norm(y, residual, post, following, out, bias=bias, scale=0.7)
    assert relative_error(residual, wanted_residual) < LIMIT
    assert relative_error(out, wanted) < LIMIT


def test_norm_only_and_residual_only() -> None:
    rows, n = 3, 100
    residual, weight = randn(rows, n), randn(n)
    kept = residual.clone()
    out = poisoned(rows, n)
    add_rms_norm(None, residual, None, weight, out)
    assert relative_error(out, add_rms_norm_reference(None, kept, None, weight)[1]) < LIMIT
    assert torch.equal(residual, kept)
    y = randn(rows, n, seed=4)
    add_rms_norm(y, residual, None, None, None)
    assert relative_error(residual, kept.double() + y.double()) < LIMIT


@pytest.mark.parametrize("parts", [1, 2])
@pytest.mark.parametrize(
    ("heads", "kv_heads", "head_dim", "pairs", "one_copy"),
    [
        (4, 2, 32, 16, False),
        (8, 4, 48, 5, False),
        (8, 2, 64, 8, True),
        (3, 1, 32, 16, False),
    ],
)
def test_norm_rope_and_cache(
    heads: int, kv_heads: int, head_dim: int, pairs: int, one_copy: bool, parts: int
) -> None:
    tokens, pages, page_size = 6, 4, 16
    width = (heads + kv_heads * (1 if one_copy else 2)) * head_dim
    qkv = randn(tokens, width) if parts == 1 else randn(parts, tokens, width).float()
    q_weight, k_weight = randn(head_dim), None if one_copy else randn(head_dim, seed=5)
    angles = torch.rand(40, pairs, device=DEVICE) * 6
    cos, sin = angles.cos(), angles.sin()
    positions = torch.tensor([0, 5, 39, 2, 2, 7], device=DEVICE)
    slots = torch.tensor([17, 3, 60, -1, 63, 16], dtype=torch.int32, device=DEVICE)
    key_cache = poisoned(pages, page_size, kv_heads, head_dim)
    value_cache = None if one_copy else poisoned(pages, page_size, kv_heads, head_dim)
    q_out = poisoned(tokens, heads, head_dim)
    norm_rope_and_cache(
        qkv, q_weight, k_weight, cos, sin, positions, slots, q_out, key_cache, value_cache
    )
    q, keys, values = norm_rope_and_cache_reference(
        qkv, q_weight, k_weight, cos, sin, positions, heads, kv_heads
    )
    assert relative_error(q_out, q) < LIMIT
    written = slots >= 0
    for cache, wanted in ((key_cache, keys), (value_cache, values)):
        if cache is None:
            continue
        flat = cache.flatten(0, 1)
        assert relative_error(flat[slots[written].long()], wanted[written]) < LIMIT
        assert int(flat.isnan().all(-1).all(-1).sum()) == pages * page_size - int(written.sum())


@pytest.mark.parametrize(
    ("norm", "layout", "pairs", "kv_heads", "bias", "value_norm"),
    [
        ("none", "halves", 16, 2, True, False),
        ("none", "partial", 12, 2, False, True),
        ("none", "neighbors", 8, 2, True, False),
        ("whole", "halves", 16, 2, True, False),
        ("head", "neighbors", 16, 2, False, False),
        ("head", "halves", 5, 0, False, True),
    ],
)
def test_norm_rope_and_cache_of_other_families(
    norm: str, layout: str, pairs: int, kv_heads: int, bias: bool, value_norm: bool
) -> None:
    tokens, heads, head_dim = 3, 4, 32
    width = (heads + 2 * kv_heads) * head_dim
    sizes = {"none": None, "head": (1, 1), "whole": (heads, kv_heads)}[norm]
    q_weight = randn(sizes[0] * head_dim) if sizes else None
    k_weight = randn(sizes[1] * head_dim, seed=5) if sizes and kv_heads else None
    options = {
        "bias": randn(width, seed=6) if bias else None, "layout": layout, "value_norm": value_norm,
    }  # fmt: skip
    qkv, angles = randn(tokens, width), torch.rand(40, pairs, device=DEVICE) * 6
    positions = torch.tensor([0, 39, 7], dtype=torch.int32, device=DEVICE)
    slots = torch.tensor([17, 3, 30], dtype=torch.int32, device=DEVICE)
    caches = [poisoned(2, 16, kv_heads, head_dim) if kv_heads else None for _ in range(2)]
    q_out = poisoned(tokens, heads, head_dim)
    shared = (qkv, q_weight, k_weight, angles.cos(), angles.sin(), positions)
    norm_rope_and_cache(*shared, slots, q_out, *caches, **options)  # type: ignore[arg-type]
    q, *wanted = norm_rope_and_cache_reference(*shared, heads, kv_heads, **options)  # type: ignore[arg-type]
    assert relative_error(q_out, q) < LIMIT
    for cache, each in zip(caches, wanted, strict=True):
        assert (cache is None) == (each is None)
        if cache is not None and each is not None:
            assert relative_error(cache.flatten(0, 1)[slots.long()], each) < LIMIT


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_gated_layers_of_both_activations(activation: str) -> None:
    x, weight, out = randn(5, 96), randn(128, 96, seed=1), poisoned(5, 64)
    linear_few_rows(x, weight, out, gated=True, activation=activation)
    assert (
        relative_error(out, linear_few_rows_reference(x, weight, True, activation)) < LINEAR_LIMIT
    )
    gate, up = randn(5, 128).chunk(2, dim=1)
    gated_activation(gate, up, out, activation)
    assert relative_error(out, gated_activation_reference(gate, up, activation)) < LIMIT
    with pytest.raises(
        ValueError, match="There is no activation 'relu'; use one of gelu_tanh, silu"
    ):
        gated_activation(gate, up, out, "relu")


@pytest.mark.parametrize("branch", [False, True])
def test_norms_and_router(branch: bool) -> None:
    rows, n, experts = 3, 336, 10
    y, residual, weight, router = (
        randn(rows, n),
        randn(rows, n, seed=2),
        randn(n),
        randn(experts, n),
    )
    post, bias = (randn(n, seed=4), None) if branch else (None, randn(n, seed=4))
    router_bias = None if branch else randn(experts, seed=5)
    norms = (randn(n, seed=6), randn(n, seed=7)) if branch else None
    kept, new, x, expert_x = residual.clone(), *(poisoned(rows, n) for _ in range(3))
    logits = poisoned(rows, experts, dtype=torch.float32)
    norms_and_router(
        y, residual, new, post, weight, x, router, logits, bias=bias, router_bias=router_bias,
        branch=None if norms is None else (*norms, expert_x),
    )  # fmt: skip
    wanted = norms_and_router_reference(
        y, kept, post, weight, router, bias=bias, router_bias=router_bias, branch=norms
    )
    found = (new, x, expert_x if branch else x, logits)
    for mine, each in zip(found, wanted, strict=True):
        assert relative_error(mine, each) < LIMIT
    assert torch.equal(residual, kept)
    with pytest.raises(ValueError, match="must be other memory"):
        norms_and_router(y, residual, residual, None, weight, x, router, logits)


@pytest.mark.parametrize("parts", [1, 3])
def test_join_branches(parts: int) -> None:
    rows, n = 3, 336
    experts = randn(rows, n, seed=1) if parts == 1 else randn(parts, rows, n).float()
    dense, residual, out = randn(rows, n), randn(rows, n, seed=2), poisoned(rows, n)
    norms = (randn(n), randn(n, seed=3), randn(n, seed=4), randn(n, seed=5))
    wanted = join_branches_reference(dense, experts, residual, norms, scale=0.7)
    join_branches(dense, experts, residual, norms, out, scale=0.7)
    assert relative_error(residual, wanted[0]) < LIMIT
    assert relative_error(out, wanted[1]) < LIMIT


def test_combine_per_layer_inputs() -> None:
    tokens = torch.tensor([3, 49, 0], dtype=torch.int32, device=DEVICE)
    projected, table, weight, out = randn(3, 5 * 24), randn(50, 5 * 24), randn(24), poisoned(3, 120)
    scales = {"projection_scale": 0.3, "embedding_scale": 4.0, "scale": 0.7}
    combine_per_layer_inputs(tokens, projected, table, weight, out, **scales)
    wanted = combine_per_layer_inputs_reference(tokens, projected, table, weight, **scales)
    assert relative_error(out, wanted) < LIMIT


def test_embed_rms_norm() -> None:
    table, weight = randn(50, 336), randn(336, seed=1)
    tokens = torch.tensor([3, 49, 0, 3], dtype=torch.int32, device=DEVICE)
    residual, out = poisoned(4, 336), poisoned(4, 336)
    counters = torch.ones(700, dtype=torch.int32, device=DEVICE)
    embed_rms_norm(tokens, table, 2.5, residual, weight, out, zero=counters)
    wanted = embed_rms_norm_reference(tokens, table, 2.5, weight)
    assert relative_error(residual, wanted[0]) < LIMIT
    assert relative_error(out, wanted[1]) < LIMIT
    assert not counters.any()
    residual.fill_(float("nan"))
    embed_rms_norm(tokens, table, 2.5, residual, None, None, zero=counters)
    assert relative_error(residual, wanted[0]) < LIMIT


def test_fill_sampled_tokens() -> None:
    given = torch.arange(100, 1500, dtype=torch.int32, device=DEVICE)
    source = torch.full_like(given, -1)
    source[[0, 7, 1399]] = torch.tensor([2, 0, 1], dtype=torch.int32, device=DEVICE)
    sampled = torch.tensor([5, 6, 2**31 - 1], device=DEVICE)
    out = fill_sampled_tokens(given, source, sampled)
    wanted = given.clone()
    wanted[[0, 7, 1399]] = torch.tensor([2**31 - 1, 5, 6], dtype=torch.int32, device=DEVICE)
    assert torch.equal(out, wanted)
    assert torch.equal(fill_sampled_tokens_reference(given, source, sampled), wanted)


def test_gated_gelu() -> None:
    gate_up = randn(3, 2 * 2100) * 4
    out = poisoned(3, 2100)
    gated_gelu(gate_up, out)
    assert relative_error(out, gated_gelu_reference(gate_up)) < LIMIT


def test_unsupported_calls_are_refused() -> None:
    x, weight = randn(4, 64), randn(32, 64)
    with pytest.raises(ValueError, match="1 to 64 rows, not 65"):
        linear_few_rows(randn(65, 64), weight, poisoned(65, 32))
    with pytest.raises(ValueError, match="64 columns, but weight has 32"):
        linear_few_rows(x, randn(32, 32), poisoned(4, 32))
    with pytest.raises(ValueError, match="out has shape"):
        linear_few_rows(x, weight, poisoned(4, 32), config=LinearConfig(splits=2))
    with pytest.raises(ValueError, match="tile_k is 48; it must be a power of two"):
        linear_few_rows(x, weight, poisoned(4, 32), config=LinearConfig(tile_k=48))
    with pytest.raises(ValueError, match="go together"):
        add_rms_norm(None, x, None, None, poisoned(4, 64))
