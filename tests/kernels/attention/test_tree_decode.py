"""Decode attention of rows that are trees of drafts, against its float64 reference."""

from typing import Any

import pytest
import torch
from helpers.kernel_cases.decode_cases import decode_case, random_tree, run_decode
from helpers.kernel_cases.kernel_devices import ATTENTION_LIMIT, DEVICE, relative_error

from eightfold.kernels.attention.float64_reference import paged_decode_reference
from eightfold.kernels.attention.paged_decode import DecodeConfig

# The trees begin in one tile and end in the next, at places 14 to 17 and 30 to 33 for instance.
CASES: dict[str, dict[str, Any]] = {
    "plain": {"seq_lens": [37, 8, 19], "heads": 4, "kv_heads": 2, "head_dim": 32, "q_len": 8},
    "window": {
        "seq_lens": [70, 5, 34], "heads": 4, "kv_heads": 2, "head_dim": 32, "window": 6, "q_len": 4,
    },
    "one_copy": {
        "seq_lens": [45, 67, 36, 20], "heads": 8, "kv_heads": 2, "head_dim": 128, "pairs": 16,
        "q_len": 8,
    },
}  # fmt: skip


@pytest.mark.parametrize("split", [0, 32])
@pytest.mark.parametrize("name", CASES)
def test_trees_match_float64(name: str, split: int) -> None:
    case = decode_case(len(name), **CASES[name])
    tree = random_tree(3 + split, CASES[name]["seq_lens"], case["q_len"])
    out = run_decode(case, DecodeConfig(tile=16, split_tokens=split, stages=2), tree=tree)
    wanted = paged_decode_reference(**case, tree=tree)
    assert relative_error(out, wanted) < ATTENTION_LIMIT
    line = paged_decode_reference(**case)
    assert relative_error(line, wanted) > 10 * ATTENTION_LIMIT, "the tree makes no difference"


def test_a_line_is_a_tree_without_branches() -> None:
    case = decode_case(2, [40, 33], heads=4, kv_heads=2, head_dim=64, pairs=8, q_len=4)
    positions = [length - 4 + row for length in (40, 33) for row in range(4)]
    bits = [(1 << row + 1) - 1 for row in range(4)] * 2
    tree = torch.tensor([positions, bits], dtype=torch.int32, device=DEVICE).T.contiguous()
    config = DecodeConfig(tile=16, split_tokens=32)
    wanted = paged_decode_reference(**case)
    assert relative_error(run_decode(case, config, tree=tree), wanted) < ATTENTION_LIMIT
    assert relative_error(paged_decode_reference(**case, tree=tree), wanted) < 1e-12


def test_wrong_trees_are_refused() -> None:
    case = decode_case(2, [40], heads=4, kv_heads=2, head_dim=64, q_len=4)
    wrong = torch.zeros(3, 2, dtype=torch.int32, device=DEVICE)
    with pytest.raises(ValueError, match=r"tree has shape \(3, 2\)"):
        run_decode(case, DecodeConfig(tile=16), tree=wrong)
