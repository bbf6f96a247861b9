"""Numbers with their nouns, in the singular or the plural."""


def counted(count: int, noun: str) -> str:
    """Return `1 problem`, `2 problems`: the noun's plural is its singular with an s."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
