"""Exceptions as text: messages of one line for logs, records and error messages."""


def first_line(error: BaseException) -> str:
    """Return the first line of the error's message, or the name of its type if it has none."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


def one_line(error: object, limit: int = 300) -> str:
    """Return an error, or any other object, as one line of at most `limit` characters.

    An exception's text begins with the name of its type. A text that is too long keeps its
    beginning and its end, which usually gives the reason.
    """
    try:
        text = str(error)
    except Exception:  # an exception's own __str__ may fail too
        text = "it cannot be printed"
    if isinstance(error, BaseException):
        text = f"{type(error).__name__}: {text}"
    text = " ".join(text.split())
    if len(text) <= limit:
        return text
    head = limit // 3
    return f"{text[:head]} ... {text[head + 5 - limit :]}"
