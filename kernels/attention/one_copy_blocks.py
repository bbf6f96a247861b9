"""Width of the blocks into which one-copy heads are cut. Usable without torch."""


def one_copy_block_width(head_dim: int, pairs: int) -> int:
    """Return the width of the blocks of a one-copy head.

    It is wide enough for the first block of each half to hold all rotated dimensions of that half.

    Args:
        head_dim: width of the head.
        pairs: number of rotated pairs.

    Raises:
        ValueError: the halves of the head are not multiples of the width.
    """
    width = max(16, 1 << (pairs - 1).bit_length())
    if head_dim % (2 * width):
        raise ValueError(
            f"head_dim is {head_dim}; a one-copy layer with {pairs} rotated pairs needs a "
            f"multiple of {2 * width}."
        )
    return width
