"""Trees of drafts: which rows the draws confirm, and what a limit leaves."""

import random

import pytest

from eightfold.engine.scheduling.draft_tree import NO_DRAFTS, DraftTree

#        root
#       /    \
#      5      7
#     / \      \
#    6   8      6
TREE = DraftTree((5, 7, 6, 8, 6), (0, 0, 1, 1, 2))


@pytest.mark.parametrize(
    ("draws", "rows"),
    [
        ([9, 1, 1, 1, 1, 1], [0]),
        ([5, 9, 1, 1, 1, 1], [0, 1]),
        ([5, 6, 1, 1, 1, 1], [0, 1, 3]),
        ([5, 8, 1, 1, 1, 1], [0, 1, 4]),
        ([7, 6, 6, 1, 1, 1], [0, 2, 5]),
        ([7, 8, 8, 1, 1, 1], [0, 2]),
    ],
)
def test_the_path_that_the_draws_follow_is_kept(draws: list[int], rows: list[int]) -> None:
    TREE.check()
    assert TREE.kept_rows(draws) == rows


def test_a_line_keeps_its_longest_right_prefix() -> None:
    line = DraftTree.line([4, 4, 6])
    assert line.is_line
    assert not TREE.is_line
    assert line.kept_rows([4, 4, 6, 1]) == [0, 1, 2, 3]
    assert line.kept_rows([4, 5, 6, 1]) == [0, 1]
    assert NO_DRAFTS.kept_rows([3]) == [0]


def test_depths_and_paths() -> None:
    assert TREE.depths == [0, 1, 1, 2, 2, 2]
    assert TREE.path(5) == [0, 2, 5]
    assert TREE.path(0) == [0]


def test_limits_leave_trees() -> None:
    generator = random.Random(3)
    for _ in range(300):
        tokens, parents = [], []
        for row in range(generator.randint(0, 9)):
            parent, token = generator.randint(0, row), generator.randint(0, 3)
            if (parent, token) not in zip(parents, tokens, strict=True):
                parents.append(min(parent, len(parents)))
                tokens.append(token + 4 * row)
        tree = DraftTree(tuple(tokens), tuple(parents))
        tree.check()
        depth, count = generator.randint(-1, 4), generator.randint(-1, 9)
        limited = tree.limited(depth, max(0, count))
        limited.check()
        assert len(limited) <= max(0, count)
        assert max(limited.depths) <= max(0, depth)
        paths = {
            tuple(tree.tokens[r - 1] for r in tree.path(row)[1:]) for row in range(len(tree) + 1)
        }
        for row in range(len(limited) + 1):
            assert tuple(limited.tokens[r - 1] for r in limited.path(row)[1:]) in paths


def test_broken_trees_are_found() -> None:
    for tree in (DraftTree((1,), (1,)), DraftTree((1, 1), (0, 0)), DraftTree((1,), ())):
        with pytest.raises(AssertionError):
            tree.check()
