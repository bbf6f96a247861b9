"""Every Triton kernel on random shapes, many of them at the borders of pages, tiles and windows.

Outputs hold NaN before. Errors are relative Frobenius norms of the difference to the reference.

Takes about 25 seconds in Triton's interpreter.
"""

import random

import pytest
import torch
from helpers.kernel_cases.decode_cases import decode_case, run_decode
from helpers.kernel_cases.kernel_devices import ATTENTION_LIMIT, CUDA, DEVICE, relative_error
from helpers.kernel_cases.layer_cases import LIMIT, LINEAR_LIMIT, poisoned, randn
from helpers.kernel_cases.prefill_cases import prefill_case
from helpers.kernel_cases.sampling_cases import sampling_batch

from eightfold.kernels.attention.float64_reference import (
    paged_decode_reference,
    paged_prefill_reference,
)
from eightfold.kernels.attention.paged_decode import DecodeConfig
from eightfold.kernels.attention.paged_prefill import PrefillConfig, paged_prefill
from eightfold.kernels.layers.gated_activation import gated_gelu, gated_gelu_reference
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


def length_near_borders(rng: random.Random, most: int, *sizes: int) -> int:
    """Return a length from 1, in 60 % of the cases at most 1 away from a multiple of a size."""
    if rng.random() < 0.4:
        return rng.randint(1, most)
    size = rng.choice([each for each in sizes if each])
    return max(1, size * rng.randint(0, max(1, most // size)) + rng.randint(-1, 1))


def random_heads(rng: random.Random) -> tuple[int, int]:
    """Return numbers of query heads and of KV heads."""
    kv_heads = rng.choice([1, 2, 3])
    return kv_heads * rng.choice([1, 2, 3, 8]), kv_heads


@pytest.mark.parametrize("seed", SEEDS)
def test_paged_decode(seed: int) -> None:
    rng = random.Random(seed)
    tile, one_copy = rng.choice([16, 32]), rng.random() < 0.4
    split, short = tile * rng.choice([0, 1, 3]), tile * rng.choice([0, 1])
    window = 0 if one_copy else rng.choice([0, 1, 16, 23, 64])
    heads, kv_heads = random_heads(rng)
    page_size, q_len = rng.choice(PAGES), rng.choice([1, 1, 2, 5])
    sizes = (split, 8 * short, page_size, tile, window)
    seq_lens = [length_near_borders(rng, 150, *sizes) + q_len - 1 for _ in range(rng.randint(1, 4))]
    seq_lens[rng.randrange(len(seq_lens))] *= rng.choice([0, 1, 1])
    case = decode_case(
        seed, seq_lens, heads=heads, kv_heads=kv_heads,
        head_dim=rng.choice([64, 128]) if one_copy else rng.choice([16, 40, 64]),
        page_size=page_size, q_len=q_len, window=window, pairs=rng.choice([3, 8]) * one_copy,
    )  # fmt: skip
    sinks = None if one_copy or rng.random() < 0.5 else torch.randn(heads).to(DEVICE)
    scale = rng.choice([1.0, 0.2])
    config = DecodeConfig(
        tile=tile, split_tokens=split, short_split_tokens=short if split else 0, stages=2
    )
    out = run_decode(case, config, sinks=sinks, scale=scale)
    wanted = paged_decode_reference(**case, sinks=sinks, scale=scale)
    if any(seq_lens):
        assert relative_error(out, wanted) < ATTENTION_LIMIT
    assert all(
        (out[s * q_len : (s + 1) * q_len] == 0).all() for s, n in enumerate(seq_lens) if not n
    )


@pytest.mark.parametrize("seed", SEEDS)
def test_paged_prefill(seed: int) -> None:
    rng = random.Random(seed)
    tile, one_copy = rng.choice([16, 32]), rng.random() < 0.4
    window = 0 if one_copy else rng.choice([0, 1, 16, 23, 64])
    heads, kv_heads = random_heads(rng)
    page_size = rng.choice(PAGES)
    counts = [length_near_borders(rng, 40, tile, 32 // 8) for _ in range(rng.randint(1, 3))]
    seq_lens = [n + length_near_borders(rng, 80, page_size, tile, window) - 1 for n in counts]
    case = prefill_case(
        counts, seq_lens, heads, kv_heads,
        rng.choice([64, 128]) if one_copy else rng.choice([16, 40, 64]),
        window, rng.choice([3, 8]) * one_copy, page_size,
    )  # fmt: skip
    sinks = None if one_copy or rng.random() < 0.5 else torch.randn(heads).to(DEVICE)
    out = torch.full_like(case["q"], float("nan"))
    config = PrefillConfig(query_rows=32, tile=tile, warps=4, stages=2)
    paged_prefill(**case, out=out, sinks=sinks, scale=0.3, config=config)
    wanted = paged_prefill_reference(**case, sinks=sinks, scale=0.3)
    assert relative_error(out, wanted) < ATTENTION_LIMIT


@pytest.mark.parametrize("seed", SEEDS)
def test_linear_few_rows(seed: int) -> None:
    rng = random.Random(seed)
    rows, n = rng.choice([1, 15, 16, 17, 63, 64]), rng.choice([1, 31, 32, 33, 130])
    inner, gated = 16 * rng.randint(1, 20), rng.random() < 0.4
    splits = 1 if gated else rng.choice([1, 2, 5])
    x, weight = randn(rows, inner), randn(n * (2 if gated else 1), inner, seed=1) * inner**-0.5
    out = poisoned(rows, n) if splits == 1 else poisoned(splits, rows, n, dtype=torch.float32)
    config = LinearConfig(tile_n=32, tile_k=64, stages=2, splits=splits, prefetch=64)
    linear_few_rows(x, weight, out, gated=gated, config=config)
    found = out if splits == 1 else out.sum(0)
    assert relative_error(found, linear_few_rows_reference(x, weight, gated)) < LINEAR_LIMIT


@pytest.mark.parametrize("seed", SEEDS)
def test_norms_embedding_and_activation(seed: int) -> None:
    rng = random.Random(seed)
    rows, n = rng.choice([1, 2, 7, 65]), rng.choice([8, 255, 256, 257, 1100])
    parts, scale = rng.choice([1, 4]), rng.choice([1.0, 0.3])
    y = randn(rows, n) if parts == 1 else randn(parts, rows, n).float()
    residual, following, out = randn(rows, n, seed=2), randn(n, seed=3), poisoned(rows, n)
    post = randn(n) if rng.random() < 0.7 else None
    wanted = add_rms_norm_reference(y, residual, post, following, scale=scale)
    add_rms_norm(y, residual, post, following, out, scale=scale)
    assert relative_error(residual, wanted[0]) < LIMIT
    assert relative_error(out, wanted[1]) < LIMIT
    table, tokens = randn(50, n), torch.randint(50, (rows,), dtype=torch.int32)
    tokens, counters = tokens.to(DEVICE), torch.ones(rows * n, dtype=torch.int32, device=DEVICE)
    residual, out = poisoned(rows, n), poisoned(rows, n)
    embed_rms_norm(tokens, table, scale, residual, following, out, zero=counters)
    for found, exact in zip(
        (residual, out), embed_rms_norm_reference(tokens, table, scale, following), strict=True
    ):
        assert relative_error(found, exact) < LIMIT
    assert not counters.any()
    gate_up, out = randn(rows, 2 * n) * 4, poisoned(rows, n)
    assert relative_error(gated_gelu(gate_up, out), gated_gelu_reference(gate_up)) < LIMIT


@pytest.mark.parametrize("seed", SEEDS)
def test_norm_rope_and_cache(seed: int) -> None:
    rng = random.Random(seed)
    heads, kv_heads = random_heads(rng)
    tokens, page_size = rng.choice([1, 5, 66]), rng.choice(PAGES)
    head_dim, one_copy = rng.choice([16, 40, 64]), rng.random() < 0.5
    pairs, pages = rng.randint(1, head_dim // 2), -(-2 * tokens // page_size)
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
    assert relative_error(q_out, q) < LIMIT
    written = slots >= 0
    for cache, exact in zip(caches, wanted, strict=False):
        flat = cache.flatten(0, 1)
        if written.any():
            assert relative_error(flat[slots[written].long()], exact[written]) < LIMIT
        left = flat.isnan().flatten(1).all(1)
        assert int(left.sum()) == len(flat) - int(written.sum()), (
            "a slot without a token was written"
        )


@pytest.mark.parametrize("seed", SEEDS)
def test_sampling_and_entropy(seed: int) -> None:
    rng = random.Random(seed)
    vocab_size = rng.choice([1, 2, 255, 4095, 4096, 4097, 8193])
    settings = [
        (
            rng.choice([0.0, 0.3, 1.0, 2.5]),
            rng.choice([0, 0, 1, 7, 64, 300, 10_000]),
            rng.choice([1.0, 1.0, 0.95, 0.3]),
            rng.choice([0.0, 0.0, 0.1]),
        )
        for _ in range(rng.randint(1, 5))
    ]
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(len(settings), vocab_size, generator=generator).to(DEVICE) * 4
    softcap = rng.choice([0.0, 30.0])
    capped = softcap * torch.tanh(logits / softcap) if softcap else logits
    batch = sampling_batch(settings, seed)
    out = torch.full((len(settings),), -1, dtype=torch.int64, device=DEVICE)
    need = sampler_workspace_size(len(settings), vocab_size)
    workspace = torch.full((need,), float("nan"), device=DEVICE)
    sample_tokens(logits, batch, out, workspace, softcap=softcap)
    assert out.tolist() == sample(capped, batch).tolist()
    found = torch.full((len(settings),), float("nan"), device=DEVICE)
    need = entropy_workspace_size(len(settings), vocab_size)
    row_entropy(logits, found, torch.full((need,), float("nan"), device=DEVICE), softcap=softcap)
    wanted = row_entropy_reference(logits, softcap)
    assert relative_error(found + 1, wanted + 1) < 2e-5, "the entropy of a single token is 0"
