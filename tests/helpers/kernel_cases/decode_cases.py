"""Inputs of paged decode attention with NaN wherever no visible key lies."""

import random

import torch
from helpers.kernel_cases.kernel_devices import DEVICE, DTYPE, poisoned_caches, rotary

from eightfold.kernels.attention.one_copy_keys import OneCopy
from eightfold.kernels.attention.paged_decode import DecodeConfig, paged_decode
from eightfold.kernels.attention.split_kv import decode_workspace_size


def decode_case(
    seed: int,
    seq_lens: list[int],
    *,
    heads: int,
    kv_heads: int,
    head_dim: int,
    page_size: int = 16,
    q_len: int = 1,
    window: int = 0,
    pairs: int = 0,
) -> dict:
    """Return arguments of ``paged_decode``.

    Args:
        seed: of queries, keys, values and the order of the pages.
        seq_lens: tokens in the cache of each sequence, those of the query rows included.
        heads: query heads.
        kv_heads: heads of keys and values.
        head_dim: width of a head.
        page_size: tokens of a page.
        q_len: query rows of each sequence.
        window: keys that a row sees; 0 for all.
        pairs: rotated pairs of a one-copy layer; 0 for a layer with keys and values.
    """
    generator = torch.Generator().manual_seed(seed)

    def randn(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator).to(DTYPE).to(DEVICE)

    lows = [max(0, n - q_len - window + 1) if window else 0 for n in seq_lens]
    caches, page_table, firsts = poisoned_caches(
        1 if pairs else 2, seq_lens, lows, (page_size, kv_heads, head_dim), seed
    )
    one_copy = None
    if pairs:
        one_copy = OneCopy(1 + 0.3 * randn(head_dim), *rotary(max(seq_lens) + 64, pairs))
    return {
        "q": randn(len(seq_lens) * q_len, heads, head_dim) * 0.5,
        "key_cache": caches[0],
        "value_cache": None if pairs else caches[1],
        "page_table": page_table,
        "seq_lens": torch.tensor(seq_lens, dtype=torch.int32, device=DEVICE),
        "q_len": q_len,
        "window": window,
        "first_pos": torch.tensor(firsts, dtype=torch.int32, device=DEVICE) if window else None,
        "one_copy": one_copy,
    }


def random_tree(seed: int, seq_lens: list[int], q_len: int) -> torch.Tensor:
    """Return positions and visible rows of random trees, some with padding before the root.

    Each has a row that follows the root beside the first one, if it has room for it.
    """
    generator = random.Random(seed)
    rows = []
    for length in seq_lens:
        first = generator.choice([0, 0, 1])
        root = max(0, length - q_len + first)
        bits, positions = [], []
        for row in range(q_len):
            if row <= first:
                positions.append(max(0, length - q_len + row))
                bits.append((1 << row + 1) - 1)
                continue
            parent = first if row == first + 2 else generator.randint(first, row - 1)
            positions.append(positions[parent] + 1)
            bits.append(bits[parent] | 1 << row)
        assert positions[first] == root
        rows += zip(positions, bits, strict=True)
    return torch.tensor(rows, dtype=torch.int32, device=DEVICE)


def run_decode(case: dict, config: DecodeConfig, **extra: object) -> torch.Tensor:
    """Return the result of ``paged_decode``; output and workspace hold NaN before."""
    q, page_table = case["q"], case["page_table"]
    out = torch.full_like(q, float("nan"))
    workspace = None
    if config.split_tokens:
        max_tokens = page_table.shape[1] * case["key_cache"].shape[1]
        need = decode_workspace_size(
            page_table.shape[0], case["q_len"], q.shape[1], q.shape[2], max_tokens,
            config.split_tokens, config.short_split_tokens, case["window"],
        )  # fmt: skip
        workspace = torch.full((need,), float("nan"), device=q.device)
    return paged_decode(**case, out=out, workspace=workspace, config=config, **extra)
