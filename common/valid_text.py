"""Text that can be encoded as UTF-8: what becomes of lone surrogates.

A Python string may hold half of a surrogate pair, which UTF-8 cannot encode and no tokenizer
accepts. Text for people and for a kernel keeps it visible as an escape; text for a tokenizer or a
log has a question mark in its place.
"""


def escape_surrogates(text: str) -> str:
    r"""Return `text` with each lone surrogate written as an escape such as ``\ud800``."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return text.encode("utf-8", "backslashreplace").decode("utf-8")
    return text


def replace_surrogates(text: str) -> str:
    """Return `text` with each lone surrogate replaced by a question mark."""
    return text.encode("utf-8", "replace").decode("utf-8")
