"""How one-copy heads are cut into blocks. Imports nothing, so that it can be asked before torch."""


def one_copy_block_width(head_dim: int, pairs: int) -> int:
    """Return the width of the blocks of a one-copy head; the first of each half holds the pairs.

    Args:
        head_dim: width of the head.
        pairs: number of rotated pairs.

    Raises:
        ValueError: the halves of the head are not multiples of the width.
    """
    width = max(16, 1 << (pairs - 1).bit_length())
    if head_dim % (2 * width):
        raise ValueError(
            f"one copy needs head_dim ({head_dim}) to be a multiple of {2 * width} "
            f"for {pairs} rotated pairs"
        )
    return width
