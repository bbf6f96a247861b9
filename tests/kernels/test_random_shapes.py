"""Every Triton kernel on shapes drawn at random, lengths at the borders of pages, tiles, splits and
windows among them; outputs are poisoned, errors are relative Frobenius norms against the reference.

About 25 seconds in Triton's interpreter.
"""

import random

import pytest
import torch
from helpers.kernel_cases.decode_cases import decode_case, run_decode
from helpers.kernel_cases.kernel_devices import ATTENTION_LIMIT, CUDA, DEVICE, relative
from helpers.kernel_cases.layer_cases import LIMIT, PRODUCT_LIMIT, poisoned, randn
from helpers.kernel_cases.prefill_cases import prefill_case
from helpers.kernel_cases.sampling_cases import sampling_batch

from eightfold.kernels.attention.float64_reference import (
    paged_decode_reference,
    paged_prefill_reference,
)
from eightfold.kernels.attention.paged_decode import DecodeConfig
from eightfold.kernels.attention.paged_prefill import PrefillConfig, paged_prefill
from eightfold.kernels.layers.gated_gelu import gated_gelu, gated_gelu_reference
from eightfold.kernels.layers.linear_few_rows import (
    LinearConfig,
    linear_few_rows,
    linear_few_rows_reference,
)
from eightfold.kernels.layers.rms_norm import add_rms_norm, add_rms_norm_reference
from eightfold.kernels.layers.rotary_embedding import (
    norm_rope_and_cache,
    norm_rope_and_cache_reference,
)
from eightfold.kernels.layers.token_embedding import embed_rms_norm, embed_rms_norm_reference
from eightfold.kernels.sampling.row_entropy import (
    entropy_workspace_size,
    row_entropy,
    row_entropy_reference,
)
from eightfold.kernels.sampling.torch_sampler import sample
from eightfold.kernels.sampling.triton_sampler import sample_tokens, sampler_workspace_size

SEEDS = range(12 if CUDA else 6)
PAGES = (1, 4, 16, 32, 128)


def at_borders(draw: random.Random, most: int, *sizes: int) -> int:
    """A length of at least 1, near a multiple of one of the sizes as often as not."""
    if draw.random() < 0.4:
        return draw.randint(1, most)
    size = draw.choice([each for each in sizes if each])
    return max(1, size * draw.randint(0, max(1, most // size)) + draw.randint(-1, 1))


def heads_of(draw: random.Random) -> tuple[int, int]:
    kv_heads = draw.choice([1, 2, 3])
    return kv_heads * draw.choice([1, 2, 3, 8]), kv_heads


@pytest.mark.parametrize("seed", SEEDS)
def test_decode(seed: int) -> None:
    draw = random.Random(seed)
    tile, one_copy = draw.choice([16, 32]), draw.random() < 0.4
    split, short = tile * draw.choice([0, 1, 3]), tile * draw.choice([0, 1])
    window = 0 if one_copy else draw.choice([0, 1, 16, 23, 64])
    heads, kv_heads = heads_of(draw)
    page_size, q_len = draw.choice(PAGES), draw.choice([1, 1, 2, 5])
    sizes = (split, 8 * short, page_size, tile, window)
    lens = [at_borders(draw, 150, *sizes) + q_len - 1 for _ in range(draw.randint(1, 4))]
    lens[draw.randrange(len(lens))] *= draw.choice([0, 1, 1])
    case = decode_case(
        seed, lens, heads=heads, kv_heads=kv_heads,
        head_dim=draw.choice([64, 128]) if one_copy else draw.choice([16, 40, 64]),
        page_size=page_size, q_len=q_len, window=window, pairs=draw.choice([3, 8]) * one_copy,
    )  # fmt: skip
    sinks = None if one_copy or draw.random() < 0.5 else torch.randn(heads).to(DEVICE)
    scale = draw.choice([1.0, 0.2])
    config = DecodeConfig(
        tile=tile, split_tokens=split, short_split_tokens=short if split else 0, stages=2
    )
    out = run_decode(case, config, sinks=sinks, scale=scale)
    wanted = paged_decode_reference(**case, sinks=sinks, scale=scale)
    if any(lens):
        assert relative(out, wanted) < ATTENTION_LIMIT
    assert all((out[s * q_len : (s + 1) * q_len] == 0).all() for s, n in enumerate(lens) if not n)


@pytest.mark.parametrize("seed", SEEDS)
def test_prefill(seed: int) -> None:
    draw = random.Random(seed)
    tile, one_copy = draw.choice([16, 32]), draw.random() < 0.4
    window = 0 if one_copy else draw.choice([0, 1, 16, 23, 64])
    heads, kv_heads = heads_of(draw)
    page_size = draw.choice(PAGES)
    counts = [at_borders(draw, 40, tile, 32 // 8) for _ in range(draw.randint(1, 3))]
    lens = [n + at_borders(draw, 80, page_size, tile, window) - 1 for n in counts]
    case = prefill_case(
        counts, lens, heads, kv_heads,
        draw.choice([64, 128]) if one_copy else draw.choice([16, 40, 64]),
        window, draw.choice([3, 8]) * one_copy, page_size,
    )  # fmt: skip
    sinks = None if one_copy or draw.random() < 0.5 else torch.randn(heads).to(DEVICE)
    out = torch.full_like(case["q"], float("nan"))
    config = PrefillConfig(query_rows=32, tile=tile, warps=4, stages=2)
    paged_prefill(**case, out=out, sinks=sinks, scale=0.3, config=config)
    wanted = paged_prefill_reference(**case, sinks=sinks, scale=0.3)
    assert relative(out, wanted) < ATTENTION_LIMIT


@pytest.mark.parametrize("seed", SEEDS)
def test_products(seed: int) -> None:
    draw = random.Random(seed)
    rows, n = draw.choice([1, 15, 16, 17, 63, 64]), draw.choice([1, 31, 32, 33, 130])
    inner, gated = 16 * draw.randint(1, 20), draw.random() < 0.4
    splits = 1 if gated else draw.choice([1, 2, 5])
    x, weight = randn(rows, inner), randn(n * (2 if gated else 1), inner, seed=1) * inner**-0.5
    out = poisoned(rows, n) if splits == 1 else poisoned(splits, rows, n, dtype=torch.float32)
    config = LinearConfig(tile_n=32, tile_k=64, stages=2, splits=splits, prefetch=64)
    linear_few_rows(x, weight, out, gated=gated, config=config)
    found = out if splits == 1 else out.sum(0)
    assert relative(found, linear_few_rows_reference(x, weight, gated)) < PRODUCT_LIMIT


@pytest.mark.parametrize("seed", SEEDS)
def test_norms_and_activation(seed: int) -> None:
    draw = random.Random(seed)
    rows, n = draw.choice([1, 2, 7, 65]), draw.choice([8, 255, 256, 257, 1100])
    parts, scale = draw.choice([1, 4]), draw.choice([1.0, 0.3])
    y = randn(rows, n) if parts == 1 else randn(parts, rows, n).float()
    residual, following, out = randn(rows, n, seed=2), randn(n, seed=3), poisoned(rows, n)
    post = randn(n) if draw.random() < 0.7 else None
    wanted = add_rms_norm_reference(y, residual, post, following, scale=scale)
    add_rms_norm(y, residual, post, following, out, scale=scale)
    assert relative(residual, wanted[0]) < LIMIT
    assert relative(out, wanted[1]) < LIMIT
    table, tokens = randn(50, n), torch.randint(50, (rows,), dtype=torch.int32)
    tokens, counters = tokens.to(DEVICE), torch.ones(rows * n, dtype=torch.int32, device=DEVICE)
    residual, out = poisoned(rows, n), poisoned(rows, n)
    embed_rms_norm(tokens, table, scale, residual, following, out, zero=counters)
    for found, exact in zip(
        (residual, out), embed_rms_norm_reference(tokens, table, scale, following), strict=True
    ):
        assert relative(found, exact) < LIMIT
    assert not counters.any()
    gate_up, out = randn(rows, 2 * n) * 4, poisoned(rows, n)
    assert relative(gated_gelu(gate_up, out), gated_gelu_reference(gate_up)) < LIMIT


@pytest.mark.parametrize("seed", SEEDS)
def test_norm_rope_and_cache(seed: int) -> None:
    draw = random.Random(seed)
    heads, kv_heads = heads_of(draw)
    tokens, page_size = draw.choice([1, 5, 66]), draw.choice(PAGES)
    head_dim, one_copy = draw.choice([16, 40, 64]), draw.random() < 0.5
    pairs, pages = draw.randint(1, head_dim // 2), -(-2 * tokens // page_size)
    qkv = randn(tokens, (heads + kv_heads * (1 if one_copy else 2)) * head_dim)
    weights = randn(head_dim), None if one_copy else randn(head_dim, seed=5)
    angles = torch.rand(40, pairs, device=DEVICE) * 6
    table = angles.cos(), angles.sin()
    positions = torch.randint(40, (tokens,), dtype=torch.int32, device=DEVICE)
    slots = torch.randperm(pages * page_size)[:tokens].int().to(DEVICE)
    slots[torch.rand(tokens) < 0.2] = -1
    caches = [poisoned(pages, page_size, kv_heads, head_dim) for _ in range(2 - one_copy)]
    q_out, both = poisoned(tokens, heads, head_dim), (*caches, None)[:2]
    norm_rope_and_cache(qkv, *weights, *table, positions, slots, q_out, *both)
    q, *wanted = norm_rope_and_cache_reference(qkv, *weights, *table, positions, heads, kv_heads)
    assert relative(q_out, q) < LIMIT
    written = slots >= 0
    for cache, exact in zip(caches, wanted, strict=False):
        flat = cache.flatten(0, 1)
        if written.any():
            assert relative(flat[slots[written].long()], exact[written]) < LIMIT
        left = flat.isnan().flatten(1).all(1)
        assert int(left.sum()) == len(flat) - int(written.sum()), "a slot of nobody was written"


@pytest.mark.parametrize("seed", SEEDS)
def test_draws_and_entropies(seed: int) -> None:
    draw = random.Random(seed)
    vocabulary = draw.choice([1, 2, 255, 4095, 4096, 4097, 8193])
    settings = [
        (
            draw.choice([0.0, 0.3, 1.0, 2.5]),
            draw.choice([0, 0, 1, 7, 64, 300, 10_000]),
            draw.choice([1.0, 1.0, 0.95, 0.3]),
            draw.choice([0.0, 0.0, 0.1]),
        )
        for _ in range(draw.randint(1, 5))
    ]
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(len(settings), vocabulary, generator=generator).to(DEVICE) * 4
    softcap = draw.choice([0.0, 30.0])
    capped = softcap * torch.tanh(logits / softcap) if softcap else logits
    batch = sampling_batch(settings, seed)
    out = torch.full((len(settings),), -1, dtype=torch.int64, device=DEVICE)
    need = sampler_workspace_size(len(settings), vocabulary)
    space = torch.full((need,), float("nan"), device=DEVICE)
    sample_tokens(logits, batch, out, space, softcap=softcap)
    assert out.tolist() == sample(capped, batch).tolist()
    found = torch.full((len(settings),), float("nan"), device=DEVICE)
    need = entropy_workspace_size(len(settings), vocabulary)
    row_entropy(logits, found, torch.full((need,), float("nan"), device=DEVICE), softcap=softcap)
    wanted = row_entropy_reference(logits, softcap)
    assert relative(found + 1, wanted + 1) < 2e-5, "of one token alone the entropy is 0"
