"""Type checks of settings that users pass in."""

from typing import Any


def require_type(types: tuple[type, ...], expected: str, **values: Any) -> None:
    """Raise ValueError unless every value has one of ``types``. A bool does not count as an int.

    A float or an array in the place of an integer would otherwise fail inside a step, together with
    all other sequences of that step.

    Args:
        types: accepted types.
        expected: description of the accepted types for the error message.
        values: values by the name of their setting.
    """
    for name, value in values.items():
        if isinstance(value, bool) or not isinstance(value, types):
            raise ValueError(f"{name} must be {expected}, not {value!r:.60}.")


def require_token_ids(name: str, ids: Any) -> None:
    """Raise ValueError unless ``ids`` is a collection of integers."""
    require_type((tuple, list, set, frozenset), "a tuple of token ids", **{name: ids})
    for token in ids:
        if isinstance(token, bool) or not isinstance(token, int):
            raise ValueError(f"{name} must contain token ids only, not {token!r:.60}.")
